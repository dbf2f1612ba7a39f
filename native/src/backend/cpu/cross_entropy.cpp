#include <algorithm>
#include <cmath>
#include <numeric>
#include <vector>

#include "backend/cpu/elementwise.h"
#include "backend/cpu/linear.h"
#include "backend/cpu/parallel.h"
#include "backend/cpu/token_sums.h"
#include "common/bf16.h"

namespace lorica::cpu {

namespace {

constexpr size_t numerators_limit = size_t{64} << 20;  // bytes of one chunk

constexpr int64_t round_up(int64_t x, int64_t to) { return (x + to - 1) / to * to; }

size_t element(GemmPrecision precision) { return precision == GemmPrecision::bf16 ? 2 : 4; }

// Elements from one row of numerators to the next: an odd number of cache lines in bf16, see Arena::operand.
int64_t numerators_stride(int64_t n_vocab) { return (round_up(n_vocab, 32) / 32 | 1) * 32; }

int64_t n_sums(int64_t n_vocab) { return round_up(n_vocab, softmax_columns) / softmax_columns; }

float get(const Matrix & m, int64_t row, int64_t column) {
    return m.type == Dtype::bf16 ? static_cast<float>(m.row_as<Bf16>(row)[column]) : m.row_as<float>(row)[column];
}

void set(const Matrix & m, int64_t row, int64_t column, float value) {
    if (m.type == Dtype::bf16) {
        m.row_as<Bf16>(row)[column] = Bf16(value);
    } else {
        m.row_as<float>(row)[column] = value;
    }
}

// Rows that go through the head at once. It is dequantized once per chunk, so few large chunks are best.
int64_t chunk_rows(int64_t n_rows, int64_t n_vocab, GemmPrecision precision) {
    const auto fitting =
        static_cast<int64_t>(numerators_limit / (static_cast<size_t>(numerators_stride(n_vocab)) * element(precision)));
    return std::min(n_rows, std::max<int64_t>(fitting / block_m * block_m, 2 * block_m));
}

// The exponents of numerators are relative to 0, unless a row has a sum beyond these: then to its largest logit.
constexpr double lowest_sum = 0x1p-60, highest_sum = 0x1p90;

// One chunk of rows.
class SoftmaxOfHead {
public:
    // u: of the LoRA on the head, or empty. e: numerators, or null.
    SoftmaxOfHead(const Context & context, Matrix x, const Head & of, Matrix u, const int32_t * labels, Matrix e)
        : context_(context),
          x_(x),
          u_(u),
          head_(*of.weight),
          lora_(of.lora),
          logits_(of.logits),
          n_labels_(of.n_labels),
          labels_(labels),
          e_(e),
          reference_(static_cast<size_t>(x.rows)),
          total_(static_cast<size_t>(x.rows)),
          label_logits_(static_cast<size_t>(x.rows * of.n_labels)),
          sums_(context.scratch.take_as<float>(n_sums(head_.out) * x.rows)) {
        multiply(reference_.data(), e_);
        add_up();
        if (std::all_of(total_.begin(), total_.end(),
                        [](double sum) { return sum >= lowest_sum && sum <= highest_sum; }))
            return;
        multiply(nullptr, {});
        for (int64_t i = 0; i < x.rows; ++i) {
            float highest = sums_[i];
            for (int64_t part = 1; part < n_sums(head_.out); ++part)
                highest = std::max(highest, sums_[part * x.rows + i]);
            reference_[static_cast<size_t>(i)] = highest;
        }
        multiply(reference_.data(), e_);
        add_up();
    }

