package dev.lorica.cli;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.Method;
import dev.lorica.cli.report.ModelCard;
import dev.lorica.cli.report.ReportPage;
import dev.lorica.cli.report.RunFolder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.train.Objective;
import dev.lorica.train.TrainingPlan;
import dev.lorica.train.TrainingResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.OptionalLong;

/**
 * A run that has ended: what is said of it, as text, as JSON, as a page, and how its adapter is used.
 *
 * @param model     as it was named
 * @param modelFile where it is
 * @param output    the adapter's folder
 */
record RunEnding(
        Terminal terminal,
        Path model,
        Path modelFile,
        Path output,
        AdapterFormat format,
        TrainingResult result,
        TrainingPlan plan,
        TrainingData data,
        Objective objective) {

    /** @param untrained {@code null}: it was not evaluated before */
    void say(Adapter adapter, Evaluation untrained) {
        OptionalLong peak = PeakMemory.bytes();
        terminal.out()
                .println(howItEnded() + "Saved "
                        + terminal.bold(
                                output.resolve(format.mainFile(adapter.info().method()))
                                        .toString()));
        terminal.out()
                .println("  " + Format.count(result.steps(), "step") + " in " + Format.seconds(result.seconds()) + ", "
                        + Format.count(Math.round(result.tokensPerSecond())) + " tok/s, mean loss "
                        + Format.fixed(result.loss(), 4)
                        + (peak.isPresent() ? ", peak memory " + Format.bytes(peak.getAsLong()) : ""));
        if (untrained != null && result.evaluation() != null) {
            terminal.out()
                    .println("  eval loss " + Format.fixed(untrained.loss(), 4) + " → "
                            + Format.fixed(result.evaluation().loss(), 4)
                            + (result.evaluation().hasPerplexity()
                                    ? ", perplexity " + Format.fixed(untrained.perplexity(), 2) + " → "
                                            + Format.fixed(result.evaluation().perplexity(), 2)
                                    : ProgressLine.metrics(result.evaluation().metrics())
                                            .replace("  ", ", ")));
        }
        terminal.out().println();
    }

    private String howItEnded() {
        String best = plan.config().loadBestModelAtEnd() && !result.stopped()
                ? "The best adapter is that of step " + result.bestStep() + ". "
                : "";
        if (result.stopped() || result.stoppedEarly()) {
            return "Stopped after step " + result.steps() + " of " + plan.totalSteps()
                    + (result.stoppedEarly() ? ": the evaluation loss no longer falls. " : ". ") + best;
        }
        return best;
    }

    /** The facts of {@code --json} and of the report. */
    Map<String, Object> json(Model base, Adapter adapter, Evaluation untrained) {
        OptionalLong peak = PeakMemory.bytes();
        Map<String, Object> json = new LinkedHashMap<>();
        json.put("status", result.stopped() ? "interrupted" : "done");
        json.put("output", output.toString());
        json.put(
                "adapter",
                output.resolve(format.mainFile(adapter.info().method())).toString());
        json.put("model", model.toString());
        if (adapter.info().method() == Method.FULL) {
            json.put("trained_model", output.resolve(TrainCommand.MODEL_FILE).toString());
        }
        json.put("llama_cpp_needs_merge", LlamaCpp.lacks(adapter).isPresent());
        if (!base.addedTokens().isEmpty()) {
            json.put("added_tokens", base.addedTokens());
            json.put("vocabulary", base.info().vocabSize());
        }
        json.put("device", base.info().device());
        json.put("device_detail", base.info().deviceDetail());
        json.put("device_reason", base.info().deviceReason());
        json.put("trainable_params", adapter.info().parameters());
        json.put("all_params", TrainingReport.allParameters(adapter, base.info()));
        json.put("steps", result.steps());
        json.put("total_steps", plan.totalSteps());
        json.put("epochs", result.epochs());
        json.put("loss", result.loss());
        json.put("eval_loss_before", untrained == null ? null : untrained.loss());
        json.put(
                "eval_loss",
                result.evaluation() == null ? null : result.evaluation().loss());
        json.put(
                "eval_perplexity",
                result.evaluation() == null || !result.evaluation().hasPerplexity()
                        ? null
                        : result.evaluation().perplexity());
        if (adapter.labels() != null) {
            json.put("labels", adapter.labels().names());
        }
        if (objective != Objective.sft()) {
            json.put("objective", objective.name());
            json.put("objective_settings", objective.settings());
            json.put(
                    "eval_metrics",
                    result.evaluation() == null ? null : result.evaluation().metrics());
        }
        json.put("best_step", result.bestStep() == 0 ? null : result.bestStep());
        json.put("stopped_early", result.stoppedEarly());
        json.put("config", output.resolve(EffectiveConfig.FILE_NAME).toString());
        json.put("tokens", result.tokens());
        json.put("trained_tokens", result.trainedTokens());
        json.put("seconds", result.seconds());
        json.put("tokens_per_second", result.tokensPerSecond());
        json.put("peak_memory_bytes", peak.isPresent() ? peak.getAsLong() : null);
        Map<String, Object> memory = new LinkedHashMap<>(TrainingReport.parts(plan.memory()));
        memory.put("total", plan.memory().total());
        memory.put("available", plan.memory().available());
        memory.put("recomputed_layers", plan.memory().recomputedLayers());
        json.put("planned_memory_bytes", memory);
        json.put("data", TrainingReport.json(data.report()));
        return json;
    }

    /**
     * Writes the page and the card beside the adapter. A result that is saved is not lost because these cannot be written.
     *
     * @param facts of {@link #json}, to which the page is added
     */
    void show(Map<String, Object> facts, String baseModelName) {
        Map<String, Object> all = new LinkedHashMap<>(facts);
        all.put("example", data.report().sample());
        all.put(
                "command",
                Shell.training() + " --config "
                        + Shell.quote(output.resolve(EffectiveConfig.FILE_NAME).toString()) + " --output "
                        + Shell.quote(output + "-again"));
        try {
            RunFolder.write(output, all);
            ObjectNode run = RunFolder.read(output);
            ReportPage.write(output.resolve(ReportPage.FILE_NAME), List.of(run));
            ModelCard.write(output, run, baseModelName, format != AdapterFormat.PEFT, format != AdapterFormat.GGUF);
            facts.put("report", output.resolve(ReportPage.FILE_NAME).toString());
            terminal.out().println("The run as a page: " + output.resolve(ReportPage.FILE_NAME));
        } catch (LoricaException e) {
            terminal.err().println("warning: the adapter is saved, its report is not: " + e.getMessage());
        }
    }

    void sayHowToUse(List<String> questions, Adapter adapter) {
        if (objective.name().equals("reward")) {
            terminal.out().println("Use it:");
            terminal.commandLine(
                    Shell.training(),
                    "--objective grpo",
                    "--model " + Shell.quote(model.toString()),
                    "--reward-adapter " + Shell.quote(output.toString()),
                    "--data prompts.jsonl",
                    "--output policy");
            return;
        }
        if (adapter.labels() != null) {
            terminal.out().println("Use it:");
            terminal.out()
                    .println("  " + Shell.program() + " classify --model " + Shell.quote(model.toString())
                            + " --adapter " + Shell.quote(output.toString()) + " --text \"…\"");
            return;
        }
        boolean plain = data.report().template().equals(PromptTemplate.PLAIN);
        String question = !questions.isEmpty() ? questions.get(0) : plain ? "Your prompt" : "Your question";
        terminal.out().println("Use it:");
        terminal.commandLine(
                Shell.program() + " generate",
                "--model " + Shell.quote(model.toString()),
                "--adapter " + Shell.quote(output.toString()),
                (plain ? "--prompt " : "--instruction ") + Shell.quote(question));
        Method trained = adapter.info().method();
        if (trained == Method.FULL) {
            terminal.out().println("or the new model with llama.cpp:");
            terminal.out()
                    .println("  llama-cli -m "
                            + Shell.quote(
                                    output.resolve(TrainCommand.MODEL_FILE).toString()));
            Path folder = output.resolve(TrainCommand.HUGGING_FACE_FOLDER);
            if (Files.isDirectory(folder)) {
                terminal.out().println("or with transformers, with the base's tokenizer:");
                terminal.out()
                        .println("  AutoModelForCausalLM.from_pretrained(" + Shell.quote(folder.toString()) + ")");
            }
            return;
        }
        if (trained == Method.BOTTLENECK) {
            terminal.out().println("llama.cpp has no bottlenecks; AdapterHub has.");
            return;
        }
        if (adapter.info().virtualTokens() > 0) {
            terminal.out().println("llama.cpp has no trained prompts or prefixes; PEFT has.");
            return;
        }
        Optional<String> lacking = LlamaCpp.lacks(adapter);
        if (lacking.isPresent()) {
            terminal.out()
                    .println("llama.cpp has no " + lacking.get() + "; a model with this one folded in runs there:");
            terminal.commandLine(
                    Shell.program() + " merge",
                    "--model " + Shell.quote(model.toString()),
                    "--adapter " + Shell.quote(output.toString()),
                    "--output merged.gguf");
            return;
        }
        if (format == AdapterFormat.PEFT) {
            return;
        }
        terminal.out().println("or with llama.cpp:");
        terminal.commandLine(
                adapter.info().invocationTokens().isEmpty() ? "llama-cli" : "llama-server",
                "-m " + Shell.quote(modelFile.toString()),
                "--lora " + Shell.quote(output.resolve(Adapter.FILE_NAME).toString()));
    }

    void sayHowToGoOn(int savedStep) {
        if (savedStep != result.steps()) {
            terminal.out().println("The adapter is saved, but there is no checkpoint from which to go on exactly.");
            return;
        }
        terminal.out().println("To go on from here as if it had not been stopped:");
        terminal.commandLine(
                Shell.training(),
                "--config "
                        + Shell.quote(output.resolve(EffectiveConfig.FILE_NAME).toString()),
                "--resume");
    }
}
