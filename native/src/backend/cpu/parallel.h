// Threads for elementwise work: OpenMP over contiguous ranges. An element's arithmetic never depends on its range.
#pragma once

#include <omp.h>

#include <algorithm>
#include <cstdint>

namespace lorica::cpu {

// Calls f(begin, end) over a partition of [0, n); begins are multiples of `grain`. Work of fewer than about 2^14
// elements (n * elements_per_item) stays on the calling thread, where it is done before others would have woken up.
template <typename F>
void parallel_ranges(int64_t n, int64_t elements_per_item, int n_threads, const F & f, int64_t grain = 1) {
    constexpr int64_t elements_per_thread = int64_t{1} << 14;
    const int64_t useful = n * std::max<int64_t>(elements_per_item, 1) / elements_per_thread;
    const int threads = static_cast<int>(std::clamp<int64_t>(useful, 1, std::max(n_threads, 1)));
    if (threads == 1) {
        if (n > 0) f(int64_t{0}, n);
        return;
    }
#pragma omp parallel num_threads(threads)
    {
        const int64_t team = omp_get_num_threads(), rank = omp_get_thread_num();
        const int64_t grains = (n + grain - 1) / grain;
        const int64_t begin = grains * rank / team * grain, end = std::min(n, grains * (rank + 1) / team * grain);
        if (begin < end) f(begin, end);
    }
}

}  // namespace lorica::cpu
