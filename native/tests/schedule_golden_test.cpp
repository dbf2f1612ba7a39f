// What the engine asks of a backend for Llama, setting by setting, and for every other architecture in a few settings,
// against texts that were written down. The texts of
// some settings are in tests/data/schedules as they are, to be read; of the others there is a checksum each, in
// checksums.txt. LORICA_WRITE_GOLDENS=1 writes them anew.
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <map>
#include <numeric>
#include <sstream>

#include "common/crc32c.h"
#include "generate/context.h"
#include "support/families.h"
#include "support/recording_backend.h"
#include "support/training.h"

namespace lorica {
namespace {

using namespace test;

const std::string folder = LORICA_REPOSITORY "/native/tests/data/schedules/";
bool writes() { return std::getenv("LORICA_WRITE_GOLDENS") != nullptr; }

struct Setting {
    std::string name, targets;
    bool use_dora = false;
    float dropout = 0;
    int recomputed = 0;
    double neftune_alpha = 0;
    bool is_wide = false;     // rows of 128, which are padded; else of 64, which are not
    bool is_readable = true;  // kept as text
};

std::vector<Setting> training_settings() {
    std::vector<Setting> all;
    const std::vector<std::pair<std::string, std::string>> targets{{"all", "all-linear"},
                                                                   {"q_v", "q_proj,v_proj"},
                                                                   {"v", "v_proj"},
                                                                   {"o", "o_proj"},
                                                                   {"up", "up_proj"},
                                                                   {"down", "down_proj"},
                                                                   {"middle_v", "blk.1.attn_v"},
                                                                   {"top_up", "blk.2.ffn_up"},
                                                                   {"gate", "gate_proj"},
                                                                   {"middle_gate", "blk.1.ffn_gate"},
                                                                   {"q_top_down", "q_proj,blk.2.ffn_down"}};
    for (const bool is_wide : {false, true}) {
        for (const auto & [name, modules] : targets) {
            for (const std::string kind : {"plain", "dora", "dropout"}) {
                for (const int recomputed : {0, 1, 2}) {
                    if (recomputed > 0 && name == "top_up") continue;  // one layer alone is kept
                    Setting setting{name + "_" + kind + "_" + std::to_string(recomputed) + (is_wide ? "_wide" : ""),
                                    modules};
                    setting.use_dora = kind == "dora";
                    setting.dropout = kind == "dropout" ? 0.25f : 0.0f;
                    setting.recomputed = recomputed;
                    setting.is_wide = is_wide;
                    setting.is_readable =
                        !is_wide && ((kind == "plain" && recomputed == 0 && name != "middle_gate") ||
                                     (recomputed == 1 && name == "all") ||
                                     (recomputed == 1 && kind == "dora" && (name == "up" || name == "q_v")));
                    all.push_back(setting);
                }
            }
        }
    }
    Setting noise{"neftune", "q_proj,v_proj"};
    noise.neftune_alpha = 5;
    all.push_back(noise);
    return all;
}

class Recorded {
public:
    explicit Recorded(bool is_wide, const std::string & device = "cpu", Dtype act = Dtype::bf16) {
        TestModel shape;
        shape.n_layer = 3;
        if (is_wide) {
            shape.n_embd = 1024;
            shape.n_head = 8;
            shape.n_ff = 1056;
        }
        shape.n_vocab = 40;
        load(shape, device, act);
    }
    explicit Recorded(TestModel shape, const std::string & device = "cpu", Dtype act = Dtype::bf16) {
        shape.n_vocab = 40;
        load(shape, device, act);
    }

    void load(const TestModel & shape, const std::string & device, Dtype act) {
        write_test_model(dir_ / "model.gguf", shape);
        model = Model::load(dir_ / "model.gguf", [=, this] { return record(log, make_backend(device, act, 1)); });
        log->name_weights(model->file());
    }

    std::shared_ptr<Adapter> adapter(const Setting & setting) const {
        AdapterConfig config;
        config.rank = 4;
        config.alpha = 8;
        config.target_modules = setting.targets;
        config.use_dora = setting.use_dora;
        config.dropout = setting.dropout;
        auto adapter = busy_adapter(model, config);
        name(*adapter);
        log->clear();
        return adapter;
    }

