// Several tokens at each position: their log-probabilities, gradients of functions of these, and which are likeliest.
#include <algorithm>
#include <cmath>
#include <numeric>

#include "common/error.h"
#include "common/random.h"
#include "common/thread_pool.h"
#include "train/session.h"

namespace lorica {

namespace {

// Of what a device repeats; step.cpp and outputs.cpp have others.
enum : uint64_t { candidates_half = 21, candidates_backward_half };

void check_temperature(double temperature) {
    if (!std::isfinite(temperature) || temperature <= 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "temperature is ", temperature, "; it must be more than 0");
    }
}

// The ids.size() likeliest of a row's logits, ascending by id, with log softmax(logits / temperature).
void take_likeliest(std::span<const float> logits, double temperature, std::span<int32_t> ids,
                    std::span<float> log_probs) {
    const double highest = *std::max_element(logits.begin(), logits.end());
    double sum = 0;
    for (const float z : logits) sum += std::exp((z - highest) / temperature);
    const double log_sum = std::log(sum);
    // A heap of the best so far, the worst of them on top.
    const auto better = [&](int32_t a, int32_t b) {
        const float za = logits[static_cast<size_t>(a)], zb = logits[static_cast<size_t>(b)];
        return za > zb || (za == zb && a < b);
    };
    std::iota(ids.begin(), ids.end(), 0);
    std::make_heap(ids.begin(), ids.end(), better);
    for (auto i = static_cast<int32_t>(ids.size()); i < static_cast<int32_t>(logits.size()); ++i) {
        if (!better(i, ids.front())) continue;
        std::pop_heap(ids.begin(), ids.end(), better);
        ids.back() = i;
        std::push_heap(ids.begin(), ids.end(), better);
    }
    std::sort(ids.begin(), ids.end());
    for (size_t k = 0; k < ids.size(); ++k) {
        const double z = logits[static_cast<size_t>(ids[k])];
        log_probs[k] = static_cast<float>((z - highest) / temperature - log_sum);
    }
}

}  // namespace

int64_t Session::checked_per_row(size_t n, const char * what) const {
    const size_t rows = trained_rows_.size();
    if (rows == 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "no position of the micro-batch has a label: there is none to have ", what);
    }
    if (n == 0 || n % rows != 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there are ", n, " ", what, " for ", rows,
             " labelled positions; each has as many as the others");
    }
    return static_cast<int64_t>(n / rows);
}

void Session::put_candidates(const Candidates & candidates, size_t n_nll) {
    check_temperature(candidates.temperature);
    const int64_t n = checked_per_row(candidates.ids.size(), "candidates");
    if (n > config_.n_candidates) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "each position has ", n, " candidates; this session takes ",
             config_.n_candidates);
    }
    if (n_nll != candidates.ids.size()) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there is room for ", n_nll, " losses of ", candidates.ids.size(),
             " candidates");
    }
    const int32_t n_vocab = model_->shape().n_vocab;
    for (size_t i = 0; i < candidates.ids.size(); ++i) {
        const int32_t id = candidates.ids[i];
        if (id < 0 || id >= n_vocab || (i % static_cast<size_t>(n) > 0 && id <= candidates.ids[i - 1])) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "candidate ", i, " is ", id,
                 "; those of a position are different ids below ", n_vocab, ", in ascending order");
        }
    }
    backend_->copy_to_device(memory_.candidates, candidates.ids.data(), candidates.ids.size_bytes());
    n_candidates_ = static_cast<int32_t>(n);
    temperature_ = candidates.temperature;
}

double Session::write_nll(std::span<float> nll) {
    const std::vector<double> wide = read_nll(nll.size());
    std::copy(wide.begin(), wide.end(), nll.begin());
    return std::accumulate(wide.begin(), wide.end(), 0.0);
}

