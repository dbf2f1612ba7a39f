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

#define LORICA_AMX_AND_VECTORS "amx-tile,amx-bf16,avx512f,avx512bw,avx512vl"

// Two rows of B, 64 columns from `b` on, as pairs in four groups. Words are interleaved within each 128 bits, which leaves a
// group's columns in the order of slot_column().
__attribute__((target(LORICA_AMX_AND_VECTORS))) inline void pack_pair(const uint16_t * even, const uint16_t * odd, __mmask32 low, __mmask32 high,
                                                                      char * to) {
    const __m512i e0 = _mm512_maskz_loadu_epi16(low, even), o0 = odd ? _mm512_maskz_loadu_epi16(low, odd) : _mm512_setzero_si512();
    const __m512i e1 = _mm512_maskz_loadu_epi16(high, even + 32), o1 = odd ? _mm512_maskz_loadu_epi16(high, odd + 32) : _mm512_setzero_si512();
    _mm512_store_si512(to, _mm512_unpacklo_epi16(e0, o0));
    _mm512_store_si512(to + tile_bytes, _mm512_unpackhi_epi16(e0, o0));
    _mm512_store_si512(to + 2 * tile_bytes, _mm512_unpacklo_epi16(e1, o1));
    _mm512_store_si512(to + 3 * tile_bytes, _mm512_unpackhi_epi16(e1, o1));
}

// The first column of four that lie together in a group that pack_pair has made.
constexpr int64_t slot_column(int64_t group, int64_t four) { return group / 2 * 32 + four * 8 + group % 2 * 4; }

// Rows of B this far ahead are on their way to the second-level cache.
constexpr int64_t rows_ahead = 64;

__attribute__((target(LORICA_AMX_AND_VECTORS))) void pack_step(const NarrowArgs & args, int64_t k0, __mmask32 low, __mmask32 high, char * to) {
    const int64_t n = args.k - k0 < 32 ? args.k - k0 : 32;
    const uint16_t * b = args.b + k0 * args.ldb;
    if (k0 + rows_ahead + 32 <= args.k) {
        const uint16_t * ahead = b + rows_ahead * args.ldb;
        for (int64_t r = 0; r < 32; ++r, ahead += args.ldb) {
            _mm_prefetch(reinterpret_cast<const char *>(ahead), _MM_HINT_T1);
            _mm_prefetch(reinterpret_cast<const char *>(ahead + 32), _MM_HINT_T1);
        }
    }
    for (int64_t r = 0; r < n; r += 2, b += 2 * args.ldb, to += 64) pack_pair(b, r + 1 < n ? b + args.ldb : nullptr, low, high, to);
    for (int64_t r = (n + 1) / 2; r < 16; ++r, to += 64) {
        for (int64_t group = 0; group < 4; ++group) _mm512_store_si512(to + group * tile_bytes, _mm512_setzero_si512());
    }
}

}  // namespace

__attribute__((target(LORICA_AMX_AND_VECTORS))) void narrow_product_amx(const NarrowArgs & args) {
    alignas(64) char packed[2][4 * tile_bytes];
    const auto mask = [](int64_t n) { return n >= 32 ? ~__mmask32{0} : n <= 0 ? __mmask32{0} : static_cast<__mmask32>((1u << n) - 1); };
    const __mmask32 low = mask(args.columns), high = mask(args.columns - 32);
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
    pack_step(args, 0, low, high, packed[0]);
    const uint16_t * a = args.a;
    for (int64_t k = 0, at = 0; k < args.k; k += 32, at ^= 1, a += tile_bytes / 2) {
        if (k + 32 < args.k) pack_step(args, k + 32, low, high, packed[at ^ 1]);
        const char * b = packed[at];
        _tile_loadd(4, a, 64);
        _tile_loadd(5, b, 64);
        _tile_dpbf16ps(0, 4, 5);
        _tile_loadd(6, b + tile_bytes, 64);
        _tile_dpbf16ps(1, 4, 6);
        _tile_loadd(7, b + 2 * tile_bytes, 64);
        _tile_dpbf16ps(2, 4, 7);
        _tile_loadd(5, b + 3 * tile_bytes, 64);
        _tile_dpbf16ps(3, 4, 5);
    }
    alignas(64) float sums[4][16][16];
    _tile_stored(0, sums[0], 64);
    _tile_stored(1, sums[1], 64);
    _tile_stored(2, sums[2], 64);
    _tile_stored(3, sums[3], 64);
    for (int64_t group = 0; group < 4; ++group) {
        for (int64_t four = 0; four < 4; ++four) {
            float * c = args.c + slot_column(group, four);
            for (int64_t i = 0; i < 16; ++i) _mm_storeu_ps(c + i * narrow_columns, _mm_load_ps(&sums[group][i][4 * four]));
        }
    }
}

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

// Never called: has_amx_bf16() is false.
void kernel_bf16_amx(const KernelArgs &) {}
void narrow_product_amx(const NarrowArgs &) {}

#endif

}  // namespace lorica::cpu
