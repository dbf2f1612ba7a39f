#include "backend/cuda_loader.h"

#include "common/error.h"
#include "gguf/dequantize.h"

#include <dlfcn.h>
#include <unistd.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <mutex>

namespace lorica {

namespace {

constexpr const char * library_name = "liblorica-cuda.so";

struct CudaLibrary {
    std::string path;
    MakeCudaBackend * make = nullptr;
    DescribeCudaDevice * describe_device = nullptr;
};

std::mutex mutex;
std::string chosen_path;
// Opened once and never closed: weights and other threads may use it until the end.
std::map<std::string, void *> opened;

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
    if (!chosen_path.empty()) return chosen_path;
    Dl_info own;
    if (dladdr(reinterpret_cast<const void *>(&make_cuda_backend), &own) && own.dli_fname) {
        const std::string path = own.dli_fname;
        if (const size_t slash = path.rfind('/'); slash != std::string::npos)
            return path.substr(0, slash + 1) + library_name;
    }
    return library_name;
}

// Whether there may be an NVIDIA GPU, driver or not: Linux lists what is on the bus. LORICA_PCI_DEVICES, for tests, is
// another list.
bool may_have_gpu() {
    const char * given = std::getenv("LORICA_PCI_DEVICES");
    std::error_code error;
    std::filesystem::directory_iterator devices(given && *given ? given : "/sys/bus/pci/devices", error);
    if (error || std::filesystem::exists("/dev/dxg", error)) return true;  // not known; WSL shows none on the bus
    for (const auto & device : devices) {
        std::string vendor, kind;
        std::ifstream(device.path() / "vendor") >> vendor;
        std::ifstream(device.path() / "class") >> kind;
        if (vendor == "0x10de" && kind.starts_with("0x03")) return true;
    }
    return false;
}

// A driver is of no use to a machine without a GPU.
void explain_missing_gpu(CudaMachine & machine) {
    if (!machine.problem.starts_with("no NVIDIA driver") || may_have_gpu()) return;
    machine.problem = "this machine has no NVIDIA GPU";
    machine.remedy = "nothing is to be done: the CPU is used, device \"cpu\" or \"auto\"";
}

// Why there is no library to open. Without a driver one would be of no use, so that comes first.
void explain_missing_library(const std::string & path, CudaMachine & machine) {
    if (void * driver = dlopen("libcuda.so.1", RTLD_LAZY | RTLD_LOCAL)) {
        dlclose(driver);
        machine.problem = "the GPU library " + path + " is not there";
        machine.remedy =
            "add the dependency lorica-native with the classifier linux-x86_64-gpu, or from the source tree "
            "say LORICA_GPU=ON";
    } else {
        machine.problem = "no NVIDIA driver (libcuda.so.1 not found)";
        machine.remedy = "install the NVIDIA driver and the GPU library";
    }
}

// The library, and what it says of the machine. Where it cannot be used `machine.problem` says why.
CudaLibrary open_library(CudaMachine & machine) {
    const std::lock_guard lock(mutex);
    CudaLibrary library;
    library.path = library_path();
    void *& handle = opened[library.path];
    if (!handle) {
        if (library.path.find('/') != std::string::npos && access(library.path.c_str(), F_OK) != 0) {
            explain_missing_library(library.path, machine);
            explain_missing_gpu(machine);
            return library;
        }
        handle = dlopen(library.path.c_str(), RTLD_NOW | RTLD_LOCAL);
    }
    if (!handle) {
        const char * reason = dlerror();
        machine.problem = std::string("the GPU library cannot be opened: ") + (reason ? reason : library.path.c_str());
        machine.remedy = "install it anew, from the same release as this library";
        return library;
    }
    library.make = reinterpret_cast<MakeCudaBackend *>(dlsym(handle, make_cuda_backend_symbol));
    library.describe_device = reinterpret_cast<DescribeCudaDevice *>(dlsym(handle, describe_cuda_device_symbol));
    auto * describe_machine = reinterpret_cast<DescribeCudaMachine *>(dlsym(handle, describe_cuda_machine_symbol));
    if (!library.make) {
        machine.problem = library.path + " is no CUDA backend of Lorica: it lacks " + make_cuda_backend_symbol;
        machine.remedy = "install it anew";
    } else if (!library.describe_device || !describe_machine || !describe_machine(cuda_library_version, machine)) {
        machine.problem = library.path + " belongs to another release than this library";
        machine.remedy = "install both from the same one";
    }
    explain_missing_gpu(machine);
    return library;
}

std::string plural(int32_t n, const char * what) { return std::to_string(n) + " " + what + (n == 1 ? "" : "s"); }

// Throws where `index` cannot be one of the machine's.
CudaLibrary open_library_for(int32_t index) {
    CudaMachine machine;
    const CudaLibrary library = open_library(machine);
    if (!machine.problem.empty()) fail(LORICA_ERROR_DEVICE, "no GPU: ", machine.problem, "; ", machine.remedy);
    if (index >= machine.n_devices) {
        fail(LORICA_ERROR_DEVICE, "there is no device \"cuda:", index, "\": this machine has ",
             plural(machine.n_devices, "GPU"),
             machine.n_devices == 1 ? ", \"cuda:0\""
                                    : ", the last is \"cuda:" + std::to_string(machine.n_devices - 1) + "\"");
    }
    return library;
}

}  // namespace

void set_cuda_library(const std::string & path) {
    const std::lock_guard lock(mutex);
    chosen_path = path;
}

CudaMachine probe_cuda() {
    CudaMachine machine;
    open_library(machine);
    return machine;
}

CudaDevice probe_cuda_device(int32_t index) {
    CudaDevice device;
    open_library_for(index).describe_device(index, device);
    return device;
}

std::unique_ptr<Backend> make_cuda_backend(const std::string & device, Dtype act) {
    CudaBackendRequest request{};
    request.version = cuda_library_version;
    request.device = device_number(device);
    request.act = act;
    request.dequantize_row = dequantize_row;
    return std::unique_ptr<Backend>(open_library_for(request.device).make(request));
}

}  // namespace lorica
