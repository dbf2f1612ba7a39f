// Forward and backward over one micro-batch.
#include <algorithm>
#include <bit>
#include <cmath>

#include "common/error.h"
#include "common/random.h"
#include "train/all_finite.h"
#include "train/session.h"

namespace lorica {

namespace {

template <typename Real> bool all_finite_as(Backend & backend, const void * device, int64_t n) {
    std::vector<Real> values(static_cast<size_t>(n));
    backend.copy_to_host(values.data(), device, values.size() * sizeof(Real));
    return std::all_of(values.begin(), values.end(), [](Real x) { return std::isfinite(x); });
}

}  // namespace

bool all_finite(Backend & backend, const void * device, Dtype type, int64_t n) {
    return type == Dtype::f64 ? all_finite_as<double>(backend, device, n) : all_finite_as<float>(backend, device, n);
}

Bound Session::bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                     std::span<const Matrix> slots, int32_t layer) const {
    Bound b{program, weights, plan, slots, n_tokens_, layer};
    b.adapter = adapter_ ? attached_.get() : nullptr;
    b.positions = memory_.positions;
    b.longest_sequence = planned_.longest_sequence();
    b.segments = segments_;
    b.tokens = memory_.tokens;
    b.token_types = memory_.types;
    b.n_picked = static_cast<int64_t>(trained_rows_.size());
    b.picked = memory_.rows;
    b.labels = memory_.labels;
    b.sorted_tokens = sorted_tokens_;
    b.sorted_positions = sorted_positions_;
    b.sorted_types = sorted_types_;
    b.sorted_virtual = sorted_virtual_;
    b.noise_segments = noise_segments_;
    b.prefix = prefix_;
    return b;
}

void Session::embed(bool training, bool with_adapter) {
    if (adapter_) adapter_->update(*backend_);
    const BlockPlan & plan = plan_->prologue(training);
    const PlacedSlots & slots = training ? memory_.prologue : memory_.evaluated_prologue;
    Bound b = bound(model_->architecture().prologue, model_->prologue(), plan, slots.forward);
    if (!with_adapter) b.adapter = nullptr;
    constexpr uint64_t noise_stream = 0x6e656674756e65;  // no layer has this number
    b.noise_alpha = config_.neftune_alpha;
    b.noise_seed = derive_seed(micro_batch_seed(), noise_stream);
    run(plan.forward, b, *backend_);
}

// Leaves the output of the last layer in x.back() when training, else in x.front().
void Session::forward(bool training) {
    const Architecture & architecture = model_->architecture();
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        const BlockPlan & plan = training ? plan_->training(l) : plan_->evaluation(l);
        const std::vector<Matrix> & slots = training ? memory_.training[i].forward : memory_.evaluation[i].forward;
        run(plan.forward, bound(architecture.layer(l), model_->layers()[i], plan, slots, l), *backend_);
    }
}

void Session::forward_without_adapter() {
    const Architecture & architecture = model_->architecture();
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        const auto i = static_cast<size_t>(l);
        const BlockPlan & plan = plan_->bare(l);
        Bound b = bound(architecture.layer(l), model_->layers()[i], plan, memory_.bare[i].forward, l);
        b.adapter = nullptr;
        run(plan.forward, b, *backend_);
    }
}

void Session::head(HeadPass pass, bool with_adapter) {
    const bool of_training = pass != HeadPass::evaluation;
    const BlockPlan & plan = of_training ? plan_->epilogue() : plan_->evaluated_epilogue();
    const PlacedSlots & slots = of_training ? memory_.epilogue : memory_.evaluated_epilogue;
    Bound b = bound(model_->architecture().epilogue, model_->epilogue(), plan, slots.forward, model_->shape().n_layer);
    if (!with_adapter) b.adapter = nullptr;
    b.loss_alone = pass == HeadPass::loss;
    b.trains_head = plan_->trains_head() && (pass == HeadPass::gradient || pass == HeadPass::weighted);
    if (pass == HeadPass::weighted) b.row_weights = memory_.row_weights;
    if (n_candidates_ > 0) {
        b.labels = memory_.candidates;
        b.n_labels = n_candidates_;
        b.temperature = temperature_;
    }
    run(plan.forward, b, *backend_);
}

