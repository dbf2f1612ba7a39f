#include "backend/cuda_loader.h"

#include "backend/cuda/cuda_library.h"
#include "common/error.h"
#include "gguf/dequantize.h"

#include <dlfcn.h>

#include <charconv>
#include <cstdlib>

namespace lorica {

namespace {

constexpr const char * library_name = "liblorica-cuda.so";

int32_t device_number(const std::string & device) {
    if (device == "cuda") return 0;
    const char * begin = device.data() + sizeof "cuda:" - 1;
    const char * end = device.data() + device.size();
    int32_t number = -1;
    const auto [stop, error] = std::from_chars(begin, end, number);
    if (begin == end || error != std::errc() || stop != end || number < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "unknown device \"", device,
             "\": a GPU is \"cuda\" or \"cuda:N\", N from 0");
    }
    return number;
}

std::string library_path() {
    if (const char * chosen = std::getenv("LORICA_CUDA_LIBRARY"); chosen && *chosen) return chosen;
    Dl_info own;
    if (dladdr(reinterpret_cast<const void *>(&make_cuda_backend), &own) && own.dli_fname) {
        const std::string path = own.dli_fname;
        if (const size_t slash = path.rfind('/'); slash != std::string::npos)
            return path.substr(0, slash + 1) + library_name;
    }
    return library_name;
}

// Opened once and never closed: weights and other threads may use it until the end.
MakeCudaBackend * open_library() {
    static MakeCudaBackend * function = nullptr;
    if (function) return function;
    const std::string path = library_path();
    void * library = dlopen(path.c_str(), RTLD_NOW | RTLD_LOCAL);
    if (!library) {
        const char * reason = dlerror();
        fail(LORICA_ERROR_UNSUPPORTED, "the CUDA backend cannot be opened: ", reason ? reason : path.c_str(),
             "; install the GPU libraries of this release, or use device \"cpu\"");
    }
    auto * found = reinterpret_cast<MakeCudaBackend *>(dlsym(library, make_cuda_backend_symbol));
    if (!found) {
        dlclose(library);
        fail(LORICA_ERROR_UNSUPPORTED, path, " is no CUDA backend of Lorica: it lacks ", make_cuda_backend_symbol);
    }
    return function = found;
}

}  // namespace

std::unique_ptr<Backend> make_cuda_backend(const std::string & device, Dtype act) {
    CudaBackendRequest request{};
    request.version = cuda_library_version;
    request.device = device_number(device);
    request.act = act;
    request.dequantize_row = dequantize_row;
    Backend * backend = open_library()(request);
    if (!backend) {
        fail(LORICA_ERROR_UNSUPPORTED, library_path(),
             " belongs to another release than this library: install both from the same one");
    }
    return std::unique_ptr<Backend>(backend);
}

}  // namespace lorica
