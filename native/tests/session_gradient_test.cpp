// The gradients of the whole model: finite differences on the f64 reference, then every device, weight type and memory
// setting against that.
#include <gtest/gtest.h>

#include "support/training.h"

namespace lorica {
namespace {

using namespace test;

AdapterConfig adapter_config(float dropout = 0) {
    AdapterConfig config;
    config.rank = 4;
    config.alpha = 8;
    config.dropout = dropout;
    return config;
}

SessionConfig session_config(Recomputation recomputation = Recomputation::off) {
    SessionConfig config;
    config.max_tokens = 128;
    config.recomputation = recomputation;
    return config;
}

// DoRA's norms are constants to the gradient: they stay what they are when A or B moves without the adapter being told.
void put(Adapter & adapter, int32_t i, const std::vector<float> & values) {
    const Adapter::Tensor & tensor = adapter.tensor(i);
    if (tensor.kind == Adapter::Kind::magnitude) {
        adapter.write(adapter.params(), i, values.data());
    } else {
        std::copy(values.begin(), values.end(), static_cast<double *>(adapter.params()) + tensor.offset);
    }
}

// d(loss)/d(step) along `direction` of tensor i, from four points: error O(step^4) (Abramowitz and Stegun 25.3.6).
double finite_difference(Adapter & adapter, int32_t i, const std::vector<float> & direction, const Batch & batch) {
    constexpr double step = 0x1p-11;
    const std::vector<float> start = adapter.read(adapter.params(), i);
    auto loss_at = [&](double steps) {
        std::vector<float> moved = start;
        for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
        put(adapter, i, moved);
        // A new session draws the same dropout masks for its first micro-batch.
        std::shared_ptr<Adapter> shared(&adapter, [](Adapter *) {});
        return Session(shared, session_config()).forward_backward(batch.view()).loss_sum;
    };
    const double derivative = (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * step);
    put(adapter, i, start);
    return derivative;
}

void expect_gradients_match_finite_differences(const TestModel & shape, const AdapterConfig & config) {
    const TempDir dir;
    const auto model = load(write_test_model(dir / "model.gguf", shape), "reference", Dtype::f64);
    const auto adapter = busy_adapter(model, config);
    const Batch batch = random_batch(5, {7, 1, 12}, shape.n_vocab);
    std::vector<std::vector<float>> exact;
    {
        Session session(adapter, session_config());
        session.forward_backward(batch.view());
        exact = gradients(session);
    }
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const auto tensor = adapter->tensor(i);
        std::vector<float> direction(exact[static_cast<size_t>(i)].size());
        double predicted = 0, size = 0;
        for (size_t j = 0; j < direction.size(); ++j) {
            direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
            predicted += static_cast<double>(exact[static_cast<size_t>(i)][j]) * direction[j];
            size += std::abs(static_cast<double>(exact[static_cast<size_t>(i)][j]));
        }
        const double measured = finite_difference(*adapter, i, direction, batch);
        // Gradients are read as f32: each element carries 2^-25 of itself.
        EXPECT_LE(std::abs(measured - predicted), 1e-6 * std::max(std::abs(predicted), 0.05 * size))
            << tensor.name << " " << predicted;
        EXPECT_GT(size, 0) << tensor.name;
    }
}

TEST(WholeModelGradient, EqualsFiniteDifferencesWithGroupedHeadsAndUntiedOutput) {
    expect_gradients_match_finite_differences({}, adapter_config());
}

TEST(WholeModelGradient, EqualsFiniteDifferencesWithTiedOutputAndScaledRope) {
    TestModel shape;
    shape.tied_output = true;
    shape.rope_freqs = true;
    shape.n_layer = 3;
    expect_gradients_match_finite_differences(shape, adapter_config());
}

TEST(WholeModelGradient, EqualsFiniteDifferencesUnderDropout) {
    expect_gradients_match_finite_differences({}, adapter_config(0.3f));
}

TEST(WholeModelGradient, EqualsFiniteDifferencesOnQuantizedWeights) {
    TestModel shape;
    shape.type = GGML_TYPE_Q4_0;
    shape.embd_type = GGML_TYPE_Q8_0;
    expect_gradients_match_finite_differences(shape, adapter_config());
}

TEST(WholeModelGradient, EqualsFiniteDifferencesWhenOnlySomeModulesOfSomeLayersAreAdapted) {
    TestModel shape;
    shape.n_layer = 4;
    for (const char * targets :
         {"blk.1.attn_v,blk.3.ffn_down", "blk.2.ffn_up", "blk.1.attn_output,blk.1.ffn_gate", "k_proj"}) {
        AdapterConfig config = adapter_config();
        config.target_modules = targets;
        expect_gradients_match_finite_differences(shape, config);
    }
}

TEST(WholeModelGradient, EqualsFiniteDifferencesWithDora) {
    TestModel shape;
    shape.type = GGML_TYPE_Q4_0;
    AdapterConfig config = adapter_config();
    config.use_dora = true;
    config.use_rslora = true;
    config.target_modules = "blk.0.attn_k,blk.0.ffn_up,blk.1.attn_q,blk.1.attn_output,blk.1.ffn_gate:2,blk.1.ffn_down";
    expect_gradients_match_finite_differences(shape, config);
    config.dropout = 0.3f;
    config.target_modules = "blk.1.attn_v,blk.1.ffn_up";
    expect_gradients_match_finite_differences(shape, config);
}

// sum_t weights[t] nll[t], in f64: the loss of one label at a time.
double weighted_loss(std::shared_ptr<Adapter> adapter, const Batch & batch, const std::vector<float> & weights) {
    Session session(std::move(adapter), session_config());
    double sum = 0;
    for (size_t t = 0; t < weights.size(); ++t) {
        if (batch.labels[t] == -100) continue;
        Batch alone = batch;
        std::fill(alone.labels.begin(), alone.labels.end(), -100);
        alone.labels[t] = batch.labels[t];
        sum += weights[t] * session.evaluate(alone.view(), {}).loss_sum;
    }
    return sum;
}

TEST(WholeModelGradient, OfWeightedTokensEqualsFiniteDifferences) {
    for (const bool tied : {false, true}) {
        TestModel shape;
        shape.tied_output = tied;
        const TempDir dir;
        const auto model = load(write_test_model(dir / "model.gguf", shape), "reference", Dtype::f64);
        const auto adapter = busy_adapter(model, adapter_config());
        const Batch batch = random_batch(5, {7, 1, 9}, shape.n_vocab);
        const std::vector<float> weights = exact_values(6, static_cast<int64_t>(batch.tokens.size()), 1);
        std::vector<std::vector<float>> exact;
        {
            Session session(adapter, session_config());
            std::vector<float> nll(batch.tokens.size());
            session.forward(batch.view(), nll);
            session.backward(weights);
            exact = gradients(session);
        }
        for (const int32_t i : {0, 3, adapter->n_tensors() - 1}) {
            constexpr double step = 0x1p-11;
            const std::vector<float> start = adapter->read(adapter->params(), i);
            std::vector<float> direction(start.size());
            double predicted = 0, size = 0;
            for (size_t j = 0; j < start.size(); ++j) {
                direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
                predicted += static_cast<double>(exact[static_cast<size_t>(i)][j]) * direction[j];
                size += std::abs(static_cast<double>(exact[static_cast<size_t>(i)][j]));
            }
            const auto loss_at = [&](double steps) {
                std::vector<float> moved = start;
                for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
                put(*adapter, i, moved);
                return weighted_loss(adapter, batch, weights);
            };
            const double measured = (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * step);
            put(*adapter, i, start);
            EXPECT_LE(std::abs(measured - predicted), 1e-6 * std::max(std::abs(predicted), 0.05 * size))
                << adapter->tensor(i).name << " " << predicted;
            EXPECT_GT(size, 0);
        }
    }
}

// ---- several tokens at each position ----

constexpr int32_t n_candidates = 5;

SessionConfig config_of_candidates(Recomputation recomputation = Recomputation::off) {
    SessionConfig config = session_config(recomputation);
    config.n_candidates = n_candidates;
    config.likeliest = true;
    return config;
}

size_t n_labelled(const Batch & batch) {
    return static_cast<size_t>(
        std::count_if(batch.labels.begin(), batch.labels.end(), [](int32_t label) { return label != -100; }));
}

std::vector<int32_t> candidates_of(const Batch & batch, int32_t n_vocab) {
    std::vector<int32_t> ids;
    for (size_t i = 0; i < n_labelled(batch); ++i) {
        for (int32_t k = 0; k < n_candidates; ++k) {
            const int32_t begin = n_vocab * k / n_candidates, end = n_vocab * (k + 1) / n_candidates;
            ids.push_back(begin + static_cast<int32_t>(random_u32(9, i * n_candidates + static_cast<size_t>(k)) %
                                                       static_cast<uint32_t>(end - begin)));
        }
    }
    return ids;
}

TEST(WholeModelGradient, OfCandidatesEqualsFiniteDifferences) {
    for (const double temperature : {1.0, 2.5}) {
        const TestModel shape;
        const TempDir dir;
        const auto model = load(write_test_model(dir / "model.gguf", shape), "reference", Dtype::f64);
        const auto adapter = busy_adapter(model, adapter_config());
        const Batch batch = random_batch(5, {7, 1, 9}, shape.n_vocab);
        const std::vector<int32_t> ids = candidates_of(batch, shape.n_vocab);
        const std::vector<float> weights = exact_values(6, static_cast<int64_t>(ids.size()), 1);
        std::vector<float> nll(ids.size());
        std::vector<std::vector<float>> exact;
        {
            Session session(adapter, config_of_candidates());
            const LossSum sum = session.forward_candidates(batch.view(), {ids, temperature}, nll);
            EXPECT_EQ(sum.n_trained, static_cast<int64_t>(n_labelled(batch)));
            session.backward_candidates(weights);
            exact = gradients(session);
        }
        const auto loss = [&] {
            Session session(adapter, config_of_candidates());
            std::vector<float> own(ids.size());
            session.evaluate_candidates(batch.view(), {ids, temperature}, own);
            double sum = 0;
            for (size_t i = 0; i < own.size(); ++i) sum += static_cast<double>(weights[i]) * own[i];
            return sum;
        };
        for (const int32_t i : {0, 3, adapter->n_tensors() - 1}) {
            constexpr double step = 0x1p-6;  // losses come as f32
            const std::vector<float> start = adapter->read(adapter->params(), i);
            std::vector<float> direction(start.size());
            double predicted = 0, size = 0;
            for (size_t j = 0; j < start.size(); ++j) {
                direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
                predicted += static_cast<double>(exact[static_cast<size_t>(i)][j]) * direction[j];
                size += std::abs(static_cast<double>(exact[static_cast<size_t>(i)][j]));
            }
            const auto loss_at = [&](double steps) {
                std::vector<float> moved = start;
                for (size_t j = 0; j < moved.size(); ++j) moved[j] += static_cast<float>(steps * step) * direction[j];
                put(*adapter, i, moved);
                return loss();
            };
            const double measured = (8 * (loss_at(1) - loss_at(-1)) - (loss_at(2) - loss_at(-2))) / (12 * step);
            put(*adapter, i, start);
            EXPECT_LE(std::abs(measured - predicted), 1e-3 * std::max(std::abs(predicted), 0.05 * size))
                << adapter->tensor(i).name << " " << predicted;
            EXPECT_GT(size, 0);
        }
    }
}

TEST(WholeModelGradient, OfOneCandidateIsThatOfALabel) {
    for (const char * device : {"reference", "cpu"}) {
        const TempDir dir;
        const auto model = load(write_test_model(dir / "model.gguf", {}), device, Dtype::f32);
        const Batch batch = random_batch(5, {30, 1, 24}, 300);
        const std::vector<float> weights = exact_values(6, static_cast<int64_t>(batch.tokens.size()), 1);
        std::vector<float> nll(batch.tokens.size()), own_nll(n_labelled(batch)), own_weights;
        std::vector<int32_t> ids;
        std::vector<std::vector<float>> expected, found;
        {
            Session session(busy_adapter(model, adapter_config(0.1f)), session_config());
            session.forward(batch.view(), nll);
            session.backward(weights);
            expected = gradients(session);
        }
        std::vector<float> labelled_nll;
        for (size_t t = 0; t < batch.tokens.size(); ++t) {
            if (batch.labels[t] == -100) continue;
            ids.push_back(batch.labels[t]);
            own_weights.push_back(weights[t]);
            labelled_nll.push_back(nll[t]);
        }
        Session session(busy_adapter(model, adapter_config(0.1f)), config_of_candidates());
        session.forward_candidates(batch.view(), {ids}, own_nll);
        session.backward_candidates(own_weights);
        found = gradients(session);
        EXPECT_EQ(own_nll, labelled_nll);
        for (size_t i = 0; i < expected.size(); ++i) EXPECT_LE(relative_error(found[i], expected[i]), 1e-5) << device;
    }
}

TEST(WholeModelGradient, OfCandidatesIsTheSameOnCpuAndReference) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", {});
    const Batch batch = random_batch(5, {30, 1, 24}, 300);
    const std::vector<int32_t> ids = candidates_of(batch, 300);
    const std::vector<float> weights = exact_values(6, static_cast<int64_t>(ids.size()), 1);
    std::vector<std::vector<std::vector<float>>> results;
    for (const auto & [device, act] : {std::pair{"reference", Dtype::f64}, {"cpu", Dtype::f32}, {"cpu", Dtype::bf16}}) {
        for (const Recomputation recomputation : {Recomputation::off, Recomputation::on}) {
            Session session(busy_adapter(load(path, device, act), adapter_config(0.1f)),
                            config_of_candidates(recomputation));
            std::vector<float> nll(ids.size());
            session.forward_candidates(batch.view(), {ids, 1.5}, nll);
            session.backward_candidates(weights);
            results.push_back(gradients(session));
        }
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
        for (const size_t f32 : {2u, 3u}) EXPECT_LE(relative_error(results[f32][i], results[0][i]), 1e-5);
        for (const size_t bf16 : {4u, 5u}) EXPECT_LE(relative_error(results[bf16][i], results[0][i]), 4e-2);
    }
}

