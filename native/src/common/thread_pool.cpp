#include "common/thread_pool.h"

#include <bit>
#include <cerrno>
#include <chrono>
#include <ctime>
#include <thread>
#include <utility>

#if !defined(_WIN32)
#include <pthread.h>
#include <signal.h>
#endif
#if defined(__linux__)
#include <linux/futex.h>
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <immintrin.h>
#endif

#include "common/log.h"
#include "common/machine.h"

namespace lorica {

namespace {

// Of a slot's state. somebody_waits: the caller sleeps until nobody is inside.
constexpr uint32_t one_place = uint32_t{1} << 16, inside_mask = one_place - 1, somebody_waits = uint32_t{1} << 31;

thread_local bool inside = false;   // of a call, or a thread of the pool
thread_local int caller_depth = 0;  // of Caller
thread_local int own_slot = -1;     // as long as this thread is a caller; -1: none was free

void pause() {
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__)
    asm volatile("yield");
#endif
}

int64_t now() {
    return std::chrono::duration_cast<std::chrono::nanoseconds>(std::chrono::steady_clock::now().time_since_epoch())
        .count();
}

// Threads of the pool answer no signals of the process, which are for threads that know what to do with them (a JVM has
// its own). Those that a thread raises by what it does stay.
class SignalsBlocked {
public:
#if defined(_WIN32)
    SignalsBlocked() {}
#else
    SignalsBlocked() {
        sigset_t all;
        sigfillset(&all);
        for (const int own : {SIGSEGV, SIGBUS, SIGFPE, SIGILL, SIGTRAP, SIGABRT, SIGSYS}) sigdelset(&all, own);
        pthread_sigmask(SIG_SETMASK, &all, &before_);
    }
    ~SignalsBlocked() { pthread_sigmask(SIG_SETMASK, &before_, nullptr); }

private:
    sigset_t before_;
#endif
};

// Until this time somebody else wants the processors. Then nobody spins, since a thread that sleeps where it has
// nothing to do is given a processor at once when it wakes, while one that spins uses up what it gets; and a caller
// leaves the others their share, see leave_the_rest().
std::atomic<int64_t> crowded_until = 0;

void crowded_from(int64_t time) {
    constexpr int64_t how_long = 20'000'000;
    crowded_until.store(time + how_long, std::memory_order_relaxed);
}

bool is_crowded(int64_t time) { return time < crowded_until.load(std::memory_order_relaxed); }

// Waits a moment for what is only a moment away: the next operation, or the end of another thread's piece. About 50 µs;
// what has not come by then takes long, or its thread has lost its core, perhaps to the one that waits for it.
template <typename Done> bool comes_soon(const Done & done, bool is_owed) {
    constexpr int64_t longest = 50'000, lost = 200'000;
    constexpr int at_once = 20;
    for (int i = 0; i < at_once; ++i) {
        if (done()) return true;
        pause();
    }
    const int64_t begin = now();
    if (is_crowded(begin)) return false;
    for (int64_t before = begin;;) {
        for (int i = 0; i < at_once; ++i) {
            if (done()) return true;
            pause();
        }
        const int64_t time = now();
        // Between two looks at the clock another thread was here.
        if (time - before > lost || (is_owed && time - begin > longest)) {
            crowded_from(time);
            return done();
        }
        if (time - begin > longest) return false;
        before = time;
    }
}

// std::atomic::wait yields a few times before it sleeps, and who yields where others want the processor loses it for a
// whole slice. False: `longest`, in nanoseconds and 0 for no end, has passed.
bool sleep_while(std::atomic<uint32_t> & value, uint32_t expected, int64_t longest = 0) {
#if defined(__linux__)
    const timespec time = {longest / 1'000'000'000, longest % 1'000'000'000};
    return syscall(SYS_futex, &value, FUTEX_WAIT_PRIVATE, expected, longest > 0 ? &time : nullptr, nullptr, 0) == 0 ||
           errno != ETIMEDOUT;
#else
    if (longest > 0) return false;
    value.wait(expected);
    return true;
#endif
}

void wake(std::atomic<uint32_t> & value) {
#if defined(__linux__)
    syscall(SYS_futex, &value, FUTEX_WAKE_PRIVATE, 1, nullptr, nullptr, 0);
#else
    value.notify_one();
#endif
}

// A thread inherits the processors of the one that made it, which may have been bound to one.
void use_all_processors() {
#if defined(__linux__)
    cpu_set_t set;
    if (sched_getaffinity(getpid(), sizeof set, &set) == 0) sched_setaffinity(0, sizeof set, &set);
#endif
}

void set_name() {
#if defined(__linux__)
    pthread_setname_np(pthread_self(), "lorica");
#endif
}

}  // namespace

