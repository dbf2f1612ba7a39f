#include "backend/cpu/parallel.h"

#include <hwy/cache_control.h>

#include <exception>
#include <thread>

namespace lorica::cpu {

namespace {

thread_local Team * current_team = nullptr;

// Another thread is rarely farther away than a few microseconds, unless it has lost its core: then ours may be the one
// that it waits for.
template <typename Done> void wait_until(const Done & done) {
    constexpr int spins = 2000;
    for (int i = 0; !done(); ++i) {
        if (i < spins) {
            hwy::Pause();
        } else {
            std::this_thread::yield();
        }
    }
}

}  // namespace

Team * Team::current() { return current_team; }

void Team::together(int n_threads, const std::function<void()> & work) {
    if (n_threads <= 1 || current_team) return work();
    Team team;
    std::exception_ptr error;
#pragma omp parallel num_threads(n_threads)
    {
        if (omp_get_thread_num() == 0) {
            team.size_ = omp_get_num_threads();
            current_team = &team;
            try {
                work();
            } catch (...) {
                error = std::current_exception();
            }
            current_team = nullptr;
            team.over_ = true;
            team.turn_.fetch_add(1, std::memory_order_release);
        } else {
            team.serve(omp_get_thread_num());
        }
    }
    if (error) std::rethrow_exception(error);
}

void Team::run_call(int active) {
    active_ = active;
    busy_.store(size_ - 1, std::memory_order_relaxed);
    turn_.fetch_add(1, std::memory_order_release);
    call_(context_, 0, active);
    wait_until([&] { return busy_.load(std::memory_order_acquire) == 0; });
}

void Team::serve(int rank) {
    for (uint32_t turn = 1;; ++turn) {
        wait_until([&] { return turn_.load(std::memory_order_acquire) == turn; });
        if (over_) return;
        if (rank < active_) call_(context_, rank, active_);
        busy_.fetch_sub(1, std::memory_order_release);
    }
}

}  // namespace lorica::cpu
