// The engine against PyTorch: logits, losses, every gradient and 20 AdamW steps of small models, as transformers and
// PEFT compute them. scripts/make_family_goldens.py wrote the files and says what is in them; model and adapter come
// from its hand too, so this also proves the two file layouts.
//
// Errors are measured in the maximum norm, max |actual - expected| / max |expected| over a tensor: one wrong row among
// many right ones shows. For a single number that is the relative error. The goldens are f32 results themselves; the
// f64 reference is as far from them as the f32 devices are, so what is measured below is mostly their rounding.
#include "gguf/gguf_file.h"
#include "support/c_structs.h"

#include <gtest/gtest.h>
#include <lorica/lorica.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <memory>
#include <span>
#include <stdexcept>
#include <string>
#include <tuple>
#include <vector>

namespace lorica {
namespace {

// Sums of up to 160 products in another order, through two layers: some 2^-24 each. Measured: at most 1.1e-6.
constexpr double forward_tolerance = 1e-5;
// The backward pass adds as many sums again, and gradients of q and k are differences of nearly equal numbers (softmax
// only moves weight between keys). Measured: at most 3.4e-6, in q.
constexpr double gradient_tolerance = 3e-5;
// Adam divides by the size of the gradient: an element whose gradient is all rounding still moves by the learning rate.
// There are few of these, and they move the loss little, or their gradients would not be small. Measured over 20 steps:
// losses 2.8e-7, gradient norms 3.8e-6. The closest wrong optimizer that the script tries is 7e-3 away in some case.
constexpr double training_tolerance = 5e-5;

// More than any batch has, and no more than the original context of phi3's case, whose goldens take the near
// frequencies.
constexpr int32_t max_tokens = 32;

// ---- the golden's arrays ----

template <typename T> constexpr ggml_type ggml_type_of = GGML_TYPE_COUNT;
template <> constexpr ggml_type ggml_type_of<float> = GGML_TYPE_F32;
template <> constexpr ggml_type ggml_type_of<double> = GGML_TYPE_F64;
template <> constexpr ggml_type ggml_type_of<int32_t> = GGML_TYPE_I32;

// Empty when the golden has no such array.
template <typename T> std::vector<T> array(const GgufFile & file, const std::string & name) {
    const TensorView * tensor = file.find_tensor(name);
    if (!tensor) return {};
    EXPECT_EQ(tensor->type, ggml_type_of<T>) << name;
    std::vector<T> values(static_cast<size_t>(tensor->n_elements()));
    std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
    return values;
}

struct GoldenBatch {
    std::vector<int32_t> tokens, labels, positions, sequence_lengths;

    lorica_batch view() const {
        auto batch = test::defaults(lorica_batch_default);
        batch.tokens = tokens.data();
        batch.labels = labels.data();
        if (!positions.empty()) batch.positions = positions.data();
        batch.sequence_lengths = sequence_lengths.data();
        batch.n_tokens = static_cast<int32_t>(tokens.size());
        batch.n_sequences = static_cast<int32_t>(sequence_lengths.size());
        return batch;
    }
    std::vector<GoldenBatch> sequences() const {
        std::vector<GoldenBatch> parts;
        ptrdiff_t first = 0;
        for (const int32_t length : sequence_lengths) {
            auto part = [&](const std::vector<int32_t> & x) {
                return x.empty() ? x : std::vector<int32_t>(x.begin() + first, x.begin() + first + length);
            };
            parts.push_back({part(tokens), part(labels), part(positions), {length}});
            first += length;
        }
        return parts;
    }
    int64_t n_trained() const {
        return std::count_if(labels.begin(), labels.end(), [](int32_t label) { return label != -100; });
    }
};

// ---- comparing ----

void expect_close(const std::vector<float> & actual, const std::vector<float> & expected, double tolerance,
                  const std::string & what) {
    ASSERT_EQ(actual.size(), expected.size()) << what;
    ASSERT_FALSE(expected.empty()) << what;
    double difference = 0, size = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        ASSERT_TRUE(std::isfinite(actual[i])) << what << " " << i;
        difference = std::max(difference, std::abs(double{actual[i]} - expected[i]));
        size = std::max(size, std::abs(double{expected[i]}));
    }
    EXPECT_LE(difference / size, tolerance) << what;
}

void expect_close(double actual, double expected, double tolerance, const std::string & what) {
    EXPECT_LE(std::abs(actual - expected) / std::abs(expected), tolerance)
        << what << ": " << actual << ", not " << expected;
}

double mean(const lorica_batch_result & result) { return result.loss_sum / static_cast<double>(result.n_trained); }

// ---- one case on one device ----

struct Device {
    const char * name;
    lorica_precision precision;
};

void PrintTo(const Device & device, std::ostream * out) { *out << device.name; }

void check(lorica_status status) {
    if (status != LORICA_OK) throw std::runtime_error(lorica_last_error());
}

template <typename T, void (*release)(T *)> struct Release {
    void operator()(T * handle) const { release(handle); }
};
template <typename T, void (*release)(T *)> using Handle = std::unique_ptr<T, Release<T, release>>;

using AdapterHandle = Handle<lorica_adapter, lorica_adapter_free>;
using TrainHandle = Handle<lorica_session, lorica_session_free>;
using ContextHandle = Handle<lorica_kv_cache, lorica_kv_cache_free>;

class ModelGoldenTest : public testing::TestWithParam<std::tuple<std::string, Device>> {
protected:
    ModelGoldenTest()
        : folder_(std::string(LORICA_REPOSITORY "/native/tests/data/model_goldens/") + std::get<0>(GetParam()) + "/"),
          golden_(GgufFile::open(folder_ + "golden.gguf")) {}

