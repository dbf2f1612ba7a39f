package dev.lorica.cli;

import static dev.lorica.train.ObjectiveSetting.BETA;
import static dev.lorica.train.ObjectiveSetting.CENTER_REWARDS_COEFFICIENT;
import static dev.lorica.train.ObjectiveSetting.CPO_ALPHA;
import static dev.lorica.train.ObjectiveSetting.DELTA;
import static dev.lorica.train.ObjectiveSetting.DESIRABLE_WEIGHT;
import static dev.lorica.train.ObjectiveSetting.EPSILON;
import static dev.lorica.train.ObjectiveSetting.EPSILON_HIGH;
import static dev.lorica.train.ObjectiveSetting.IMPORTANCE_SAMPLING_LEVEL;
import static dev.lorica.train.ObjectiveSetting.LABEL_SMOOTHING;
import static dev.lorica.train.ObjectiveSetting.LOSS_TOP_K;
import static dev.lorica.train.ObjectiveSetting.LOSS_TYPE;
import static dev.lorica.train.ObjectiveSetting.MASK_TRUNCATED_COMPLETIONS;
import static dev.lorica.train.ObjectiveSetting.MAX_COMPLETION_LENGTH;
import static dev.lorica.train.ObjectiveSetting.NUM_GENERATIONS;
import static dev.lorica.train.ObjectiveSetting.NUM_ITERATIONS;
import static dev.lorica.train.ObjectiveSetting.PRECOMPUTE_REF_LOG_PROBS;
import static dev.lorica.train.ObjectiveSetting.REWARD_COMMAND;
import static dev.lorica.train.ObjectiveSetting.REWARD_TIMEOUT;
import static dev.lorica.train.ObjectiveSetting.SCALE_REWARDS;
import static dev.lorica.train.ObjectiveSetting.SIMPO_GAMMA;
import static dev.lorica.train.ObjectiveSetting.TEMPERATURE;
import static dev.lorica.train.ObjectiveSetting.UNDESIRABLE_WEIGHT;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.RecordKind;
import dev.lorica.eval.RewardModel;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.GrpoConfig;
import dev.lorica.train.Objective;
import dev.lorica.train.Objective.CpoLoss;
import dev.lorica.train.Objective.GrpoLoss;
import dev.lorica.train.ObjectiveSetting;
import dev.lorica.train.RewardFunction;
import dev.lorica.train.Teacher;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import picocli.CommandLine.Option;

/** What training makes small. Names and defaults are TRL's. */
@Section("Objective")
final class ObjectiveOptions extends SettingOptions {
    private static final List<String> NAMES =
            List.of("sft", "dpo", "orpo", "simpo", "cpo", "kto", "reward", "grpo", "distill");

    /** What TRL calls the loss of plain fine-tuning. */
    private static final String NLL = "nll";

    /**
     * TRL begins with 1e-6, which is for all weights; adapters want about ten times the rate (Schulman et al. 2025, LoRA Without
     * Regret).
     */
    private static final double PREFERENCE_LEARNING_RATE = 1e-5;

    /** TRL's. */
    private static final double REWARD_LEARNING_RATE = 1e-4;

    @Option(
            names = "--objective",
            paramLabel = "NAME",
            description =
                    "sft: answers are learned. dpo, orpo, simpo, cpo: of two answers the better is preferred; data"
                            + " have chosen and rejected, and a prompt that may also be in both. kto: good answers are"
                            + " preferred; data have a prompt, a completion and a label. reward: pairs teach a reward"
                            + " model, which judges answers. grpo: answers that the model draws itself get rewards; data"
                            + " have prompts alone. distill: the model is to resemble a larger one, which says what it"
                            + " thinks of the answers in the data. Default: ${DEFAULT-VALUE}")
    String name = "sft";

    @Option(
            names = "--reward-adapter",
            paramLabel = "ADAPTER",
            description =
                    "grpo: a reward model for the same model, which judges answers: what --objective reward made.")
    Path rewardAdapter;