TEST(WholeModelGradient, TheLikeliestTokensHaveTheLossesOfCandidates) {
    for (const char * device : {"reference", "cpu"}) {
        const TempDir dir;
        TestModel shape;
        const auto adapter =
            busy_adapter(load(write_test_model(dir / "model.gguf", shape), device, Dtype::f32), adapter_config());
        const Batch batch = random_batch(5, {30, 1, 24}, shape.n_vocab);
        const size_t rows = n_labelled(batch), vocabulary = static_cast<size_t>(shape.n_vocab);
        Session session(adapter, config_of_candidates());
        std::vector<int32_t> ids(rows * n_candidates), all(rows * vocabulary);
        std::vector<float> log_probs(ids.size()), all_log_probs(all.size()), nll(ids.size());
        session.evaluate_likeliest(batch.view(), 2, ids, log_probs);
        session.evaluate_likeliest(batch.view(), 2, all, all_log_probs);
        session.evaluate_candidates(batch.view(), {ids, 2}, nll);
        for (size_t i = 0; i < ids.size(); ++i) EXPECT_NEAR(log_probs[i], -nll[i], 2e-5) << device;
        for (size_t row = 0; row < rows; ++row) {
            const auto begin = all_log_probs.begin() + static_cast<ptrdiff_t>(row * vocabulary);
            double sum = 0;
            for (size_t v = 0; v < vocabulary; ++v) {
                EXPECT_EQ(all[row * vocabulary + v], static_cast<int32_t>(v));
                sum += std::exp(static_cast<double>(begin[static_cast<ptrdiff_t>(v)]));
            }
            EXPECT_NEAR(sum, 1, 1e-5);
            std::vector<float> sorted(begin, begin + shape.n_vocab);
            std::sort(sorted.begin(), sorted.end(), std::greater<>());
            for (size_t k = 0; k < n_candidates; ++k)
                EXPECT_GE(log_probs[row * n_candidates + k], sorted[n_candidates - 1]);
        }
    }
}

