// Whole training steps, and oneDNN's matmul beside them.
#include <algorithm>
#include <cstdio>
#include <iostream>
#include <string>
#include <tuple>

#include "ceiling.h"
#include "commands.h"
#include "engine.h"
#include "machine.h"

namespace lorica::bench {

namespace {

constexpr double mebi = 1024.0 * 1024.0;

// Peak resident memory against the plan. `before` is what the program itself had before it loaded the model.
Json describe_memory(int64_t before, int64_t peak, const lorica_memory_plan & plan) {
    const auto total = static_cast<double>(plan.total);
    std::fprintf(stderr,
                 "peak memory %.1f MiB, of which %.1f before the model was loaded; planned %.1f MiB: %.3f, without the "
                 "former %.3f\n",
                 static_cast<double>(peak) / mebi, static_cast<double>(before) / mebi, total / mebi,
                 static_cast<double>(peak) / total, static_cast<double>(peak - before) / total);
    return Json()
        .set("before_bytes", before)
        .set("peak_bytes", peak)
        .set("planned_bytes", plan.total)
        .set("peak_to_plan", static_cast<double>(peak) / total)
        .set("peak_without_program_to_plan", static_cast<double>(peak - before) / total);
}

// Answers each line of stdin by one step, so that another program can take turns with this one.
std::vector<double> serve(Training & training, const lorica_batch & batch) {
    std::vector<double> seconds;
    std::puts("{\"ready\": true}");
    std::fflush(stdout);
    for (std::string line; std::getline(std::cin, line);) {
        seconds.push_back(seconds_of([&] { training.step(batch); }));
        std::printf("{\"seconds\": %.6f}\n", seconds.back());
        std::fflush(stdout);
    }
    return seconds;
}

// bf16, or f32 where the engine was asked for it or where oneDNN has no bf16 kernel.
std::pair<std::unique_ptr<Ceiling>, std::string> make_ceiling(const Shape & shape, int tokens,
                                                              const ModelChoice & choice, std::string & why_not) {
    if (choice.precision != LORICA_PRECISION_F32) {
        auto ceiling = Ceiling::make(shape.linears, tokens, CeilingType::bf16, choice.n_threads, why_not);
        if (ceiling) return {std::move(ceiling), "bf16"};
    }
    return {Ceiling::make(shape.linears, tokens, CeilingType::f32, choice.n_threads, why_not), "f32"};
}

}  // namespace

Json run_steps(const Options & options) {
    ModelChoice choice(options);
    const TrainChoice train(options, "all-linear", 2048, 512);
    const int repetitions = std::max(1, options.number("repetitions", 5));
    const bool on_request = options.flag("on-request");
    const bool with_ceiling = !options.flag("no-ceiling") && !on_request;
    options.check_all_read();
    choice.prepare();

    const std::unique_ptr<Backend> gpu = open_gpu(choice);
    const bool peak_is_own = gpu || reset_peak_resident_bytes();  // not that of writing the model
    // Memory of the GPU counts as that of the plan does: from what was free.
    const int64_t free_before = gpu ? gpu->available_memory() : 0, before = gpu ? 0 : resident_bytes();
    const auto peak_bytes = [&] { return gpu ? free_before - gpu->available_memory() : peak_resident_bytes(); };
    const ModelHandle model = choice.load();
    Training training(model.get(), train);
    const Shape shape = shape_of(choice.name, choice.path);
    const Batch batch = Batch::random(train.tokens, train.sequence_length, info_of(model.get()).n_vocab);

    const double first = seconds_of([&] { training.step(batch.view()); });
    std::vector<double> seconds, ceilings, ratios;
    int64_t peak = 0;
    std::unique_ptr<Ceiling> ceiling;
    std::string why_not = "not asked for", ceiling_type;
    lorica_batch_result last{sizeof(lorica_batch_result)};
    const StepOperations operations =
        step_operations(shape, train.tokens, train.sequence_length, train.rank, train.targets);
    if (on_request) {
        seconds = serve(training, batch.view());
        peak = peak_bytes();
    } else {
        training.step(batch.view());
        peak = peak_bytes();  // before oneDNN takes memory of its own
        if (with_ceiling) {
            std::tie(ceiling, ceiling_type) = make_ceiling(shape, train.tokens, choice, why_not);
        }
        for (int i = 0; i < repetitions; ++i) {
            seconds.push_back(seconds_of([&] { last = training.step(batch.view()); }));
            if (!ceiling) continue;
            ceilings.push_back(ceiling->run());
            ratios.push_back(operations.weights / seconds.back() * 1e-9 / ceilings.back());
        }
    }

    const double step = median(seconds), tokens = train.tokens;
    const int recomputed = training.plan.recomputed_layers;
    const bool recompute = recomputed > 0;
    const double done =
        operations.weights + recomputed * operations.recompute_layer + operations.attention + operations.lora;
    std::fprintf(stderr,
                 "%s, LoRA r %d on %s, %d tokens in sequences of %d, %d of %d layers recomputed, %d threads (%s)\n",
                 choice.name.c_str(), train.rank, options.text("targets", "all-linear").c_str(), train.tokens,
                 train.sequence_length, recomputed, static_cast<int>(shape.n_layer), choice.n_threads,
                 info_of(model.get()).device_detail);
    std::fprintf(stderr,
                 "step %.3f s (first %.3f s)  %.1f tok/s  %.1f GFLOP/s counted as 4N  %.1f with %sattention and LoRA\n",
                 step, first, tokens / step, operations.weights / step * 1e-9, done / step * 1e-9,
                 recompute ? "recompute, " : "");
    lorica_session_speed speed{sizeof(lorica_session_speed)};
    if (gpu) check(lorica_session_measure_speed(training.session.get(), &speed));
    const double utilization = speed.peak_flops > 0 ? tokens / step * speed.flops_per_token / speed.peak_flops : 0;
    if (utilization > 0) {
        std::fprintf(stderr, "model FLOPs utilization %.3f of %.0f TFLOP/s\n", utilization, speed.peak_flops * 1e-12);
    }
    if (ceiling) {
        std::fprintf(stderr,
                     "%s %s matmul on the same shapes %.1f GFLOP/s: the step runs at %.3f of it (median of %zu ratios, "
                     "%.3f to %.3f)\n",
                     ceiling->version().c_str(), ceiling_type.c_str(), median(ceilings), median(ratios), ratios.size(),
                     *std::min_element(ratios.begin(), ratios.end()), *std::max_element(ratios.begin(), ratios.end()));
    } else if (!on_request) {
        std::fprintf(stderr, "no ceiling: %s\n", why_not.c_str());
    }

    Json targets;
    for (const std::string & target : train.targets) targets.push(target);
    Json result;
    result.set("model", describe(choice, model.get()))
        .set("targets", targets)
        .set("rank", train.rank)
        .set("tokens", train.tokens)
        .set("sequence_length", train.sequence_length)
        .set("recompute", recompute)
        .set("step_seconds", summary(seconds))
        .set("first_step_seconds", first)
        .set("tokens_per_second", tokens / step)
        .set("gflops_4n", operations.weights / step * 1e-9);
    if (utilization > 0) result.set("model_flops_utilization", utilization).set("peak_gflops", speed.peak_flops * 1e-9);
    result.set("gflops_all", done / step * 1e-9)
        .set("operations", Json()
                               .set("weights_4n", operations.weights)
                               .set("recompute", recomputed * operations.recompute_layer)
                               .set("attention", operations.attention)
                               .set("lora", operations.lora));
    if (last.n_trained > 0) result.set("loss", last.loss_sum / static_cast<double>(last.n_trained));
    if (ceiling) {
        result.set("ceiling", Json()
                                  .set("library", ceiling->version())
                                  .set("type", ceiling_type)
                                  .set("gflops", summary(ceilings))
                                  .set("ratio", summary(ratios)));
    } else {
        result.set("ceiling", Json().set("skipped", why_not));
    }
    result.set("plan", describe(training.plan));
    result.set("memory", describe_memory(before, peak, training.plan).set("peak_is_of_training_alone", peak_is_own));
    return result;
}

}  // namespace lorica::bench
