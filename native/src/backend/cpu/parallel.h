// Elementwise work on several threads. An element's arithmetic never depends on who does it.
#pragma once

#include <algorithm>
#include <cstdint>

#include "common/thread_pool.h"

namespace lorica::cpu {

// Calls f(begin, end) over a partition of [0, n); begins are multiples of `grain`. Work of fewer than about 2^14
// elements (n * elements_per_item) stays on the calling thread, where it is done before others would have come. Of
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
    parallel_tasks(pieces, threads, [&](int, int64_t piece) {
        const int64_t begin = grains * piece / pieces * grain, end = std::min(n, grains * (piece + 1) / pieces * grain);
        if (begin < end) f(begin, end);
    });
}

}  // namespace lorica::cpu