TEST(WholeModelGradient, CandidatesThatAreWrongAreRefused) {
    const TempDir dir;
    const auto adapter =
        busy_adapter(load(write_test_model(dir / "model.gguf", {}), "cpu", Dtype::f32), adapter_config());
    const Batch batch = random_batch(5, {4}, 300);
    const size_t rows = n_labelled(batch);
    {
        Session session(adapter, session_config());
        std::vector<int32_t> ids(rows);
        std::vector<float> nll(rows);
        EXPECT_NE(error_of([&] { session.forward_candidates(batch.view(), {ids}, nll); }).find("takes 0"),
                  std::string::npos);
        EXPECT_NE(error_of([&] { session.evaluate_likeliest(batch.view(), 1, ids, nll); }).find("not made for"),
                  std::string::npos);
    }
    Session session(adapter, config_of_candidates());
    const auto refused = [&](std::vector<int32_t> ids, double temperature, const char * why) {
        std::vector<float> nll(ids.size());
        EXPECT_NE(error_of([&] { session.forward_candidates(batch.view(), {ids, temperature}, nll); }).find(why),
                  std::string::npos)
            << why;
    };
    std::vector<int32_t> ids = candidates_of(batch, 300);
    refused(ids, 0, "temperature is 0");
    refused(std::vector<int32_t>(ids.begin(), ids.end() - 1), 1, "as many as the others");
    std::swap(ids[0], ids[1]);
    refused(ids, 1, "in ascending order");
    ids[1] = ids[0];
    refused(ids, 1, "in ascending order");
    ids = candidates_of(batch, 300);
    ids.back() = 300;
    refused(ids, 1, "ids below 300");
    ids = candidates_of(batch, 300);
    std::vector<float> nll(ids.size()), weights(ids.size(), 1);
    EXPECT_NE(error_of([&] { session.backward_candidates(weights); }).find("no forward pass"), std::string::npos);
    session.forward_candidates(batch.view(), {ids}, nll);
    EXPECT_NE(error_of([&] { session.backward(std::vector<float>(batch.tokens.size())); }).find("no forward pass"),
              std::string::npos);
    weights[2] = NAN;
    EXPECT_NE(error_of([&] { session.backward_candidates(weights); }).find("candidate 2 is not finite"),
              std::string::npos);
    weights[2] = 1;
    session.backward_candidates(weights);
    EXPECT_NE(error_of([&] { session.backward_candidates(weights); }).find("no forward pass"), std::string::npos);
}

