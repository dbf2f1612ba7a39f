// Encoders, classifiers on them and on decoders, and embeddings: next to transformers and PEFT
// (scripts/make_classifier_goldens.py), and what must hold of every one.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstring>

#include "common/error.h"
#include "generate/context.h"
#include "support/families.h"
#include "support/training.h"
#include "write/write_model.h"

namespace lorica {
namespace {

using namespace test;

// ---- losses: the value, and the derivatives by the outputs

struct Loss {
    double value;
    std::vector<float> gradient;
};

Loss mean_loss(const std::string & problem, const std::vector<float> & x, const std::vector<float> & targets,
               size_t rows) {
    const size_t n = x.size() / rows;
    Loss loss{0, std::vector<float>(x.size())};
    for (size_t r = 0; r < rows; ++r) {
        double sum = 0;
        for (size_t i = 0; i < n; ++i) sum += std::exp(double{x[r * n + i]});
        for (size_t i = 0; i < n; ++i) {
            const double z = x[r * n + i];
            double value, slope, count = static_cast<double>(x.size());
            if (problem == "single_label_classification") {
                const bool is_class = static_cast<size_t>(targets[r]) == i;
                value = is_class ? std::log(sum) - z : 0;
                slope = std::exp(z) / sum - is_class;
                count = static_cast<double>(rows);
            } else if (problem == "multi_label_classification") {
                const double y = targets[r * n + i];
                value = std::log1p(std::exp(-std::abs(z))) + std::max(z, 0.0) - z * y;
                slope = 1 / (1 + std::exp(-z)) - y;
            } else {
                const double difference = z - targets[r * n + i];
                value = difference * difference;
                slope = 2 * difference;
            }
            loss.value += value / count;
            loss.gradient[r * n + i] = static_cast<float>(slope / count);
        }
    }
    return loss;
}

// ---- goldens

template <typename T> std::vector<T> array(const GgufFile & file, const std::string & name) {
    const TensorView * tensor = file.find_tensor(name);
    if (!tensor) return {};
    std::vector<T> values(static_cast<size_t>(tensor->n_elements()));
    std::memcpy(values.data(), tensor->data, values.size() * sizeof(T));
    return values;
}

struct GoldenBatch {
    std::vector<int32_t> tokens, types, lengths;
    std::vector<float> targets;

    PackedBatch view() const { return {tokens, {}, {}, lengths, types}; }
};

struct Device {
    const char * name;
    Dtype act;
};

class ClassifierGolden : public testing::TestWithParam<std::tuple<std::string, Device>> {
protected:
    ClassifierGolden()
        : folder_(std::string(LORICA_REPOSITORY "/native/tests/data/classifier_goldens/") + std::get<0>(GetParam()) +
                  "/"),
          golden_(GgufFile::open(folder_ + "golden.gguf")),
          model_(load(folder_ + "model.gguf", std::get<1>(GetParam()).name, std::get<1>(GetParam()).act)),
          adapter_(Adapter::load(model_, folder_ + "adapter.gguf")) {
        config_.max_tokens = 32;
    }
    GoldenBatch batch(int i) const {
        const std::string prefix = "batch." + std::to_string(i) + ".";
        return {array<int32_t>(golden_, prefix + "tokens"), array<int32_t>(golden_, prefix + "types"),
                array<int32_t>(golden_, prefix + "sequence_lengths"), array<float>(golden_, prefix + "targets")};
    }
    Loss forward(Session & session, const GoldenBatch & batch) const {
        std::vector<float> outputs(batch.lengths.size() * static_cast<size_t>(session.n_outputs()));
        session.forward_outputs(batch.view(), outputs);
        return mean_loss(golden_.find_string("problem").value(), outputs, batch.targets, batch.lengths.size());
    }