    @Option(
            names = "--teacher-model",
            paramLabel = "FILE",
            description =
                    "distill: the larger model, of the same vocabulary. It is asked before training, and not in memory"
                            + " while there is training.")
    Path teacherModel;

    @Option(names = "--teacher-adapter", paramLabel = "ADAPTER", description = "distill: an adapter of the teacher's.")
    Path teacherAdapter;

    @Option(
            names = "--teacher-cache",
            paramLabel = "DIR",
            description =
                    "distill: folder for what the teacher says, which is not asked again by a run with the same data,"
                            + " teacher and settings. Default: teacher in --output.")
    Path teacherCache;

    @Override
    List<ObjectiveSetting> settings() {
        return Arrays.stream(ObjectiveSetting.values())
                .filter(setting -> NAMES.stream().anyMatch(setting::isOf))
                .toList();
    }

    /** @param judge what {@link #rewardAdapter} is; {@code null}: not given, or not opened yet */
    Objective objective(RewardModel judge) {
        refuseWhatIsNotHeeded();
        return switch (name()) {
            case "sft" -> Objective.sft();
            case "dpo" -> Objective.dpo(get(BETA), word(LOSS_TYPE), get(LABEL_SMOOTHING));
            case "orpo" -> Objective.orpo(get(BETA));
            case "simpo" ->
                Objective.cpo(get(BETA), CpoLoss.SIMPO, get(SIMPO_GAMMA), get(CPO_ALPHA), get(LABEL_SMOOTHING));
            case "cpo" ->
                Objective.cpo(get(BETA), word(LOSS_TYPE), get(SIMPO_GAMMA), get(CPO_ALPHA), get(LABEL_SMOOTHING));
            case "reward" -> Objective.reward(get(CENTER_REWARDS_COEFFICIENT));
            case "grpo" -> Objective.grpo(grpoConfig(), rewards(judge));
            case "distill" -> Objective.distill(get(BETA));
            default -> Objective.kto(get(BETA), get(DESIRABLE_WEIGHT), get(UNDESIRABLE_WEIGHT));
        };
    }

    private GrpoConfig grpoConfig() {
        int iterations = get(NUM_ITERATIONS);
        boolean bounds = word(LOSS_TYPE) == GrpoLoss.CISPO;
        for (ObjectiveSetting setting : List.of(EPSILON, EPSILON_HIGH, DELTA, IMPORTANCE_SAMPLING_LEVEL)) {
            if (iterations <= 1 && value(setting) != null && !bounds) {
                throw new InvalidArgumentException("--" + setting.option()
                        + " has no meaning without --num-iterations 2 or more: in a single step nothing moves so far");
            }
        }
        if (value(REWARD_COMMAND) == null && rewardAdapter == null) {
            throw new InvalidArgumentException(
                    "--objective grpo needs --reward-command or --reward-adapter, which judge the answers");
        }
        if (value(REWARD_COMMAND) == null && value(REWARD_TIMEOUT) != null) {
            throw new InvalidArgumentException("--reward-timeout has no meaning without --reward-command");
        }
        GrpoConfig.Builder config = GrpoConfig.builder()
                .numGenerations(get(NUM_GENERATIONS))
                .maxCompletionLength(get(MAX_COMPLETION_LENGTH))
                .numIterations(iterations)
                .beta(get(BETA))
                .epsilon(get(EPSILON))
                .lossType(word(LOSS_TYPE))
                .scaleRewards(word(SCALE_REWARDS))
                .maskTruncatedCompletions(value(MASK_TRUNCATED_COMPLETIONS))
                .delta(get(DELTA))
                .importanceSamplingLevel(word(IMPORTANCE_SAMPLING_LEVEL));
        if (value(EPSILON_HIGH) != null) {
            config.epsilonHigh(value(EPSILON_HIGH));
        }
        return config.build();
    }