    void name(const Adapter & adapter) const {
        const size_t element = dtype_size(model->device().formats().param);
        for (int32_t i = 0; i < adapter.n_tensors(); ++i) {
            const auto tensor = adapter.tensor(i);
            std::string name = tensor.name;
            name.erase(name.find(".weight"), 7);
            log->name_memory(static_cast<std::byte *>(adapter.params()) + static_cast<size_t>(tensor.offset) * element,
                             static_cast<size_t>(tensor.rows * tensor.cols) * element, name);
        }
    }

    std::shared_ptr<Recording> log = std::make_shared<Recording>();
    std::shared_ptr<const Model> model;

private:
    TempDir dir_;
};

SessionConfig session_config(const Model & model, const Adapter & adapter, const Setting & setting) {
    SessionConfig config;
    config.max_tokens = 100;
    config.neftune_alpha = setting.neftune_alpha;
    config.recomputation = setting.recomputed == 2 ? Recomputation::on : Recomputation::off;
    if (setting.recomputed == 1) {
        config.memory_limit = Session::plan(model, &adapter, config).total() - 1;
        config.recomputation = Recomputation::automatic;
    }
    return config;
}

const Batch & training_batch() {
    static const Batch batch = random_batch(5, {7, 1, 12}, 40);
    return batch;
}

std::string training_text(const Recorded & recorded, const Setting & setting) {
    const auto adapter = recorded.adapter(setting);
    Session session(adapter, session_config(*recorded.model, *adapter, setting));
    recorded.log->clear();
    session.forward_backward(training_batch().view());
    return recorded.log->text();
}

std::string read(const std::string & path) {
    std::ifstream file(path, std::ios::binary);
    std::ostringstream text;
    text << file.rdbuf();
    return text.str();
}

std::string checksum(const std::string & text) {
    char hex[16];
    std::snprintf(hex, sizeof hex, "%08x", crc32c(0, text.data(), text.size()));
    return hex;
}

std::map<std::string, std::string> & checksums() {
    static std::map<std::string, std::string> all = [] {
        std::map<std::string, std::string> read;
        std::ifstream file(folder + "checksums.txt");
        for (std::string name, sum; file >> name >> sum;) read[name] = sum;
        return read;
    }();
    return all;
}

void expect_text(const std::string & name, const std::string & text, bool is_readable) {
    EXPECT_EQ(text.find("undefined"), std::string::npos) << name << " reads what is not there:\n" << text;
    EXPECT_EQ(text.find("WRONG"), std::string::npos) << text;
    if (writes()) {
        if (is_readable) {
            std::filesystem::create_directories(folder);
            std::ofstream(folder + name + ".txt", std::ios::binary) << text;
        } else {
            checksums()[name] = checksum(text);
            std::ofstream file(folder + "checksums.txt");
            for (const auto & [one, sum] : checksums()) file << one << " " << sum << "\n";
        }
        return;
    }
    if (is_readable) {
        EXPECT_EQ(text, read(folder + name + ".txt")) << name;
    } else {
        EXPECT_EQ(checksum(text), checksums()[name]) << name << " is now\n" << text;
    }
}

TEST(ScheduleGolden, TrainingAsksForTheSameOperationsOnTheSameValues) {
    const Recorded narrow(false), wide(true);
    for (const Setting & setting : training_settings()) {
        const Recorded & recorded = setting.is_wide ? wide : narrow;
        expect_text(setting.name, training_text(recorded, setting), setting.is_readable);
    }
}

TEST(ScheduleGolden, EvaluationIsForwardAloneWhateverItsLength) {
    const Recorded recorded(false);
    const auto adapter = recorded.adapter({"", "q_proj,down_proj"});
    Session session(adapter, session_config(*recorded.model, *adapter, {}));
    for (const int32_t n : {1, 5, 100}) {
        Batch batch = random_batch(6, {n}, 40);
        batch.labels[0] = 3;
        recorded.log->clear();
        session.evaluate(batch.view(), {});
        expect_text("evaluate_" + std::to_string(n), recorded.log->text(), n == 5);
    }
}

std::string generation_text(const Recorded & recorded, Context & context, int32_t n, bool all_logits) {
    std::vector<int32_t> tokens(static_cast<size_t>(n), 7);
    std::vector<float> logits(static_cast<size_t>(40 * n));
    recorded.log->clear();
    context.eval(tokens, all_logits, logits.data());
    return recorded.log->text();
}

// A prompt of five tokens, then one token. No sum of two calls: which comes first would be the compiler's choice.
std::string decoding_text(const Recorded & recorded, Context & context) {
    std::string text = generation_text(recorded, context, 5, false);
    text += generation_text(recorded, context, 1, false);
    return text;
}

TEST(ScheduleGolden, GenerationGoesThroughTheCache) {
    const Recorded recorded(false);
    Context context(recorded.model, nullptr, 700);
    recorded.log->clear();
    std::string text = decoding_text(recorded, context);
    expect_text("decode", text, true);
    expect_text("prompt_600", generation_text(recorded, context, 600, true), false);

    const auto adapter = recorded.adapter({"", "all-linear", true});
    context.set_adapters(std::vector<Adapter::Part>{{adapter, 1}});
    text = decoding_text(recorded, context);
    expect_text("decode_dora", text, false);
}

TEST(ScheduleGolden, TwoAdaptersAreOneStackInTheSamePlaces) {
    const Recorded recorded(false);
    const auto first = recorded.adapter({"", "q_proj,down_proj"}), second = recorded.adapter({"", "down_proj,up_proj"});
    Context context(recorded.model, nullptr, 50);
    const std::vector<Adapter::Part> parts{{first, 1}, {second, 0.5}};
    const auto stack = Adapter::stack(recorded.model, parts);
    recorded.name(*stack);
    context.set_adapters(std::vector<Adapter::Part>{{stack, 1}});
    expect_text("decode_stack", decoding_text(recorded, context), true);
}

// Two settings of each, the second with other trained layers; those that are unlike others are there to be read.
TEST(ScheduleGolden, EveryArchitectureAsksForTheSameOperationsOnTheSameValues) {
    for (const Family & family : families()) {
        if (family.name == "llama") continue;
        const bool is_readable = family.name == "qwen3" || family.name == "gemma2" || family.name == "falcon_7b" ||
                                 family.name == "gptneox" || family.name == "gpt2" || family.name == "phi3" ||
                                 family.name == "olmo2";
        const Recorded recorded(family.shape);
        expect_text(family.name + "_all", training_text(recorded, {"", "all-linear"}), is_readable);
        Setting some{"", "default,ffn_down"};
        some.use_dora = true;
        some.recomputed = 1;
        expect_text(family.name + "_some_dora_1", training_text(recorded, some), false);
        Context context(recorded.model, nullptr, 50);
        expect_text(family.name + "_decode", decoding_text(recorded, context), false);
    }
}

TEST(ScheduleGolden, OfNoArchitectureMemoryOutsideTheNamedValuesIsRead) {
    for (const Family & family : families()) {
        for (const int recomputed : {0, 1, 2}) {
            Setting setting{"", "all-linear"};
            setting.use_dora = recomputed == 1;
            setting.recomputed = recomputed;
            const auto result = [&](bool fills) {
                const Recorded recorded(family.shape, "reference", Dtype::f64);
                const auto adapter = recorded.adapter(setting);
                Session session(adapter, session_config(*recorded.model, *adapter, setting));
                session.forward_backward(training_batch().view());  // the first one computes DoRA's factors as well
                recorded.log->clear();
                session.forward_backward(training_batch().view());
                if (fills) recorded.log->fill_with_nan();
                session.forward_backward(training_batch().view());
                return gradients(session);
            };
            EXPECT_EQ(result(true), result(false)) << family.name << ", recomputed " << recomputed;
        }
    }
}

// The names in a text say which value a call reads; this says that its memory holds that value, and nothing reads more.
TEST(ScheduleGolden, MemoryOutsideTheNamedValuesMayHoldAnything) {
    for (const Setting & setting : training_settings()) {
        if (setting.is_wide) continue;
        const auto result = [&](bool fills) {
            const Recorded recorded(false, "reference", Dtype::f64);
            const auto adapter = recorded.adapter(setting);
            Session session(adapter, session_config(*recorded.model, *adapter, setting));
            session.forward_backward(training_batch().view());  // the first one computes DoRA's factors as well
            recorded.log->clear();
            session.forward_backward(training_batch().view());
            if (fills) recorded.log->fill_with_nan();
            session.forward_backward(training_batch().view());
            return gradients(session);
        };
        EXPECT_EQ(result(true), result(false)) << setting.name;
    }
}

}  // namespace
}  // namespace lorica