    std::string folder_;
    GgufFile golden_;
    std::shared_ptr<const Model> model_;
    std::shared_ptr<Adapter> adapter_;
    SessionConfig config_;
};

TEST_P(ClassifierGolden, GivesTheHiddenStatesOfTheBase) {
    config_.features = true;
    Session session(model_, nullptr, config_);
    const GoldenBatch batch = this->batch(0);
    for (const auto & [name, pooling] :
         {std::pair{"base.mean", Pooling::mean}, {"base.first", Pooling::first}, {"base.last", Pooling::last}}) {
        const std::vector<float> expected = array<float>(golden_, name);
        std::vector<float> embeddings(expected.size());
        session.embed(batch.view(), pooling, embeddings);
        EXPECT_LE(relative_error(embeddings, expected), 2e-6) << name;
    }
}

TEST_P(ClassifierGolden, GivesTheOutputsTheLossAndEveryGradient) {
    const GoldenBatch batch = this->batch(0);
    for (const Recomputation recomputed : {Recomputation::off, Recomputation::on}) {
        config_.recomputation = recomputed;
        Session session(adapter_, config_);
        const std::vector<float> expected = array<float>(golden_, "outputs");
        std::vector<float> outputs(expected.size());
        session.evaluate_outputs(batch.view(), outputs);
        EXPECT_LE(relative_error(outputs, expected), 1e-5);
        const Loss loss = forward(session, batch);
        EXPECT_NEAR(loss.value, golden_.find_float("loss").value(), 1e-5 * loss.value);
        session.backward_outputs(loss.gradient);
        for (int32_t i = 0; i < adapter_->n_tensors(); ++i) {
            const std::string & name = adapter_->tensor(i).name;
            const std::vector<float> gradient = array<float>(golden_, "gradient." + name);
            ASSERT_FALSE(gradient.empty()) << name;
            // What is added to every score of a query changes nothing: all is rounding.
            if (name.ends_with("attn_k.bias")) {
                EXPECT_THAT(session.gradient(i), testing::Each(testing::FloatNear(0, 1e-6f))) << name;
            } else {
                EXPECT_LE(relative_error(session.gradient(i), gradient), 3e-5) << name;
            }
        }
    }
}

TEST_P(ClassifierGolden, TrainsAsInPytorch) {
    Session session(adapter_, config_);
    const auto losses = array<double>(golden_, "losses"), norms = array<double>(golden_, "grad_norms");
    ASSERT_EQ(losses.size(), 20u);
    const GoldenBatch batches[] = {batch(0), batch(1)};
    for (size_t step = 0; step < losses.size(); ++step) {
        const Loss loss = forward(session, batches[step % 2]);
        EXPECT_NEAR(loss.value, losses[step], 1e-4 * losses[step]) << step;
        session.backward_outputs(loss.gradient);
        const double norm = session.optimizer_step({golden_.find_float("learning_rate").value(),
                                                    golden_.find_float("weight_decay").value(), 1,
                                                    golden_.find_float("max_grad_norm").value()});
        EXPECT_NEAR(norm, norms[step], 2e-4 * norms[step]) << step;
    }
}

const std::string cases[] = {"bert",     "distilbert",        "roberta",   "llama",     "llama_regression",
                             "ia3_bert", "bitfit_distilbert", "full_bert", "full_llama"};
constexpr Device devices[] = {{"reference", Dtype::f64}, {"cpu", Dtype::f32}};
INSTANTIATE_TEST_SUITE_P(Goldens, ClassifierGolden,
                         testing::Combine(testing::ValuesIn(cases), testing::ValuesIn(devices)), [](const auto & info) {
                             return std::get<0>(info.param) + "_on_" + std::get<1>(info.param).name;
                         });

// ---- what holds of every encoder and of a decoder

std::vector<Family> smooth() {
    std::vector<Family> all = {encoders()[0]};
    for (const Family & one : families()) {
        if (one.name == "llama" || one.name == "gpt2" || one.name == "gemma2") all.push_back(one);
    }
    return all;
}

std::vector<Family> classified() {
    std::vector<Family> all = smooth();
    all.push_back(encoders()[1]);
    return all;
}

AdapterConfig three_classes() {
    AdapterConfig config;
    config.rank = 2;
    config.alpha = 4;
    config.classifier = {3, {"bad", "so so", "good"}, "single_label_classification"};
    return config;
}

class EveryClassifier : public testing::TestWithParam<Family> {
protected:
    EveryClassifier() { config_.max_tokens = 128; }
    std::string write(ggml_type type = GGML_TYPE_F32) const {
        TestModel shape = GetParam().shape;
        shape.type = type;
        return write_test_model(dir_ / "model.gguf", shape);
    }
    Batch batch() const { return random_batch(5, {13, 1, 4}, GetParam().shape.n_vocab); }
    static std::vector<float> outputs(Session & session, const Batch & batch) {
        std::vector<float> values(batch.sequence_lengths.size() * static_cast<size_t>(session.n_outputs()));
        session.evaluate_outputs(batch.view(), values);
        return values;
    }
    // Of a sum of the outputs times these.
    static std::vector<float> weights(size_t n) { return exact_values(77, static_cast<int64_t>(n), 1); }
    static std::vector<std::vector<float>> gradients_of(Session & session, const Batch & batch) {
        std::vector<float> values(batch.sequence_lengths.size() * static_cast<size_t>(session.n_outputs()));
        session.forward_outputs(batch.view(), values);
        session.backward_outputs(weights(values.size()));
        return gradients(session);
    }