TEST(WholeModelGradient, OfWeightedTokensIsTheSameOnCpuAndReference) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", {});
    const Batch batch = random_batch(5, {30, 1, 24}, 300);
    const std::vector<float> weights = exact_values(6, static_cast<int64_t>(batch.tokens.size()), 1);
    std::vector<std::vector<std::vector<float>>> results;
    for (const auto & [device, act] : {std::pair{"reference", Dtype::f64}, {"cpu", Dtype::f32}, {"cpu", Dtype::bf16}}) {
        for (const Recomputation recomputation : {Recomputation::off, Recomputation::on}) {
            Session session(busy_adapter(load(path, device, act), adapter_config(0.1f)), session_config(recomputation));
            std::vector<float> nll(batch.tokens.size());
            session.forward(batch.view(), nll);
            session.backward(weights);
            results.push_back(gradients(session));
        }
    }
    for (size_t i = 0; i < results[0].size(); ++i) {
        for (const size_t f32 : {2u, 3u}) EXPECT_LE(relative_error(results[f32][i], results[0][i]), 1e-5);
        for (const size_t bf16 : {4u, 5u}) EXPECT_LE(relative_error(results[bf16][i], results[0][i]), 4e-2);
    }
}

// ---- devices, precisions, weight types ----

struct Loss {
    double sum;
    std::vector<std::vector<float>> gradients;
    std::vector<std::string> names;
};

