#include "backend/cuda/launch.h"

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

namespace lorica::cuda {

namespace {

bool is_on(const char * variable) {
    const char * chosen = std::getenv(variable);
    return chosen && chosen[0] == '1';
}

bool profiling() {
    static const bool on = is_on("LORICA_CUDA_PROFILE");
    return on;
}

// Times as the host sees them, from one idle moment of the stream to the next: some microseconds too long for each
// launch.
class Profile {
public:
    static Profile & get() {
        static Profile profile;
        return profile;
    }
    ~Profile() {
        struct Row {
            std::string name;
            Kernel kernel;
        };
        std::vector<Row> rows;
        double total = 0;
        for (const auto & [name, kernel] : kernels_) {
            rows.push_back({name, kernel});
            total += kernel.seconds;
        }
        std::sort(rows.begin(), rows.end(),
                  [](const Row & a, const Row & b) { return a.kernel.seconds > b.kernel.seconds; });
        for (const Row & row : rows) {
            std::fprintf(stderr,
                         "kernel %-28s %9.3f ms %6.2f %% %8ld launches %9.1f us each, of %d threads and %zu KiB\n",
                         row.name.c_str(), 1e3 * row.kernel.seconds, 100 * row.kernel.seconds / total,
                         row.kernel.launches, 1e6 * row.kernel.seconds / static_cast<double>(row.kernel.launches),
                         row.kernel.threads, row.kernel.shared_bytes >> 10);
        }
    }

    void add(const char * name, const Extent & extent, double seconds) {
        const std::lock_guard lock(mutex_);
        Kernel & kernel = kernels_[name];
        kernel.seconds += seconds;
        ++kernel.launches;
        kernel.threads = std::max(kernel.threads, extent.threads);
        kernel.shared_bytes = std::max(kernel.shared_bytes, extent.shared_bytes);
    }

private:
    struct Kernel {
        double seconds = 0;
        long launches = 0;
        int threads = 0;  // of a block, at most, and its dynamic shared memory
        size_t shared_bytes = 0;
    };
    std::mutex mutex_;
    std::map<std::string, Kernel> kernels_;
};

thread_local std::chrono::steady_clock::time_point launched;

}  // namespace

bool launches_are_awaited() {
    static const bool awaited = is_on("LORICA_CUDA_SYNC") || profiling();
    return awaited;
}

bool must_ask_for_memory(const void * kernel, size_t shared_bytes) {
    static std::mutex mutex;
    static std::map<std::pair<const void *, int>, size_t> allowed;
    int device = 0;
    check(cudaGetDevice(&device), "cudaGetDevice");
    const std::lock_guard lock(mutex);
    size_t & most = allowed[{kernel, device}];
    if (shared_bytes <= most) return false;
    most = shared_bytes;
    return true;
}

void before_launch(cudaStream_t stream) {
    if (!profiling()) return;
    check(cudaStreamSynchronize(stream), "a copy");
    launched = std::chrono::steady_clock::now();
}

void after_launch(const char * name, const Extent & extent, cudaStream_t stream) {
    if (!launches_are_awaited()) return;
    check(cudaStreamSynchronize(stream), name);
    if (!profiling()) return;
    Profile::get().add(name, extent,
                       std::chrono::duration<double>(std::chrono::steady_clock::now() - launched).count());
}

}  // namespace lorica::cuda