    void SetUp() override {
        const Device & device = std::get<1>(GetParam());
        auto params = test::defaults(lorica_model_default_params);
        params.device = device.name;
        params.precision = device.precision;
        params.n_threads = 2;
        lorica_model * model = nullptr;
        check(lorica_model_load((folder_ + "model.gguf").c_str(), &params, &model));
        model_.reset(model);
        lorica_adapter * adapter = nullptr;
        check(lorica_adapter_load(model_.get(), (folder_ + "adapter.gguf").c_str(), &adapter));
        adapter_.reset(adapter);
    }

    GoldenBatch batch(int64_t i) const {
        const std::string prefix = "batch." + std::to_string(i) + ".";
        return {array<int32_t>(golden_, prefix + "tokens"), array<int32_t>(golden_, prefix + "labels"),
                array<int32_t>(golden_, prefix + "positions"), array<int32_t>(golden_, prefix + "sequence_lengths")};
    }

    TrainHandle make_session(lorica_recomputation recomputation = LORICA_RECOMPUTATION_OFF) const {
        auto params = test::defaults(lorica_session_default_params);
        params.max_tokens = max_tokens;
        params.recomputation = recomputation;
        lorica_session * train = nullptr;
        check(lorica_session_create(model_.get(), adapter_.get(), &params, &train));
        return TrainHandle(train);
    }

    ContextHandle make_context(const lorica_adapter * adapter) const {
        lorica_kv_cache * context = nullptr;
        check(lorica_kv_cache_create(model_.get(), adapter, max_tokens, &context));
        return ContextHandle(context);
    }

    size_t n_vocab() const {
        lorica_model_info info{sizeof(lorica_model_info)};
        check(lorica_model_get_info(model_.get(), &info));
        return static_cast<size_t>(info.n_vocab);
    }

    // The session's gradient sums hold those of `n_trained` tokens.
    void expect_golden_gradients(const lorica_session * train, int64_t n_trained, const std::string & what) const {
        const int32_t n_tensors = lorica_adapter_n_tensors(adapter_.get());
        int32_t n_compared = 0;
        for (int32_t i = 0; i < n_tensors; ++i) {
            lorica_adapter_tensor tensor{sizeof(lorica_adapter_tensor)};
            check(lorica_adapter_tensor_info(adapter_.get(), i, &tensor));
            std::vector<float> gradient(static_cast<size_t>(tensor.rows * tensor.cols));
            check(lorica_session_get_gradient(train, i, gradient.data(), tensor.rows * tensor.cols));
            for (float & value : gradient) value /= static_cast<float>(n_trained);
            if (std::get<0>(GetParam()).starts_with("encoded_") && std::string(tensor.name) == "prompt_embeddings") {
                // It follows from its encoder, to which its gradient has gone on.
                EXPECT_EQ(gradient, std::vector<float>(gradient.size()));
                continue;
            }
            ++n_compared;
            if (std::get<0>(GetParam()).starts_with("pissa_")) gradient = trained_half(gradient, tensor);
            expect_close(gradient, array<float>(golden_, "gradient." + std::string(tensor.name)), gradient_tolerance,
                         what + tensor.name);
        }
        const auto & tensors = golden_.tensors();
        const auto is_gradient = [](const TensorView & tensor) { return tensor.name.starts_with("gradient."); };
        EXPECT_EQ(n_compared, std::count_if(tensors.begin(), tensors.end(), is_gradient));
    }

