#include "backend/cpu/gemm.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <atomic>
#include <cassert>
#include <cmath>
#include <cstdlib>
#include <functional>
#include <new>
#include <queue>

#include "backend/cpu/cpu_features.h"
#include "backend/cpu/gemm_kernels.h"
#include "backend/cpu/memory.h"
#include "backend/cpu/panel.h"
#include "backend/cpu/parallel.h"

namespace lorica::cpu {

namespace {

constexpr size_t alignment = memory_alignment;

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

}  // namespace

GemmB GemmB::matrix(const Matrix & x, bool by_rows, float scale) {
    const ggml_type type = x.type == Dtype::bf16 ? GGML_TYPE_BF16 : GGML_TYPE_F32;
    return {type,
            static_cast<const std::byte *>(x.data),
            static_cast<size_t>(x.stride) * dtype_size(x.type),
            x.rows,
            x.cols,
            by_rows,
            scale};
}

GemmB GemmB::f32(const void * data, int64_t rows, int64_t cols, bool by_rows, float scale) {
    return {GGML_TYPE_F32, static_cast<const std::byte *>(data), static_cast<size_t>(cols) * 4, rows, cols, by_rows,
            scale};
}

// ---- Scratch ----

Scratch::Aligned::Aligned(size_t n) : bytes(n) {
    if (n == 0) return;
    data = static_cast<std::byte *>(allocate_memory(n));
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

// The bf16 kernels read whole blocks of 32 rows and whole steps of 32 k. What is not in memory that way is copied,
// padded with zeros.
PreparedA prepare_a_bf16(const Matrix & a, Scratch & scratch, int n_threads) {
    // An odd number of cache lines, see Arena::operand.
    const int64_t k_pad = (round_up(a.cols, 32) / 32 | 1) * 32, blocks = (a.rows + block_m - 1) / block_m;
    const bool in_place = a.type == Dtype::bf16 && a.cols % 32 == 0;
    const int64_t first_copied = in_place ? a.rows / block_m * block_m : 0;
    const int64_t copied = blocks * block_m - first_copied;
    uint16_t * copy = copied > 0 ? scratch.take_as<uint16_t>(copied * k_pad) : nullptr;
    parallel_ranges(copied, k_pad, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            uint16_t * row = copy + i * k_pad;
            if (first_copied + i < a.rows) {
                copy_row_bf16(a, first_copied + i, row, k_pad);
            } else {
                std::fill(row, row + k_pad, uint16_t{0});
            }
        }
    });
    const auto * copied_bytes = reinterpret_cast<const std::byte *>(copy);
    if (!in_place) return {copied_bytes, k_pad, 2, nullptr, 0, 0};
    return {static_cast<const std::byte *>(a.data), a.stride, 2, copied_bytes, blocks - 1, k_pad};
}

PreparedA prepare_a_f32(const Matrix & a, Scratch & scratch, int n_threads) {
    if (a.type == Dtype::f32) return {static_cast<const std::byte *>(a.data), a.stride, 4, nullptr, 0, 0};
    auto * copy = scratch.take_as<float>(a.rows * a.cols);
    parallel_ranges(a.rows, a.cols, n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) convert_bf16_to_f32(a.row_as<uint16_t>(i), copy + i * a.cols, a.cols);
    });
    return {reinterpret_cast<const std::byte *>(copy), a.cols, 4, nullptr, 0, 0};
}

struct ThreadScratch {
    std::byte * panel;
    float * rows;
    float * c;  // [chunk rows, staged_panel_n], or a strip of a block of rows
    float * a;  // a block of rows in f32, for a kernel that wants them so
};

// A panel's worth of columns of one job for one chunk of rows.
struct Task {
    int32_t job;
    int64_t n0, n_count;
    int64_t m0, m_count;
};

// What is multiplied in one go: parts of the terms whose packed panels fit in the panel memory together.
struct Segment {
    size_t term;
    int64_t k0, k_count, k_pad;
    int64_t panel_offset;  // in elements, for n_count columns
};
using Stage = std::vector<Segment>;

size_t panel_element(GemmPrecision precision) { return precision == GemmPrecision::bf16 ? 2 : 4; }

int64_t c_rows(int64_t max_m) { return round_up(std::min(max_m, chunk_m), block_m); }

// The kernel multiplies panels of bf16 with rows of f32.
bool expands_a(GemmPrecision precision) {
    return precision == GemmPrecision::bf16 && !has_amx_bf16() && kernel_bf16_simd_a_element() == sizeof(float);
}
constexpr int64_t expanded_a_elements = block_m * panel_k;

