package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.train.Objective.CpoLoss;
import dev.lorica.train.Objective.DpoLoss;
import dev.lorica.train.Objective.GrpoLoss;
import dev.lorica.train.Objective.ImportanceSampling;
import dev.lorica.train.Objective.RewardScale;
import java.util.Collections;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * The settings of {@linkplain Objective objectives}, by TRL's names, each with what every place that speaks of it takes from here:
 * which objectives have it, what it is there if nothing is said, which numbers it can be. In the order of a help text.
 */
public enum ObjectiveSetting implements SettingDefinition {
    /**
     * How much the model is held to the reference, which is the model without the adapter; simpo, cpo, orpo: the weight of the preference;
     * distill: 0 for the forward divergence from the teacher, 1 for the reverse one, between them a mixture.
     */
    BETA(
            Double.class,
            Range.ABOVE_0, // with grpo it may be 0
            "X",
            "How much the model is held to the reference, which is the model without the adapter; simpo, cpo, orpo: the"
                    + " weight of the preference; distill: 0 for the forward divergence from the teacher, 1 for the"
                    + " reverse one, between them a mixture, at 0.5 Jensen and Shannon's.",
            of("dpo", 0.1, "orpo", 0.1, "simpo", 2.0, "cpo", 0.1, "kto", 0.1, "grpo", 0.0, "distill", 0.5)),
    /**
     * The form of the loss. Of dpo: sigmoid, hinge, ipo, robust, exo_pair, apo_zero, apo_down or sigmoid_norm; of cpo: sigmoid, hinge or
     * ipo; of grpo: dapo, grpo, bnpo, dr_grpo, cispo, sapo or luspo.
     */
    LOSS_TYPE(
            String.class,
            Range.ANY,
            "NAME",
            "dpo: sigmoid, hinge, ipo, robust, exo_pair, apo_zero, apo_down or sigmoid_norm. cpo: sigmoid, hinge or"
                    + " ipo. grpo: dapo, grpo, bnpo, dr_grpo, cispo, sapo or luspo.",
            of("dpo", DpoLoss.SIGMOID, "cpo", CpoLoss.SIGMOID, "grpo", GrpoLoss.DAPO)),
    /** Pairs that are thought to be the wrong way round; dpo: of robust and exo_pair. */
    LABEL_SMOOTHING(
            Double.class,
            new Range(x -> x >= 0 && x < 0.5, "at least 0 and less than 0.5"),
            "SHARE",
            "Pairs that are thought to be the wrong way round; dpo: of robust and exo_pair.",
            of("dpo", 0.0, "simpo", 0.0, "cpo", 0.0)),
    /** Of simpo: the margin. */
    SIMPO_GAMMA(Double.class, Range.ZERO_OR_MORE, "X", "simpo: the margin.", of("simpo", 0.5, "cpo", 0.5)),
    /** Of cpo, simpo: weight of the loss of the better answer. */
    CPO_ALPHA(
            Double.class,
            Range.ZERO_OR_MORE,
            "X",
            "cpo, simpo: weight of the loss of the better answer.",
            of("cpo", 1.0, "simpo", 0.0)),
    /** Of kto: weight of good answers. */
    DESIRABLE_WEIGHT(Double.class, Range.ZERO_OR_MORE, "X", "kto: weight of good answers.", of("kto", 1.0)),
    /** Of kto: weight of the other answers. */
    UNDESIRABLE_WEIGHT(Double.class, Range.ZERO_OR_MORE, "X", "kto: weight of the other answers.", of("kto", 1.0)),
    /**
     * Of grpo: a command line that judges answers. It is started once for all answers of a step, reads a line of JSON for each, with
     * prompt, completion, tokens and ended, and writes a line with a number for each.
     */
    REWARD_COMMAND(
            String.class,
            Range.ANY,
            "COMMAND",
            "grpo: a command line that judges answers. It is started once for all answers of a step, reads a line of"
                    + " JSON for each, with prompt, completion, tokens and ended, and writes a line with a number for"
                    + " each.",
            of("grpo", null)),
    /** Of grpo: when the reward command is given up. */
    REWARD_TIMEOUT(
            Double.class,
            new Range(x -> x > 0 && x <= 86400, "more than 0 and at most 86400"),
            "SECONDS",
            "grpo: when the reward command is given up.",
            of("grpo", 60.0)),
    /** Of grpo: answers that are drawn to each prompt and compared. */
    NUM_GENERATIONS(
            Integer.class,
            Range.TWO_OR_MORE,
            "N",
            "grpo: answers that are drawn to each prompt and compared.",
            of("grpo", 8)),
    /** Of grpo: the most tokens of an answer; {@code max-length} is for prompts. */
    MAX_COMPLETION_LENGTH(
            Integer.class,
            Range.ONE_OR_MORE,
            "N",
            "grpo: the most tokens of an answer; {max-length} is for prompts.",
            of("grpo", 512)),
    /** Of grpo: steps that are taken with the same answers. */
    NUM_ITERATIONS(
            Integer.class, Range.ONE_OR_MORE, "N", "grpo: steps that are taken with the same answers.", of("grpo", 1)),
    /** Of grpo, with {@code num-iterations}: how far a token's probability is moved down before it is let be, as a share. */
    EPSILON(
            Double.class,
            Range.BELOW_1,
            "X",
            "grpo, with {num-iterations}: how far a token's probability is moved down before it is let be, as a share.",
            of("grpo", 0.2)),
    /** Of grpo, with {@code num-iterations}: the same upwards. If not given, as {@code epsilon}. */
    EPSILON_HIGH(
            Double.class,
            Range.ZERO_OR_MORE,
            "X",
            "grpo, with {num-iterations}: the same upwards. If not given, as {epsilon}.",
            of("grpo", null)),
    /** Of grpo, with {@code num-iterations}: how many times likelier a token of a worse answer may count as having become; 0: no bound. */
    DELTA(
            Double.class,
            Range.ZERO_OR_MORE,
            "X",
            "grpo, with {num-iterations}: how many times likelier a token of a worse answer may count as having become; 0:"
                    + " no matter how many.",
            of("grpo", 0.0)),
    /** Of grpo: whether probabilities are compared with those before token by token or of a sequence. */
    IMPORTANCE_SAMPLING_LEVEL(
            String.class,
            Range.ANY,
            "LEVEL",
            "grpo: whether probabilities are compared with those before token by token or of a sequence: token or"
                    + " sequence.",
            of("grpo", ImportanceSampling.TOKEN)),
    /** Of grpo: by whose standard deviation rewards are divided: group, batch or none. */
    SCALE_REWARDS(
            String.class,
            Range.ANY,
            "BY",
            "grpo: by whose standard deviation rewards are divided: group, batch or none.",
            of("grpo", RewardScale.GROUP)),
    /** Of grpo: learn nothing from answers that were cut off. */
    MASK_TRUNCATED_COMPLETIONS(
            Boolean.class, Range.ANY, "", "grpo: learn nothing from answers that were cut off.", of("grpo", false)),
    /** Of reward: how much the rewards of a pair are drawn towards opposite numbers, such as 0.01. */
    CENTER_REWARDS_COEFFICIENT(
            Double.class,
            Range.ZERO_OR_MORE,
            "X",
            "reward: how much the rewards of a pair are drawn towards opposite numbers, such as 0.01.",
            of("reward", 0.0)),
    /** Of distill: by what the logits of both models are divided. */
    TEMPERATURE(
            Double.class,
            Range.ABOVE_0,
            "X",
            "distill: by what the logits of both models are divided.",
            of("distill", 1.0)),
    /** Of distill: of how many tokens at each place the teacher's log-probabilities are kept; 0: of the whole vocabulary. */
    LOSS_TOP_K(
            Integer.class,
            Range.ZERO_OR_MORE,
            "N",
            "distill: of how many tokens at each place the teacher's log-probabilities are kept, 8 bytes each; all others"
                    + " count as one, which has the rest. 0: of the whole vocabulary.",
            of("distill", 64)),
    /** Of dpo, kto: compute what the reference says once, before training. */
    PRECOMPUTE_REF_LOG_PROBS(
            Boolean.class,
            Range.ANY,
            "",
            "dpo, kto: compute what the reference says once, before training.",
            of("dpo", false, "kto", false)),
    /** Of a classifier: {@code balanced}, or a weight for each class, with commas. */
    CLASS_WEIGHTS(
            String.class,
            Range.ANY,
            "WEIGHTS",
            "balanced makes classes count alike of which there are more and less examples; or a weight for each class,"
                    + " with commas. If not given, every example counts alike.",
            of(Classification.NAME, null)),
    /** Of a classifier: what tells the best evaluation, loss, accuracy or f1. */
    METRIC_FOR_BEST_MODEL(
            String.class,
            Range.ANY,
            "METRIC",
            "What {load-best-model-at-end} and early stopping look at: loss, accuracy or f1 (the mean over all"
                    + " classes).",
            of(Classification.NAME, Classification.LOSS));

