package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.List;
import java.util.Locale;

/**
 * The settings of a training, each with what every place that speaks of it takes from here: the builder and the checks of
 * {@link TrainingConfig}, which has a component of the same name, options of a command line, keys of a file. In the order of a help
 * text.
 */
public enum Setting implements SettingDefinition {
    /** Passes over the data; may be a fraction. */
    EPOCHS(
            "epochs",
            3.0,
            Range.ANY, // of no meaning beside maxSteps
            "N",
            "Passes over the data; may be a fraction. Default: %s",
            "num-train-epochs",
            "num-epochs"),
    /** Optimizer steps, instead of {@code epochs}. */
    MAX_STEPS("max-steps", -1, Range.COUNT_OR_MINUS_1, "N", "Optimizer steps, instead of {epochs}.", "iters"),
    /** Examples of a micro-batch; they are packed, not padded. */
    BATCH_SIZE(
            "batch-size",
            4,
            Range.ONE_OR_MORE,
            "N",
            "Examples of a micro-batch; they are packed, not padded. Default: %s",
            "per-device-train-batch-size",
            "per-gpu-train-batch-size",
            "micro-batch-size"),
    /** Micro-batches of one optimizer step. */
    GRADIENT_ACCUMULATION_STEPS(
            "gradient-accumulation-steps",
            1,
            Range.ONE_OR_MORE,
            "N",
            "Micro-batches of one optimizer step. Default: %s",
            "grad-accumulation-steps"),
    /** The peak of the learning rate. */
    LEARNING_RATE(
            "learning-rate",
            2e-4,
            Range.ABOVE_0,
            "RATE",
            "Its peak. Default: %s; of reward models 1e-4, of other objectives than sft 1e-5",
            "lr"),
    /**
     * How the learning rate goes over the steps: linear, cosine, cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay or
     * constant.
     */
    SCHEDULER_TYPE(
            "lr-scheduler-type",
            SchedulerType.LINEAR,
            Range.ANY,
            "NAME",
            "linear, cosine, cosine_with_restarts, polynomial, inverse_sqrt, warmup_stable_decay or constant. Default:"
                    + " %s",
            "lr-scheduler"),
    /** The learning rate at which cosine, polynomial and warmup_stable_decay end. */
    MIN_LEARNING_RATE(
            "min-learning-rate",
            0.0,
            Range.ANY, // depends on the scheduler and the peak
            "RATE",
            "Where cosine, polynomial and warmup_stable_decay end. Default: %s",
            "min-lr",
            "lr-end"),
    /** Power of the polynomial. */
    SCHEDULER_POWER("lr-scheduler-power", 1.0, Range.ABOVE_0, "X", "Power of the polynomial. Default: %s"),
    /** How often cosine_with_restarts falls. */
    SCHEDULER_CYCLES(
            "lr-scheduler-num-cycles", 1.0, Range.ABOVE_0, "X", "How often cosine_with_restarts falls. Default: %s"),
    /** The last steps, in which warmup_stable_decay falls. */
    DECAY_STEPS(
            "lr-decay-steps",
            0,
            Range.ANY, // depends on the scheduler
            "N",
            "The last steps, in which warmup_stable_decay falls."),
    /** Steps of inverse_sqrt; 0: those of the warm-up, or 10000. */
    TIMESCALE(
            "lr-timescale",
            0,
            new Range(x -> x >= 0, "0 (as the warm-up) or more"),
            "N",
            "Steps of inverse_sqrt; 0: those of the warm-up, or 10000. Default: %s"),
    /** Steps in which the rate rises from 0; below 1, a share of all steps. */
    WARMUP_STEPS(
            "warmup-steps",
            0,
            Range.ZERO_OR_MORE,
            "N",
            "Steps in which the rate rises from 0; below 1, a share of all steps. Default: %s"),
    /** The steps in which the rate rises from 0, as a share of all steps. */
    WARMUP_RATIO(
            "warmup-ratio",
            0.0,
            new Range(x -> x >= 0 && x <= 1, "between 0 and 1"),
            "SHARE",
            "The same as a share of all steps. Default: %s"),
    /** The optimizer: adamw, or adamw_8bit with a quarter of its memory. */
    OPTIMIZER(
            "optim",
            Optimizer.ADAMW,
            Range.ANY,
            "NAME",
            "adamw, or adamw_8bit with a quarter of its memory. Default: %s",
            "optimizer"),
    /** LoRA+: B learns with X times the learning rate of A. */
    LORAPLUS_LR_RATIO(
            "loraplus-lr-ratio",
            1.0,
            Range.ABOVE_0,
            "X",
            "LoRA+: B learns with X times the learning rate of A. Default: %s",
            "loraplus-ratio"),
    /** AdamW's weight decay, on all that is trained. */
    WEIGHT_DECAY("weight-decay", 0.0, Range.ZERO_OR_MORE, "X", "AdamW's, on all that is trained. Default: %s"),
    /** The norm to which gradients are clipped; 0: never. */
    MAX_GRAD_NORM(
            "max-grad-norm",
            1.0,
            new Range(x -> x >= 0, "0 (never clip) or more"),
            "X",
            "Clip gradients to this norm; 0: never. Default: %s",
            "max-gradient-norm"),
    /** AdamW's β₁: how slowly the mean of the gradients changes. */
    ADAM_BETA1("adam-beta1", 0.9, Range.BELOW_1, "X", "Default: %s"),
    /** AdamW's β₂: how slowly the mean of their squares changes. */
    ADAM_BETA2("adam-beta2", 0.999, Range.BELOW_1, "X", "Default: %s"),
    /** AdamW's ε: what is added to the root of the mean of the squares. */
    ADAM_EPSILON("adam-epsilon", 1e-8, Range.ABOVE_0, "X", "Default: %s"),
    /** NEFTune: the strength of the noise on the embeddings while training; 5 is usual, 0 is none. */
    NEFTUNE_NOISE_ALPHA(
            "neftune-noise-alpha",
            0.0,
            new Range(x -> x >= 0, "0 (no noise) or more"),
            "X",
            "NEFTune: noise of this strength on the embeddings while training; 5 is usual. Default: %s, none",
            "neftune-alpha"),
    /** Whether examples of about the same length come into one micro-batch. Nothing is padded either way. */
    GROUP_BY_LENGTH(
            "group-by-length",
            false,
            Range.ANY,
            "",
            "Put examples of about the same length into one micro-batch. Nothing is padded either way."),
    /** Whether activations are computed again to save memory: auto, on or off. */
    RECOMPUTATION(
            "gradient-checkpointing",
            Recomputation.AUTO,
            Range.ANY,
            "WAY",
            "auto, on or off: compute activations again to save memory. Default: %s",
            "grad-checkpoint"),
    /** Steps from one line of the log to the next. */
    LOGGING_STEPS(
            "logging-steps",
            10,
            Range.ONE_OR_MORE,
            "N",
            "Steps from one line of the log to the next. Default: %s",
            "steps-per-report"),
    /** When to evaluate on {@code eval-data}: no, steps or epoch. */
    EVAL_STRATEGY(
            "eval-strategy",
            IntervalStrategy.EPOCH,
            Range.ANY,
            "WHEN",
            "When to evaluate on {eval-data}: no, steps or epoch. Default: epoch, or steps with {eval-steps}.",
            "evaluation-strategy"),
    /** Steps from one evaluation to the next. */
    EVAL_STEPS(
            "eval-steps",
            500,
            Range.ONE_OR_MORE,
            "N",
            "Steps from one evaluation to the next. Default: as {logging-steps}.",
            "steps-per-eval"),
    /** Examples evaluated at once; does not change the result. */
    EVAL_BATCH_SIZE(
            "eval-batch-size",
            0,
            new Range(x -> x >= 0, "0 (as the batch size) or more"),
            "N",
            "Examples evaluated at once; does not change the result. Default: as {batch-size}.",
            "per-device-eval-batch-size",
            "per-gpu-eval-batch-size"),
    /** The run ends when so many evaluations one after another were no better; 0: never. */
    EARLY_STOPPING_PATIENCE(
            "early-stopping-patience",
            0,
            new Range(x -> x >= 0, "0 (never) or more"),
            "N",
            "End when so many evaluations one after another were no better; 0: never. Default: %s"),
    /** By how much the loss must fall to count as better. */
    EARLY_STOPPING_THRESHOLD(
            "early-stopping-threshold",
            0.0,
            Range.ZERO_OR_MORE,
            "X",
            "By how much the loss must fall to count as better. Default: %s"),
    /** Whether the checkpoint with the lowest evaluation loss is kept and that adapter saved. */
    LOAD_BEST_MODEL_AT_END(
            "load-best-model-at-end",
            false,
            Range.ANY,
            "",
            "Keep the checkpoint with the lowest evaluation loss and save that adapter."),
    /** The seed of the adapter's start, the order of the data, dropout and noise. */
    SEED("seed", 42L, Range.ANY, "N", "Of the adapter's start, the order of the data, dropout and noise. Default: %s"),
    /** When to write DIR/checkpoint-N: no, steps or epoch. */
    SAVE_STRATEGY(
            "save-strategy",
            IntervalStrategy.STEPS,
            Range.ANY,
            "WHEN",
            "When to write DIR/checkpoint-N: no, steps or epoch. Default: steps"),
    /** Steps from one checkpoint to the next. */
    SAVE_STEPS(
            "save-steps",
            500,
            Range.ONE_OR_MORE,
            "N",
            "Steps from one checkpoint to the next; %s if nothing is said.",
            "save-every"),
    /** How many checkpoints are kept, the newest and the best; 0: all. */
    SAVE_TOTAL_LIMIT(
            "save-total-limit",
            3,
            new Range(x -> x >= 0, "0 (all) or more"),
            "N",
            "Keep so many checkpoints, the newest and the best; 0: all. Default: %s"),
    /** Most tokens of one example. */
    MAX_LENGTH(
            "max-length",
            1024,
            Range.TWO_OR_MORE,
            "N",
            "Most tokens of one example. Default: %s, or the model's context where that is smaller.",
            "max-seq-length",
            "max-seq-len",
            "cutoff-len",
            "sequence-len",
            "model-max-length"),
    /** Whether each epoch has an order of its own. */
    SHUFFLE(null, true, Range.ANY, "", "Whether each epoch has an order of its own."),
    /** Bytes that the plan may use; 0: what is available. */
    MEMORY_LIMIT(null, 0L, new Range(x -> x >= 0, "0 (what is available) or more"), "BYTES", "What the plan may use.");