size_t thread_scratch_bytes(int64_t max_m, GemmPrecision precision) {
    return static_cast<size_t>(panel_cells) * panel_element(precision) + row_scratch_elements * sizeof(float) +
           static_cast<size_t>(c_rows(max_m) * staged_panel_n) * sizeof(float) +
           (expands_a(precision) ? expanded_a_elements * sizeof(float) : 0) + 4 * alignment;
}

// Rows of a panel of that many columns.
int64_t panel_depth(int64_t columns) { return std::min(panel_k, panel_cells / columns / 32 * 32); }

std::vector<Stage> plan_stages(const GemmJob & job, GemmPrecision precision, int64_t columns) {
    std::vector<Stage> stages(1);
    const int64_t depth = panel_depth(columns);
    int64_t free_k = depth;
    for (size_t t = 0; t < job.terms.size(); ++t) {
        const int64_t k_total = job.terms[t].a.cols;
        for (int64_t k0 = 0; k0 < k_total;) {
            if (free_k < 32) {
                stages.emplace_back();
                free_k = depth;
            }
            const int64_t k_count = std::min(k_total - k0, free_k);
            const int64_t k_pad = precision == GemmPrecision::bf16 ? round_up(k_count, 32) : k_count;
            stages.back().push_back({t, k0, k_count, k_pad, (depth - free_k) * columns});
            free_k -= round_up(k_count, 32);
            k0 += k_count;
        }
    }
    return stages;
}

// A product of so many bytes does not stay in the second-level cache until it is read. Stored through it, each line
// would be read from memory first, and hold one of the few buffers that the tiles' loads wait for.
constexpr size_t streamed_bytes = size_t{1} << 20;

float logit_of(const LogitSpec & logits, float c) {
    if (logits.scale == 1 && logits.cap == 0) return c;
    const double z = logits.scale * static_cast<double>(c);
    return static_cast<float>(logits.cap == 0 ? z : logits.cap * std::tanh(z / logits.cap));
}

void store(const GemmJob & job, bool amx, const float * c, int64_t ldc, int64_t m0, int64_t m_count, int64_t n0,
           int64_t n_count) {
    const GemmOutput & out = job.out;
    if (out.transposed) {
        for (int64_t j = 0; j < n_count; ++j) {
            float * y = out.y.row_as<float>(n0 + j) + m0;
            for (int64_t i = 0; i < m_count; ++i) y[i] += c[i * ldc + j];
        }
        return;
    }
    const size_t bytes = static_cast<size_t>(out.y.rows * out.y.cols) * dtype_size(out.y.type);
    if (out.softmax) {
        const GemmSoftmax & softmax = *out.softmax;
        for (int64_t i = 0; i < m_count; ++i) {
            const int32_t * const first = softmax.labels + (m0 + i) * softmax.n_labels;
            const int32_t * const end = first + softmax.n_labels;
            for (const int32_t * label = std::lower_bound(first, end, n0); label < end && *label < n0 + n_count;
                 ++label)
                softmax.label_logits[label - softmax.labels] = logit_of(softmax.logits, c[i * ldc + (*label - n0)]);
        }
        store_softmax({c, ldc, softmax.reference ? softmax.reference + m0 : nullptr,
                       softmax.sums + n0 / softmax_columns * job.m + m0, job.m,
                       out.y ? out.y.row_as<std::byte>(m0) + static_cast<size_t>(n0) * dtype_size(out.y.type) : nullptr,
                       out.y.stride, out.y.type == Dtype::bf16, m_count, n_count, bytes >= streamed_bytes, amx,
                       static_cast<float>(softmax.logits.scale), static_cast<float>(softmax.logits.cap)});
        return;
    }
    StoreArgs args{c, ldc, nullptr, 0, nullptr, out.y.stride, m_count, n_count, bytes >= streamed_bytes, amx};
    args.bias = out.bias ? out.bias + n0 : nullptr;
    args.accumulate = out.accumulate;
    if (out.residual) {
        args.residual = out.residual.row_as<float>(m0) + n0;
        args.residual_stride = out.residual.stride;
    }
    if (out.y.type == Dtype::bf16) {
        args.y = out.y.row_as<uint16_t>(m0) + n0;
        store_block_bf16(args);
    } else {
        args.y = out.y.row_as<float>(m0) + n0;
        store_block_f32(args);
    }
}

