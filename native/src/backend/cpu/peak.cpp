#include "backend/cpu/peak.h"

#include <algorithm>
#include <chrono>
#include <mutex>
#include <vector>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/parallel.h"

namespace lorica::cpu {

double measure_peak(GemmPrecision precision, int n_threads) {
    constexpr int64_t k = 128, groups = 2, times = 16;  // A and B take 8 KiB each in bf16
    constexpr double operations = 2.0 * block_m * k * groups * group_n * times;
    constexpr auto duration = std::chrono::milliseconds(4);
    const bool bf16 = precision == GemmPrecision::bf16, amx = bf16 && has_amx_bf16();
    const auto kernel = !bf16 ? kernel_f32_simd : amx ? kernel_bf16_amx : kernel_bf16_simd;

    double best = 0;
    for (int repetition = 0; repetition < 5; ++repetition) {
        std::mutex mutex;
        double sum = 0;
        parallel(n_threads, [&](int) {
            // Zeros: what is multiplied does not matter, and nothing overflows.
            alignas(64) float a[block_m * k] = {}, b[groups * group_n * k] = {}, c[block_m * groups * group_n];
            const std::vector<KernelSegment> segments(times, {a, k, b, k * group_n, k, nullptr});
            if (amx) amx_configure_thread();
            int64_t calls = 0;
            const auto begin = std::chrono::steady_clock::now();
            auto end = begin;
            for (; end - begin < duration; end = std::chrono::steady_clock::now(), ++calls) {
                kernel({segments, 0, groups, groups, block_m, c, groups * group_n, false});
            }
            if (amx) amx_release_thread();
            const double seconds = std::chrono::duration<double>(end - begin).count();
            const std::lock_guard lock(mutex);
            sum += static_cast<double>(calls) * operations / seconds;
        });
        best = std::max(best, sum);
    }
    return best;
}

}  // namespace lorica::cpu
