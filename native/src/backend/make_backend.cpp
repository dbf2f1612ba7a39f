#include "backend/backend.h"
#include "backend/cpu/cpu_backend.h"
#include "backend/cuda_loader.h"
#include "backend/reference/reference_backend.h"
#include "common/error.h"

namespace lorica {

std::unique_ptr<Backend> make_backend(const std::string & device, Dtype act, int32_t n_threads) {
    if (n_threads < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "n_threads is ", n_threads, ": it must be 0 (all cores) or positive");
    }
    if (device == "cpu" || device == "auto") {
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