    private final String component;
    private final String option;
    private final Object initial;
    private final Range range;
    private final String label;
    private final String help;
    private final List<String> otherNames;

    Setting(String option, Object initial, Range range, String label, String help, String... otherNames) {
        StringBuilder camel = new StringBuilder();
        for (String word : name().toLowerCase(Locale.ROOT).split("_")) {
            camel.append(camel.isEmpty() ? word : Character.toUpperCase(word.charAt(0)) + word.substring(1));
        }
        this.component = camel.toString();
        this.option = option;
        this.initial = initial;
        this.range = range;
        this.label = label;
        this.help = help;
        this.otherNames = List.of(otherNames);
    }

    /** {@return its name in {@link TrainingConfig}: {@code batchSize}} */
    public String component() {
        return component;
    }

    @Override
    public String option() {
        return option;
    }

    @Override
    public Class<?> type() {
        return initial.getClass();
    }

    @Override
    public Object initial() {
        return initial;
    }

    @Override
    public String label() {
        return label;
    }

    @Override
    public String help() {
        return String.format(Locale.ROOT, help, shown(initial));
    }

    @Override
    public List<String> otherNames() {
        return otherNames;
    }

    /**
     * {@return its value of one of these words, where it is one of some; else the word}
     *
     * @param word what a person wrote
     */
    public Object parsed(String word) {
        Arguments.given(word, "word");
        return initial instanceof SchedulerType
                ? SchedulerType.of(word)
                : initial instanceof Optimizer ? Optimizer.of(word) : (Object) word;
    }

    /** 2e-4 for 2.0E-4, 3 for 3.0. */
    private static String shown(Object value) {
        return value.toString().replaceFirst("\\.0(?=E|$)", "").replace('E', 'e');
    }

    /** @throws InvalidArgumentException for a value outside its range */
    void check(Object value) {
        if (value == null) {
            throw new InvalidArgumentException(component + " is null");
        }
        range.check(name().toLowerCase(Locale.ROOT).replace('_', ' '), value);
    }
}