Loss run(const std::string & path, const std::string & device, Dtype act, Recomputation recomputation,
         const Batch & batch, float dropout = 0, bool use_dora = false) {
    AdapterConfig config = adapter_config(dropout);
    config.use_dora = use_dora;
    const auto adapter = busy_adapter(load(path, device, act), config);
    Session session(adapter, session_config(recomputation));
    Loss loss{session.forward_backward(batch.view()).loss_sum, gradients(session), {}};
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) loss.names.push_back(adapter->tensor(i).name);
    return loss;
}

void expect_close(const Loss & actual, const Loss & expected, double tolerance, const std::string & what) {
    EXPECT_NEAR(actual.sum, expected.sum, tolerance * expected.sum) << what;
    for (size_t i = 0; i < expected.gradients.size(); ++i) {
        EXPECT_LE(relative_error(actual.gradients[i], expected.gradients[i]), tolerance)
            << what << " " << expected.names[i];
    }
}

class EveryWeightType : public testing::TestWithParam<ggml_type> {};

TEST_P(EveryWeightType, GivesTheGradientsOfTheReference) {
    TestModel shape;
    shape.type = GetParam();
    shape.n_embd = 256;
    shape.n_head = 8;
    shape.n_head_kv = 4;
    shape.n_ff = 256;
    // A hundred tokens and one block: each rounding to bf16 is worth about 0.1 %, a gradient is at the end of some
    // thirty of them, and over few tokens chance makes single tensors twice as bad as the average of about 1 %.
    shape.weight_scale = 0.5f;
    shape.n_layer = 1;
    // Preparing blocks of the types with codebooks takes seconds per million weights.
    if (std::string(ggml_type_name(shape.type)).starts_with("iq")) shape.embd_type = shape.output_type = GGML_TYPE_F16;
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    for (const auto & lengths : {std::vector<int32_t>{100}, std::vector<int32_t>{31, 1, 60, 8}}) {
        const Batch batch = random_batch(8, lengths, shape.n_vocab);
        const Loss expected = run(path, "reference", Dtype::f64, Recomputation::off, batch);
        for (const Recomputation recomputation : {Recomputation::off, Recomputation::on}) {
            const std::string what = std::to_string(lengths.size()) + " sequences" +
                                     (recomputation == Recomputation::on ? ", recomputed" : "");
            expect_close(run(path, "cpu", Dtype::f32, recomputation, batch), expected, 1e-5, "f32, " + what);
            expect_close(run(path, "cpu", Dtype::bf16, recomputation, batch), expected, 2e-2, "bf16, " + what);
        }
    }
}