    float nll(int64_t i, int64_t k) const {
        const auto at = static_cast<size_t>(i);
        return static_cast<float>(std::log(total_[at]) + (static_cast<double>(reference_[at]) - logit(i, k)));
    }
    double sum(int64_t i) const { return total_[static_cast<size_t>(i)]; }
    // Of label k of row i.
    double slope(int64_t i, int64_t k) const {
        const double ratio = logits_.cap > 0 ? logit(i, k) / logits_.cap : 0;
        return 1 - ratio * ratio;
    }
    double numerator(int64_t i, int64_t k) const {
        return std::exp(static_cast<double>(logit(i, k)) - reference_[static_cast<size_t>(i)]);
    }

private:
    float logit(int64_t i, int64_t k) const { return label_logits_[static_cast<size_t>(i * n_labels_ + k)]; }
    void multiply(const float * reference, Matrix e) {
        const GemmSoftmax softmax{reference, sums_, n_labels_, labels_, label_logits_.data(), logits_};
        GemmJob job{{{x_, GemmB::weight(head_, true)}}, x_.rows, head_.out, {e, {}, false, &softmax}};
        if (lora_) {
            const auto scale = static_cast<float>(lora_.scale);
            job.terms.push_back({u_, GemmB::f32(lora_.b, head_.out, lora_.rank, true, scale)});
        }
        gemm({&job, 1}, context_.precision, context_.scratch, context_.n_threads);
    }
    void add_up() {
        const int64_t rows = x_.rows, parts = n_sums(head_.out);
        parallel_ranges(
            rows, parts, context_.n_threads,
            [&](int64_t begin, int64_t end) {
                for (int64_t first = begin; first < end; first += block_m) {
                    const int64_t n = std::min(block_m, end - first);
                    double total[block_m] = {};
                    for (int64_t part = 0; part < parts; ++part) {
                        for (int64_t i = 0; i < n; ++i) total[i] += sums_[part * rows + first + i];
                    }
                    std::copy_n(total, n, total_.begin() + first);
                }
            },
            block_m);
    }

    const Context & context_;
    Matrix x_, u_;
    const Weight & head_;
    const Lora & lora_;
    LogitSpec logits_;
    int32_t n_labels_;
    const int32_t * labels_;
    Matrix e_;
    std::vector<float> reference_;
    std::vector<double> total_;
    std::vector<float> label_logits_;
    float * sums_;
};

// Of rows with several labels: e becomes slope (W e - sum_k w_k sum [c == label_k]), with W the sum of the weights w.
// What stands at the labels is computed from their logits, so that terms that nearly cancel do so before they are
// rounded.
void weigh_labels(const Context & context, const SoftmaxOfHead & softmax, Matrix e, const int32_t * labels,
                  const float * weights, int32_t n_labels) {
    parallel_ranges(e.rows, e.cols, context.n_threads, [&](int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) {
            const float * const own = weights + i * n_labels;
            const double weight = std::accumulate(own, own + n_labels, 0.0);
            for (int64_t c = 0; c < e.cols; ++c) set(e, i, c, static_cast<float>(weight) * get(e, i, c));
            for (int32_t k = 0; k < n_labels; ++k) {
                const double difference = weight * softmax.numerator(i, k) - own[k] * softmax.sum(i);
                set(e, i, labels[i * n_labels + k], static_cast<float>(difference * softmax.slope(i, k)));
            }
        }
    });
}

}  // namespace

size_t cross_entropy_workspace_bytes(const WorkspaceShape & shape, GemmPrecision precision) {
    if (shape.n_vocab == 0 || !shape.training) return 0;
    const int64_t rows = chunk_rows(shape.max_tokens, shape.n_vocab, precision);
    size_t bytes = static_cast<size_t>(rows * numerators_stride(shape.n_vocab)) * element(precision);
    bytes += static_cast<size_t>(rows * n_sums(shape.n_vocab)) * sizeof(float) + 64;
    if (precision == GemmPrecision::bf16) {
        bytes += shape.n_vocab % 32 == 0 ? gemm_packed_a_bytes(block_m, shape.n_vocab)
                                         : gemm_packed_a_bytes(rows, shape.n_vocab);
        bytes += gemm_packed_a_bytes(block_m, shape.max_features);
    }
    // The transpose of the numerators, and the scaled x.
    if (shape.trained_weights) {
        bytes +=
            static_cast<size_t>(round_up(rows, 32) * (shape.n_vocab + shape.max_features)) * element(precision) + 128;
        bytes += gemm_packed_a_bytes(shape.n_vocab, rows);
    }
    if (shape.head_rank > 0) {
        // u of all rows; of a chunk u and v as they are, scaled, transposed and packed, and x in another format, with
        // dropout, and what comes back through it.
        const auto width = static_cast<size_t>(round_up(shape.head_rank, 32));
        bytes += static_cast<size_t>(round_up(shape.max_tokens, block_m)) * width * element(precision);
        bytes += static_cast<size_t>(round_up(rows, block_m)) * width * element(precision) * 8;
        const auto cells = static_cast<size_t>(round_up(rows, 32) * round_up(shape.max_features, 32));
        bytes += cells * (shape.dropout ? 2 * element(precision) + 4 : element(precision)) + 64 * 64;
    }
    return bytes;
}