    private final Class<?> type;
    private final Range range;
    private final String label;
    private final String help;
    private final Map<String, Object> initial;

    ObjectiveSetting(Class<?> type, Range range, String label, String help, Map<String, Object> initial) {
        this.type = type;
        this.range = range;
        this.label = label;
        this.help = help + shown(type, initial);
        this.initial = initial;
    }

    /** In this order; a value may be {@code null}. */
    private static Map<String, Object> of(Object... objectivesAndValues) {
        Map<String, Object> initial = new LinkedHashMap<>();
        for (int i = 0; i < objectivesAndValues.length; i += 2) {
            initial.put((String) objectivesAndValues[i], objectivesAndValues[i + 1]);
        }
        return Collections.unmodifiableMap(initial);
    }

    /** {@code If not given, 0.1, with simpo 2.}: what the first has, and those that have something else. */
    private static String shown(Class<?> type, Map<String, Object> initial) {
        Object usual = initial.values().iterator().next();
        if (usual == null || type == Boolean.class) {
            return "";
        }
        StringBuilder text = new StringBuilder(" If not given, ").append(Settings.word(usual));
        initial.forEach((objective, value) -> {
            if (!Settings.word(value).equals(Settings.word(usual))) {
                text.append(", with ").append(objective).append(' ').append(Settings.word(value));
            }
        });
        return text.append('.').toString();
    }

