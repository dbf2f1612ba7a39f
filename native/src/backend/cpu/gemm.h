// Matrix products with a frozen or trainable right-hand side, C[m, n] = sum over terms of A_t[m, k_t] B_t[k_t, n].
//
// B is never expanded whole: a panel of at most panel_cells of it is dequantized and packed into cache-resident scratch
// memory, multiplied with all rows of A, and forgotten. B may be read by rows (y = x W^T) or by columns (dx = dy W) of
// the same stored blocks, so that forward and backward see identical numbers. Terms with different A and B that add
// into one C (a quantized product and its LoRA, or dx over q, k and v) run as one reduction, and C is written once.
//
// Every element of C is summed by one thread in an order that depends on nothing but the shapes.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "backend/backend.h"

namespace lorica::cpu {

constexpr int64_t panel_n = 576;  // columns of a panel at most: A is read from memory once per panel, so wide is good
constexpr int64_t staged_panel_n = 288;      // the same where sums take several stages, and are kept between them
constexpr int64_t panel_k = 4096;            // rows of a panel at most
constexpr int64_t panel_cells = 2048 * 256;  // 1 MiB in bf16, half of a current core's L2 cache
constexpr int64_t group_n = 16;              // columns that a kernel treats as one vector
constexpr int64_t block_m = 32;              // rows of A and C that a kernel call covers
constexpr int64_t chunk_m = 2048;            // rows of A that a task covers at most

// The stored matrix P[rows, cols] behind B.
struct GemmB {
    ggml_type type = GGML_TYPE_F32;
    const std::byte * data = nullptr;
    size_t row_bytes = 0;
    int64_t rows = 0, cols = 0;
    bool by_rows = true;  // B[k, n] = scale P[n, k]; else B[k, n] = scale P[k, n]
    float scale = 1;

    static GemmB weight(const Weight & w, bool by_rows) {
        return {w.type, w.data, w.row_bytes, w.out, w.in, by_rows, 1};
    }
    static GemmB matrix(const Matrix & x, bool by_rows, float scale = 1);
    static GemmB f32(const void * data, int64_t rows, int64_t cols, bool by_rows, float scale = 1);
};

struct GemmTerm {
    Matrix a;  // [m, k], f32 or bf16
    GemmB b;
};

constexpr int64_t softmax_columns = 32;

// A softmax over the rows of C that is never there as a whole: y = e^(C - reference), with the sums of softmax_columns
// elements each. The caller divides. Elements are at most 2^127: a sum that comes near it, or is hardly anything, asks
// for another reference.
struct GemmSoftmax {
    const float * reference;  // [m]; null: instead of sums the largest elements are wanted, and no y
    float * sums;             // [n / softmax_columns, rounded up][m]
    int32_t n_labels;         // of each row
    const int32_t * labels;   // [m, n_labels], a column each; those of a row ascend
    float * label_logits;     // [m, n_labels]: C at the label
    // C stands for what these make of it; y is then multiplied by the slope of the cap.
    LogitSpec logits = {};
};

// What becomes of C.
struct GemmOutput {
    Matrix y;                               // [m, n] f32 or bf16: y = C, or
    Matrix residual;                        // y = residual + C (f32; may be y itself)
    bool transposed = false;                // y is [n, m] instead, f32, and y += C^T (residual unused)
    const GemmSoftmax * softmax = nullptr;  // y, if there is one, are its numerators (residual unused)
    const float * bias = nullptr;           // [n], added to each row of y
    bool accumulate = false;                // y += C, in either format; not when transposed
};

struct GemmJob {
    std::vector<GemmTerm> terms;
    int64_t m = 0, n = 0;
    GemmOutput out;
};

// Bump allocation out of the memory that CpuBackend::reserve made. Grows only when a shape outside the reservation
// comes up.
class Scratch {
public:
    void reserve(size_t n_bytes);
    size_t capacity() const { return block_.size() + overflow_bytes_; }
    void * take(size_t n_bytes);  // 64-byte aligned, not cleared; valid until the enclosing mark is released
    template <typename T> T * take_as(int64_t n) { return static_cast<T *>(take(static_cast<size_t>(n) * sizeof(T))); }

    class Mark {
    public:
        explicit Mark(Scratch & scratch) : scratch_(scratch), used_(scratch.used_) {}
        ~Mark() { scratch_.release_to(used_); }
        Mark(const Mark &) = delete;
        Mark & operator=(const Mark &) = delete;

    private:
        Scratch & scratch_;
        size_t used_;
    };

private:
    struct Aligned {
        explicit Aligned(size_t n);
        ~Aligned();
        Aligned(Aligned && o) noexcept : data(o.data), bytes(o.bytes) {
            o.data = nullptr;
            o.bytes = 0;
        }
        Aligned & operator=(Aligned && o) noexcept;
        size_t size() const { return bytes; }
        std::byte * data = nullptr;
        size_t bytes = 0;
    };
    void release_to(size_t used);

    Aligned block_{0};
    std::vector<Aligned> overflow_;
    size_t overflow_bytes_ = 0;
    size_t used_ = 0;
};

enum class GemmPrecision { bf16, f32 };

// Bytes that gemm() takes from scratch for n_threads threads, without packed copies of A.
size_t gemm_workspace_bytes(int64_t max_m, int n_threads, GemmPrecision precision);
// Bytes of the packed copy of an A that the kernels cannot read in place: another format, or k no multiple of 32.
size_t gemm_packed_a_bytes(int64_t m, int64_t k);

// Runs all jobs as one parallel region.
void gemm(std::span<const GemmJob> jobs, GemmPrecision precision, Scratch & scratch, int n_threads);

}  // namespace lorica::cpu
