#include "backend/cuda/probe.h"

#include "backend/cuda/launch.h"

#include <cstdio>
#include <cstdlib>

namespace lorica::cuda {

namespace {

constexpr int first_major = 8;  // bf16 tensor cores begin with compute capability 8.0
constexpr int probe_threads = 32;

__global__ void probe_kernel(int * out) { out[threadIdx.x] = static_cast<int>(threadIdx.x) + 1; }

std::string version_text(int version) {
    return std::to_string(version / 1000) + "." + std::to_string(version % 1000 / 10);
}

std::string compute_capability(const CudaDevice & device) {
    return std::to_string(device.compute_major) + "." + std::to_string(device.compute_minor);
}

// Empty when the kernel ran and gave what it should. Takes the reason from the runtime, which keeps an error until
// asked.
std::string run_probe_kernel() {
    int * memory = nullptr;
    int values[probe_threads] = {};
    std::string problem;
    try {
        check(cudaMalloc(reinterpret_cast<void **>(&memory), sizeof values), "memory for a first kernel");
        launch("a first kernel", nullptr, probe_kernel, {dim3(1), probe_threads}, memory);
        check(cudaMemcpyAsync(values, memory, sizeof values, cudaMemcpyDeviceToHost, nullptr), "a first kernel");
        check(cudaStreamSynchronize(nullptr), "a first kernel");
        for (int i = 0; i < probe_threads; ++i) {
            if (values[i] != i + 1) problem = "a first kernel computed wrong numbers";
        }
    } catch (const Error & error) {
        problem = error.what();
    }
    cudaFree(memory);
    cudaGetLastError();
    return problem;
}

}  // namespace

CudaMachine probe_machine() {
    CudaMachine machine;
    cudaRuntimeGetVersion(&machine.runtime_version);
    cudaDriverGetVersion(&machine.driver_version);
    if (machine.driver_version == 0) {
        cudaGetLastError();
        machine.problem = "no NVIDIA driver (libcuda.so.1 not found)";
        machine.remedy = "install an NVIDIA driver that runs CUDA " + version_text(machine.runtime_version);
        return machine;
    }
    const cudaError_t status = cudaGetDeviceCount(&machine.n_devices);
    cudaGetLastError();
    if (status == cudaErrorInsufficientDriver) {
        machine.n_devices = 0;
        machine.problem = "the NVIDIA driver runs CUDA up to " + version_text(machine.driver_version) +
                          ", and this library is built with " + version_text(machine.runtime_version);
        machine.remedy = "update the NVIDIA driver";
    } else if (status == cudaErrorNoDevice || (status == cudaSuccess && machine.n_devices == 0)) {
        machine.n_devices = 0;
        machine.problem = "the NVIDIA driver shows no GPU";
        const char * visible = std::getenv("CUDA_VISIBLE_DEVICES");
        if (visible) machine.problem += std::string(" (CUDA_VISIBLE_DEVICES is \"") + visible + "\")";
        machine.remedy = visible ? "change CUDA_VISIBLE_DEVICES" : "see what nvidia-smi says";
    } else if (status != cudaSuccess) {
        machine.n_devices = 0;
        machine.problem = std::string("the NVIDIA driver does not work: ") + cudaGetErrorString(status);
        machine.remedy = "see what nvidia-smi says";
    }
    return machine;
}

CudaDevice probe_device(int32_t index) {
    CudaDevice device;
    cudaDeviceProp properties{};
    cudaError_t status = cudaGetDeviceProperties(&properties, index);
    if (status != cudaSuccess) {
        cudaGetLastError();
        device.problem = std::string("it does not answer: ") + cudaGetErrorString(status);
        device.remedy = "see what nvidia-smi says";
        return device;
    }
    device.name = properties.name;
    char bus[32];
    std::snprintf(bus, sizeof bus, "%08x:%02x:%02x.0", properties.pciDomainID, properties.pciBusID,
                  properties.pciDeviceID);
    device.pci_bus_id = bus;
    device.compute_major = properties.major;
    device.compute_minor = properties.minor;
    device.total_memory = static_cast<int64_t>(properties.totalGlobalMem);
    if (properties.major < first_major) {
        device.problem =
            "compute capability " + compute_capability(device) + ", and the kernels need 8.0 (Ampere) or newer";
        device.remedy = "use another GPU, or device \"cpu\"";
        return device;
    }
    status = cudaSetDevice(index);
    cudaFuncAttributes attributes{};
    if (status == cudaSuccess) status = cudaFuncGetAttributes(&attributes, probe_kernel);
    if (status != cudaSuccess) {
        cudaGetLastError();
        const bool no_code = status == cudaErrorNoKernelImageForDevice || status == cudaErrorInvalidDeviceFunction ||
                             status == cudaErrorUnsupportedPtxVersion;
        device.problem = no_code ? "the GPU library holds no code for compute capability " + compute_capability(device)
                                 : std::string("it cannot be opened: ") + cudaGetErrorString(status);
        device.remedy = no_code ? "take the GPU library of a release, or build it for this GPU"
                                : "see with nvidia-smi whether another process has it for itself or all its memory";
        return device;
    }
    device.problem = run_probe_kernel();
    if (!device.problem.empty()) {
        device.remedy = "see with nvidia-smi whether it is in order and has free memory";
        return device;
    }
    size_t free = 0, total = 0;
    if (cudaMemGetInfo(&free, &total) == cudaSuccess) {
        device.free_memory = static_cast<int64_t>(free);
        device.total_memory = static_cast<int64_t>(total);
    }
    return device;
}

}  // namespace lorica::cuda

extern "C" __attribute__((visibility("default"))) bool lorica_cuda_describe_machine(uint32_t version,
                                                                                    lorica::CudaMachine & out) {
    if (version != lorica::cuda_library_version) return false;
    out = lorica::cuda::probe_machine();
    return true;
}

extern "C" __attribute__((visibility("default"))) void lorica_cuda_describe_device(int32_t index,
                                                                                   lorica::CudaDevice & out) {
    out = lorica::cuda::probe_device(index);
}
