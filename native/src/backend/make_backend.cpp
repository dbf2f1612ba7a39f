#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_loader.h"
#include "backend/reference/reference_backend.h"
#include "common/error.h"

namespace lorica {

DeviceChoice choose_device(const std::string & device, Dtype act) {
    if (device != "auto") return {device, ""};
    const CudaMachine machine = probe_cuda();
    if (!machine.problem.empty()) return {"cpu", "no GPU: " + machine.problem};
    std::string refused;
    for (int32_t i = 0; i < machine.n_devices; ++i) {
        const std::string name = "cuda:" + std::to_string(i);
        const CudaDevice gpu = probe_cuda_device(i);
        std::string problem = gpu.problem;
        try {
            if (problem.empty()) make_cuda_backend(name, act);
        } catch (const Error & error) {
            problem = error.what();
        }
        if (problem.empty()) return {name, refused.empty() ? "the first GPU" : refused};
        refused += (refused.empty() ? "not " : "; not ") + name + ", " + gpu.name + ": " + problem;
    }
    return {"cpu", refused};
}

std::unique_ptr<Backend> make_backend(const std::string & device, Dtype act, int32_t n_threads) {
    if (n_threads < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_threads is ", n_threads, ": it must be 0 (all cores) or positive");
    }
    if (device == "cpu") {
        return make_cpu_backend(act, n_threads);
    }
    if (device == "reference") {
        return make_reference_backend(act);
    }
    if (device == "cuda" || device.starts_with("cuda:")) {
        return make_cuda_backend(device, act);
    }
    fail(LORICA_ERROR_INVALID_ARGUMENT, "unknown device \"", device,
         "\": it must be \"auto\", \"cpu\", \"cuda\", \"cuda:N\" or \"reference\"");
}

}  // namespace lorica