    // Of an activated LoRA, tokens between the first of its first invocation and the last of its last are another's
    // before they are all there. `logits` ends with those of the sequence; `all` has them where `logits` has.
    void leave_out_what_begins_later(const GoldenBatch & sequence, std::vector<float> & logits,
                                     std::vector<float> & all) const {
        lorica_adapter_info info{sizeof(lorica_adapter_info)};
        check(lorica_adapter_get_info(adapter_.get(), &info));
        const std::span<const int32_t> tokens(sequence.tokens),
            invocation(info.invocation_tokens, static_cast<size_t>(info.n_invocation_tokens));
        const auto first = std::search(tokens.begin(), tokens.end(), invocation.begin(), invocation.end()),
                   last = std::find_end(tokens.begin(), tokens.end(), invocation.begin(), invocation.end());
        if (invocation.empty() || first == tokens.end()) return;
        const auto n_vocab = static_cast<ptrdiff_t>(this->n_vocab());
        const ptrdiff_t begin = static_cast<ptrdiff_t>(logits.size()) - std::ssize(tokens) * n_vocab,
                        from = begin + (first - tokens.begin()) * n_vocab,
                        to = begin + (last - tokens.begin() + std::ssize(invocation) - 1) * n_vocab;
        for (std::vector<float> * values : {&logits, &all}) values->erase(values->begin() + from, values->begin() + to);
    }

    // Of [A; A0] and [B, -B0] what PEFT has: A and B.
    static std::vector<float> trained_half(const std::vector<float> & values, const lorica_adapter_tensor & tensor) {
        const bool is_a = std::string(tensor.name).ends_with(".lora_a");
        const int64_t rows = is_a ? tensor.rows / 2 : tensor.rows, cols = is_a ? tensor.cols : tensor.cols / 2;
        std::vector<float> half;
        for (int64_t row = 0; row < rows; ++row) {
            const auto first = values.begin() + row * tensor.cols;
            half.insert(half.end(), first, first + cols);
        }
        return half;
    }