    /** {@return its name in {@link Objective#settings()}, TRL's: {@code label_smoothing}} */
    public String key() {
        return name().toLowerCase(Locale.ROOT);
    }

    @Override
    public String option() {
        return key().replace('_', '-');
    }

    @Override
    public Class<?> type() {
        return type;
    }

    /** Follows from the objective. */
    @Override
    public Object initial() {
        return type == Boolean.class ? false : null;
    }

    /**
     * {@return whether an objective, {@code dpo}, has such a setting}
     *
     * @param objective the objective's name
     */
    public boolean isOf(String objective) {
        return initial.containsKey(Arguments.given(objective, "objective"));
    }

    /**
     * {@return what it is in an objective, {@code dpo}, where nothing is said; {@code null}: the objective has no such setting, or no default}
     *
     * @param objective the objective's name
     */
    public Object initial(String objective) {
        return initial.get(Arguments.given(objective, "objective"));
    }

    /**
     * {@return what a word means in an objective: of a {@link #LOSS_TYPE} of {@code dpo} a {@link DpoLoss}, in any case and with - for _}
     *
     * @param <T>       what such a setting has
     * @param objective the objective's name
     * @param word      what a person wrote
     * @throws InvalidArgumentException naming those that there are
     */
    @SuppressWarnings("unchecked")
    public <T> T parsed(String objective, String word) {
        Arguments.given(objective, "objective");
        Arguments.given(word, "word");
        if (initial.get(objective) instanceof Enum<?> one) {
            return (T) Settings.named(one.getDeclaringClass(), words(), word);
        }
        throw new InvalidArgumentException(words() + " is no word of " + objective);
    }

    @Override
    public String label() {
        return label;
    }

    @Override
    public String help() {
        return help;
    }

    @Override
    public List<String> otherNames() {
        return List.of();
    }

    private String words() {
        return key().replace('_', ' ');
    }

    /**
     * Refuses a number outside the range of this setting.
     *
     * @param value the number
     * @throws InvalidArgumentException for a number outside its range
     * @throws InvalidArgumentException naming the range
     */
    public void check(double value) {
        range.check(words(), type == Integer.class ? (Number) (int) value : (Number) value);
    }
}
