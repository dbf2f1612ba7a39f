// What all instances on one GPU share: the stream, so that everything done to memory is in order whichever instance
// does it, and copies of weights whose types no kernel reads.
#pragma once

#include "backend/cuda/cuda_library.h"

#include <cuda_runtime.h>

#include <map>
#include <memory>
#include <mutex>
#include <string>

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

    cudaStream_t stream() const { return stream_; }
    const std::string & detail() const { return detail_; }
    int n_multiprocessors() const { return n_multiprocessors_; }

    // The weight in blocks that kernels read. Other types (the IQ and TQ families and what ggml adds later) are
    // expanded by ggml's own code on the CPU to a BF16 copy on first use, which is kept until forget(). Two bytes per
    // element: such a model needs more memory than its file.
    Weight readable(const Weight & weight, decltype(CudaBackendRequest::dequantize_row) dequantize_row);
    // The memory at `data` is about to be released.
    void forget(const std::byte * data);

private:
    explicit DeviceState(int32_t index);

    int32_t index_;
    cudaStream_t stream_ = nullptr;
    std::string detail_;
    int n_multiprocessors_ = 0;
    std::mutex mutex_;
    std::map<const std::byte *, void *> expanded_;
};

}  // namespace lorica::cuda
