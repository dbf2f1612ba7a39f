// What all instances on one GPU share: the stream, so that everything done to memory is in order whichever instance
// does it, and copies of weights whose types no kernel reads.
#pragma once

#include "backend/cuda/cuda_library.h"

#include <cuda_runtime.h>

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <string>
#include <utility>

namespace lorica::cuda {

class DeviceState {
public:
    // The state of device `index`, made when the first instance asks for it. Error: DEVICE.
    static std::shared_ptr<DeviceState> get(int32_t index);
    ~DeviceState();
    DeviceState(const DeviceState &) = delete;
    DeviceState & operator=(const DeviceState &) = delete;

    // Makes this device the calling thread's. Every entry into the library begins with it.
    void enter() const;
    bool try_enter() const noexcept;

    cudaStream_t stream() const { return stream_; }
    std::string detail(Dtype act) const;
    // Which tiles products take depends on it: LORICA_CUDA_MULTIPROCESSORS makes it another one.
    int n_multiprocessors() const { return n_multiprocessors_; }
    double peak() const { return peak_; }  // operations per second in bf16; 0: not known
    // Products use the instructions of compute capability 9.0: where the device and this build have them, unless the
    // environment variable LORICA_CUDA_WGMMA is 0.
    bool wgmma() const { return wgmma_; }
    // And have their operands brought by the tensor memory accelerator: where LORICA_CUDA_TMA is 1.
    bool tma() const { return tma_; }
    // A kernel of decoding may begin while the one before ends (programmatic dependent launches): where
    // LORICA_CUDA_OVERLAP is 1 and the compute capability 9.0 or later.
    bool overlaps() const { return overlaps_; }
    // More than the 100 KiB of a multiprocessor of compute capability 8.6, 8.9 or 12.0.
    bool has_much_shared_memory() const { return has_much_shared_memory_; }
    // Repeated work is recorded as CUDA graphs, unless the environment variable LORICA_CUDA_GRAPHS is 0 or recording
    // failed.
    bool graphs() const { return graphs_; }
    void give_up_graphs() { graphs_ = false; }

    // The weight in blocks that kernels read. Other types (the IQ and TQ families and what ggml adds later) are
    // expanded by ggml's own code on the CPU to a copy of type `act` on first use, which is kept until forget(). Two or
    // four bytes per element: such a model needs more memory than its file.
    Weight readable(const Weight & weight, Dtype act, decltype(CudaBackendRequest::dequantize_row) dequantize_row);
    // The memory at `data` is about to be released.
    void forget(const std::byte * data);

private:
    explicit DeviceState(int32_t index);

    int32_t index_;
    cudaStream_t stream_ = nullptr;
    std::string detail_;
    int n_multiprocessors_ = 0;
    double peak_ = 0;
    bool wgmma_ = false, tma_ = false, overlaps_ = false, has_much_shared_memory_ = false;
    std::atomic<bool> graphs_ = true;
    std::mutex mutex_;
    std::map<std::pair<const std::byte *, Dtype>, void *> expanded_;
};

}  // namespace lorica::cuda
