#include <cuda_runtime.h>

#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <deque>
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

// ---- the threads of a cluster of blocks, usually of one

struct Copy {
    void * to;
    const void * from;
    int n_bytes, size;
};

// 64 bits of shared memory.
struct Barrier {
    uint16_t n_arrivals, missing;  // of each phase, and of this one
    int32_t bytes : 31;  // that are to come in this phase; fewer than none: they came before they were expected
    uint32_t phase : 1;
};
static_assert(sizeof(Barrier) == sizeof(uint64_t));
Barrier & barrier_at(void * place) { return *static_cast<Barrier *>(place); }

struct BulkCopy {
    std::function<void()> write;
};

struct Fiber {
    enum State { ready, at_block, at_cluster, at_warp, at_barrier, done } state = ready;
    int index = 0;  // in the cluster
    const Barrier * barrier = nullptr;
    uint32_t parity = 0;
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

struct Cluster {
    Context scheduler;
    std::vector<Fiber> fibers;
    std::vector<std::unique_ptr<unsigned char[]>> stacks;
    std::vector<Warp> warps;
    int n_blocks = 1, n_threads = 0;                 // of each block
    std::vector<std::vector<unsigned char>> shared;  // of each block
    std::vector<unsigned char *> shared_begin;
    std::vector<dim3> block_ids;
    std::deque<BulkCopy> copies;
    bool copies_are_early = false;
    const char * name = nullptr;
    Fiber * current = nullptr;
    const std::function<void()> * thread = nullptr;

    int rank_of(const Fiber & fiber) const { return fiber.index / n_threads; }
};

thread_local Cluster block;

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
    threadIdx = dim3(static_cast<unsigned>(fiber.index % block.n_threads), 0, 0);
    blockIdx = block.block_ids[static_cast<size_t>(block.rank_of(fiber))];
    switch_context(block.scheduler, fiber.context);
}

Fiber & fiber_at(int i) { return block.fibers[static_cast<size_t>(i)]; }

// Makes all threads [begin, begin + n) ready, when those that are not done yet are all in `state`.
bool release(int begin, int n, Fiber::State state) {
    int n_done = 0, n_there = 0;
    for (int i = begin; i < begin + n; ++i) {
        n_done += fiber_at(i).state == Fiber::done;
        n_there += fiber_at(i).state == state;
    }
    if (n_there == 0 || n_done + n_there < n) return false;
    for (int i = begin; i < begin + n; ++i) {
        if (fiber_at(i).state == state) fiber_at(i).state = Fiber::ready;
    }
    return true;
}

// The phase may have ended: begins the next one.
void look_at(Barrier & barrier) {
    if (barrier.missing > 0 || barrier.bytes != 0) return;
    barrier.missing = barrier.n_arrivals;
    barrier.phase ^= 1;
}

void run_cluster(bool reverse) {
    const int n_threads = block.n_threads, n_all = block.n_blocks * n_threads, n_warps = n_all / 32;
    for (int i = 0; i < n_all; ++i) {
        Fiber & fiber = fiber_at(i);
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
                    const int i = reverse ? n_all - 1 - (w * 32 + l) : w * 32 + l;
                    Fiber & fiber = fiber_at(i);
                    if (fiber.state != Fiber::ready) continue;
                    run(fiber);
                    again = progress = true;
                }
            }
        }
        int n_done = 0;
        for (int i = 0; i < n_all; ++i) {
            Fiber & fiber = fiber_at(i);
            n_done += fiber.state == Fiber::done;
            if (fiber.state == Fiber::at_barrier && fiber.barrier->phase != fiber.parity) {
                fiber.state = Fiber::ready;
                progress = true;
            }
        }
        if (n_done == n_all) {
            if (!block.copies.empty()) die(std::string(block.name) + ": copies are under way when a block ends");
            return;
        }
        for (int b = 0; b < block.n_blocks; ++b) progress |= release(b * n_threads, n_threads, Fiber::at_block);
        progress |= release(0, n_all, Fiber::at_cluster);
        if (progress) continue;
        if (block.copies.empty()) die(std::string(block.name) + ": threads wait for each other forever");
        // In either order: copies may overtake each other.
        BulkCopy copy = std::move(reverse ? block.copies.back() : block.copies.front());
        reverse ? block.copies.pop_back() : block.copies.pop_front();
        copy.write();
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

void run_grid(const char * name, dim3 blocks, int threads, size_t shared_bytes, int cluster,
              const std::function<void()> & thread);

}  // namespace

void run_on_cpu(const char * name, dim3 blocks, int threads, size_t shared_bytes, int cluster, cudaStream_t stream,
                const std::function<void()> & thread) {
    now_or_later(stream, name, [=] { run_grid(name, blocks, threads, shared_bytes, cluster, thread); });
}

