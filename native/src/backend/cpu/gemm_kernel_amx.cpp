// AMX: 2 x 2 tiles of 16 x 16 sums, fed by two tiles of A and two of B. Tile numbers are fixed by hand: 0 to 3 sums, 4 and 5 A,
// 6 and 7 B.
#include "backend/cpu/gemm_kernels.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lorica::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t tile_bytes = 1024;

// Tiles wait for their cache lines one by one, 32 rows of A at 32 addresses that no hardware prefetcher follows: this pass asks for the
// lines of its share of rows of the block that comes next.
struct NextRows {
    const uint16_t * first;
    int64_t count, stride;

    void prefetch(int64_t k) const {
        for (int64_t r = 0; r < count; ++r) _mm_prefetch(reinterpret_cast<const char *>(first + r * stride + k), _MM_HINT_T1);
    }
};

NextRows next_rows(const KernelArgs & args, int64_t pass, int64_t passes) {
    if (!args.next_a) return {nullptr, 0, 0};
    const int64_t first = 32 * pass / passes, end = 32 * (pass + 1) / passes;
    return {static_cast<const uint16_t *>(args.next_a) + first * args.lda, end - first, args.lda};
}

__attribute__((target("amx-tile,amx-bf16"))) void two_groups(const KernelArgs & args, const std::uint16_t * panel0,
                                                             const std::uint16_t * panel1, float * c, const NextRows & next) {
    const auto * a0 = static_cast<const uint16_t *>(args.a);
    const uint16_t * a1 = a0 + 16 * args.lda;
    const int64_t a_stride = args.lda * 2, c_stride = args.ldc * 4;
    float * c1 = c + 16 * args.ldc;
    if (args.accumulate) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(1, c + 16, c_stride);
        _tile_loadd(2, c1, c_stride);
        _tile_loadd(3, c1 + 16, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    const char * b0 = reinterpret_cast<const char *>(panel0);
    const char * b1 = reinterpret_cast<const char *>(panel1);
    for (int64_t k = 0; k < args.k; k += 32, b0 += tile_bytes, b1 += tile_bytes) {
        next.prefetch(k);
        _tile_loadd(4, a0 + k, a_stride);
        _tile_loadd(6, b0, 64);
        _tile_loadd(7, b1, 64);
        _tile_dpbf16ps(0, 4, 6);
        _tile_loadd(5, a1 + k, a_stride);
        _tile_dpbf16ps(1, 4, 7);
        _tile_dpbf16ps(2, 5, 6);
        _tile_dpbf16ps(3, 5, 7);
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + 16, c_stride);
    _tile_stored(2, c1, c_stride);
    _tile_stored(3, c1 + 16, c_stride);
}

__attribute__((target("amx-tile,amx-bf16"))) void one_group(const KernelArgs & args, const std::uint16_t * panel, float * c) {
    const auto * a0 = static_cast<const uint16_t *>(args.a);
    const uint16_t * a1 = a0 + 16 * args.lda;
    const int64_t a_stride = args.lda * 2, c_stride = args.ldc * 4;
    float * c1 = c + 16 * args.ldc;
    if (args.accumulate) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(2, c1, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(2);
    }
    const char * b = reinterpret_cast<const char *>(panel);
    for (int64_t k = 0; k < args.k; k += 32, b += tile_bytes) {
        _tile_loadd(6, b, 64);
        _tile_loadd(4, a0 + k, a_stride);
        _tile_loadd(5, a1 + k, a_stride);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(2, 5, 6);
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(2, c1, c_stride);
}

}  // namespace

void kernel_bf16_amx(const KernelArgs & args) {
    const auto * panel = static_cast<const uint16_t *>(args.panel);
    const int64_t pairs = args.groups / 2;
    int64_t g = 0;
    for (; g + 2 <= args.groups; g += 2) {
        two_groups(args, panel + g * args.group_stride, panel + (g + 1) * args.group_stride, args.c + g * 16,
                   next_rows(args, g / 2, pairs));
    }
    if (g < args.groups) one_group(args, panel + g * args.group_stride, args.c + g * 16);
}

#else

void kernel_bf16_amx(const KernelArgs &) {}  // never called: has_amx_bf16() is false

#endif

}  // namespace lorica::cpu
