#include <cuda_runtime.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <memory>
#include <mutex>
#include <sstream>
#include <string>
#include <vector>

#if !defined(__x86_64__)
#include <ucontext.h>
#endif

thread_local dim3 threadIdx, blockIdx, blockDim, gridDim;

namespace {

[[noreturn]] void die(const std::string & message) {
    std::fprintf(stderr, "cuda_on_cpu: %s\n", message.c_str());
    std::abort();
}

// Their tops are this far apart, so that those of a block do not all fall on the same lines of the processor's cache.
constexpr size_t stack_bytes = 128 * 1024, stack_stagger = 64 * 13;

// ---- switching stacks

#if defined(__x86_64__)
using Context = void *;
extern "C" void cuda_on_cpu_switch(Context * save, Context load);
asm(R"(
    .text
    .type cuda_on_cpu_switch, @function
cuda_on_cpu_switch:
    pushq %rbp
    pushq %rbx
    pushq %r12
    pushq %r13
    pushq %r14
    pushq %r15
    movq %rsp, (%rdi)
    movq %rsi, %rsp
    popq %r15
    popq %r14
    popq %r13
    popq %r12
    popq %rbx
    popq %rbp
    ret
    .size cuda_on_cpu_switch, .-cuda_on_cpu_switch
)");
void switch_context(Context & from, Context & to) { cuda_on_cpu_switch(&from, to); }
void make_context(Context & context, unsigned char * stack, void (*entry)()) {
    auto ** top = reinterpret_cast<void **>(stack + stack_bytes);
    top[-2] = reinterpret_cast<void *>(entry);
    context = top - 8;
}
#else
using Context = ucontext_t;
void switch_context(Context & from, Context & to) { swapcontext(&from, &to); }
void make_context(Context & context, unsigned char * stack, void (*entry)()) {
    getcontext(&context);
    context.uc_stack.ss_sp = stack;
    context.uc_stack.ss_size = stack_bytes;
    context.uc_link = nullptr;
    makecontext(&context, entry, 0);
}
#endif

// ---- the threads of a block

struct Copy {
    void * to;
    const void * from;
    int n_bytes, size;
};

struct Fiber {
    enum State { ready, at_block, at_warp, done } state = ready;
    int index = 0;
    Context context;
    unsigned char * stack = nullptr;
    // Those that are not done yet, and how many of them were asked for when each group but the last, which is open,
    // ended.
    std::vector<Copy> copies;
    std::vector<size_t> groups;
};

struct Warp {
    int arrived = 0;
    const char * what = nullptr;
    void * lanes[32] = {};
};

struct Block {
    Context scheduler;
    std::vector<Fiber> fibers;
    std::vector<std::unique_ptr<unsigned char[]>> stacks;
    std::vector<Warp> warps;
    std::vector<unsigned char> shared;
    unsigned char * shared_begin = nullptr;
    Fiber * current = nullptr;
    const std::function<void()> * thread = nullptr;
};

thread_local Block block;

void give_way() { switch_context(block.current->context, block.scheduler); }

void fiber_main() {
    for (;;) {
        (*block.thread)();
        block.current->state = Fiber::done;
        give_way();
    }
}

void run(Fiber & fiber) {
    block.current = &fiber;
    threadIdx = dim3(static_cast<unsigned>(fiber.index), 0, 0);
    switch_context(block.scheduler, fiber.context);
}

void run_block(const char * name, int n_threads, bool reverse) {
    const int n_warps = n_threads / 32;
    for (int i = 0; i < n_threads; ++i) {
        Fiber & fiber = block.fibers[static_cast<size_t>(i)];
        fiber.state = Fiber::ready;
        fiber.copies.clear();
        fiber.groups.clear();
        make_context(fiber.context, fiber.stack, fiber_main);
    }
    block.warps.assign(static_cast<size_t>(n_warps), {});
    for (;;) {
        bool progress = false;
        for (int w = 0; w < n_warps; ++w) {
            for (bool again = true; again;) {
                again = false;
                for (int l = 0; l < 32; ++l) {
                    const int i = reverse ? n_threads - 1 - (w * 32 + l) : w * 32 + l;
                    Fiber & fiber = block.fibers[static_cast<size_t>(i)];
                    if (fiber.state != Fiber::ready) continue;
                    run(fiber);
                    again = progress = true;
                }
            }
        }
        int n_done = 0, n_at_block = 0;
        for (int i = 0; i < n_threads; ++i) {
            n_done += block.fibers[static_cast<size_t>(i)].state == Fiber::done;
            n_at_block += block.fibers[static_cast<size_t>(i)].state == Fiber::at_block;
        }
        if (n_done == n_threads) return;
        if (n_done + n_at_block < n_threads || !progress)
            die(std::string(name) + ": threads wait for each other forever");
        for (int i = 0; i < n_threads; ++i) {
            Fiber & fiber = block.fibers[static_cast<size_t>(i)];
            if (fiber.state == Fiber::at_block) fiber.state = Fiber::ready;
        }
    }
}

}  // namespace