std::vector<double> Session::read_nll(size_t n) {
    std::vector<double> nll(n);
    if (memory_.nll.type == Dtype::f64) {
        backend_->copy_to_host(nll.data(), memory_.nll.data, nll.size() * sizeof(double));
    } else {
        std::vector<float> narrow(nll.size());
        backend_->copy_to_host(narrow.data(), memory_.nll.data, narrow.size() * sizeof(float));
        std::copy(narrow.begin(), narrow.end(), nll.begin());
    }
    return nll;
}

double Session::loss(std::span<float> token_nll) {
    const std::vector<double> nll = read_nll(trained_rows_.size());
    double sum = 0;
    for (size_t i = 0; i < nll.size(); ++i) {
        sum += nll[i];
        if (!token_nll.empty()) token_nll[static_cast<size_t>(trained_tokens_[i])] = static_cast<float>(nll[i]);
    }
    return sum;
}

void Session::backward() { backward_through(model_->architecture().epilogue, plan_->epilogue(), memory_.epilogue); }

// From what comes behind the layers.
void Session::backward_through(const Program & program, const BlockPlan & behind, const PlacedSlots & slots) {
    const Architecture & architecture = model_->architecture();
    run(behind.backward, bound(program, model_->epilogue(), behind, slots.backward, architecture.shape.n_layer),
        *backend_);
    for (int32_t l = architecture.shape.n_layer - 1; l >= plan_->first_layer(); --l) {
        const auto i = static_cast<size_t>(l);
        const BlockPlan & plan = plan_->training(l);
        run(plan.backward, bound(architecture.layer(l), model_->layers()[i], plan, memory_.training[i].backward, l),
            *backend_);
    }
    if (!plan_->trains_prologue()) return;
    const BlockPlan & prologue = plan_->prologue(true);
    run(prologue.backward, bound(architecture.prologue, model_->prologue(), prologue, memory_.prologue.backward),
        *backend_);
}

void Session::check_training() const {
    if (!adapter_) fail(LORICA_ERROR_INVALID_ARGUMENT, "this session has no adapter: it can only evaluate");
}

void Session::check_optimizer() const {
    check_training();
    if (config_.gradients_only) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "this session computes gradients and nothing else: steps are taken and states kept by one that was made "
             "without gradients_only");
    }
}

void Session::begin_training(const PackedBatch & batch, Rows rows) {
    check_training();
    upload(batch, rows);
    if (trained_rows_.empty()) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "no token of the micro-batch is trained on: every label is -100");
    }
    attached_->set_dropout_seed(*backend_, micro_batch_seed(), memory_.dropout_seeds);
    embed(true);
    ++micro_batch_count_;
}