    TempDir dir_;
    SessionConfig config_;
};

// A ReLU has kinks within the steps: DistilBERT's is next to PyTorch alone.
class SmoothClassifier : public EveryClassifier {
protected:
    void expect_finite_differences(const AdapterConfig & config) { expect_finite_differences(config, write()); }
    void expect_finite_differences(const AdapterConfig & config, const std::string & path);
};

TEST_P(SmoothClassifier, HasTheGradientsOfFiniteDifferences) { expect_finite_differences(three_classes()); }

// Of a model with norms behind the sums, Pfeiffer's reads what the norm gives.
TEST_P(SmoothClassifier, HasThemWithBottlenecksAndComesBackFromItsFile) {
    for (const bool pfeiffer : {false, true}) {
        AdapterConfig config = three_classes();
        config.method = Method::bottleneck;
        config.bottleneck_size = 5;
        config.pfeiffer = pfeiffer;
        config.non_linearity = Act::gelu_erf;
        expect_finite_differences(config);

        const auto model = load(write(), "cpu", Dtype::f32);
        const auto adapter = busy_adapter(model, config);
        adapter->save(dir_ / "adapter.gguf");
        Session session(adapter, config_), again(Adapter::load(model, dir_ / "adapter.gguf"), config_);
        EXPECT_EQ(outputs(again, batch()), outputs(session, batch()));
    }
}

// Of a file that has what BERT's pooler is, a LoRA leaves that as it is.
TEST_P(SmoothClassifier, HasThemOfAllWeightsWithThePoolerThatTheFileHas) {
    const std::string path = dir_ / "classifier.gguf";
    const auto bare = load(write(), "cpu", Dtype::f32);
    WriteConfig f32;
    f32.type = "F32";
    merge_model(*bare, busy_adapter(bare, three_classes()).get(), path, f32);
    AdapterConfig config = three_classes();
    config.method = Method::full;
    const auto model = load(path, "cpu", Dtype::f32);
    const bool has_pooler = !model->classifier().dense.empty();
    EXPECT_EQ(has_pooler, GetParam().shape.architecture == "bert");
    // Embeddings of the others bend too much for the steps.
    if (has_pooler) expect_finite_differences(config, path);
    const auto is_trained = [](const Adapter & adapter) {
        return adapter.find_classifier(Adapter::Kind::classifier_dense) >= 0;
    };
    EXPECT_FALSE(is_trained(*Adapter::create(model, three_classes())));
    const auto adapter = busy_adapter(model, config);
    EXPECT_EQ(is_trained(*adapter), has_pooler);
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) EXPECT_NE(adapter->tensor(i).kind, Adapter::Kind::head);
    adapter->save(dir_ / "adapter.gguf");
    const auto loaded = Adapter::load(model, dir_ / "adapter.gguf");
    Session session(adapter, config_), again(loaded, config_);
    const std::vector<float> expected = outputs(session, batch());
    EXPECT_EQ(outputs(again, batch()), expected);
    merge_model(*model, loaded.get(), dir_ / "merged.gguf", f32);
    Session merged(load(dir_ / "merged.gguf", "cpu", Dtype::f32), nullptr, config_);
    EXPECT_LE(relative_error(outputs(merged, batch()), expected), 1e-5);