    private RewardFunction[] rewards(RewardModel judge) {
        List<RewardFunction> rewards = new ArrayList<>();
        String judging = value(REWARD_COMMAND);
        if (judging != null) {
            double seconds = get(REWARD_TIMEOUT);
            REWARD_TIMEOUT.check(seconds);
            boolean windows = System.getProperty("os.name").startsWith("Windows");
            List<String> command = windows ? List.of("cmd", "/c", judging) : List.of("/bin/sh", "-c", judging);
            rewards.add(RewardFunction.command(command, Duration.ofMillis(Math.round(1000 * seconds))));
        }
        if (judge != null) {
            rewards.add(RewardFunction.of(judge));
        }
        return rewards.toArray(RewardFunction[]::new);
    }

    /** Whether there is a teacher. */
    boolean isDistillation() {
        return name().equals("distill");
    }

    /** What is asked of a teacher. */
    Teacher teacher(Model model, Adapter adapter) {
        return new Teacher(model, adapter, get(LOSS_TOP_K), get(TEMPERATURE));
    }

    boolean precomputesReference() {
        return value(PRECOMPUTE_REF_LOG_PROBS);
    }

    /** As given, or what it is in the objective. */
    @SuppressWarnings("unchecked")
    private <T> T get(ObjectiveSetting setting) {
        Object given = value(setting);
        return (T) (given != null ? given : setting.initial(name()));
    }

    /** The same of what is one of some words. */
    private <T> T word(ObjectiveSetting setting) {
        return value(setting) == null ? get(setting) : setting.parsed(name(), value(setting));
    }

    private String name() {
        String given = name.toLowerCase(Locale.ROOT);
        if (!NAMES.contains(given)) {
            throw new InvalidArgumentException(
                    "--objective " + name + " does not exist; there are " + String.join(", ", NAMES));
        }
        return given;
    }

    /** @throws IllegalArgumentException if they do not go together */
    void check() {
        if (name().equals("grpo")) {
            refuseWhatIsNotHeeded();
            grpoConfig();
            rewards(null);
        } else {
            objective(null);
        }
        if (isDistillation() && teacherModel == null) {
            throw new InvalidArgumentException(
                    "--objective distill needs --teacher-model, a larger model of the same" + " vocabulary");
        }
        if (isDistillation()) {
            LOSS_TOP_K.check((int) get(LOSS_TOP_K));
            TEMPERATURE.check((double) get(TEMPERATURE));
        }
    }

    RecordKind records() {
        // What judges the answers need not be known to look at what is asked.
        return name().equals("grpo") ? RecordKind.PROMPTS : objective(null).records();
    }

    boolean isPlain() {
        return name().equals("sft");
    }

    /** Whether it is a reward model that is trained. */
    boolean isReward() {
        return name().equals("reward");
    }

    double defaultLearningRate(double plain) {
        return isPlain() || isDistillation() ? plain : isReward() ? REWARD_LEARNING_RATE : PREFERENCE_LEARNING_RATE;
    }

    private void refuseTeacher(String option, Path given) {
        if (given != null) {
            throw new InvalidArgumentException(option + " has no meaning with --objective " + name()
                    + "; is it --objective distill that is meant?");
        }
    }

    private void refuseWhatIsNotHeeded() {
        if (rewardAdapter != null && !REWARD_COMMAND.isOf(name())) {
            throw new InvalidArgumentException("--reward-adapter has no meaning with --objective " + name());
        }
        if (!isDistillation()) {
            refuseTeacher("--teacher-model", teacherModel);
            refuseTeacher("--teacher-adapter", teacherAdapter);
            refuseTeacher("--teacher-cache", teacherCache);
        }
        boolean plain = isPlain();
        for (ObjectiveSetting setting : settings()) {
            Object given = value(setting);
            boolean isSaid = given != null && !given.equals(setting.initial()) && !(plain && NLL.equals(given));
            // Answers are drawn at this one, as TRL has it where nothing is said.
            isSaid &= !(setting == TEMPERATURE
                    && name().equals("grpo")
                    && Double.valueOf(1).equals(given));
            if (isSaid && !setting.isOf(name())) {
                throw new InvalidArgumentException("--" + setting.option() + " has no meaning with --objective "
                        + name() + (plain ? "; is it --objective dpo that is meant?" : ""));
            }
        }
    }
}