// dx = (softmax - onehot) W = diag(1 / sum) (e - sum onehot) W, where e is rounded to act before it is divided; dW +=
// (e - sum onehot)^T diag(1 / sum) x, and so what belongs to a LoRA. A scale of the logits and weights of rows multiply
// 1 / sum, a cap's slopes e.
void linear_cross_entropy(const Context & context, Matrix x, const Head & of, const int32_t * labels, float * nll,
                          Matrix dx) {
    const Weight & head = *of.weight;
    const Scratch::Mark mark(context.scratch);
    const int64_t n_vocab = head.out, chunk = chunk_rows(x.rows, n_vocab, context.precision),
                  stride = numerators_stride(n_vocab), n_labels = of.n_labels;
    const Lora & lora = of.lora;
    const bool backward = dx || of.dw || lora.da;
    const Matrix u = lora ? context.take_act(x.rows, lora.rank) : Matrix{};
    if (lora) {
        const LinearForward narrow{&head, lora, u, {}, {}};
        linear(context, x, {&narrow, 1});
    }
    void * memory =
        backward ? context.scratch.take(static_cast<size_t>(chunk * stride) * dtype_size(context.act())) : nullptr;
    for (int64_t first = 0; first < x.rows; first += chunk) {
        const Scratch::Mark one_chunk(context.scratch);
        const int64_t rows = std::min(chunk, x.rows - first);
        const Matrix e = backward ? Matrix{memory, context.act(), rows, n_vocab, stride} : Matrix{};
        const Matrix x_rows = x.slice_rows(first, rows), u_rows = lora ? u.slice_rows(first, rows) : Matrix{};
        const SoftmaxOfHead softmax(context, x_rows, of, u_rows, labels + first * n_labels, e);
        for (int64_t i = 0; i < rows * n_labels; ++i)
            nll[first * n_labels + i] = softmax.nll(i / n_labels, i % n_labels);
        if (!backward) continue;

        const bool many = n_labels > 1;
        if (many) {
            weigh_labels(context, softmax, e, labels + first * n_labels, of.row_weights + first * n_labels,
                         of.n_labels);
        }
        for (int64_t i = 0; i < rows && !many; ++i) {
            const double difference = softmax.numerator(i, 0) - softmax.sum(i);
            set(e, i, labels[first + i], static_cast<float>(difference * softmax.slope(i, 0)));
        }
        std::vector<float> factors(static_cast<size_t>(rows));
        for (int64_t i = 0; i < rows; ++i) {
            const double weight = of.row_weights && !many ? of.row_weights[first + i] : 1;
            factors[static_cast<size_t>(i)] = static_cast<float>(weight * of.logits.scale / softmax.sum(i));
        }
        if (of.dw) {
            const Scratch::Mark weight_gradient(context.scratch);
            const Matrix scaled = context.take_act(rows, head.in);
            scale_rows(x_rows, factors.data(), 1, scaled, context.n_threads);
            const TokenSum sum{e, 1, scaled, {of.dw, Dtype::f32, n_vocab, head.in, head.in}, false};
            add_token_sums(context, {&sum, 1});
        }
        const HeadLoraBackward of_chunk{lora, x_rows, u_rows, first, e, factors.data()};
        const Matrix v = lora && (dx || lora.da) ? head_lora_v(context, of_chunk) : Matrix{};
        if (lora.da) head_lora_gradients(context, of_chunk, v);
        if (!dx) continue;
        const Matrix dx_rows = dx.slice_rows(first, rows);
        head_input_gradient(context, of_chunk, head, v, dx_rows);
        parallel_ranges(rows, head.in, context.n_threads, [&](int64_t begin, int64_t end) {
            for (int64_t i = begin; i < end; ++i) {
                const float scale = factors[static_cast<size_t>(i)];
                for (int64_t j = 0; j < head.in; ++j) set(dx_rows, i, j, get(dx_rows, i, j) * scale);
            }
        });
    }
}

}  // namespace lorica::cpu
