#include "backend/cuda/device_state.h"

#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/probe.h"
#include "common/bf16.h"
#include "common/error.h"

#include <vector>

namespace lorica::cuda {

std::shared_ptr<DeviceState> DeviceState::get(int32_t index) {
    static std::mutex mutex;
    static std::map<int32_t, std::weak_ptr<DeviceState>> states;
    const std::lock_guard lock(mutex);
    std::shared_ptr<DeviceState> state = states[index].lock();
    if (!state) states[index] = state = std::shared_ptr<DeviceState>(new DeviceState(index));
    return state;
}

DeviceState::DeviceState(int32_t index) : index_(index) {
    const CudaDevice device = probe_device(index);
    if (!device.problem.empty()) {
        fail(LORICA_ERROR_DEVICE, "cuda:", index, device.name.empty() ? "" : ", ", device.name, ": ", device.problem, "; ",
             device.remedy);
    }
    enter();
    detail_ = device.name + ", compute capability " + std::to_string(device.compute_major) + "." +
              std::to_string(device.compute_minor) + ", bf16";
    check(cudaDeviceGetAttribute(&n_multiprocessors_, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

DeviceState::~DeviceState() {
    cudaSetDevice(index_);
    for (const auto & [data, copy] : expanded_) cudaFree(copy);
    cudaStreamDestroy(stream_);
}

void DeviceState::enter() const { check(cudaSetDevice(index_), "cudaSetDevice"); }

Weight DeviceState::readable(const Weight & weight, decltype(CudaBackendRequest::dequantize_row) dequantize_row) {
    if (is_device_type(weight.type)) return weight;
    const size_t row_bytes = static_cast<size_t>(weight.in) * sizeof(Bf16);
    const std::lock_guard lock(mutex_);
    void *& copy = expanded_[weight.data];
    if (!copy) {
        std::vector<std::byte> blocks(static_cast<size_t>(weight.out) * weight.row_bytes);
        check(cudaMemcpyAsync(blocks.data(), weight.data, blocks.size(), cudaMemcpyDeviceToHost, stream_),
              "copy of a weight");
        check(cudaStreamSynchronize(stream_), "copy of a weight");
        std::vector<Bf16> values(static_cast<size_t>(weight.out * weight.in));
        std::vector<float> row(static_cast<size_t>(weight.in));
        for (int64_t r = 0; r < weight.out; ++r) {
            dequantize_row(weight.type, blocks.data() + static_cast<size_t>(r) * weight.row_bytes, row.data(),
                           weight.in);
            for (int64_t i = 0; i < weight.in; ++i)
                values[static_cast<size_t>(r * weight.in + i)] = Bf16(row[static_cast<size_t>(i)]);
        }
        void * memory = nullptr;
        if (cudaMalloc(&memory, values.size() * sizeof(Bf16) + 16) != cudaSuccess) {
            cudaGetLastError();
            fail(LORICA_ERROR_OUT_OF_MEMORY, "a weight of type ", ggml_type_name(weight.type),
                 " is expanded to BF16 on the GPU, ", values.size() * sizeof(Bf16) >> 20,
                 " MiB, which cannot be allocated; take a model in Q4_K or another type that kernels read");
        }
        copy = memory;
        check(cudaMemcpyAsync(copy, values.data(), values.size() * sizeof(Bf16), cudaMemcpyHostToDevice, stream_),
              "copy of a weight");
        check(cudaStreamSynchronize(stream_), "copy of a weight");
    }
    return {GGML_TYPE_BF16, weight.out, weight.in, row_bytes, static_cast<const std::byte *>(copy)};
}

void DeviceState::forget(const std::byte * data) {
    const std::lock_guard lock(mutex_);
    const auto found = expanded_.find(data);
    if (found == expanded_.end()) return;
    cudaFree(found->second);
    expanded_.erase(found);
}

}  // namespace lorica::cuda