// What the sum will be added to is on its way while the kernel runs.
void fetch_residual(const Matrix & residual, int64_t m0, int64_t m_count, int64_t n0, int64_t n_count) {
    constexpr int64_t line = 64 / sizeof(float);
    for (int64_t i = m0; i < m0 + m_count; ++i) {
        for (int64_t j = n0; j < n0 + n_count; j += line) hwy::Prefetch(residual.row_as<float>(i) + j);
    }
}

void pack(const GemmB & b, const Segment & segment, const Task & task, GemmPrecision precision,
          const ThreadScratch & thread) {
    if (precision == GemmPrecision::bf16) {
        pack_panel_bf16(b, segment.k0, segment.k_count, segment.k_pad, task.n0, task.n_count, thread.rows,
                        reinterpret_cast<uint16_t *>(thread.panel) + segment.panel_offset);
    } else {
        pack_panel_f32(b, segment.k0, segment.k_count, segment.k_pad, task.n0, task.n_count, thread.rows,
                       reinterpret_cast<float *>(thread.panel) + segment.panel_offset);
    }
}

// The blocks of rows of a task that nobody has begun. Its own thread takes them from the front, those that have nothing
// left to do from the back: a core that is slower than the others, or busy with something else, does not hold them up.
class RowBlocks {
public:
    void reset(int64_t n) { range_.store(static_cast<uint64_t>(n), std::memory_order_relaxed); }
    int64_t n_left() const {
        const uint64_t range = range_.load(std::memory_order_relaxed);
        return end(range) - begin(range);
    }
    // -1: none is left.
    int64_t take(bool from_front) {
        uint64_t range = range_.load(std::memory_order_relaxed);
        while (begin(range) < end(range)) {
            const uint64_t rest = from_front ? range + (uint64_t{1} << 32) : range - 1;
            if (range_.compare_exchange_weak(range, rest, std::memory_order_relaxed))
                return from_front ? begin(range) : end(range) - 1;
        }
        return -1;
    }

private:
    static int64_t begin(uint64_t range) { return static_cast<int64_t>(range >> 32); }
    static int64_t end(uint64_t range) { return static_cast<int64_t>(range & 0xffffffff); }

    std::atomic<uint64_t> range_ = 0;
};

// A helper packs the panel once more, which costs as much as 80 rows (see task_cost); this many blocks are worth it.
constexpr int64_t blocks_worth_helping = 6;

// A block of rows is multiplied with strip_groups groups and stored before the next ones, so that C stays in the
// first-level cache.
constexpr int64_t strip_groups = 4;

// Rows of bf16 in f32.
PreparedA::Block expand_block(PreparedA::Block a, int64_t rows, int64_t k, float * to) {
    const auto * from = reinterpret_cast<const uint16_t *>(a.data);
    for (int64_t r = 0; r < rows; ++r) convert_bf16_to_f32(from + r * a.stride, to + r * k, k);
    return {reinterpret_cast<const std::byte *>(to), k};
}

// helper: another thread runs the task as well, which has one stage.
void run_task(const GemmJob & job, std::span<const PreparedA> prepared, const Task & task, GemmPrecision precision,
              bool amx, const ThreadScratch & thread, RowBlocks & blocks, bool helper) {
    const int64_t groups = (task.n_count + group_n - 1) / group_n;
    const std::vector<Stage> stages = plan_stages(job, precision, groups * group_n);
    const auto kernel = precision == GemmPrecision::f32 ? kernel_f32_simd : amx ? kernel_bf16_amx : kernel_bf16_simd;
    // Only a sum that takes several stages has to be kept whole between them.
    const bool whole = stages.size() > 1;
    RowBlocks not_shared;  // the sums of several stages belong to one thread
    RowBlocks & rest = whole ? not_shared : blocks;
    const int64_t n_blocks = (task.m_count + block_m - 1) / block_m;
    const int64_t ldc = (whole ? groups : strip_groups) * group_n;
    std::vector<KernelSegment> segments;
    for (size_t s = 0; s < stages.size(); ++s) {
        if (!helper) rest.reset(n_blocks);
        for (const Segment & segment : stages[s]) pack(job.terms[segment.term].b, segment, task, precision, thread);
        for (int64_t i = rest.take(!helper); i >= 0; i = rest.take(!helper)) {
            const int64_t m = i * block_m, rows = std::min(block_m, task.m_count - m), block = task.m0 / block_m + i;
            const int64_t next = helper ? i - 1 : i + 1;
            segments.clear();
            float * expanded = thread.a;
            for (const Segment & segment : stages[s]) {
                const PreparedA & matrix = prepared[segment.term];
                auto a = matrix.block(block, segment.k0);
                if (expanded) {
                    a = expand_block(a, rows, segment.k_pad, expanded);
                    expanded += rows * segment.k_pad;
                }
                const std::byte * panel =
                    thread.panel + static_cast<size_t>(segment.panel_offset) * panel_element(precision);
                segments.push_back(
                    {a.data, a.stride, panel, segment.k_pad * group_n, segment.k_pad,
                     next < 0 || next >= n_blocks ? nullptr : matrix.block(task.m0 / block_m + next, segment.k0).data});
            }
            for (int64_t g = 0; g < groups; g += strip_groups) {
                const int64_t count = std::min(strip_groups, groups - g), n = g * group_n;
                float * c = whole ? thread.c + m * ldc + n : thread.c;
                if (job.out.residual && s + 1 == stages.size())
                    fetch_residual(job.out.residual, task.m0 + m, rows, task.n0 + n, count * group_n);
                kernel({segments, g, count, groups, rows, c, ldc, s > 0});
                if (s + 1 < stages.size()) continue;
                store(job, amx, c, ldc, task.m0 + m, rows, task.n0 + n, std::min(count * group_n, task.n_count - n));
            }
        }
    }
}

