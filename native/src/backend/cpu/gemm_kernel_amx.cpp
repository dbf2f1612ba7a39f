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

NextRows next_rows(const KernelSegment & segment, int64_t pass, int64_t passes) {
    if (!segment.next_a) return {nullptr, 0, 0};
    const int64_t first = 32 * pass / passes, end = 32 * (pass + 1) / passes;
    return {static_cast<const uint16_t *>(segment.next_a) + first * segment.lda, end - first, segment.lda};
}

const char * group_of(const KernelSegment & segment, int64_t group) {
    return reinterpret_cast<const char *>(static_cast<const uint16_t *>(segment.panel) + group * segment.group_stride);
}

// Whether 32 rows of A stay in the first-level cache from one pair of groups to the next, if what is read of B leaves them there.
bool keeps_a(const KernelArgs & args) {
    constexpr int64_t room = 40 << 10;
    int64_t k = 0;
    for (const KernelSegment & segment : args.segments) k += segment.k;
    return 32 * k * 2 <= room;
}

// Two groups from `group` on. C stays in the tiles through all segments. B is streamed past the first-level
// cache, or through it.
template <bool StreamB>
__attribute__((target("amx-tile,amx-bf16"))) void two_groups(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
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
    for (const KernelSegment & segment : args.segments) {
        const auto * a0 = static_cast<const uint16_t *>(segment.a);
        const uint16_t * a1 = a0 + 16 * segment.lda;
        const int64_t a_stride = segment.lda * 2;
        const char * b0 = group_of(segment, group);
        const char * b1 = group_of(segment, group + 1);
        const NextRows next = next_rows(segment, group / 2, (args.all_groups + 1) / 2);
        for (int64_t k = 0; k < segment.k; k += 32, b0 += tile_bytes, b1 += tile_bytes) {
            next.prefetch(k);
            _tile_loadd(4, a0 + k, a_stride);
            if constexpr (StreamB) {
                _tile_stream_loadd(6, b0, 64);
                _tile_stream_loadd(7, b1, 64);
            } else {
                _tile_loadd(6, b0, 64);
                _tile_loadd(7, b1, 64);
            }
            _tile_dpbf16ps(0, 4, 6);
            _tile_loadd(5, a1 + k, a_stride);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + 16, c_stride);
    _tile_stored(2, c1, c_stride);
    _tile_stored(3, c1 + 16, c_stride);
}

__attribute__((target("amx-tile,amx-bf16"))) void one_group(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
    float * c1 = c + 16 * args.ldc;
    if (args.accumulate) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(2, c1, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(2);
    }
    for (const KernelSegment & segment : args.segments) {
        const auto * a0 = static_cast<const uint16_t *>(segment.a);
        const uint16_t * a1 = a0 + 16 * segment.lda;
        const int64_t a_stride = segment.lda * 2;
        const char * b = group_of(segment, group);
        for (int64_t k = 0; k < segment.k; k += 32, b += tile_bytes) {
            _tile_loadd(6, b, 64);
            _tile_loadd(4, a0 + k, a_stride);
            _tile_loadd(5, a1 + k, a_stride);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(2, 5, 6);
        }
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(2, c1, c_stride);
}

// Four groups for at most 16 rows, as the gradients of a LoRA have them: one tile of A, and no work on rows that are not there.
__attribute__((target("amx-tile,amx-bf16"))) void four_groups_of_16_rows(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
    if (args.accumulate) {
        _tile_loadd(0, c, c_stride);
        _tile_loadd(1, c + 16, c_stride);
        _tile_loadd(2, c + 32, c_stride);
        _tile_loadd(3, c + 48, c_stride);
    } else {
        _tile_zero(0);
        _tile_zero(1);
        _tile_zero(2);
        _tile_zero(3);
    }
    for (const KernelSegment & segment : args.segments) {
        const auto * a = static_cast<const uint16_t *>(segment.a);
        const int64_t a_stride = segment.lda * 2, b_stride = segment.group_stride * 2;
        const char * b = group_of(segment, group);
        for (int64_t k = 0; k < segment.k; k += 32, b += tile_bytes) {
            _tile_loadd(4, a + k, a_stride);
            _tile_loadd(5, b, 64);
            _tile_dpbf16ps(0, 4, 5);
            _tile_loadd(6, b + b_stride, 64);
            _tile_dpbf16ps(1, 4, 6);
            _tile_loadd(7, b + 2 * b_stride, 64);
            _tile_dpbf16ps(2, 4, 7);
            _tile_loadd(5, b + 3 * b_stride, 64);
            _tile_dpbf16ps(3, 4, 5);
        }
    }
    _tile_stored(0, c, c_stride);
    _tile_stored(1, c + 16, c_stride);
    _tile_stored(2, c + 32, c_stride);
    _tile_stored(3, c + 48, c_stride);
}

}  // namespace

void kernel_bf16_amx(const KernelArgs & args) {
    int64_t g = 0;
    if (args.rows <= 16) {
        for (; g + 4 <= args.groups; g += 4) four_groups_of_16_rows(args, args.first_group + g, args.c + g * 16);
    }
    const auto two = keeps_a(args) ? two_groups<true> : two_groups<false>;
    for (; g + 2 <= args.groups; g += 2) two(args, args.first_group + g, args.c + g * 16);
    if (g < args.groups) one_group(args, args.first_group + g, args.c + g * 16);
}

#else

void kernel_bf16_amx(const KernelArgs &) {}  // never called: has_amx_bf16() is false

#endif

}  // namespace lorica::cpu
