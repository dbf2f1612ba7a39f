// Threads for elementwise work and for the small operations of decoding. An element's arithmetic never depends on who
// does it.
#pragma once

#include <omp.h>

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <functional>

namespace lorica::cpu {

// Threads that wait for work while one of them, the first, goes through a sequence of small operations. To begin and
// end a region of OpenMP costs as much as an operation of a small model, and its threads wait either for so long that
// they hold up whoever else needs their core, or sleep at once.
class Team {
public:
    // Runs work on the calling thread. What it hands to parallel() meanwhile is done by this team.
    static void together(int n_threads, const std::function<void()> & work);
    // The team whose first thread calls, or null.
    static Team * current();

    // Calls f(rank, size) on the first `size` threads, or on all of a smaller team, and returns when all have returned.
    template <typename F> void run(int size, const F & f) {
        call_ = [](const void * context, int rank, int n) { (*static_cast<const F *>(context))(rank, n); };
        context_ = &f;
        run_call(std::min(size, size_));
    }

private:
    Team() = default;
    void run_call(int active);
    void serve(int rank);

    void (*call_)(const void * context, int rank, int size) = nullptr;
    const void * context_ = nullptr;
    int size_ = 1, active_ = 0;
    bool over_ = false;
    // Each in a cache line of its own: the first thread writes one, the others the other.
    alignas(64) std::atomic<uint32_t> turn_ = 0;
    alignas(64) std::atomic<int> busy_ = 0;
};

// Calls f(rank, size) on size threads at once, size at most n_threads.
template <typename F> void parallel(int n_threads, const F & f) {
    if (n_threads <= 1) {
        f(0, 1);
    } else if (Team * team = Team::current()) {
        team->run(n_threads, f);
    } else {
#pragma omp parallel num_threads(n_threads)
        f(omp_get_thread_num(), omp_get_num_threads());
    }
}

// Calls f(begin, end) over a partition of [0, n); begins are multiples of `grain`. Work of fewer than about 2^14
// elements (n * elements_per_item) stays on the calling thread, where it is done before others would have woken up. Of
// more, threads take a few pieces each as they become free: one whose core is slow or busy does not hold up the others.
template <typename F>
void parallel_ranges(int64_t n, int64_t elements_per_item, int n_threads, const F & f, int64_t grain = 1) {
    constexpr int64_t elements_per_thread = int64_t{1} << 14;
    const int64_t useful = n * std::max<int64_t>(elements_per_item, 1) / elements_per_thread;
    const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, std::max(n_threads, 1)));
    if (threads == 1) {
        if (n > 0) f(int64_t{0}, n);
        return;
    }
    const int64_t grains = (n + grain - 1) / grain, pieces = std::min<int64_t>({grains, useful, int64_t{8} * threads});
    std::atomic<int64_t> next = 0;
    parallel(threads, [&](int, int) {
        for (int64_t piece = next++; piece < pieces; piece = next++) {
            const int64_t begin = grains * piece / pieces * grain,
                          end = std::min(n, grains * (piece + 1) / pieces * grain);
            if (begin < end) f(begin, end);
        }
    });
}

}  // namespace lorica::cpu