ThreadPool & ThreadPool::instance() {
    static ThreadPool & pool = *new ThreadPool;
    return pool;
}

ThreadPool::ThreadPool() : limit_(std::min(usable_processors(), most_threads)), capacity_(limit_.load()) {}

void ThreadPool::set_limit(int n_threads) {
    const int usable = std::min(usable_processors(), most_threads);
    const int limit = n_threads > 0 ? std::min(n_threads, usable) : usable;
    limit_ = limit;
    capacity_ = limit;
}

bool ThreadPool::is_inside() { return inside; }

ThreadPool::Caller::Caller() : outermost_(!inside && caller_depth == 0) {
    ++caller_depth;
    if (!outermost_) return;
    ThreadPool & pool = instance();
    pool.n_callers_.fetch_add(1);
    uint64_t taken = pool.taken_.load(std::memory_order_relaxed);
    own_slot = -1;
    while (~taken != 0) {
        const int free = std::countr_one(taken);
        if (pool.taken_.compare_exchange_weak(taken, taken | uint64_t{1} << free, std::memory_order_acquire)) {
            own_slot = free;
            break;
        }
    }
}

ThreadPool::Caller::~Caller() {
    --caller_depth;
    if (!outermost_) return;
    ThreadPool & pool = instance();
    if (own_slot >= 0) pool.taken_.fetch_and(~(uint64_t{1} << own_slot), std::memory_order_release);
    pool.n_callers_.fetch_sub(1);
}

void ThreadPool::call_in(Slot & slot, int rank) noexcept {
    try {
        slot.call(slot.context, rank);
    } catch (...) {
        if (!slot.failed.exchange(true)) slot.error = std::current_exception();
    }
}

void ThreadPool::run_call(int n_threads, Call call, const void * context) {
    const Caller caller;
    n_threads = std::min(n_threads, most_threads);
    int capacity = capacity_.load(std::memory_order_relaxed);
    while (capacity < n_threads && !capacity_.compare_exchange_weak(capacity, n_threads)) {
    }
    capacity = std::max(capacity, n_threads);
    const int n_callers = n_callers_.load(), share = (capacity + n_callers - 1) / n_callers;
    const int places = std::min(n_threads, share) - 1;
    if (places > 0) add_workers(std::min(capacity - 1, places * n_callers));
    inside = true;
    if (places < 1 || own_slot < 0 || n_workers() == 0) {
        struct Outside {
            ~Outside() { inside = false; }
        } outside;
        return call(context, 0);
    }
    const int index = own_slot;
    Slot & slot = slots_[static_cast<size_t>(index)];
    offer(slot, index, places, call, context);
    const int64_t begin = now();
    call_in(slot, 0);
    inside = false;

    const uint32_t before = slot.state.fetch_and(inside_mask, std::memory_order_acq_rel);
    if (before >= one_place) {
        open_.fetch_and(~(uint64_t{1} << index));
        // A thread that has a processor to itself comes within this time.
        constexpr int64_t enough_to_come = 30'000;
        const int64_t end = now();
        if (end - begin > enough_to_come && n_callers_.load(std::memory_order_relaxed) == 1) crowded_from(end);
    }
    if (!comes_soon([&] { return slot.state.load(std::memory_order_acquire) == 0; }, true)) {
        uint32_t state = slot.state.fetch_or(somebody_waits) | somebody_waits;
        for (; (state & inside_mask) != 0; state = slot.state.load(std::memory_order_acquire))
            sleep_while(slot.state, state);
        slot.state.store(0, std::memory_order_relaxed);
    }
    if (slot.failed.load(std::memory_order_relaxed)) {
        slot.failed.store(false, std::memory_order_relaxed);
        std::rethrow_exception(std::exchange(slot.error, nullptr));
    }
}

