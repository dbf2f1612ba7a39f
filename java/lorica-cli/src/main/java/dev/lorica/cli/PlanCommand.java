package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.train.MemoryPlan;
import dev.lorica.train.Optimizer;
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
            "  lorica plan --model llama.gguf --target-modules q_proj,v_proj --available 8GiB"
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

    @Option(
            names = "--max-length",
            paramLabel = "N",
            description =
                    "Tokens of each example. Default: 1024, or the model's context where that is smaller, as train has"
                            + " it.")
    private Integer maxLength;

    @Option(
            names = "--batch-size",
            paramLabel = "N",
            description = "Examples of a micro-batch. Default: ${DEFAULT-VALUE}")
    private int batchSize = TrainingConfig.defaults().batchSize();

    @Option(names = "--optim", paramLabel = "NAME", description = "adamw or adamw_8bit. Default: ${DEFAULT-VALUE}")
    private String optimizer = TrainingConfig.defaults().optimizer().toString();

    @Option(
            names = "--available",
            paramLabel = "SIZE",
            description = "Plan for this much memory, such as 8GiB, instead of what is free here.")
    private String available;

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
        if (maxLength != null) {
            positive("--max-length", maxLength);
        }
        positive("--batch-size", batchSize);
        long limit = available == null ? 0 : bytes(available);
        try (Model base = Model.load(HubFiles.model(terminal, model), device.config());
                Adapter adapter =
                        Adapter.create(base, method.config(lora, 0, base.info().layers()))) {
            if (maxLength == null) {
                maxLength = DataOptions.defaultMaxLength(base.info().contextLength());
            }
            new TrainingReport(terminal).model(base.info());
            Way kept = way(base, adapter, Recomputation.OFF, limit);
            Way recomputed = way(base, adapter, Recomputation.ON, limit);
            Way chosen = way(base, adapter, Recomputation.AUTO, limit);
            if (terminal.json()) {
                Map<String, Object> json = new LinkedHashMap<>();
                json.put("model", model.toString());
                json.put("max_length", maxLength);
                json.put("batch_size", batchSize);
                json.put("trainable_params", adapter.info().parameters());
                json.put("available", kept.plan.available());
                json.put("without_checkpointing", kept.json());
                json.put("with_checkpointing", recomputed.json());
                json.put("auto", chosen.json());
                terminal.printJson(json);
            } else {
                print(kept, recomputed, chosen, base.info().layers());
            }
            return ExitCode.OK;
        }
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

    private Way way(Model base, Adapter adapter, Recomputation recomputation, long limit) {
        TrainingConfig config = TrainingConfig.builder()
                .batchSize(batchSize)
                .maxLength(maxLength)
                .optimizer(Optimizer.of(optimizer))
                .recomputation(recomputation)
                .memoryLimit(limit)
                .build();
        Trainer trainer = new Trainer(base, adapter, config);
        return new Way(trainer.memoryPlan(batchSize, maxLength), trainer.largestBatchSize(maxLength));
    }

    private void print(Way kept, Way recomputed, Way chosen, int layers) {
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
                .println("A micro-batch of " + Format.count(batchSize, "example") + " of " + Format.count(maxLength)
                        + " tokens." + choice);
    }

    private String batch(Way way) {
        return way.largestBatch == 0 ? "none fits" : Format.count(way.largestBatch, "example");
    }

    private void row(String name, String left, String right) {
        terminal.out().println(String.format("%-14s %18s %18s", name, left, right));
    }

    private static void positive(String option, int value) {
        if (value < 1) {
            throw new IllegalArgumentException(option + " cannot be " + value + "; it is 1 or more");
        }
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
