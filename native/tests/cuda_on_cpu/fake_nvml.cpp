// The few functions of the NVIDIA driver's libnvidia-ml.so.1 that `lorica doctor` asks, for a machine with one GPU that
// two processes use. Structures as nvml.h has them.
#include <cstdio>
#include <cstring>

namespace {

struct Memory {
    unsigned long long total, free, used;
};
struct PciInfo {
    char legacy_bus_id[16];
    unsigned domain, bus, device, device_id, subsystem_id;
    char bus_id[32];
};
struct ProcessInfo {
    unsigned pid;
    unsigned long long memory;
    unsigned gpu_instance, compute_instance;
};

constexpr int success = 0;
int the_device = 0;

int copy(const char * text, char * to, unsigned size) {
    std::snprintf(to, size, "%s", text);
    return success;
}

}  // namespace

#define NVML extern "C" __attribute__((visibility("default"))) int

NVML nvmlInit_v2() { return success; }
NVML nvmlShutdown() { return success; }
NVML nvmlSystemGetDriverVersion(char * version, unsigned size) { return copy("580.65.06", version, size); }
NVML nvmlDeviceGetCount_v2(unsigned * count) {
    *count = 1;
    return success;
}
NVML nvmlDeviceGetHandleByIndex_v2(unsigned, void ** device) {
    *device = &the_device;
    return success;
}
NVML nvmlDeviceGetName(void *, char * name, unsigned size) { return copy("NVIDIA H100 80GB HBM3", name, size); }
NVML nvmlDeviceGetCudaComputeCapability(void *, int * major, int * minor) {
    *major = 9;
    *minor = 0;
    return success;
}
NVML nvmlDeviceGetPciInfo_v3(void *, PciInfo * info) {
    std::memset(info, 0, sizeof *info);
    return copy("00000000:65:00.0", info->bus_id, sizeof info->bus_id);
}
NVML nvmlDeviceGetMemoryInfo(void *, Memory * memory) {
    *memory = {80ull << 30, 70ull << 30, 10ull << 30};
    return success;
}
NVML nvmlDeviceGetComputeRunningProcesses_v3(void *, unsigned * count, ProcessInfo * processes) {
    *count = 2;
    processes[0] = {4711, 6ull << 30, ~0u, ~0u};
    processes[1] = {4712, ~0ull, ~0u, ~0u};
    return success;
}
NVML nvmlSystemGetProcessName(unsigned pid, char * name, unsigned size) {
    return pid == 4711 ? copy("/usr/bin/python3", name, size) : 999;
}