namespace {

void run_grid(const char * name, dim3 blocks, int threads, size_t shared_bytes, int cluster,
              const std::function<void()> & thread) {
    if (threads % 32 != 0 || threads > 1024) die(std::string(name) + ": a block has whole warps, at most 32");
    if (blocks.y > 65535 || blocks.z > 65535) die(std::string(name) + ": a grid is at most 65535 blocks high and deep");
    if (cluster > 8 || blocks.x % static_cast<unsigned>(cluster) != 0)
        die(std::string(name) + ": a grid is whole clusters, of at most eight blocks");
    const char * order = std::getenv("LORICA_CUDA_ON_CPU_ORDER");
    const bool reverse = order && std::string(order) == "reverse";
    const char * copies = std::getenv("LORICA_CUDA_ON_CPU_COPIES");
    block.copies_are_early = copies && std::string(copies) == "early";
    block.name = name;
    block.n_threads = threads;
    block.n_blocks = cluster;
    while (static_cast<int>(block.fibers.size()) < threads * cluster) {
        Fiber & fiber = block.fibers.emplace_back();
        fiber.index = static_cast<int>(block.fibers.size()) - 1;
        const size_t stagger = static_cast<size_t>(fiber.index % 64) * stack_stagger;
        fiber.stack = block.stacks.emplace_back(new unsigned char[stack_bytes + 64 * stack_stagger]).get() + stagger;
    }
    // Of exactly this size, so that an access beyond it can be found; filled anew, so that nothing relies on zeros.
    block.shared.clear();
    block.shared_begin.clear();
    for (int i = 0; i < cluster; ++i) {
        std::vector<unsigned char> & own = block.shared.emplace_back(shared_bytes + 128, 0xff);
        own.shrink_to_fit();
        block.shared_begin.push_back(own.data() + (128 - reinterpret_cast<uintptr_t>(own.data()) % 128));
    }
    block.thread = &thread;
    gridDim = blocks;
    blockDim = dim3(static_cast<unsigned>(threads));
    const uint64_t n = uint64_t{blocks.x} * blocks.y * blocks.z, of = static_cast<uint64_t>(cluster);
    for (uint64_t i = 0; i < n / of; ++i) {
        const uint64_t first = (reverse ? n / of - 1 - i : i) * of;
        block.block_ids.clear();
        for (uint64_t b = first; b < first + of; ++b) {
            block.block_ids.emplace_back(static_cast<unsigned>(b % blocks.x),
                                         static_cast<unsigned>(b / blocks.x % blocks.y),
                                         static_cast<unsigned>(b / blocks.x / blocks.y));
        }
        for (auto & own : block.shared) std::fill(own.begin(), own.end(), static_cast<unsigned char>(0xff));
        run_cluster(reverse);
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

unsigned char * shared_memory() { return block.shared_begin[static_cast<size_t>(current_rank())]; }
int current_warp() { return block.current->index % block.n_threads / 32; }
int current_rank() { return block.rank_of(*block.current); }

void cluster_sync() {
    block.current->state = Fiber::at_cluster;
    give_way();
}

namespace {

ptrdiff_t distance_to(int rank) {
    return block.shared_begin[static_cast<size_t>(rank)] - block.shared_begin[static_cast<size_t>(current_rank())];
}
// The barrier at this place in the block `rank`, which must have been made and whose block must still be there.
Barrier & barrier_in(uint64_t * barrier, int rank) {
    bool over = true;
    for (int i = 0; i < block.n_threads; ++i) over &= fiber_at(rank * block.n_threads + i).state == Fiber::done;
    Barrier & there = barrier_at(reinterpret_cast<unsigned char *>(barrier) + distance_to(rank));
    if (over || rank >= block.n_blocks || there.n_arrivals == 0xffff)
        die(std::string(block.name) + ": a barrier that is not there");
    return there;
}
void arrive(Barrier & barrier) {
    if (barrier.missing == 0) die(std::string(block.name) + ": too many arrivals at a barrier");
    --barrier.missing;
    look_at(barrier);
}

}  // namespace

void barrier_init(uint64_t * barrier, uint32_t n_arrivals) {
    const auto count = static_cast<uint16_t>(n_arrivals);
    barrier_at(barrier) = {count, count, 0, 0};
}
void barrier_expect(uint64_t * barrier, uint32_t n_bytes) {
    Barrier & own = barrier_in(barrier, current_rank());
    own.bytes += static_cast<int32_t>(n_bytes);
    arrive(own);
}
void barrier_arrive(uint64_t * barrier, uint32_t rank) { arrive(barrier_in(barrier, static_cast<int>(rank))); }
void barrier_wait(uint64_t * barrier, uint32_t parity) {
    const Barrier & own = barrier_in(barrier, current_rank());
    if (own.phase != parity) return;
    block.current->state = Fiber::at_barrier;
    block.current->barrier = &own;
    block.current->parity = parity;
    give_way();
}
void copy_in_bulk(uint64_t * barrier, uint32_t n_bytes, uint16_t blocks, std::function<void(ptrdiff_t)> write) {
    for (int rank = 0; rank < block.n_blocks; ++rank) {
        if (!(blocks >> rank & 1)) continue;
        Barrier & there = barrier_in(barrier, rank);
        const ptrdiff_t distance = distance_to(rank);
        auto now = [write, &there, distance, n_bytes] {
            write(distance);
            there.bytes -= static_cast<int32_t>(n_bytes);
            look_at(there);
        };
        if (block.copies_are_early) {
            now();
        } else {
            block.copies.push_back({now});
        }
    }
    if (blocks >> block.n_blocks) die(std::string(block.name) + ": a copy to a block that is not in the cluster");
}

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
cudaError_t cudaGetDevice(int * device) {
    *device = current_device;
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