// Where tasks begin and end: columns of a panel, and rows of a chunk, at most.
struct Split {
    int64_t columns, rows;
};

int64_t depth_of(const GemmJob & job) {
    int64_t depth = 0;
    for (const GemmTerm & term : job.terms) depth += round_up(term.a.cols, 32);
    return depth;
}

// Of a row and a column, in multiplications. Packing a column costs as much as 80 rows: it is 15 % of a product of 512
// rows (native/bench/NOTES.md). What reading a row of A from memory costs, and what a sum costs that goes through
// memory between its stages, are estimates from the bytes that they move.
double task_cost(const GemmJob & job, int64_t n_count, int64_t m_count) {
    constexpr double read_row = 40, pack_column = 80, stage = 0.3;
    const int64_t depth = depth_of(job), columns = round_up(n_count, group_n);
    const auto further_stages = static_cast<double>((depth - 1) / panel_depth(columns));
    const auto n = static_cast<double>(columns), m = static_cast<double>(m_count);
    return static_cast<double>(depth) * (m * (n * (1 + stage * further_stages) + read_row) + n * pack_column);
}

// Equal shares, in whole units, of at most that many.
int64_t share(int64_t n, int64_t most, int64_t unit) {
    const int64_t parts = std::max<int64_t>((n + most - 1) / most, 1);
    return std::min(round_up((n + parts - 1) / parts, unit), most);
}

// Columns of a task: a narrow panel whose sums take one stage, or a wider one that reads A less often.
int64_t task_columns(const GemmJob & job, int64_t most, int64_t rows) {
    constexpr int64_t unit = 2 * group_n;
    const int64_t whole = std::min(most, panel_cells / depth_of(job) / unit * unit);
    const int64_t staged = share(job.n, std::min(most, whole < most ? staged_panel_n : most), unit);
    if (whole < unit) return staged;
    const int64_t narrow = share(job.n, whole, unit);
    const auto per_column = [&](int64_t columns) {
        return task_cost(job, columns, rows) / static_cast<double>(columns);
    };
    return per_column(narrow) <= per_column(staged) ? narrow : staged;
}

std::vector<Task> split_into_tasks(std::span<const GemmJob> jobs, Split split) {
    std::vector<Task> tasks;
    for (size_t j = 0; j < jobs.size(); ++j) {
        const GemmJob & job = jobs[j];
        if (job.n == 0 || job.m == 0) continue;
        const int64_t rows = share(job.m, split.rows, block_m), columns = task_columns(job, split.columns, rows);
        for (int64_t n0 = 0; n0 < job.n; n0 += columns) {
            for (int64_t m0 = 0; m0 < job.m; m0 += rows) {
                tasks.push_back(
                    {static_cast<int32_t>(j), n0, std::min(columns, job.n - n0), m0, std::min(rows, job.m - m0)});
            }
        }
    }
    return tasks;
}

// When the last thread is done if each takes the next task as soon as it is free.
double makespan(std::span<const GemmJob> jobs, std::span<const Task> tasks, int n_threads) {
    std::priority_queue<double, std::vector<double>, std::greater<>> free_at;
    for (int i = 0; i < n_threads; ++i) free_at.push(0);
    double last = 0;
    for (const Task & task : tasks) {
        const double end = free_at.top() + task_cost(jobs[static_cast<size_t>(task.job)], task.n_count, task.m_count);
        free_at.pop();
        free_at.push(end);
        last = std::max(last, end);
    }
    return last;
}