    // Of some layers alone it is none.
    config.layers = "1";
    EXPECT_FALSE(is_trained(*Adapter::create(model, config)));
}

void SmoothClassifier::expect_finite_differences(const AdapterConfig & config, const std::string & path) {
    const auto model = load(path, "reference", Dtype::f64, 1);
    const Batch batch = this->batch();
    const auto adapter = busy_adapter(model, config);
    Session session(adapter, config_);
    const auto exact = gradients_of(session, batch);
    const std::vector<float> factors = weights(9);
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const std::vector<float> start = adapter->read(i);
        std::vector<float> direction(start.size());
        double predicted = 0, size = 0;
        for (size_t j = 0; j < start.size(); ++j) {
            direction[j] = random_u32(70 + static_cast<uint64_t>(i), j) % 2 ? 1.0f : -1.0f;
            predicted += static_cast<double>(exact[static_cast<size_t>(i)][j]) * direction[j];
            size += std::abs(static_cast<double>(exact[static_cast<size_t>(i)][j]));
        }
        const auto at = [&](double moved) {
            std::vector<float> values = start;
            for (size_t j = 0; j < values.size(); ++j) values[j] += static_cast<float>(moved) * direction[j];
            adapter->write(adapter->params(), i, values.data());
            const std::vector<float> x = outputs(session, batch);
            double sum = 0;
            for (size_t j = 0; j < x.size(); ++j) sum += static_cast<double>(x[j]) * factors[j];
            return sum;
        };
        constexpr double step = 0x1p-7;  // outputs are f32
        const double measured = (8 * (at(step) - at(-step)) - (at(2 * step) - at(-2 * step))) / (12 * step);
        adapter->write(adapter->params(), i, start.data());
        EXPECT_LE(std::abs(measured - predicted), 2e-4 * std::max(std::abs(predicted), 0.05 * size) + 2e-4)
            << adapter->tensor(i).name << " " << predicted;
        EXPECT_GT(size, 0) << adapter->tensor(i).name;
    }
}

TEST_P(EveryClassifier, TheCpuGivesTheGradientsOfTheReferenceRecomputedOrNotWithAnyThreads) {
    const std::string path = write(GGML_TYPE_Q4_0);
    const Batch batch = random_batch(6, {40, 1, 20}, GetParam().shape.n_vocab);
    const auto run = [&](const char * device, Dtype act, Recomputation recomputation, int32_t n_threads) {
        config_.recomputation = recomputation;
        Session session(busy_adapter(load(path, device, act, n_threads), three_classes()), config_);
        return gradients_of(session, batch);
    };
    const auto expected = run("reference", Dtype::f64, Recomputation::off, 1);
    for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
        const auto kept = run("cpu", act, Recomputation::off, 2);
        EXPECT_EQ(run("cpu", act, Recomputation::on, 1), kept);
        for (size_t i = 0; i < expected.size(); ++i)
            EXPECT_LE(relative_error(kept[i], expected[i]), act == Dtype::f32 ? 2e-5 : 9e-2) << i;
    }
}

TEST_P(EveryClassifier, APackedBatchIsItsSequences) {
    const auto model = load(write(), "cpu", Dtype::f32);
    const Batch batch = this->batch();
    Session session(busy_adapter(model, three_classes()), config_);
    const std::vector<float> together = outputs(session, batch);
    const size_t n_embd = static_cast<size_t>(model->shape().n_embd);
    std::vector<float> means(3 * n_embd);
    session.embed(batch.view(), Pooling::mean, means);
    for (size_t s = 0; s < 3; ++s) {
        const Batch one = part(batch, s);
        const auto begin = together.begin() + static_cast<ptrdiff_t>(3 * s);
        EXPECT_LE(relative_error(outputs(session, one), {begin, begin + 3}), 1e-5) << s;
        std::vector<float> mean(n_embd);
        session.embed(one.view(), Pooling::mean, mean);
        const auto first = means.begin() + static_cast<ptrdiff_t>(n_embd * s);
        EXPECT_LE(relative_error(mean, {first, first + static_cast<ptrdiff_t>(n_embd)}), 1e-5) << s;
    }
}

TEST_P(EveryClassifier, ComesBackFromItsFileAndFromAMergedModel) {
    const std::string path = write(), file = dir_ / "adapter.gguf", merged = dir_ / "merged.gguf";
    const auto model = load(path, "cpu", Dtype::f32);
    const Batch batch = this->batch();
    for (const Method method : {Method::lora, Method::bitfit}) {
        AdapterConfig config = three_classes();
        config.method = method;
        const auto adapter = busy_adapter(model, config);
        std::vector<float> expected;
        {
            Session session(adapter, config_);
            expected = outputs(session, batch);
        }
        adapter->save(file);
        const auto loaded = Adapter::load(model, file);
        EXPECT_EQ(loaded->config().classifier.labels, config.classifier.labels);
        EXPECT_EQ(loaded->config().classifier.problem, config.classifier.problem);
        Session again(loaded, config_);
        EXPECT_EQ(outputs(again, batch), expected);

        WriteConfig f32;
        f32.type = "F32";
        merge_model(*model, adapter.get(), merged, f32);
        const auto whole = load(merged, "cpu", Dtype::f32);
        EXPECT_EQ(whole->classifier().labels, config.classifier.labels);
        Session alone(whole, nullptr, config_);
        EXPECT_LE(relative_error(outputs(alone, batch), expected), 1e-5);
        // A new classifier of as many outputs begins where that one is.
        Session next(Adapter::create(whole, three_classes()), config_);
        EXPECT_LE(relative_error(outputs(next, batch), expected), 1e-5);
    }
}