    std::string folder_;
    GgufFile golden_;
    // A model outlives what was made from it.
    Handle<lorica_model, lorica_model_free> model_;
    AdapterHandle adapter_;
};

TEST_P(ModelGoldenTest, gives_the_logits_of_a_prompt) {
    const size_t n_vocab = this->n_vocab();
    const ContextHandle context = make_context(adapter_.get()), base = make_context(nullptr);
    std::vector<float> logits, base_logits;
    for (const GoldenBatch & sequence : batch(0).sequences()) {
        const auto n = static_cast<int32_t>(sequence.tokens.size());
        check(lorica_kv_cache_truncate(context.get(), 0));
        check(lorica_kv_cache_truncate(base.get(), 0));
        std::vector<float> part(static_cast<size_t>(n) * n_vocab), last(n_vocab);
        check(lorica_kv_cache_eval(context.get(), sequence.tokens.data(), n, true, part.data()));
        logits.insert(logits.end(), part.begin(), part.end());
        check(lorica_kv_cache_eval(base.get(), sequence.tokens.data(), n, false, last.data()));
        base_logits.insert(base_logits.end(), last.begin(), last.end());
    }
    expect_close(logits, array<float>(golden_, "logits"), forward_tolerance, "logits");
    expect_close(base_logits, array<float>(golden_, "base_logits"), forward_tolerance, "base logits");
}

TEST_P(ModelGoldenTest, gives_the_same_logits_token_by_token) {
    const size_t n_vocab = this->n_vocab();
    const ContextHandle context = make_context(adapter_.get());
    std::vector<float> logits, expected = array<float>(golden_, "logits"), row(n_vocab);
    for (const GoldenBatch & sequence : batch(0).sequences()) {
        check(lorica_kv_cache_truncate(context.get(), 0));
        for (const int32_t token : sequence.tokens) {
            check(lorica_kv_cache_eval(context.get(), &token, 1, false, row.data()));
            logits.insert(logits.end(), row.begin(), row.end());
        }
        leave_out_what_begins_later(sequence, logits, expected);
    }
    expect_close(logits, expected, forward_tolerance, "logits");
}

TEST_P(ModelGoldenTest, gives_the_loss_of_each_token) {
    const GoldenBatch batch = this->batch(0);
    const TrainHandle train = make_session();
    const lorica_batch input = batch.view();
    std::vector<float> nll(batch.tokens.size());
    lorica_batch_result result{sizeof(lorica_batch_result)};
    check(lorica_session_evaluate(train.get(), &input, nll.data(), &result));
    expect_close(nll, array<float>(golden_, "token_nll"), forward_tolerance, "token losses");
    ASSERT_EQ(result.n_trained, batch.n_trained());
    expect_close(mean(result), golden_.find_float("loss").value(), forward_tolerance, "loss");
}

TEST_P(ModelGoldenTest, gives_every_gradient) {
    const GoldenBatch batch = this->batch(0);
    for (const lorica_recomputation recomputation : {LORICA_RECOMPUTATION_OFF, LORICA_RECOMPUTATION_ON}) {
        const TrainHandle train = make_session(recomputation);
        const lorica_batch input = batch.view();
        lorica_batch_result result{sizeof(lorica_batch_result)};
        check(lorica_session_forward_backward(train.get(), &input, &result));
        ASSERT_EQ(result.n_trained, batch.n_trained());
        expect_close(mean(result), golden_.find_float("loss").value(), forward_tolerance, "loss");
        expect_golden_gradients(train.get(), result.n_trained,
                                recomputation == LORICA_RECOMPUTATION_ON ? "recomputed " : "");
    }
}

TEST_P(ModelGoldenTest, accumulates_the_gradients_of_sequences_given_one_by_one) {
    const TrainHandle train = make_session();
    for (const GoldenBatch & sequence : batch(0).sequences()) {
        if (sequence.n_trained() == 0) continue;
        const lorica_batch input = sequence.view();
        lorica_batch_result result{sizeof(lorica_batch_result)};
        check(lorica_session_forward_backward(train.get(), &input, &result));
    }
    expect_golden_gradients(train.get(), batch(0).n_trained(), "");
}

TEST_P(ModelGoldenTest, trains_like_torch_adamw) {
    std::vector<GoldenBatch> batches;
    for (int64_t i = 0; i < golden_.find_int("n_batches").value(); ++i) batches.push_back(batch(i));
    const TrainHandle train = make_session();
    const auto expected_losses = array<double>(golden_, "losses");
    const auto expected_norms = array<double>(golden_, "grad_norms");
    ASSERT_EQ(expected_losses.size(), 20u);
    for (size_t step = 0; step < expected_losses.size(); ++step) {
        const lorica_batch input = batches[step % batches.size()].view();
        lorica_batch_result result{sizeof(lorica_batch_result)};
        check(lorica_session_forward_backward(train.get(), &input, &result));
        const std::string at_step = " at step " + std::to_string(step + 1);
        expect_close(mean(result), expected_losses[step], training_tolerance, "loss" + at_step);

        lorica_optimizer_step_params params{sizeof(lorica_optimizer_step_params)};
        params.learning_rate = golden_.find_float("learning_rate").value();
        params.weight_decay = golden_.find_float("weight_decay").value();
        params.max_grad_norm = golden_.find_float("max_grad_norm").value();
        params.grad_scale = 1 / static_cast<double>(result.n_trained);
        double norm = 0;
        check(lorica_session_optimizer_step(train.get(), &params, &norm));
        expect_close(norm, expected_norms[step], training_tolerance, "gradient norm" + at_step);
    }
}

std::string test_name(const testing::TestParamInfo<ModelGoldenTest::ParamType> & info) {
    const auto & [name, device] = info.param;
    return name + "_on_" + device.name + (device.precision == LORICA_PRECISION_F64 ? "_f64" : "");
}

const std::string cases[] = {"grouped_heads_f32",
                             "tied_output_q4_0",
                             "llama3_rope_f16",
                             "one_kv_head_bf16",
                             "dora_q4_0",
                             "llama_biases",
                             "llama_yarn",
                             "mistral_window",
                             "qwen2",
                             "qwen2_yarn",
                             "qwen3",
                             "granite",
                             "smollm3",
                             "mistral3",
                             "phi3",
                             "phi4_mini",
                             "gpt2",
                             "falcon_7b",
                             "falcon_40b",
                             "gptneox",
                             "gptneox_serial",
                             "gemma",
                             "gemma2",
                             "gemma3",
                             "olmo2",
                             "olmo3",
                             "ia3_llama",
                             "ia3_gpt2",
                             "ia3_falcon",
                             "bitfit_llama",
                             "bitfit_gpt2",
                             "bitfit_gemma2",
                             "full_llama",
                             "full_gpt2",
                             "prompt_llama",
                             "prompt_gpt2",
                             "encoded_prompt_llama",
                             "encoded_prompt_gpt2",
                             "prefix_llama",
                             "prefix_gpt2",
                             "pissa_q4_0",
                             "pissa_gpt2",
                             "houlsby_llama",
                             "houlsby_gpt2",
                             "pfeiffer_llama",
                             "pfeiffer_gpt2",
                             "head_qwen2",
                             "head_gemma2",
                             "head_gpt2",
                             "alora_q4_0",
                             "alora_qwen2",
                             "alora_gpt2"};
constexpr Device devices[] = {
    {"reference", LORICA_PRECISION_F32}, {"reference", LORICA_PRECISION_F64}, {"cpu", LORICA_PRECISION_F32}};

INSTANTIATE_TEST_SUITE_P(Goldens, ModelGoldenTest,
                         testing::Combine(testing::ValuesIn(cases), testing::ValuesIn(devices)), test_name);

}  // namespace
}  // namespace lorica
