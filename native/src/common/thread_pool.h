// The threads that help with computing: one pool for the whole process, however many of its threads ask for help.
#pragma once

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdint>
#include <exception>
#include <memory>
#include <mutex>

#include "common/cancel.h"

namespace lorica {

// A call offers places; threads of the pool that are free take them, as many as the caller's share allows. Nobody waits
// for a thread that has not come: work is taken piece by piece from where everybody takes it, so the caller alone gets
// it done as well. Threads are made when they are first wanted; when the system gives none, those that there are do the
// work.
//
// Shares: with k callers at a time and c processors, each computes on about c / k of them, its own thread included.
// From k = c on they are left to themselves.
class ThreadPool {
public:
    // Made at its first use, never destroyed: its threads may outlive static destructors.
    static ThreadPool & instance();

    // What a call that does not say how many threads it wants takes: the processors of this process (see
    // usable_processors), or fewer by set_limit().
    int n_threads() const { return limit_.load(std::memory_order_relaxed); }
    // Somebody who knows better, such as a JVM that counts its processors; 0: nobody does.
    void set_limit(int n_threads);

    // Counts the calling thread as a caller as long as it lives, not only while it runs something: for a sequence of
    // small operations. May be nested.
    class Caller {
    public:
        Caller();
        ~Caller();
        Caller(const Caller &) = delete;
        Caller & operator=(const Caller &) = delete;

    private:
        bool outermost_;
    };

    // Calls f(0) here, and f(rank) with distinct ranks below n_threads on the threads of the pool that come. Returns
    // when all that came have returned, and throws what the first of them threw. From inside of f only f(0) is called.
    template <typename F> void run(int n_threads, const F & f) {
        if (is_inside()) return f(0);
        check_cancelled();
        if (n_threads <= 1) {
            f(0);
        } else {
            run_call(n_threads, [](const void * context, int rank) { (*static_cast<const F *>(context))(rank); }, &f);
        }
    }

    // For a caller that has done its share while nobody has come. Where others want the processors it sleeps until a
    // thread that was woken has come and gone, for 20 ms at most: a caller that does everything before others get a
    // processor has one thread's share of the processors and not two, and who never sleeps is preferred to nobody.
    static void leave_the_rest();

    int n_workers() const { return n_workers_.load(std::memory_order_acquire); }

private:
    using Call = void (*)(const void * context, int rank);

    static constexpr int most_threads = 1024, n_slots = 64;

    // A caller's offer.
    struct alignas(64) Slot {
        // (places << 16) + threads inside. A thread that takes a place reads what follows, which stands still until
        // nobody is inside and no place is left.
        std::atomic<uint32_t> state = 0;
        Call call = nullptr;
        const void * context = nullptr;
        std::atomic<bool> failed = false;
        std::exception_ptr error;
    };

    struct alignas(64) Worker {
        enum State : uint32_t { busy, looking, asleep };
        std::atomic<uint32_t> state = looking;
    };

    ThreadPool();
    static bool is_inside();
    void run_call(int n_threads, Call call, const void * context);
    void offer(Slot & slot, int index, int places, Call call, const void * context);
    void add_workers(int wanted);
    void work(int index);
    bool may_help(int index) const;
    bool help(int index, Worker & self);
    static void call_in(Slot & slot, int rank) noexcept;

    std::atomic<int> limit_, capacity_;  // capacity: the limit, or more when more threads were asked for by number
    std::atomic<int> n_workers_ = 0;
    std::array<std::unique_ptr<Worker>, most_threads> workers_;  // the first n_workers_ are there
    std::mutex making_;
    int64_t make_again_at_ = 0;  // of the steady clock, in nanoseconds
    bool warned_ = false;

    std::array<Slot, n_slots> slots_;
    alignas(64) std::atomic<uint64_t> open_ = 0;   // slots with places
    alignas(64) std::atomic<uint64_t> taken_ = 0;  // slots that belong to a caller
    alignas(64) std::atomic<int> n_callers_ = 0;
    std::atomic<int64_t> do_not_wait_until_ = 0;  // of the steady clock, in nanoseconds
};

// Calls f(rank) on at most n_threads threads at once; see ThreadPool::run.
template <typename F> void parallel(int n_threads, const F & f) { ThreadPool::instance().run(n_threads, f); }

// The numbers from 0 to n - 1, each for the first of n_threads threads that asks.
class TaskNumbers {
public:
    TaskNumbers(int64_t n, int n_threads) : n_(n), share_((n + n_threads - 1) / std::max(n_threads, 1)) {}

    // Calls f(i) for each number that this thread gets.
    template <typename F> void take(int rank, const F & f) {
        int64_t own = 0;
        for (int64_t i = next_++; i < n_; i = next_++) {
            f(i);
            if (rank == 0 && ++own == share_ && next_ < n_) ThreadPool::leave_the_rest();
        }
    }

private:
    const int64_t n_, share_;
    std::atomic<int64_t> next_ = 0;
};

// Calls f(rank, i) for each i in [0, n), in about that order, each as soon as a thread is free for it.
template <typename F> void parallel_tasks(int64_t n, int n_threads, const F & f) {
    const int threads = static_cast<int>(std::clamp<int64_t>(n, 1, std::max(n_threads, 1)));
    TaskNumbers numbers(n, threads);
    parallel(threads, [&](int rank) { numbers.take(rank, [&](int64_t i) { f(rank, i); }); });
}

// Calls f(rank, begin, end) over a partition of [0, n) into contiguous pieces, a few for each thread: one whose core is
// slow or busy does not hold up the others. Begins are multiples of `grain`.
template <typename F> void parallel_pieces(int64_t n, int n_threads, const F & f, int64_t grain = 1) {
    constexpr int64_t per_thread = 4;
    const int64_t grains = (n + grain - 1) / grain,
                  pieces = n_threads > 1 ? std::min(grains, per_thread * n_threads) : std::min<int64_t>(grains, 1);
    parallel_tasks(pieces, n_threads, [&](int rank, int64_t piece) {
        f(rank, grains * piece / pieces * grain, std::min(n, grains * (piece + 1) / pieces * grain));
    });
}

}  // namespace lorica