TEST_P(EveryClassifier, AResumedRunHasTheSameBytes) {
    const auto model = load(write(), "cpu", Dtype::bf16);
    const Batch batch = this->batch();
    const std::string state = dir_ / "state";
    const auto step = [&](Session & session) {
        gradients_of(session, batch);
        session.optimizer_step({1e-2, 0.1, 1, 1});
    };
    const auto whole = Adapter::create(model, three_classes());
    Session session(whole, config_);
    step(session);
    session.save_state(state);
    step(session);
    const auto other = Adapter::create(model, three_classes());
    Session resumed(other, config_);
    resumed.load_state(state);
    step(resumed);
    for (int32_t i = 0; i < whole->n_tensors(); ++i) EXPECT_EQ(other->read(i), whole->read(i)) << i;
}

INSTANTIATE_TEST_SUITE_P(Families, SmoothClassifier, testing::ValuesIn(smooth()),
                         [](const auto & info) { return info.param.name; });
INSTANTIATE_TEST_SUITE_P(Families, EveryClassifier, testing::ValuesIn(classified()),
                         [](const auto & info) { return info.param.name; });

// ---- what is wrong

std::string message_of(const std::function<void()> & call) {
    try {
        call();
    } catch (const Error & e) {
        return e.what();
    }
    return "";
}

TEST(Classifiers, SayWhatIsWrong) {
    const TempDir dir;
    const auto encoder = load(write_test_model(dir / "bert.gguf", encoders()[0].shape), "cpu", Dtype::f32);
    const Batch batch = random_batch(5, {4, 3}, 64);
    SessionConfig config;
    config.max_tokens = 256;
    AdapterConfig plain = three_classes();
    plain.classifier = {};
    Session without(Adapter::create(encoder, plain), config);
    std::vector<float> six(6);
    using testing::HasSubstr;
    EXPECT_THAT(message_of([&] { without.forward_outputs(batch.view(), six); }), HasSubstr("there is no classifier"));
    EXPECT_THAT(message_of([&] { without.forward_backward(batch.view()); }), HasSubstr("is an encoder"));
    EXPECT_THAT(message_of([&] { Context(encoder, nullptr, 8, 1); }), HasSubstr("is an encoder"));
    const auto adapter = Adapter::create(encoder, three_classes());
    Session session(adapter, config);
    EXPECT_THAT(message_of([&] { session.backward_outputs(six); }), HasSubstr("no forward pass"));
    std::vector<float> five(5);
    EXPECT_THAT(message_of([&] { session.forward_outputs(batch.view(), five); }), HasSubstr("room for 5 outputs"));
    const Batch long_text = random_batch(5, {200}, 64);
    std::vector<float> three(3);
    EXPECT_THAT(message_of([&] { session.forward_outputs(long_text.view(), three); }),
                HasSubstr("learned 128 positions"));
    PackedBatch types = batch.view();
    const std::vector<int32_t> wrong(7, 2);
    types.types = wrong;
    EXPECT_THAT(message_of([&] { session.forward_outputs(types, six); }), HasSubstr("has type 2; there are 2"));
    AdapterConfig names = three_classes();
    names.classifier.labels.pop_back();
    EXPECT_THAT(message_of([&] { Adapter::create(encoder, names); }), HasSubstr("2 labels for 3 outputs"));
    const Adapter::Part parts[] = {{adapter, 1}, {adapter, 1}};
    EXPECT_THAT(message_of([&] { Adapter::stack(encoder, parts); }), HasSubstr("a classifier cannot be added"));

    const auto decoder = load(write_test_model(dir / "llama.gguf", families()[0].shape), "cpu", Dtype::f32);
    Session generates(decoder, nullptr, config);
    std::vector<float> embeddings(2 * 32);
    EXPECT_THAT(message_of([&] { generates.embed(batch.view(), Pooling::mean, embeddings); }),
                HasSubstr("ask for features"));
}

}  // namespace
}  // namespace lorica