INSTANTIATE_TEST_SUITE_P(Types, EveryWeightType, testing::ValuesIn(all_weight_types()),
                         [](const auto & info) { return std::string(ggml_type_name(info.param)); });

TEST(WholeModelGradient, IsTheSameOnCpuAndReferenceUnderDropout) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", {});
    const Batch batch = random_batch(3, {20, 9}, 300);
    const Loss expected = run(path, "reference", Dtype::f64, Recomputation::off, batch, 0.2f);
    expect_close(run(path, "cpu", Dtype::f32, Recomputation::off, batch, 0.2f), expected, 1e-5, "f32");
    expect_close(run(path, "cpu", Dtype::f32, Recomputation::on, batch, 0.2f), expected, 1e-5, "f32, recomputed");
}

TEST(WholeModelGradient, OfADoraIsTheSameOnCpuAndReference) {
    TestModel shape;
    shape.type = GGML_TYPE_Q4_0;
    shape.n_embd = 256;
    shape.n_head = 8;
    shape.n_ff = 288;
    shape.weight_scale = 0.5f;
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(8, {31, 1, 60, 8}, shape.n_vocab);
    for (const float dropout : {0.0f, 0.2f}) {
        const Loss expected = run(path, "reference", Dtype::f64, Recomputation::off, batch, dropout, true);
        const Loss off = run(path, "cpu", Dtype::f32, Recomputation::off, batch, dropout, true);
        const Loss on = run(path, "cpu", Dtype::f32, Recomputation::on, batch, dropout, true);
        expect_close(off, expected, 1e-5, "f32");
        EXPECT_EQ(on.gradients, off.gradients);
        expect_close(run(path, "cpu", Dtype::bf16, Recomputation::off, batch, dropout, true), expected, 3e-2, "bf16");
    }
}

