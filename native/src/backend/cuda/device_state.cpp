#include "backend/cuda/device_state.h"

#include "backend/cuda/gemm.h"
#include "backend/cuda/kernels.h"
#include "backend/cuda/launch.h"
#include "backend/cuda/probe.h"
#include "backend/cuda/tensor_map.h"
#include "common/bf16.h"
#include "common/error.h"

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <vector>

namespace lorica::cuda {

namespace {

bool is_set(const char * variable, const char * value) {
    const char * chosen = std::getenv(variable);
    return chosen && std::strcmp(chosen, value) == 0;
}

}  // namespace

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
        fail(LORICA_ERROR_DEVICE, "cuda:", index, device.name.empty() ? "" : ", ", device.name, ": ", device.problem,
             "; ", device.remedy);
    }
    wgmma_ = has_wgmma() && device.compute_major == 9 && !is_set("LORICA_CUDA_WGMMA", "0");
    tma_ = wgmma_ && is_set("LORICA_CUDA_TMA", "1") && has_tensor_maps();
    overlaps_ = device.compute_major >= 9 && is_set("LORICA_CUDA_OVERLAP", "1");
    graphs_ = !is_set("LORICA_CUDA_GRAPHS", "0") && !launches_are_awaited();
    enter();
    detail_ = device.name + ", compute capability " + std::to_string(device.compute_major) + "." +
              std::to_string(device.compute_minor);
    check(cudaDeviceGetAttribute(&n_multiprocessors_, cudaDevAttrMultiProcessorCount, index), "cudaDeviceGetAttribute");
    n_multiprocessors_ = static_cast<int>(setting("LORICA_CUDA_MULTIPROCESSORS", n_multiprocessors_));
    int shared_bytes = 0;
    check(cudaDeviceGetAttribute(&shared_bytes, cudaDevAttrMaxSharedMemoryPerBlockOptin, index),
          "cudaDeviceGetAttribute");
    has_much_shared_memory_ = shared_bytes > 128 << 10;
    int clock_khz = 0;
    if (cudaDeviceGetAttribute(&clock_khz, cudaDevAttrClockRate, index) != cudaSuccess) cudaGetLastError();
    peak_ = nominal_peak(device.compute_major, device.compute_minor, n_multiprocessors_, clock_khz);
    check(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking), "cudaStreamCreate");
}

std::string DeviceState::detail(Dtype act) const {
    return detail_ + (act == Dtype::f32 ? ", f32" : ", bf16") +
           (tma_     ? ", wgmma with TMA"
            : wgmma_ ? ", wgmma"
                     : "") +
           (overlaps_ ? ", overlapping" : "") + (graphs_ ? "" : ", no graphs");
}

DeviceState::~DeviceState() {
    cudaSetDevice(index_);
    for (const auto & [weight, copy] : expanded_) cudaFree(copy);
    cudaStreamDestroy(stream_);
}

void DeviceState::enter() const { check(cudaSetDevice(index_), "cudaSetDevice"); }
bool DeviceState::try_enter() const noexcept { return cudaSetDevice(index_) == cudaSuccess; }

Weight DeviceState::readable(const Weight & weight, Dtype act,
                             decltype(CudaBackendRequest::dequantize_row) dequantize_row) {
    if (is_device_type(weight.type)) return weight;
    const ggml_type type = act == Dtype::f32 ? GGML_TYPE_F32 : GGML_TYPE_BF16;
    const size_t row_bytes = static_cast<size_t>(weight.in) * dtype_size(act);
    const std::lock_guard lock(mutex_);
    void *& copy = expanded_[{weight.data, act}];
    if (!copy) {
        std::vector<std::byte> blocks(static_cast<size_t>(weight.out) * weight.row_bytes);
        check(cudaMemcpyAsync(blocks.data(), weight.data, blocks.size(), cudaMemcpyDeviceToHost, stream_),
              "copy of a weight");
        check(cudaStreamSynchronize(stream_), "copy of a weight");
        std::vector<std::byte> values(static_cast<size_t>(weight.out) * row_bytes);
        std::vector<float> row(static_cast<size_t>(weight.in));
        for (int64_t r = 0; r < weight.out; ++r) {
            dequantize_row(weight.type, blocks.data() + static_cast<size_t>(r) * weight.row_bytes, row.data(),
                           weight.in);
            std::byte * to = values.data() + static_cast<size_t>(r) * row_bytes;
            if (act == Dtype::f32) {
                std::memcpy(to, row.data(), row_bytes);
            } else {
                std::ranges::transform(row, reinterpret_cast<Bf16 *>(to), [](float x) { return Bf16(x); });
            }
        }
        const std::string what =
            std::string("a weight of type ") + ggml_type_name(weight.type) + " expanded to " + ggml_type_name(type);
        copy = allocate(values.size() + 16, what.c_str(), "; take a model in Q4_K or another type that kernels read");
        check(cudaMemcpyAsync(copy, values.data(), values.size(), cudaMemcpyHostToDevice, stream_), "copy of a weight");
        check(cudaStreamSynchronize(stream_), "copy of a weight");
    }
    return {type, weight.out, weight.in, row_bytes, static_cast<const std::byte *>(copy)};
}

void DeviceState::forget(const std::byte * data) {
    const std::lock_guard lock(mutex_);
    std::erase_if(expanded_, [&](const auto & entry) {
        if (entry.first.first != data) return false;
        cudaFree(entry.second);
        return true;
    });
}

}  // namespace lorica::cuda