namespace {

// How many launches came from graphs, for tests that are about them.
std::atomic<long> played = 0;
thread_local CudaOnCpuStream * recording = nullptr;

}  // namespace

struct CudaOnCpuGraph {
    std::vector<std::function<void()>> work;
};
struct CudaOnCpuStream {
    CudaOnCpuGraph graph;  // while it is recorded
};

namespace {

void now_or_later(cudaStream_t stream, const char * what, std::function<void()> work) {
    if (!recording) return work();
    if (stream != recording) die(std::string(what) + " goes to another stream while work is recorded");
    stream->graph.work.push_back(std::move(work));
}
void forbid_while_recording(const char * what) {
    if (recording) die(std::string(what) + " while work is recorded");
}

void run_grid(const char * name, dim3 blocks, int threads, size_t shared_bytes, const std::function<void()> & thread);

}  // namespace

void run_on_cpu(const char * name, dim3 blocks, int threads, size_t shared_bytes, cudaStream_t stream,
                const std::function<void()> & thread) {
    now_or_later(stream, name, [=] { run_grid(name, blocks, threads, shared_bytes, thread); });
}

namespace {

void run_grid(const char * name, dim3 blocks, int threads, size_t shared_bytes, const std::function<void()> & thread) {
    if (threads % 32 != 0 || threads > 1024) die(std::string(name) + ": a block has whole warps, at most 32");
    if (blocks.y > 65535 || blocks.z > 65535) die(std::string(name) + ": a grid is at most 65535 blocks high and deep");
    const char * order = std::getenv("LORICA_CUDA_ON_CPU_ORDER");
    const bool reverse = order && std::string(order) == "reverse";
    while (static_cast<int>(block.fibers.size()) < threads) {
        Fiber & fiber = block.fibers.emplace_back();
        fiber.index = static_cast<int>(block.fibers.size()) - 1;
        const size_t stagger = static_cast<size_t>(fiber.index % 64) * stack_stagger;
        fiber.stack = block.stacks.emplace_back(new unsigned char[stack_bytes + 64 * stack_stagger]).get() + stagger;
    }
    // Of exactly this size, so that an access beyond it can be found; filled anew, so that nothing relies on zeros.
    block.shared = std::vector<unsigned char>(shared_bytes + 128, 0xff);
    block.shared.shrink_to_fit();
    block.shared_begin = block.shared.data() + (128 - reinterpret_cast<uintptr_t>(block.shared.data()) % 128);
    block.thread = &thread;
    gridDim = blocks;
    blockDim = dim3(static_cast<unsigned>(threads));
    const uint64_t n = uint64_t{blocks.x} * blocks.y * blocks.z;
    for (uint64_t i = 0; i < n; ++i) {
        const uint64_t b = reverse ? n - 1 - i : i;
        blockIdx = dim3(static_cast<unsigned>(b % blocks.x), static_cast<unsigned>(b / blocks.x % blocks.y),
                        static_cast<unsigned>(b / blocks.x / blocks.y));
        std::fill(block.shared.begin(), block.shared.end(), static_cast<unsigned char>(0xff));
        run_block(name, threads, reverse);
    }
}

}  // namespace

void __syncthreads() {
    block.current->state = Fiber::at_block;
    give_way();
}