// Wide panels read A less often and tall chunks pack B less often; but the threads are to be done together.
std::vector<Task> plan_tasks(std::span<const GemmJob> jobs, int n_threads) {
    int64_t widest = 2 * group_n;
    for (const GemmJob & job : jobs) widest = std::max(widest, std::min(round_up(job.n, 2 * group_n), panel_n));
    std::vector<Task> best = split_into_tasks(jobs, {widest, chunk_m});
    if (static_cast<int64_t>(best.size()) >= 8 * n_threads) return best;
    double best_time = makespan(jobs, best, n_threads);
    for (int64_t rows = chunk_m; rows >= 4 * block_m; rows /= 2) {
        for (int64_t columns = widest; columns >= std::min(widest, 3 * 2 * group_n); columns -= 2 * group_n) {
            std::vector<Task> tasks = split_into_tasks(jobs, {columns, rows});
            const double time = makespan(jobs, tasks, n_threads);
            if (time >= best_time) continue;
            best_time = time;
            best = std::move(tasks);
        }
        if (static_cast<int64_t>(best.size()) >= 8 * n_threads) break;
    }
    return best;
}

}  // namespace

size_t gemm_workspace_bytes(int64_t max_m, int n_threads, GemmPrecision precision) {
    return thread_scratch_bytes(max_m, precision) * static_cast<size_t>(n_threads);
}

size_t gemm_packed_a_bytes(int64_t m, int64_t k) {
    return static_cast<size_t>(round_up(m, block_m) * (round_up(k, 32) + 32)) * 2 + alignment;
}

void gemm(std::span<const GemmJob> jobs, GemmPrecision precision, Scratch & scratch, int n_threads) {
    const Scratch::Mark mark(scratch);
    const bool amx = precision == GemmPrecision::bf16 && has_amx_bf16(), expands = expands_a(precision);

    std::vector<std::vector<PreparedA>> prepared(jobs.size());
    std::vector<std::pair<Matrix, PreparedA>> known;  // several jobs share one A
    int64_t max_m = 0;
    for (size_t j = 0; j < jobs.size(); ++j) {
        max_m = std::max(max_m, jobs[j].m);
        for (const GemmTerm & term : jobs[j].terms) {
            const auto same = std::find_if(known.begin(), known.end(), [&](const auto & entry) {
                const Matrix & a = entry.first;
                return a.data == term.a.data && a.rows == term.a.rows && a.cols == term.a.cols &&
                       a.stride == term.a.stride;
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

    const std::vector<Task> tasks = plan_tasks(jobs, n_threads);
    if (tasks.empty()) return;

    const size_t per_thread = thread_scratch_bytes(max_m, precision);
    const int threads = static_cast<int>(std::min<int64_t>(n_threads, static_cast<int64_t>(tasks.size())));
    auto * memory = static_cast<std::byte *>(scratch.take(per_thread * static_cast<size_t>(threads)));
    std::vector<RowBlocks> blocks(tasks.size());  // none until a task is begun
    TaskNumbers numbers(static_cast<int64_t>(tasks.size()), threads);
    parallel(threads, [&](int rank) {
        std::byte * own = memory + per_thread * static_cast<size_t>(rank);
        const size_t panel_bytes = static_cast<size_t>(panel_cells) * panel_element(precision);
        auto * c = reinterpret_cast<float *>(own + panel_bytes);
        float * rows = c + c_rows(max_m) * staged_panel_n;
        const ThreadScratch thread{own, rows, c, expands ? rows + row_scratch_elements : nullptr};
        if (amx) amx_configure_thread();
        const auto run = [&](size_t i, bool helper) {
            const auto job = static_cast<size_t>(tasks[i].job);
            run_task(jobs[job], prepared[job], tasks[i], precision, amx, thread, blocks[i], helper);
        };
        numbers.take(rank, [&](int64_t i) { run(static_cast<size_t>(i), false); });
        for (;;) {
            const auto most = std::max_element(blocks.begin(), blocks.end(),
                                               [](const auto & a, const auto & b) { return a.n_left() < b.n_left(); });
            if (most->n_left() < blocks_worth_helping) break;
            run(static_cast<size_t>(most - blocks.begin()), true);
        }
        stores_done();
        if (amx) amx_release_thread();
    });
}

}  // namespace lorica::cpu
