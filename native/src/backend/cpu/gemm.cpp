#include "backend/cpu/gemm.h"

#include <omp.h>

#include <algorithm>
#include <cassert>
#include <cstdlib>
#include <new>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/panel.h"

namespace lorica::cpu {

namespace {

constexpr size_t alignment = 64;

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

GemmB GemmB::matrix(const Matrix & x, bool by_rows, float scale) {
    const ggml_type type = x.type == Dtype::bf16 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
    return {type, static_cast<const std::byte *>(x.data), static_cast<size_t>(x.stride) * dtype_size(x.type), x.rows, x.cols,
            by_rows, scale};
}

GemmB GemmB::f32(const void * data, int64_t rows, int64_t cols, bool by_rows, float scale) {
    return {GGML_TYPE_F32, static_cast<const std::byte *>(data), static_cast<size_t>(cols) * 4, rows, cols, by_rows, scale};
}

// ---- Scratch ----

Scratch::Aligned::Aligned(size_t n) : bytes(n) {
    if (n == 0) return;
    data = static_cast<std::byte *>(std::aligned_alloc(alignment, round_up(static_cast<int64_t>(n), alignment)));
    if (!data) throw std::bad_alloc();
}

Scratch::Aligned::~Aligned() { std::free(data); }

Scratch::Aligned & Scratch::Aligned::operator=(Aligned && o) noexcept {
    std::swap(data, o.data);
    std::swap(bytes, o.bytes);
    return *this;
}

void Scratch::reserve(size_t n_bytes) {
    assert(used_ == 0);
    if (n_bytes > block_.size()) {
        block_ = Aligned(0);
        block_ = Aligned(n_bytes);
    }
}

void * Scratch::take(size_t n_bytes) {
    n_bytes = static_cast<size_t>(round_up(static_cast<int64_t>(n_bytes), alignment));
    if (used_ + n_bytes <= block_.size()) {
        void * memory = block_.data + used_;
        used_ += n_bytes;
        return memory;
    }
    overflow_.emplace_back(n_bytes);
    overflow_bytes_ += n_bytes;
    return overflow_.back().data;
}

void Scratch::release_to(size_t used) {
    used_ = used;
    if (used_ == 0 && !overflow_.empty()) {
        // The next operation of this size finds its memory in one piece.
        const size_t needed = block_.size() + overflow_bytes_;
        overflow_.clear();
        overflow_bytes_ = 0;
        reserve(needed);
    }
}

// ---- gemm ----

namespace {

// A as the kernels read it: block i of 32 rows starts at block(i), rows `stride` elements apart.
struct PreparedA {
    const std::byte * data;
    int64_t stride;
    size_t element;
    const std::byte * tail;  // packed copy of the last, partial block; null when blocks are read in place throughout
    int64_t tail_block;
    int64_t tail_stride;

