package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterConfig;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.Labels;
import dev.lorica.train.MemoryPlan;
import dev.lorica.train.Recomputation;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;
import java.util.LinkedHashMap;
import java.util.Locale;
import java.util.Map;
import java.util.concurrent.Callable;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.Command;
import picocli.CommandLine.Mixin;
import picocli.CommandLine.Option;

/** {@code lorica plan}: what memory training would need, before any is taken. */
@Command(
        name = "plan",
        header = "Show the memory that training needs, by component, and the largest batch that fits.",
        description = {
            "",
            "Counts what the engine takes. Java itself takes about 0.1 GiB more, and a little for the data."
        },
        sortOptions = false,
        synopsisHeading = "%nUsage: ",
        customSynopsis = "lorica plan --model FILE [OPTION]…",
        optionListHeading = "%nOptions:%n",
        footerHeading = "%nExamples:%n",
        footer = {
            "  lorica plan --model llama.gguf --max-length 2048 --batch-size 4",
            "  lorica plan --model llama.gguf --target-modules q_proj,v_proj --available 8GiB",
            "  lorica plan --model minilm.gguf --num-labels 2 --batch-size 32"
        })
final class PlanCommand implements Callable<Integer> {
    private static final Pattern SIZE = Pattern.compile("(\\d+(?:\\.\\d+)?)\\s*([kmgt]?)(?:i?b)?");

    private final Terminal terminal;

    @Option(
            names = {"-m", "--model"},
            required = true,
            paramLabel = "FILE",
            description = "The GGUF model" + HubFiles.OR_HUB + ".")
    private Path model;

    @Mixin
    private PlanOptions training = new PlanOptions();

    @Mixin
    private MethodOptions method = new MethodOptions();

    @Mixin
    private LoraOptions lora = new LoraOptions();

    @Mixin
    private DeviceOptions device = new DeviceOptions();

    @Mixin
    private CommonOptions common = new CommonOptions();

    PlanCommand(Terminal terminal) {
        this.terminal = terminal;
    }

    @Override
    public Integer call() {
        training.config(Integer.MAX_VALUE); // what cannot be is said before a model is opened
        long limit = training.available == null ? 0 : bytes(training.available);
        Labels labels = training.labels();
        Path modelFile = HubFiles.model(terminal, model);
        try (Model base = Model.load(modelFile, method.withAddedTokens(terminal, device.config(), modelFile));
                Adapter adapter = Adapter.create(
                        base, planned(method.config(lora, 0, base.info().layers())), labels)) {
            TrainingConfig config = training.config(base.info().contextLength());
            new TrainingReport(terminal).model(base.info());
            Way kept = way(base, adapter, config, Recomputation.OFF, limit);
            Way recomputed = way(base, adapter, config, Recomputation.ON, limit);
            Way chosen = way(base, adapter, config, Recomputation.AUTO, limit);
            if (terminal.json()) {
                Map<String, Object> json = new LinkedHashMap<>();
                json.put("model", model.toString());
                json.put("max_length", config.maxLength());
                json.put("batch_size", config.batchSize());
                json.put("labels", labels == null ? 0 : labels.outputs());
                json.put("trainable_params", adapter.info().parameters());
                json.put("available", kept.plan.available());
                json.put("without_checkpointing", kept.json());
                json.put("with_checkpointing", recomputed.json());
                json.put("auto", chosen.json());
                terminal.printJson(json);
            } else {
                print(kept, recomputed, chosen, config, base.info().layers());
            }
            return ExitCode.OK;
        }
    }

    /** Of what begins with a search, no more of it than memory needs. */
    private static AdapterConfig planned(AdapterConfig config) {
        return config instanceof LoraConfig one && one.init() == LoraConfig.Init.PISSA
                ? one.toBuilder().pissaIterations(1).build()
                : config;
    }

    /** A plan with activations kept or computed again; and the largest batch that it allows. */
    private record Way(MemoryPlan plan, int largestBatch) {
        Map<String, Object> json() {
            Map<String, Object> json = new LinkedHashMap<>(TrainingReport.parts(plan));
            json.put("total", plan.total());
            json.put("recomputed_layers", plan.recomputedLayers());
            json.put("fits", plan.fits());
            json.put("largest_batch_size", largestBatch);
            return json;
        }
    }

    private Way way(Model base, Adapter adapter, TrainingConfig asked, Recomputation recomputation, long limit) {
        TrainingConfig config = asked.toBuilder()
                .recomputation(recomputation)
                .memoryLimit(limit)
                .build();
        Trainer trainer = new Trainer(base, adapter, config);
        return new Way(
                trainer.memoryPlan(config.batchSize(), config.maxLength()),
                trainer.largestBatchSize(config.maxLength()));
    }

    private void print(Way kept, Way recomputed, Way chosen, TrainingConfig config, int layers) {
        row("", "activations kept", "computed again");
        Map<String, Long> left = TrainingReport.parts(kept.plan);
        Map<String, Long> right = TrainingReport.parts(recomputed.plan);
        left.forEach((name, bytes) -> row(name, Format.bytes(bytes), Format.bytes(right.get(name))));
        row("total", Format.bytes(kept.plan.total()), Format.bytes(recomputed.plan.total()));
        row(
                "of " + Format.bytes(kept.plan.available()),
                kept.plan.fits() ? "fits" : "does not fit",
                recomputed.plan.fits() ? "fits" : "does not fit");
        row("largest batch", batch(kept), batch(recomputed));
        terminal.out().println();
        String choice = chosen.plan.fits()
                ? " Train by itself (--gradient-checkpointing auto) computes " + chosen.plan.recomputedLayers() + " of "
                        + Format.count(layers, "layer") + " again and takes " + Format.bytes(chosen.plan.total()) + "."
                : "";
        terminal.out()
                .println("A micro-batch of " + Format.count(config.batchSize(), "example") + " of "
                        + Format.count(config.maxLength())
                        + " tokens." + choice);
    }

    private String batch(Way way) {
        return way.largestBatch == 0 ? "none fits" : Format.count(way.largestBatch, "example");
    }

    private void row(String name, String left, String right) {
        terminal.out().println(String.format("%-14s %18s %18s", name, left, right));
    }

    /** 8GiB, 8g and 8GB are 8 · 2³⁰ bytes. */
    private static long bytes(String text) {
        Matcher size = SIZE.matcher(text.strip().toLowerCase(Locale.ROOT));
        if (!size.matches()) {
            throw new IllegalArgumentException(
                    "--available cannot be \"" + text + "\"; it is a size such as 8GiB or 500MiB");
        }
        long bytes = Math.round(Double.parseDouble(size.group(1)) * Math.pow(1024, " kmgt".indexOf(size.group(2))));
        if (bytes < 1) {
            throw new IllegalArgumentException(
                    "--available cannot be \"" + text + "\"; it is a size such as 8GiB or 500MiB");
        }
        return bytes;
    }
}
