// AMX: 2 x 2 tiles of 16 x 16 sums, fed by two tiles of A and two of B. Tile numbers are fixed by hand: 0 to 3 sums, 4
// and 5 A, 6 and 7 B.
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/tiles.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

namespace lorica::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t tile_bytes = 1024;

// Tiles wait for their cache lines one by one, 32 rows of A at 32 addresses that no hardware prefetcher follows: this
// pass asks for the lines of its share of rows of the block that comes next.
struct NextRows {
    const uint16_t * first;
    int64_t count, stride;

    void prefetch(int64_t k) const {
        for (int64_t r = 0; r < count; ++r)
            _mm_prefetch(reinterpret_cast<const char *>(first + r * stride + k), _MM_HINT_T1);
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

// Whether 32 rows of A stay in the first-level cache from one pair of groups to the next, if what is read of B leaves
// them there.
bool keeps_a(const KernelArgs & args) {
    constexpr int64_t room = 40 << 10;
    int64_t k = 0;
    for (const KernelSegment & segment : args.segments) k += segment.k;
    return 32 * k * 2 <= room;
}

// Two groups from `group` on. C stays in the tiles through all segments. B is streamed past the first-level
// cache, or through it.
template <bool StreamB> void two_groups(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
    float * c1 = c + 16 * args.ldc;
    if (args.accumulate) {
        load_tile<0>(c, c_stride);
        load_tile<1>(c + 16, c_stride);
        load_tile<2>(c1, c_stride);
        load_tile<3>(c1 + 16, c_stride);
    } else {
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        zero_tile<3>();
    }
    for (const KernelSegment & segment : args.segments) {
        const auto * a0 = static_cast<const uint16_t *>(segment.a);
        const uint16_t * a1 = a0 + 16 * segment.lda;
        const int64_t a_stride = segment.lda * 2;
        const char * b0 = group_of(segment, group);
        const char * b1 = group_of(segment, group + 1);
        const NextRows next = next_rows(segment, group / 2, (args.all_groups + 1) / 2);
        for (int64_t k = 0; k < segment.k; k += 32, b0 += tile_bytes, b1 += tile_bytes) {
            if constexpr (StreamB) {
                stream_tile<6>(b0, 64);
                load_tile<4>(a0 + k, a_stride);
                stream_tile<7>(b1, 64);
            } else {
                load_tile<6>(b0, 64);
                load_tile<4>(a0 + k, a_stride);
                load_tile<7>(b1, 64);
            }
            load_tile<5>(a1 + k, a_stride);
            multiply_tiles<0, 4, 6>();
            next.prefetch(k);
            multiply_tiles<1, 4, 7>();
            multiply_tiles<3, 5, 7>();
            multiply_tiles<2, 5, 6>();
        }
    }
    store_tile<0>(c, c_stride);
    store_tile<1>(c + 16, c_stride);
    store_tile<2>(c1, c_stride);
    store_tile<3>(c1 + 16, c_stride);
}

void one_group(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
    float * c1 = c + 16 * args.ldc;
    if (args.accumulate) {
        load_tile<0>(c, c_stride);
        load_tile<2>(c1, c_stride);
    } else {
        zero_tile<0>();
        zero_tile<2>();
    }
    for (const KernelSegment & segment : args.segments) {
        const auto * a0 = static_cast<const uint16_t *>(segment.a);
        const uint16_t * a1 = a0 + 16 * segment.lda;
        const int64_t a_stride = segment.lda * 2;
        const char * b = group_of(segment, group);
        for (int64_t k = 0; k < segment.k; k += 32, b += tile_bytes) {
            load_tile<6>(b, 64);
            load_tile<4>(a0 + k, a_stride);
            load_tile<5>(a1 + k, a_stride);
            multiply_tiles<0, 4, 6>();
            multiply_tiles<2, 5, 6>();
        }
    }
    store_tile<0>(c, c_stride);
    store_tile<2>(c1, c_stride);
}

// Four groups for at most 16 rows, as the gradients of a LoRA have them: one tile of A, and no work on rows that are
// not there.
void four_groups_of_16_rows(const KernelArgs & args, int64_t group, float * c) {
    const int64_t c_stride = args.ldc * 4;
    if (args.accumulate) {
        load_tile<0>(c, c_stride);
        load_tile<1>(c + 16, c_stride);
        load_tile<2>(c + 32, c_stride);
        load_tile<3>(c + 48, c_stride);
    } else {
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        zero_tile<3>();
    }
    for (const KernelSegment & segment : args.segments) {
        const auto * a = static_cast<const uint16_t *>(segment.a);
        const int64_t a_stride = segment.lda * 2, b_stride = segment.group_stride * 2;
        const char * b = group_of(segment, group);
        for (int64_t k = 0; k < segment.k; k += 32, b += tile_bytes) {
            load_tile<4>(a + k, a_stride);
            load_tile<5>(b, 64);
            multiply_tiles<0, 4, 5>();
            load_tile<6>(b + b_stride, 64);
            multiply_tiles<1, 4, 6>();
            load_tile<7>(b + 2 * b_stride, 64);
            multiply_tiles<2, 4, 7>();
            load_tile<5>(b + 3 * b_stride, 64);
            multiply_tiles<3, 4, 5>();
        }
    }
    store_tile<0>(c, c_stride);
    store_tile<1>(c + 16, c_stride);
    store_tile<2>(c + 32, c_stride);
    store_tile<3>(c + 48, c_stride);
}

#define LORICA_AVX512_BF16 "avx512f,avx512bw,avx512vl,avx512bf16"

// The first n of 64.
inline uint64_t first_bits(int64_t n) { return n >= 64 ? ~uint64_t{0} : (uint64_t{1} << n) - 1; }

// Rows of a bf16 matrix: half a row is 32 columns.
struct PlainRows {
    explicit PlainRows(const NarrowArgs & args)
        : b(static_cast<const uint16_t *>(args.b)), stride(args.ldb), mask(first_bits(args.columns)) {}

    __attribute__((target(LORICA_AVX512_BF16))) __m512i half(int64_t row, int h) const {
        return _mm512_maskz_loadu_epi16(static_cast<__mmask32>(mask >> (32 * h)), b + row * stride + 32 * h);
    }
    void fetch(int64_t row) const {
        for (int line = 0; line < 2; ++line)
            _mm_prefetch(reinterpret_cast<const char *>(b + row * stride + 32 * line), _MM_HINT_T1);
    }

    const uint16_t * b;
    int64_t stride;
    uint64_t mask;
};

// The same of what rmsnorm makes of an f32 matrix.
struct NormedRows {
    explicit NormedRows(const NarrowArgs & args)
        : x(static_cast<const float *>(args.b)),
          scales(args.row_scales),
          scale_stride(args.row_scale_stride),
          stride(args.ldb),
          mask(first_bits(args.columns)) {
        for (int64_t c = 0; c < narrow_columns; ++c) weight[c] = c < args.columns ? args.column_scales[c] : 0;
    }

    __attribute__((target(LORICA_AVX512_BF16))) __m512i half(int64_t row, int h) const {
        const __m512 scale = _mm512_set1_ps(scales[row * scale_stride]);
        const auto sixteen = [&](int i) __attribute__((target(LORICA_AVX512_BF16))) {
            const __m512 values =
                _mm512_maskz_loadu_ps(static_cast<__mmask16>(mask >> (16 * i)), x + row * stride + 16 * i);
            return _mm512_mul_ps(_mm512_mul_ps(values, scale), _mm512_load_ps(weight + 16 * i));
        };
        return (__m512i)_mm512_cvtne2ps_pbh(sixteen(2 * h + 1), sixteen(2 * h));
    }
    void fetch(int64_t row) const {
        for (int line = 0; line < 4; ++line)
            _mm_prefetch(reinterpret_cast<const char *>(x + row * stride + 16 * line), _MM_HINT_T1);
    }

    const float * x;
    const float * scales;
    int64_t scale_stride, stride;
    uint64_t mask;
    alignas(64) float weight[narrow_columns];
};

// Two rows of B, 32 columns or 64 from half `first` on, as pairs in groups. Words are interleaved within each 128 bits,
// which leaves a group's columns in the order of slot_column().
template <int Halves, typename Rows>
__attribute__((target(LORICA_AVX512_BF16))) inline void pack_pair(const Rows & rows, int64_t row, bool has_odd,
                                                                  int first, char * to) {
    for (int h = first; h < first + Halves; ++h, to += 2 * tile_bytes) {
        const __m512i even = rows.half(row, h), odd = has_odd ? rows.half(row + 1, h) : _mm512_setzero_si512();
        _mm512_store_si512(to, _mm512_unpacklo_epi16(even, odd));
        _mm512_store_si512(to + tile_bytes, _mm512_unpackhi_epi16(even, odd));
    }
}

// The first column of four that lie together in a group that pack_pair has made.
constexpr int64_t slot_column(int64_t group, int64_t four) { return group / 2 * 32 + four * 8 + group % 2 * 4; }

// Rows of B this far ahead are on their way to the second-level cache.
constexpr int64_t rows_ahead = 64;

template <int Halves, typename Rows>
__attribute__((target(LORICA_AVX512_BF16))) void pack_step(const Rows & rows, int64_t all, int64_t k0, int first,
                                                           char * to) {
    const int64_t n = all - k0 < 32 ? all - k0 : 32;
    if (first == 0 && k0 + rows_ahead + 32 <= all) {
        for (int64_t r = k0 + rows_ahead; r < k0 + rows_ahead + 32; ++r) rows.fetch(r);
    }
    for (int64_t r = 0; r < n; r += 2, to += 64) pack_pair<Halves>(rows, k0 + r, r + 1 < n, first, to);
    for (int64_t r = (n + 1) / 2; r < 16; ++r, to += 64) {
        for (int64_t group = 0; group < 2 * Halves; ++group)
            _mm512_store_si512(to + group * tile_bytes, _mm512_setzero_si512());
    }
}

void put_group(const float (&sums)[16][16], int64_t group, float * c) {
    for (int64_t four = 0; four < 4; ++four) {
        float * to = c + slot_column(group, four);
        for (int64_t i = 0; i < 16; ++i) _mm_storeu_ps(to + i * narrow_columns, _mm_load_ps(&sums[i][4 * four]));
    }
}

template <typename Rows>
__attribute__((target(LORICA_AVX512_BF16))) void narrow_product(const NarrowArgs & args, const Rows & rows) {
    alignas(64) char packed[2][4 * tile_bytes];
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    pack_step<2>(rows, args.k, 0, 0, packed[0]);
    const uint16_t * a = args.a[0];
    for (int64_t k = 0, at = 0; k < args.k; k += 32, at ^= 1, a += tile_bytes / 2) {
        if (k + 32 < args.k) pack_step<2>(rows, args.k, k + 32, 0, packed[at ^ 1]);
        const char * b = packed[at];
        load_tile<4>(a, 64);
        load_tile<5>(b, 64);
        multiply_tiles<0, 4, 5>();
        load_tile<6>(b + tile_bytes, 64);
        multiply_tiles<1, 4, 6>();
        load_tile<7>(b + 2 * tile_bytes, 64);
        multiply_tiles<2, 4, 7>();
        load_tile<5>(b + 3 * tile_bytes, 64);
        multiply_tiles<3, 4, 5>();
    }
    alignas(64) float sums[4][16][16];
    store_tile<0>(sums[0], 64);
    store_tile<1>(sums[1], 64);
    store_tile<2>(sums[2], 64);
    store_tile<3>(sums[3], 64);
    for (int64_t group = 0; group < 4; ++group) put_group(sums[group], group, args.c);
}

// Several A: B is packed once for all of them, 32 columns at a time, so that their sums stay in tiles.
template <int Sides, typename Rows>
__attribute__((target(LORICA_AVX512_BF16))) void narrow_products(const NarrowArgs & args, const Rows & rows, int half) {
    alignas(64) char packed[2][2 * tile_bytes];
    zero_tile<0>();
    zero_tile<1>();
    zero_tile<2>();
    zero_tile<3>();
    zero_tile<4>();
    zero_tile<5>();
    pack_step<1>(rows, args.k, 0, half, packed[0]);
    for (int64_t k = 0, at = 0; k < args.k; k += 32, at ^= 1) {
        if (k + 32 < args.k) pack_step<1>(rows, args.k, k + 32, half, packed[at ^ 1]);
        const char *b0 = packed[at], *b1 = b0 + tile_bytes;
        const int64_t tile = k * 16;
        load_tile<6>(args.a[0] + tile, 64);
        load_tile<7>(b0, 64);
        multiply_tiles<0, 6, 7>();
        load_tile<7>(b1, 64);
        multiply_tiles<1, 6, 7>();
        load_tile<6>(args.a[1] + tile, 64);
        multiply_tiles<3, 6, 7>();
        load_tile<7>(b0, 64);
        multiply_tiles<2, 6, 7>();
        if constexpr (Sides == 3) {
            load_tile<6>(args.a[2] + tile, 64);
            multiply_tiles<4, 6, 7>();
            load_tile<7>(b1, 64);
            multiply_tiles<5, 6, 7>();
        }
    }
    alignas(64) float sums[2 * narrow_sides][16][16];
    store_tile<0>(sums[0], 64);
    store_tile<1>(sums[1], 64);
    store_tile<2>(sums[2], 64);
    store_tile<3>(sums[3], 64);
    store_tile<4>(sums[4], 64);
    store_tile<5>(sums[5], 64);
    for (int64_t i = 0; i < 2 * Sides; ++i) put_group(sums[i], 2 * half + i % 2, args.c + i / 2 * 16 * narrow_columns);
}

template <typename Rows> void narrow_products(const NarrowArgs & args, const Rows & rows) {
    if (args.sides == 1) return narrow_product(args, rows);
    const auto half = args.sides == 2 ? narrow_products<2, Rows> : narrow_products<3, Rows>;
    half(args, rows, 0);
    half(args, rows, 1);
}

}  // namespace

void narrow_product_amx(const NarrowArgs & args) {
    if (args.row_scales) {
        narrow_products(args, NormedRows(args));
    } else {
        narrow_products(args, PlainRows(args));
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