    struct Block {
        const std::byte * data;
        int64_t stride;
    };
    Block block(int64_t i, int64_t k0) const {
        if (tail && i == tail_block) return {tail + static_cast<size_t>(k0) * element, tail_stride};
        return {data + (static_cast<size_t>(i * block_m * stride) + static_cast<size_t>(k0)) * element, stride};
    }
};

void copy_row_bf16(const Matrix & a, int64_t row, uint16_t * out, int64_t k_pad) {
    if (a.type == Dtype::bf16) {
        std::copy_n(a.row_as<uint16_t>(row), a.cols, out);
    } else {
        convert_f32_to_bf16(a.row_as<float>(row), out, a.cols);
    }
    std::fill(out + a.cols, out + k_pad, uint16_t{0});
}

// The bf16 kernels read whole blocks of 32 rows and whole steps of 32 k. What is not in memory that way is copied, padded with zeros.
PreparedA prepare_a_bf16(const Matrix & a, Scratch & scratch, int n_threads) {
    const int64_t k_pad = round_up(a.cols, 32), blocks = (a.rows + block_m - 1) / block_m;
    const bool in_place = a.type == Dtype::bf16 && a.cols % 32 == 0;
    const int64_t first_copied = in_place ? a.rows / block_m * block_m : 0;
    const int64_t copied = blocks * block_m - first_copied;
    uint16_t * copy = copied > 0 ? scratch.take_as<uint16_t>(copied * k_pad) : nullptr;
#pragma omp parallel for num_threads(n_threads) schedule(static) if (copied > 64)
    for (int64_t i = 0; i < copied; ++i) {
        uint16_t * row = copy + i * k_pad;
        if (first_copied + i < a.rows) {
            copy_row_bf16(a, first_copied + i, row, k_pad);
        } else {
            std::fill(row, row + k_pad, uint16_t{0});
        }
    }
    const auto * copied_bytes = reinterpret_cast<const std::byte *>(copy);
    if (!in_place) return {copied_bytes, k_pad, 2, nullptr, 0, 0};
    return {static_cast<const std::byte *>(a.data), a.stride, 2, copied_bytes, blocks - 1, k_pad};
}

PreparedA prepare_a_f32(const Matrix & a, Scratch & scratch, int n_threads) {
    if (a.type == Dtype::f32) return {static_cast<const std::byte *>(a.data), a.stride, 4, nullptr, 0, 0};
    auto * copy = scratch.take_as<float>(a.rows * a.cols);
#pragma omp parallel for num_threads(n_threads) schedule(static)
    for (int64_t i = 0; i < a.rows; ++i) convert_bf16_to_f32(a.row_as<uint16_t>(i), copy + i * a.cols, a.cols);
    return {reinterpret_cast<const std::byte *>(copy), a.cols, 4, nullptr, 0, 0};
}

struct ThreadScratch {
    std::byte * panel;
    float * rows;
    float * c;  // [chunk rows, panel_n]
};

// One panel of one job for one chunk of rows.
struct Task {
    int32_t job;
    int32_t n_index;
    int64_t m0, m_count;
};

size_t panel_bytes(GemmPrecision precision) {
    return static_cast<size_t>(panel_k * panel_n) * (precision == GemmPrecision::bf16 ? 2 : 4);
}

int64_t c_rows(int64_t max_m) { return round_up(std::min(max_m, chunk_m), block_m); }

size_t thread_scratch_bytes(int64_t max_m, GemmPrecision precision) {
    return panel_bytes(precision) + row_scratch_elements * sizeof(float) +
           static_cast<size_t>(c_rows(max_m) * panel_n) * sizeof(float) + 3 * alignment;
}

void store(const GemmOutput & out, const float * c, int64_t m0, int64_t m_count, int64_t n0, int64_t n_count) {
    if (out.transposed) {
        for (int64_t j = 0; j < n_count; ++j) {
            float * y = out.y.row_as<float>(n0 + j) + m0;
            for (int64_t i = 0; i < m_count; ++i) y[i] += c[i * panel_n + j];
        }
        return;
    }
    for (int64_t i = 0; i < m_count; ++i) {
        const float * residual = out.residual ? out.residual.row_as<float>(m0 + i) + n0 : nullptr;
        const float * row = c + i * panel_n;
        if (out.y.type == Dtype::bf16) {
            store_row_bf16(row, residual, out.y.row_as<uint16_t>(m0 + i) + n0, n_count);
        } else {
            store_row_f32(row, residual, out.y.row_as<float>(m0 + i) + n0, n_count);
        }
    }
}

void run_task(const GemmJob & job, std::span<const PreparedA> prepared, const Task & task, GemmPrecision precision, bool amx,
              const ThreadScratch & thread) {
    const int64_t n0 = task.n_index * panel_n, n_count = std::min(panel_n, job.n - n0);
    const int64_t groups = (n_count + group_n - 1) / group_n;
    bool accumulate = false;
    for (size_t t = 0; t < job.terms.size(); ++t) {
        const GemmTerm & term = job.terms[t];
        const int64_t k_total = term.a.cols;
        for (int64_t k0 = 0; k0 < k_total; k0 += panel_k) {
            const int64_t k_count = std::min(panel_k, k_total - k0);
            int64_t k_pad = k_count;
            if (precision == GemmPrecision::bf16) {
                k_pad = round_up(k_count, 32);
                pack_panel_bf16(term.b, k0, k_count, k_pad, n0, n_count, thread.rows, reinterpret_cast<uint16_t *>(thread.panel));
            } else {
                pack_panel_f32(term.b, k0, k_count, k_pad, n0, n_count, thread.rows, reinterpret_cast<float *>(thread.panel));
            }
            for (int64_t m = 0; m < task.m_count; m += block_m) {
                const auto a = prepared[t].block((task.m0 + m) / block_m, k0);
                const KernelArgs args{a.data, a.stride, thread.panel, k_pad * group_n, k_pad, groups,
                                      std::min(block_m, task.m_count - m), thread.c + m * panel_n, panel_n, accumulate};
                if (precision == GemmPrecision::f32) {
                    kernel_f32_simd(args);
                } else if (amx) {
                    kernel_bf16_amx(args);
                } else {
                    kernel_bf16_simd(args);
                }
            }
            accumulate = true;
        }
    }
    store(job.out, thread.c, task.m0, task.m_count, n0, n_count);
}

}  // namespace

size_t gemm_workspace_bytes(int64_t max_m, int n_threads, GemmPrecision precision) {
    return thread_scratch_bytes(max_m, precision) * static_cast<size_t>(n_threads);
}

size_t gemm_packed_a_bytes(int64_t m, int64_t k) {
    return static_cast<size_t>(round_up(m, block_m) * round_up(k, 32)) * 2 + alignment;
}

void gemm(std::span<const GemmJob> jobs, GemmPrecision precision, Scratch & scratch, int n_threads) {
    const Scratch::Mark mark(scratch);
    const bool amx = precision == GemmPrecision::bf16 && has_amx_bf16();

    std::vector<std::vector<PreparedA>> prepared(jobs.size());
    std::vector<std::pair<Matrix, PreparedA>> known;  // several jobs share one A
    int64_t max_m = 0, panels = 0;
    for (size_t j = 0; j < jobs.size(); ++j) {
        max_m = std::max(max_m, jobs[j].m);
        panels += (jobs[j].n + panel_n - 1) / panel_n;
        for (const GemmTerm & term : jobs[j].terms) {
            const auto same = std::find_if(known.begin(), known.end(), [&](const auto & entry) {
                const Matrix & a = entry.first;
                return a.data == term.a.data && a.rows == term.a.rows && a.cols == term.a.cols && a.stride == term.a.stride;
            });
            if (same != known.end()) {
                prepared[j].push_back(same->second);
                continue;
            }
            const PreparedA a = precision == GemmPrecision::bf16 ? prepare_a_bf16(term.a, scratch, n_threads)
                                                                 : prepare_a_f32(term.a, scratch, n_threads);
            known.emplace_back(term.a, a);
            prepared[j].push_back(a);
        }
    }

    // Rows are split only as far as the panels alone do not keep the threads busy: each task packs its panel for itself.
    const int64_t wanted = std::max<int64_t>(1, (3 * n_threads + panels - 1) / std::max<int64_t>(panels, 1));
    std::vector<Task> tasks;
    for (size_t j = 0; j < jobs.size(); ++j) {
        const int64_t m = jobs[j].m;
        const int64_t rows = std::clamp(round_up((m + wanted - 1) / wanted, block_m), block_m, chunk_m);
        for (int64_t n = 0; n * panel_n < jobs[j].n; ++n) {
            for (int64_t m0 = 0; m0 < m; m0 += rows) {
                tasks.push_back({static_cast<int32_t>(j), static_cast<int32_t>(n), m0, std::min(rows, m - m0)});
            }
        }
    }
    if (tasks.empty()) return;

    const size_t per_thread = thread_scratch_bytes(max_m, precision);
    const int threads = static_cast<int>(std::min<int64_t>(n_threads, static_cast<int64_t>(tasks.size())));
    auto * memory = static_cast<std::byte *>(scratch.take(per_thread * static_cast<size_t>(threads)));
#pragma omp parallel num_threads(threads)
    {
        std::byte * own = memory + per_thread * static_cast<size_t>(omp_get_thread_num());
        const size_t c_bytes = static_cast<size_t>(c_rows(max_m) * panel_n) * sizeof(float);
        const ThreadScratch thread{own, reinterpret_cast<float *>(own + panel_bytes(precision) + c_bytes),
                                   reinterpret_cast<float *>(own + panel_bytes(precision))};
        if (amx) amx_configure_thread();
#pragma omp for schedule(dynamic, 1)
        for (size_t i = 0; i < tasks.size(); ++i) {
            const auto job = static_cast<size_t>(tasks[i].job);
            run_task(jobs[job], prepared[job], tasks[i], precision, amx, thread);
        }
        if (amx) amx_release_thread();
    }
}

}  // namespace lorica::cpu