namespace cuda_on_cpu {

void warp_collective(const char * what, void * own, void (*all)(void * const * lanes)) {
    Fiber & fiber = *block.current;
    Warp & warp = block.warps[static_cast<size_t>(fiber.index / 32)];
    if (warp.arrived > 0 && std::strcmp(warp.what, what) != 0) {
        die(std::string("lanes of a warp are at different instructions: ") + warp.what + " and " + what);
    }
    warp.what = what;
    warp.lanes[fiber.index % 32] = own;
    if (++warp.arrived < 32) {
        fiber.state = Fiber::at_warp;
        give_way();
        return;
    }
    all(warp.lanes);
    warp.arrived = 0;
    for (int l = 0; l < 32; ++l) block.fibers[static_cast<size_t>(fiber.index / 32 * 32 + l)].state = Fiber::ready;
}

unsigned char * shared_memory() { return block.shared_begin; }
int current_warp() { return block.current->index / 32; }

void copy_async(void * to, const void * from, int n_bytes, int size) {
    const auto unaligned = [&](const void * p) {
        return reinterpret_cast<uintptr_t>(p) % static_cast<uintptr_t>(size);
    };
    if (unaligned(to) || unaligned(from) || n_bytes < 0 || n_bytes > size) {
        die("cp.async: misaligned address or bad size");
    }
    block.current->copies.push_back({to, from, n_bytes, size});
}
void copy_async_commit() { block.current->groups.push_back(block.current->copies.size()); }
void copy_async_wait(int n_pending) {
    auto & groups = block.current->groups;
    const auto n_done = static_cast<ptrdiff_t>(groups.size()) - n_pending;
    if (n_done <= 0) return;
    auto & copies = block.current->copies;
    const size_t n_copies = groups[static_cast<size_t>(n_done) - 1];
    for (size_t i = 0; i < n_copies; ++i) {
        const Copy & copy = copies[i];
        std::memset(copy.to, 0, static_cast<size_t>(copy.size));
        if (copy.n_bytes) std::memcpy(copy.to, copy.from, static_cast<size_t>(copy.n_bytes));
    }
    copies.erase(copies.begin(), copies.begin() + static_cast<ptrdiff_t>(n_copies));
    groups.erase(groups.begin(), groups.begin() + n_done);
    for (size_t & end : groups) end -= n_copies;
}

}  // namespace cuda_on_cpu

// ---- the runtime: everything done when the call returns
//
// LORICA_CUDA_ON_CPU_MACHINE says what machine to play, in words separated by commas: "driver=12040", "driver=0",
// "no-gpu", and devices as "NAME/COMPUTE_CAPABILITY/MEBIBYTES[/FAULT]", where FAULT is "busy", "no-code" or
// "wrong-numbers". Without it there is one device that works.

namespace {

struct PlayedDevice {
    std::string name = "CUDA on the CPU", fault;
    int major = 8, minor = 0;
    size_t memory = size_t{1} << 33;
};
struct PlayedMachine {
    int driver = 13000;
    std::vector<PlayedDevice> devices;
};

// Read anew at each call: tests change it.
PlayedMachine played_machine() {
    const char * script = std::getenv("LORICA_CUDA_ON_CPU_MACHINE");
    PlayedMachine machine;
    if (!script || !*script) {
        machine.devices.emplace_back();
        return machine;
    }
    std::stringstream words(script);
    for (std::string word; std::getline(words, word, ',');) {
        if (word.starts_with("driver=")) {
            machine.driver = std::stoi(word.substr(7));
        } else if (word != "no-gpu") {
            std::stringstream parts(word);
            PlayedDevice & device = machine.devices.emplace_back();
            std::string capability, mebibytes;
            std::getline(parts, device.name, '/');
            std::getline(parts, capability, '/');
            std::getline(parts, mebibytes, '/');
            std::getline(parts, device.fault, '/');
            device.major = std::stoi(capability);
            device.minor = std::stoi(capability.substr(capability.find('.') + 1));
            device.memory = std::stoull(mebibytes) << 20;
        }
    }
    return machine;
}

thread_local int current_device = 0;

struct Allocation {
    int device;
    size_t n_bytes;
};
std::mutex allocations_mutex;
std::map<void *, Allocation> allocations;

PlayedDevice played_device() { return played_machine().devices.at(static_cast<size_t>(current_device)); }

}  // namespace

