// What training and generation come to, to the last bit, for scripts/compare_builds.py to compare with another build:
// an adapter, the state of its optimizer, the losses, and the tokens that the model then writes.
#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <fstream>

#include "adapter/adapter.h"
#include "commands.h"
#include "common/error.h"
#include "common/random.h"
#include "engine.h"
#include "generate/context.h"
#include "model/model.h"
#include "train/session.h"

namespace lorica::bench {

namespace {

AdapterConfig adapter_config(const Options & options) {
    AdapterConfig config;
    config.rank = options.number("rank", 4);
    config.alpha = 2 * config.rank;
    config.target_modules = options.text("targets", "all-linear");
    config.use_dora = options.flag("dora");
    config.use_rslora = options.flag("rslora");
    config.dropout = static_cast<float>(options.number("dropout-percent", 0)) / 100;
    return config;
}

// The number of recomputed layers is what a memory limit just below the plan without them leads to.
SessionConfig session_config(const Options & options, const Model & model, const Adapter & adapter, int32_t n_tokens) {
    SessionConfig config;
    config.max_tokens = n_tokens;
    config.optimizer = options.flag("8bit") ? Optimizer::adamw_8bit : Optimizer::adamw;
    config.neftune_alpha = options.number("neftune", 0);
    const std::string recomputation = options.text("recomputation", "off");
    config.recomputation = recomputation == "on" ? Recomputation::on : Recomputation::off;
    if (recomputation == "auto") {
        config.memory_limit = Session::plan(model, &adapter, config).total() - 1;
        config.recomputation = Recomputation::automatic;
    }
    return config;
}

struct Example {
    std::vector<int32_t> tokens, labels, lengths;

    explicit Example(int64_t number, const std::vector<int32_t> & sequence_lengths, int32_t n_vocab)
        : lengths(sequence_lengths) {
        uint64_t drawn = static_cast<uint64_t>(number) << 32;
        for (const int32_t length : lengths) {
            for (int32_t t = 0; t < length; ++t) {
                tokens.push_back(static_cast<int32_t>(random_u32(7, drawn++) % static_cast<uint32_t>(n_vocab)));
            }
            for (int32_t t = 0; t < length; ++t) {
                const bool trained = t + 1 < length && (t % 3 != 0 || t == 0);
                labels.push_back(trained ? tokens[tokens.size() - static_cast<size_t>(length - t - 1)] : -100);
            }
        }
    }
    PackedBatch view() const { return {tokens, labels, {}, lengths}; }
};

std::vector<int32_t> generate(const std::shared_ptr<const Model> & model, const std::shared_ptr<Adapter> & adapter,
                              int32_t n_vocab) {
    Context context(model, adapter, 128);
    std::vector<int32_t> tokens = Example(99, {40}, n_vocab).tokens;
    std::vector<float> logits(static_cast<size_t>(n_vocab));
    context.eval(tokens, false, logits.data());
    for (int i = 0; i < 40; ++i) {
        tokens.push_back(static_cast<int32_t>(std::max_element(logits.begin(), logits.end()) - logits.begin()));
        context.eval({&tokens.back(), 1}, false, logits.data());
    }
    return tokens;
}

}  // namespace

Json run_trace(const Options & options) {
    ModelChoice choice(options);
    const std::string folder = options.text("output", "");
    const int n_steps = options.number("steps", 3);
    if (folder.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "--output takes the folder for the results");
    choice.prepare();
    const auto model =
        Model::load(choice.path, choice.device, choice.precision == LORICA_PRECISION_F32 ? Dtype::f32 : Dtype::bf16,
                    choice.n_threads);
    const auto n_vocab = static_cast<int32_t>(model->output().out);
    const auto adapter = Adapter::create(model, adapter_config(options));
    const std::vector<int32_t> lengths{37, 1, 58, 4};
    const SessionConfig config = session_config(options, *model, *adapter, 100);
    options.check_all_read();

    std::filesystem::create_directories(folder);
    std::ofstream losses(folder + "/losses.txt");
    Session session(adapter, config);
    char line[96];
    for (int step = 0; step < n_steps; ++step) {
        double sum = 0;
        int64_t n = 0;
        for (int64_t micro = 0; micro < 2; ++micro) {
            const Example example(2 * step + micro, lengths, n_vocab);
            const LossSum loss = session.forward_backward(example.view());
            sum += loss.loss_sum;
            n += loss.n_trained;
        }
        const double norm = session.optimizer_step({0.01, 0.01, 1 / static_cast<double>(n), 1});
        std::snprintf(line, sizeof line, "%a %a\n", sum, norm);
        losses << line;
    }
    const Example held_out(50, lengths, n_vocab);
    std::snprintf(line, sizeof line, "%a\n", session.evaluate(held_out.view(), {}).loss_sum);
    losses << line;
    adapter->save(folder + "/adapter.gguf");
    session.save_state(folder + "/state.bin");
    std::ofstream tokens(folder + "/tokens.txt");
    for (const int32_t token : generate(model, adapter, n_vocab)) tokens << token << "\n";
    return Json().set("folder", folder);
}

}  // namespace lorica::bench