LossSum Session::forward_backward(const PackedBatch & batch) {
    begin_training(batch);
    double sum = 0;
    if (backend_->runs_ahead()) {
        backend_->repeat(segments_, shape_key(), [&] {
            forward(true);
            head(HeadPass::gradient);
            backward();
        });
        sum = loss({});
        if (!std::isfinite(sum)) fail_non_finite_loss();
    } else {
        forward(true);
        head(HeadPass::gradient);
        sum = loss({});
        if (!std::isfinite(sum)) fail_non_finite_loss();
        backward();
    }
    adapter_->pass_on_prompt_gradient(gradients_);
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

// Of what a device repeats apart from forward_backward.
enum : uint64_t { forward_half = 1, backward_half, weighted_backward_half };

LossSum Session::forward(const PackedBatch & batch, std::span<float> token_nll) {
    begin_training(batch);
    std::fill(token_nll.begin(), token_nll.end(), 0.0f);
    backend_->repeat(segments_, derive_seed(shape_key(), forward_half), [&] {
        forward(true);
        // What is trained on the head has gradients that are sums over rows: they wait for the rows' weights.
        head(plan_->trains_head() ? HeadPass::loss : HeadPass::gradient);
    });
    const double sum = loss(token_nll);
    if (!std::isfinite(sum)) fail_non_finite_loss();
    has_forward_ = true;
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

void Session::backward(std::span<const float> weights) {
    check_training();
    if (!has_forward_ || n_candidates_ > 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT,
             "there is no forward pass to go back through: call forward first, and nothing between it and backward; "
             "evaluations, steps and other micro-batches use the same memory");
    }
    if (static_cast<int64_t>(weights.size()) != n_given_tokens_) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "there are ", weights.size(), " weights; the micro-batch has ",
             n_given_tokens_, " tokens");
    }
    std::vector<float> of_rows;
    for (const int32_t t : trained_tokens_) {
        of_rows.push_back(weights[static_cast<size_t>(t)]);
        if (!std::isfinite(of_rows.back())) {
            fail(LORICA_ERROR_NON_FINITE, "the weight of token ", t, " is not finite after ", step_count_,
                 " optimizer steps");
        }
    }
    has_forward_ = false;
    const bool weighted = std::any_of(of_rows.begin(), of_rows.end(), [](float weight) { return weight != 1; });
    const bool again = plan_->trains_head();
    if (again) {
        backend_->copy_to_device(memory_.row_weights, of_rows.data(), of_rows.size() * sizeof(float));
    } else if (weighted) {
        backend_->copy_to_device(memory_.nll.data, of_rows.data(), of_rows.size() * sizeof(float));
    }
    backend_->repeat(segments_, derive_seed(shape_key(), weighted ? weighted_backward_half : backward_half), [&] {
        if (again) {
            head(HeadPass::weighted);
        } else if (weighted) {
            scale_head_gradient();
        }
        backward();
    });
    adapter_->pass_on_prompt_gradient(gradients_);
}

void Session::scale_head_gradient() {
    // The losses have been read: the weights lie where they were.
    const auto * const weights = memory_.nll.as<const float>();
    for (const Call & call : plan_->epilogue().forward) {
        if (call.kind != Call::head) continue;
        const Matrix dx = memory_.epilogue.forward[static_cast<size_t>(call.dx)].slice_rows(
            0, static_cast<int64_t>(trained_rows_.size()));
        backend_->scale_rows(dx, weights, dx);
    }
}

uint64_t Session::shape_key() const {
    uint64_t key = trained_rows_.size();
    for (const LoraPair & pair : adapter_->pairs())
        key = derive_seed(key, std::bit_cast<uint64_t>(adapter_->scale(pair)));
    return key;
}

LossSum Session::evaluate(const PackedBatch & batch, std::span<float> token_nll, bool with_adapter) {
    upload(batch, Rows::labelled, with_adapter);
    std::fill(token_nll.begin(), token_nll.end(), 0.0f);
    if (trained_rows_.empty()) return {};
    attached_->set_dropout_seed(*backend_, std::nullopt);
    embed(false, with_adapter);
    if (with_adapter) {
        forward(false);
    } else {
        forward_without_adapter();
    }
    head(HeadPass::evaluation, with_adapter);
    const double sum = loss(token_nll);
    if (!std::isfinite(sum)) {
        fail(LORICA_ERROR_NON_FINITE, "the loss of an evaluation is not finite after ", step_count_,
             " optimizer steps");
    }
    return {sum, static_cast<int64_t>(trained_rows_.size())};
}

void Session::fail_non_finite_loss() const {
    const int32_t first = plan_->first_layer();
    for (size_t i = 0; i < memory_.x.size(); ++i) {
        const Matrix & x = memory_.x[i];
        if (all_finite(*backend_, x.data, x.type, n_tokens_ * x.cols)) continue;
        const int32_t layer = first + static_cast<int32_t>(i);
        fail(LORICA_ERROR_NON_FINITE, "the loss is not finite after ", step_count_,
             " optimizer steps; the first values that are not came out of ",
             layer == 0 ? std::string("the embedding") : "layer " + std::to_string(layer - 1));
    }
    fail(LORICA_ERROR_NON_FINITE, "the loss is not finite after ", step_count_,
         " optimizer steps; it became so in the output head");
}

}  // namespace lorica