const char * cudaGetErrorName(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return "cudaSuccess";
        case cudaErrorMemoryAllocation: return "cudaErrorMemoryAllocation";
        default: return "another error";
    }
}
const char * cudaGetErrorString(cudaError_t status) {
    switch (status) {
        case cudaSuccess: return "no error";
        case cudaErrorMemoryAllocation: return "out of memory";
        case cudaErrorInsufficientDriver: return "CUDA driver version is insufficient for CUDA runtime version";
        case cudaErrorDevicesUnavailable: return "CUDA-capable device(s) is/are busy or unavailable";
        case cudaErrorNoDevice: return "no CUDA-capable device is detected";
        case cudaErrorInvalidDevice: return "invalid device ordinal";
        default: return "another error";
    }
}
cudaError_t cudaGetLastError() { return cudaSuccess; }
cudaError_t cudaRuntimeGetVersion(int * version) {
    *version = 13000;
    return cudaSuccess;
}
cudaError_t cudaDriverGetVersion(int * version) {
    *version = played_machine().driver;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceCount(int * count) {
    const PlayedMachine machine = played_machine();
    *count = 0;
    if (machine.driver < 13000) return cudaErrorInsufficientDriver;
    if (machine.devices.empty()) return cudaErrorNoDevice;
    *count = static_cast<int>(machine.devices.size());
    return cudaSuccess;
}
cudaError_t cudaSetDevice(int device) {
    const auto n = static_cast<int>(played_machine().devices.size());
    if (device < 0 || device >= n) return cudaErrorInvalidDevice;
    current_device = device;
    return cudaSuccess;
}
cudaError_t cudaGetDeviceProperties(cudaDeviceProp * properties, int index) {
    const PlayedDevice device = played_machine().devices.at(static_cast<size_t>(index));
    std::snprintf(properties->name, sizeof properties->name, "%s", device.name.c_str());
    properties->totalGlobalMem = device.memory;
    properties->major = device.major;
    properties->minor = device.minor;
    properties->multiProcessorCount = 4;
    properties->pciDomainID = properties->pciDeviceID = 0;
    properties->pciBusID = 0x65 + index;
    return cudaSuccess;
}
cudaError_t cudaDeviceGetAttribute(int * value, cudaDeviceAttr attribute, int index) {
    cudaDeviceProp properties{};
    cudaGetDeviceProperties(&properties, index);
    *value = attribute == cudaDevAttrMultiProcessorCount      ? properties.multiProcessorCount
             : attribute == cudaDevAttrClockRate              ? 0
             : attribute == cudaDevAttrComputeCapabilityMajor ? properties.major
             : attribute == cudaDevAttrComputeCapabilityMinor ? properties.minor
             : properties.major == 9                          ? 227 << 10
             : properties.major == 8 && properties.minor == 0 ? 163 << 10
                                                              : 99 << 10;
    return cudaSuccess;
}
cudaError_t cudaFuncGetAttributes(cudaFuncAttributes *, const void *) {
    const std::string fault = played_device().fault;
    return fault == "busy"      ? cudaErrorDevicesUnavailable
           : fault == "no-code" ? cudaErrorNoKernelImageForDevice
                                : cudaSuccess;
}
cudaError_t cudaHostAlloc(void ** memory, size_t n_bytes, unsigned) {
    const size_t size = (n_bytes + 255) / 256 * 256;
    *memory = std::aligned_alloc(256, size);
    if (!*memory) return cudaErrorMemoryAllocation;
    std::memset(*memory, 0xff, size);
    return cudaSuccess;
}
cudaError_t cudaFreeHost(void * memory) {
    std::free(memory);
    return cudaSuccess;
}
cudaError_t cudaMalloc(void ** memory, size_t n_bytes) {
    forbid_while_recording("cudaMalloc");
    const std::lock_guard lock(allocations_mutex);
    size_t used = 0;
    for (const auto & [pointer, allocation] : allocations)
        used += allocation.device == current_device ? allocation.n_bytes : 0;
    if (n_bytes > played_device().memory - std::min(played_device().memory, used)) return cudaErrorMemoryAllocation;
    const cudaError_t status = cudaHostAlloc(memory, n_bytes, cudaHostAllocDefault);
    if (status == cudaSuccess) allocations[*memory] = {current_device, n_bytes};
    return status;
}
cudaError_t cudaFree(void * memory) {
    forbid_while_recording("cudaFree");
    const std::lock_guard lock(allocations_mutex);
    allocations.erase(memory);
    return cudaFreeHost(memory);
}
cudaError_t cudaMemGetInfo(size_t * free, size_t * total) {
    *total = played_device().memory;
    const std::lock_guard lock(allocations_mutex);
    *free = *total;
    for (const auto & [pointer, allocation] : allocations) {
        if (allocation.device == current_device) *free -= std::min(*free, allocation.n_bytes);
    }
    return cudaSuccess;
}
cudaError_t cudaMemsetAsync(void * memory, int value, size_t n_bytes, cudaStream_t stream) {
    now_or_later(stream, "cudaMemset", [=] { std::memset(memory, value, n_bytes); });
    return cudaSuccess;
}
cudaError_t cudaMemcpyAsync(void * to, const void * from, size_t n_bytes, cudaMemcpyKind kind, cudaStream_t stream) {
    if (kind != cudaMemcpyDeviceToDevice) forbid_while_recording("a copy from or to the host");
    now_or_later(stream, "cudaMemcpy", [=] { std::memcpy(to, from, n_bytes); });
    if (kind == cudaMemcpyDeviceToHost && n_bytes > 0 && played_device().fault == "wrong-numbers")
        *static_cast<char *>(to) ^= 1;
    return cudaSuccess;
}
cudaError_t cudaStreamCreateWithFlags(cudaStream_t * stream, unsigned) {
    *stream = new CudaOnCpuStream;
    return cudaSuccess;
}
cudaError_t cudaStreamDestroy(cudaStream_t stream) {
    delete stream;
    return cudaSuccess;
}
cudaError_t cudaStreamSynchronize(cudaStream_t) {
    forbid_while_recording("cudaStreamSynchronize");
    return cudaSuccess;
}
cudaError_t cudaEventCreateWithFlags(cudaEvent_t * event, unsigned) {
    *event = nullptr;
    return cudaSuccess;
}
cudaError_t cudaEventDestroy(cudaEvent_t) { return cudaSuccess; }
cudaError_t cudaEventRecord(cudaEvent_t, cudaStream_t) { return cudaSuccess; }
cudaError_t cudaEventSynchronize(cudaEvent_t) {
    forbid_while_recording("cudaEventSynchronize");
    return cudaSuccess;
}

// ---- graphs

cudaError_t cudaStreamBeginCapture(cudaStream_t stream, cudaStreamCaptureMode) {
    if (const char * fails = std::getenv("LORICA_CUDA_ON_CPU_NO_GRAPHS"); fails && *fails)
        return cudaErrorInvalidDevice;
    recording = stream;
    stream->graph.work.clear();
    return cudaSuccess;
}
cudaError_t cudaStreamEndCapture(cudaStream_t stream, cudaGraph_t * graph) {
    recording = nullptr;
    *graph = new CudaOnCpuGraph(std::move(stream->graph));
    return cudaSuccess;
}
cudaError_t cudaGraphInstantiate(cudaGraphExec_t * exec, cudaGraph_t graph, unsigned long long) {
    *exec = new CudaOnCpuGraph(*graph);
    return cudaSuccess;
}
cudaError_t cudaGraphDestroy(cudaGraph_t graph) {
    delete graph;
    return cudaSuccess;
}
cudaError_t cudaGraphExecDestroy(cudaGraphExec_t exec) { return cudaGraphDestroy(exec); }
cudaError_t cudaGraphLaunch(cudaGraphExec_t exec, cudaStream_t stream) {
    now_or_later(stream, "cudaGraphLaunch", [exec] {
        ++played;
        for (const auto & work : exec->work) work();
    });
    return cudaSuccess;
}
extern "C" __attribute__((visibility("default"))) long cuda_on_cpu_graphs_played() { return played; }
