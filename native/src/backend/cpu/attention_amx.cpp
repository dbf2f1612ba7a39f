// The products of attention on AMX tiles. Tile numbers are fixed by hand: 0 to 3 sums, 4 and 5 A, 6 and 7 B.
#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/tiles.h"

namespace lorica::cpu {

#if defined(__x86_64__)

namespace {

constexpr int64_t row_bytes = panel_lanes * 4;

void two_rows(const char * a, int64_t a_stride, int64_t a_step, const uint32_t * b, float * c, int64_t steps,
              bool accumulate) {
    float * c1 = c + 16 * panel_lanes;
    if (accumulate) {
        load_tile<0>(c, row_bytes);
        load_tile<1>(c + 16, row_bytes);
        load_tile<2>(c1, row_bytes);
        load_tile<3>(c1 + 16, row_bytes);
    } else {
        zero_tile<0>();
        zero_tile<1>();
        zero_tile<2>();
        zero_tile<3>();
    }
    for (int64_t s = 0; s < steps; ++s, a += a_step, b += 16 * panel_lanes) {
        load_tile<6>(b, row_bytes);
        load_tile<4>(a, a_stride);
        load_tile<7>(b + 16, row_bytes);
        load_tile<5>(a + 16 * a_stride, a_stride);
        multiply_tiles<0, 4, 6>();
        multiply_tiles<1, 4, 7>();
        multiply_tiles<3, 5, 7>();
        multiply_tiles<2, 5, 6>();
    }
    store_tile<0>(c, row_bytes);
    store_tile<1>(c + 16, row_bytes);
    store_tile<2>(c1, row_bytes);
    store_tile<3>(c1 + 16, row_bytes);
}

void one_row(const char * a, int64_t a_stride, int64_t a_step, const uint32_t * b, float * c, int64_t steps,
             bool accumulate) {
    if (accumulate) {
        load_tile<0>(c, row_bytes);
        load_tile<1>(c + 16, row_bytes);
    } else {
        zero_tile<0>();
        zero_tile<1>();
    }
    for (int64_t s = 0; s < steps; ++s, a += a_step, b += 16 * panel_lanes) {
        load_tile<6>(b, row_bytes);
        load_tile<4>(a, a_stride);
        load_tile<7>(b + 16, row_bytes);
        multiply_tiles<0, 4, 6>();
        multiply_tiles<1, 4, 7>();
    }
    store_tile<0>(c, row_bytes);
    store_tile<1>(c + 16, row_bytes);
}

// Two steps: all of B stays in four tiles, and C is 0 and 1 or 2 and 3 in turns, A 2 or 3.
void two_steps(const char * a, int64_t a_stride, int64_t a_step, const uint32_t * b, float * c, int64_t rows,
               bool accumulate) {
    load_tile<4>(b, row_bytes);
    load_tile<5>(b + 16, row_bytes);
    load_tile<6>(b + 16 * panel_lanes, row_bytes);
    load_tile<7>(b + 16 * panel_lanes + 16, row_bytes);
    for (int64_t i = 0; i < rows; i += 16, a += 16 * a_stride, c += 16 * panel_lanes) {
        if (accumulate) {
            load_tile<0>(c, row_bytes);
            load_tile<1>(c + 16, row_bytes);
        } else {
            zero_tile<0>();
            zero_tile<1>();
        }
        load_tile<2>(a, a_stride);
        load_tile<3>(a + a_step, a_stride);
        multiply_tiles<0, 2, 4>();
        multiply_tiles<1, 2, 5>();
        multiply_tiles<0, 3, 6>();
        multiply_tiles<1, 3, 7>();
        store_tile<0>(c, row_bytes);
        store_tile<1>(c + 16, row_bytes);
    }
}

}  // namespace

void amx_multiply(const void * a, int64_t a_stride, int64_t a_step, const uint32_t * b, float * c, int64_t rows,
                  int64_t steps, bool accumulate) {
    const char * at = static_cast<const char *>(a);
    if (steps == 2) return two_steps(at, a_stride, a_step, b, c, rows, accumulate);
    int64_t i = 0;
    for (; i + 16 < rows; i += 32) {
        two_rows(at + i * a_stride, a_stride, a_step, b, c + i * panel_lanes, steps, accumulate);
    }
    if (i < rows) one_row(at + i * a_stride, a_stride, a_step, b, c + i * panel_lanes, steps, accumulate);
}

#else

void amx_multiply(const void *, int64_t, int64_t, const uint32_t *, float *, int64_t, int64_t, bool) {}

#endif

}  // namespace lorica::cpu