void ThreadPool::leave_the_rest() {
    constexpr int64_t longest = 20'000'000, pause_after_that = 100'000'000;
    if (own_slot < 0) return;
    ThreadPool & pool = instance();
    const int64_t time = now();
    if (!is_crowded(time) || pool.n_callers_.load(std::memory_order_relaxed) > 1 ||
        time < pool.do_not_wait_until_.load(std::memory_order_relaxed))
        return;
    Slot & slot = pool.slots_[static_cast<size_t>(own_slot)];
    const uint32_t all = slot.state.load();
    if (all < one_place || (all & inside_mask) != 0) return;
    uint32_t state = slot.state.fetch_or(somebody_waits) | somebody_waits;
    // Not woken by who comes, only by who leaves: one wait for a processor instead of two.
    const auto came = [&] { return (state & ~somebody_waits) / one_place < all / one_place; };
    bool in_time = true;
    while (in_time && (!came() || (state & inside_mask) != 0)) {
        in_time = sleep_while(slot.state, state, longest);
        state = slot.state.load();
    }
    slot.state.fetch_and(~somebody_waits);
    if (!came()) pool.do_not_wait_until_.store(now() + pause_after_that, std::memory_order_relaxed);
}

void ThreadPool::offer(Slot & slot, int index, int places, Call call, const void * context) {
    slot.call = call;
    slot.context = context;
    slot.state.store(static_cast<uint32_t>(places) * one_place, std::memory_order_release);
    open_.fetch_or(uint64_t{1} << index);
    // Who says that it sleeps looks once more after that, who offers looks after that who sleeps: one sees the other.
    const int n = n_workers();
    for (int i = 0, coming = 0; i < n && coming < places && may_help(i); ++i) {
        Worker & worker = *workers_[static_cast<size_t>(i)];
        uint32_t state = worker.state.load();
        if (state == Worker::asleep && worker.state.compare_exchange_strong(state, Worker::looking)) {
            wake(worker.state);
            ++coming;
        } else if (state == Worker::looking) {
            ++coming;
        }
    }
}

void ThreadPool::add_workers(int wanted) {
    if (n_workers() >= wanted) return;
    const std::unique_lock lock(making_, std::try_to_lock);
    if (!lock || now() < make_again_at_) return;
    const SignalsBlocked blocked;
    for (int i = n_workers(); i < wanted; ++i) {
        try {
            auto & worker = workers_[static_cast<size_t>(i)];
            if (!worker) worker = std::make_unique<Worker>();
            std::thread([this, i] { work(i); }).detach();
        } catch (const std::exception & error) {
            make_again_at_ = now() + 1'000'000'000;
            if (!warned_) {
                log(LORICA_LOG_WARN, "the system gives no more threads (", error.what(), "): computing on ", i + 1,
                    " instead of ", wanted + 1);
            }
            warned_ = true;
            return;
        }
        n_workers_.store(i + 1, std::memory_order_release);
    }
}

// So that callers and the threads that help them are not more than the processors.
bool ThreadPool::may_help(int index) const {
    return index + n_callers_.load(std::memory_order_relaxed) < capacity_.load(std::memory_order_relaxed);
}

bool ThreadPool::help(int index, Worker & self) {
    uint64_t open = open_.load();
    if (open == 0 || !may_help(index)) return false;
    // Others begin elsewhere, so that several callers get their share.
    const int turn = index % n_slots;
    for (open = std::rotr(open, turn); open != 0; open &= open - 1) {
        const int at = (std::countr_zero(open) + turn) % n_slots;
        Slot & slot = slots_[static_cast<size_t>(at)];
        uint32_t state = slot.state.load(std::memory_order_relaxed);
        while ((state & ~somebody_waits) >= one_place) {
            if (!slot.state.compare_exchange_weak(state, state - one_place + 1, std::memory_order_acquire)) continue;
            const uint32_t place = (state & ~somebody_waits) / one_place;
            if (place == 1) open_.fetch_and(~(uint64_t{1} << at));
            self.state.store(Worker::busy, std::memory_order_relaxed);
            call_in(slot, static_cast<int>(place));
            self.state.store(Worker::looking, std::memory_order_relaxed);
            const uint32_t before = slot.state.fetch_sub(1, std::memory_order_acq_rel);
            if ((before & (somebody_waits | inside_mask)) == (somebody_waits | 1)) wake(slot.state);
            return true;
        }
    }
    return false;
}

void ThreadPool::work(int index) {
    inside = true;
    use_all_processors();
    set_name();
    Worker & self = *workers_[static_cast<size_t>(index)];
    for (;;) {
        if (comes_soon([&] { return help(index, self); }, false)) continue;
        self.state.store(Worker::asleep);
        if (open_.load() != 0 && may_help(index)) {
            self.state.store(Worker::looking);
        } else {
            sleep_while(self.state, Worker::asleep);
        }
    }
}

}  // namespace lorica