LossSum Session::forward_candidates(const PackedBatch & batch, const Candidates & candidates, std::span<float> nll) {
    begin_training(batch);
    put_candidates(candidates, nll.size());
    const auto n_labels = static_cast<uint64_t>(n_candidates_);
    backend_->repeat(segments_, derive_seed(shape_key(), candidates_half, n_labels), [&] {
        forward(true);
        head(HeadPass::loss);
    });
    const double sum = write_nll(nll);
    if (!std::isfinite(sum)) fail_non_finite_loss();
    has_forward_ = true;
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

void Session::backward_candidates(std::span<const float> weights) {
    check_training();
    if (!has_forward_ || n_candidates_ == 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "there is no forward pass to go back through: call forward_candidates first, and nothing between it and "
             "backward_candidates; evaluations, steps and other micro-batches use the same memory");
    }
    const size_t n = trained_rows_.size() * static_cast<size_t>(n_candidates_);
    if (weights.size() != n) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there are ", weights.size(), " weights; the micro-batch has ", n,
             " candidates");
    }
    for (size_t i = 0; i < n; ++i) {
        if (!std::isfinite(weights[i])) {
            fail(LORICA_ERROR_NON_FINITE, "the weight of candidate ", i, " is not finite after ", step_count_,
                 " optimizer steps");
        }
    }
    has_forward_ = false;
    backend_->copy_to_device(memory_.row_weights, weights.data(), weights.size_bytes());
    const auto n_labels = static_cast<uint64_t>(n_candidates_);
    backend_->repeat(segments_, derive_seed(shape_key(), candidates_backward_half, n_labels), [&] {
        head(HeadPass::weighted);
        backward();
    });
    adapter_->pass_on_prompt_gradient(gradients_);
}

LossSum Session::evaluate_candidates(const PackedBatch & batch, const Candidates & candidates, std::span<float> nll) {
    upload(batch);
    put_candidates(candidates, nll.size());
    attached_->set_dropout_seed(*backend_, std::nullopt);
    embed(false);
    forward(false);
    head(HeadPass::evaluation);
    const double sum = write_nll(nll);
    if (!std::isfinite(sum)) {
        fail(LORICA_ERROR_NON_FINITE, "the loss of an evaluation is not finite after ", step_count_,
             " optimizer steps");
    }
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

LossSum Session::evaluate_likeliest(const PackedBatch & batch, double temperature, std::span<int32_t> ids,
                                    std::span<float> log_probs) {
    if (!config_.likeliest) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "this session was not made for the likeliest tokens; ask for them");
    }
    check_temperature(temperature);
    upload(batch);
    const int64_t n = checked_per_row(ids.size(), "likeliest tokens"), n_vocab = model_->shape().n_vocab;
    if (n > n_vocab || log_probs.size() != ids.size()) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there is room for ", ids.size(), " ids and ", log_probs.size(),
             " log-probabilities; of each position there are as many, and at most ", n_vocab);
    }
    attached_->set_dropout_seed(*backend_, std::nullopt);
    embed(false);
    forward(false);
    const auto rows = static_cast<int64_t>(trained_rows_.size());
    std::vector<float> logits;
    for (int64_t first = 0; first < rows; first += likeliest_rows(planned_)) {
        const int64_t count = std::min(likeliest_rows(planned_), rows - first);
        Bound b = bound(model_->architecture().epilogue, model_->epilogue(), plan_->evaluated_epilogue(),
                        memory_.evaluated_epilogue.forward, model_->shape().n_layer);
        b.picked += first;
        b.n_picked = count;
        b.labels = nullptr;
        b.logits = memory_.logits;
        // Of these rows, of an activated LoRA on the head.
        if (memory_.head_gate) attached_->set_head_gate({memory_.head_gate + first, Dtype::f32, count, 1, 1});
        run(plan_->evaluated_epilogue().forward, b, *backend_);
        logits.resize(static_cast<size_t>(count * n_vocab));
        backend_->copy_to_host(logits.data(), memory_.logits, logits.size() * sizeof(float));
        if (!std::all_of(logits.begin(), logits.end(), [](float z) { return std::isfinite(z); })) {
            fail(LORICA_ERROR_NON_FINITE, "a logit of an evaluation is not finite after ", step_count_,
                 " optimizer steps");
        }
        const auto per_row = static_cast<size_t>(n), width = static_cast<size_t>(n_vocab);
        parallel_tasks(count, ThreadPool::instance().n_threads(), [&](int, int64_t row) {
            const auto at = static_cast<size_t>(first + row) * per_row;
            take_likeliest(std::span(logits).subspan(static_cast<size_t>(row) * width, width), temperature,
                           ids.subspan(at, per_row), log_probs.subspan(at, per_row));
        });
    }
    return {0, rows};
}

}  // namespace lorica