TEST(WholeModelGradient, OfAPackedBatchIsTheSumOverItsSequences) {
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", {});
    const Batch batch = random_batch(4, {11, 2, 17, 30}, 300);
    struct Case {
        const char * device;
        Dtype act;
        double tolerance;
    };
    for (const Case & c : {Case{"reference", Dtype::f64, 1e-6}, Case{"cpu", Dtype::f32, 1e-5}}) {
        const Loss packed = run(path, c.device, c.act, Recomputation::off, batch);
        const auto adapter = busy_adapter(load(path, c.device, c.act), adapter_config());
        Session session(adapter, session_config());
        Loss sum{0, {}, packed.names};
        for (size_t i = 0; i < batch.sequence_lengths.size(); ++i)
            sum.sum += session.forward_backward(part(batch, i).view()).loss_sum;
        sum.gradients = gradients(session);
        expect_close(packed, sum, c.tolerance, c.device);
    }
}

TEST(WholeModelGradient, IsTheSameToTheBitHoweverManyLayersAreRecomputed) {
    const TempDir dir;
    TestModel shape;
    shape.n_layer = 4;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    const Batch batch = random_batch(4, {11, 2, 40}, 300);
    struct Case {
        std::string targets;
        Dtype act;
        int32_t most_recomputed;  // all from the lowest with a LoRA on, but the last
    };
    for (const Case & c : {Case{"all-linear", Dtype::bf16, 3},
                           {"all-linear", Dtype::f32, 3},
                           {"blk.1.attn_q,blk.2.ffn_down,blk.3.attn_k", Dtype::bf16, 2}}) {
        SCOPED_TRACE(c.targets);
        AdapterConfig adapter_settings = adapter_config(0.1f);
        adapter_settings.target_modules = c.targets;
        const auto adapter = busy_adapter(load(path, "cpu", c.act), adapter_settings);
        SessionConfig config = session_config(Recomputation::on);
        const MemoryPlan least = Session::plan(*adapter->model(), adapter.get(), config);
        config.recomputation = Recomputation::off;
        const MemoryPlan most = Session::plan(*adapter->model(), adapter.get(), config);
        EXPECT_EQ(least.recomputed_layers, c.most_recomputed);

        config.recomputation = Recomputation::automatic;
        std::vector<Loss> losses;
        for (int32_t recomputed = 0; recomputed <= c.most_recomputed; ++recomputed) {
            config.memory_limit = most.total() - (most.total() - least.total()) / c.most_recomputed * recomputed;
            EXPECT_EQ(Session::plan(*adapter->model(), adapter.get(), config).recomputed_layers, recomputed);
            Session session(adapter, config);
            session.evaluate(batch.view(), {});
            losses.push_back({session.forward_backward(batch.view()).loss_sum, gradients(session), {}});
            EXPECT_EQ(losses.back().sum, losses.front().sum);
            EXPECT_EQ(losses.back().gradients, losses.front().gradients) << recomputed << " layers";
        }
    }
}

}  // namespace
}  // namespace lorica
