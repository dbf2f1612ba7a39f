package dev.lorica.cli;

import dev.lorica.data.RecordKind;
import dev.lorica.eval.RewardModel;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.GrpoConfig;
import dev.lorica.train.Objective;
import dev.lorica.train.Objective.CpoLoss;
import dev.lorica.train.Objective.DpoLoss;
import dev.lorica.train.Objective.GrpoLoss;
import dev.lorica.train.Objective.RewardScale;
import dev.lorica.train.RewardFunction;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.function.Consumer;
import picocli.CommandLine.Option;

/** What training makes small. Names and defaults are TRL's. */
@Section("Objective")
final class ObjectiveOptions {
    private static final List<String> NAMES = List.of("sft", "dpo", "orpo", "simpo", "cpo", "kto", "reward", "grpo");

    /** What TRL calls the loss of plain fine-tuning. */
    private static final String NLL = "nll";

    /**
     * TRL begins with 1e-6, which is for all weights; adapters want about ten times the rate (Schulman et al. 2025, LoRA Without
     * Regret).
     */
    private static final double PREFERENCE_LEARNING_RATE = 1e-5;

    /** TRL's. */
    private static final double REWARD_LEARNING_RATE = 1e-4;

    private static final int MOST_SECONDS = 86400;

    @Option(
            names = "--objective",
            paramLabel = "NAME",
            description =
                    "sft: answers are learned. dpo, orpo, simpo, cpo: of two answers the better is preferred; data have "
                            + "chosen and rejected, and a prompt that may also be in both. kto: good answers are preferred; data have a "
                            + "prompt, a completion and a label. reward: pairs teach a reward model, which judges answers. grpo: answers that the model draws itself get rewards; data have "
                            + "prompts alone. Default: ${DEFAULT-VALUE}")
    String name = "sft";

    @Option(
            names = "--beta",
            paramLabel = "X",
            description =
                    "How much the model is held to the reference, which is the model without the adapter; simpo, cpo, "
                            + "orpo: the weight of the preference. If not given, 0.1, with simpo 2, with grpo 0.")
    Double beta;

    @Option(
            names = "--loss-type",
            paramLabel = "NAME",
            description =
                    "dpo: sigmoid, hinge, ipo, robust, exo_pair, apo_zero, apo_down or sigmoid_norm. cpo: sigmoid, hinge "
                            + "or ipo. If not given, sigmoid. grpo: dapo, grpo, bnpo or dr_grpo. If not given, dapo.")
    String lossType;

    @Option(
            names = "--label-smoothing",
            paramLabel = "SHARE",
            description =
                    "Pairs that are thought to be the wrong way round; dpo: of robust and exo_pair. If not given, 0.")
    Double labelSmoothing;

    @Option(names = "--simpo-gamma", paramLabel = "X", description = "simpo: the margin. If not given, 0.5.")
    Double simpoGamma;

    @Option(
            names = "--cpo-alpha",
            paramLabel = "X",
            description = "cpo, simpo: weight of the loss of the better answer. If not given, 1, with simpo 0.")
    Double cpoAlpha;

    @Option(
            names = "--desirable-weight",
            paramLabel = "X",
            description = "kto: weight of good answers. If not given, 1.")
    Double desirableWeight;

    @Option(
            names = "--undesirable-weight",
            paramLabel = "X",
            description = "kto: weight of the other answers. If not given, 1.")
    Double undesirableWeight;

    @Option(
            names = "--reward-command",
            paramLabel = "COMMAND",
            description =
                    "grpo: a command line that judges answers. It is started once for all answers of a step, reads a line of "
                            + "JSON for each, with prompt, completion, tokens and ended, and writes a line with a number for each.")
    String rewardCommand;

    @Option(
            names = "--reward-adapter",
            paramLabel = "ADAPTER",
            description =
                    "grpo: a reward model for the same model, which judges answers: what --objective reward made.")
    Path rewardAdapter;

    @Option(
            names = "--reward-timeout",
            paramLabel = "SECONDS",
            description = "grpo: when the reward command is given up. If not given, 60.")
    Double rewardTimeout;

    @Option(
            names = "--num-generations",
            paramLabel = "N",
            description = "grpo: answers that are drawn to each prompt and compared. If not given, 8.")
    Integer numGenerations;

    @Option(
            names = "--max-completion-length",
            paramLabel = "N",
            description = "grpo: the most tokens of an answer; --max-length is for prompts. If not given, 512.")
    Integer maxCompletionLength;

    @Option(
            names = "--num-iterations",
            paramLabel = "N",
            description = "grpo: steps that are taken with the same answers. If not given, 1.")
    Integer numIterations;

    @Option(
            names = "--epsilon",
            paramLabel = "X",
            description =
                    "grpo, with --num-iterations: how far a token's probability is moved down before it is let be, as a "
                            + "share. If not given, 0.2.")
    Double epsilon;

    @Option(
            names = "--epsilon-high",
            paramLabel = "X",
            description = "grpo, with --num-iterations: the same upwards. If not given, as --epsilon.")
    Double epsilonHigh;

    @Option(
            names = "--scale-rewards",
            paramLabel = "BY",
            description =
                    "grpo: by whose standard deviation rewards are divided: group, batch or none. If not given, group.")
    String scaleRewards;

    @Option(names = "--mask-truncated-completions", description = "grpo: learn nothing from answers that were cut off.")
    boolean maskTruncated;

    @Option(
            names = "--center-rewards-coefficient",
            paramLabel = "X",
            description =
                    "reward: how much the rewards of a pair are drawn towards opposite numbers, such as 0.01. If not given, 0.")
    Double centerRewards;

    @Option(
            names = "--precompute-ref-log-probs",
            description = "dpo, kto: compute what the reference says once, before training.")
    boolean precomputeReference;

    /** @param judge what {@link #rewardAdapter} is; {@code null}: not given, or not opened yet */
    Objective objective(RewardModel judge) {
        return switch (name()) {
            case "sft" -> {
                only("sft", NLL.equals(lossType) ? "--loss-type" : "");
                yield Objective.sft();
            }
            case "dpo" -> {
                only("dpo", "--beta", "--loss-type", "--label-smoothing", "--precompute-ref-log-probs");
                yield Objective.dpo(
                        or(beta, 0.1),
                        lossType == null ? DpoLoss.SIGMOID : DpoLoss.of(lossType),
                        or(labelSmoothing, 0));
            }
            case "orpo" -> {
                only("orpo", "--beta");
                yield Objective.orpo(or(beta, 0.1));
            }
            case "simpo" -> {
                only("simpo", "--beta", "--label-smoothing", "--simpo-gamma", "--cpo-alpha");
                yield Objective.cpo(
                        or(beta, 2), CpoLoss.SIMPO, or(simpoGamma, 0.5), or(cpoAlpha, 0), or(labelSmoothing, 0));
            }
            case "cpo" -> {
                only("cpo", "--beta", "--loss-type", "--label-smoothing", "--simpo-gamma", "--cpo-alpha");
                yield Objective.cpo(
                        or(beta, 0.1),
                        lossType == null ? CpoLoss.SIGMOID : CpoLoss.of(lossType),
                        or(simpoGamma, 0.5),
                        or(cpoAlpha, 1),
                        or(labelSmoothing, 0));
            }
            case "reward" -> {
                only("reward", "--center-rewards-coefficient");
                yield Objective.reward(or(centerRewards, 0));
            }
            case "grpo" -> Objective.grpo(grpoConfig(), rewards(judge));
            default -> {
                only("kto", "--beta", "--desirable-weight", "--undesirable-weight", "--precompute-ref-log-probs");
                yield Objective.kto(or(beta, 0.1), or(desirableWeight, 1), or(undesirableWeight, 1));
            }
        };
    }

    private GrpoConfig grpoConfig() {
        List<String> heeded = new ArrayList<>(List.of(
                "--beta",
                "--loss-type",
                "--reward-command",
                "--reward-adapter",
                "--num-generations",
                "--max-completion-length",
                "--num-iterations",
                "--scale-rewards",
                "--mask-truncated-completions"));
        if (numIterations != null && numIterations > 1) {
            heeded.addAll(List.of("--epsilon", "--epsilon-high"));
        } else if (epsilon != null || epsilonHigh != null) {
            throw new InvalidArgumentException((epsilon != null ? "--epsilon" : "--epsilon-high")
                    + " has no meaning without --num-iterations 2 or more: in a single step nothing moves so far");
        }
        if (rewardCommand != null) {
            heeded.add("--reward-timeout");
        }
        only("grpo", heeded.toArray(String[]::new));
        if (rewardCommand == null && rewardAdapter == null) {
            throw new InvalidArgumentException(
                    "--objective grpo needs --reward-command or --reward-adapter, which judge the answers");
        }
        GrpoConfig.Builder config = GrpoConfig.builder().maskTruncatedCompletions(maskTruncated);
        given(numGenerations, config::numGenerations);
        given(maxCompletionLength, config::maxCompletionLength);
        given(numIterations, config::numIterations);
        given(beta, config::beta);
        given(epsilon, config::epsilon);
        given(epsilonHigh, config::epsilonHigh);
        given(lossType, name -> config.lossType(GrpoLoss.of(name)));
        given(scaleRewards, name -> config.scaleRewards(RewardScale.of(name)));
        return config.build();
    }

    private RewardFunction[] rewards(RewardModel judge) {
        List<RewardFunction> rewards = new ArrayList<>();
        if (rewardCommand != null) {
            double seconds = or(rewardTimeout, 60);
            if (!(seconds > 0 && seconds <= MOST_SECONDS)) {
                throw new InvalidArgumentException(
                        "--reward-timeout is " + seconds + "; it must be more than 0 and at most " + MOST_SECONDS);
            }
            boolean windows = System.getProperty("os.name").startsWith("Windows");
            List<String> command =
                    windows ? List.of("cmd", "/c", rewardCommand) : List.of("/bin/sh", "-c", rewardCommand);
            rewards.add(RewardFunction.command(command, Duration.ofMillis(Math.round(1000 * seconds))));
        }
        if (judge != null) {
            rewards.add(RewardFunction.of(judge));
        }
        return rewards.toArray(RewardFunction[]::new);
    }

    private static <T> void given(T value, Consumer<T> setting) {
        if (value != null) {
            setting.accept(value);
        }
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
            grpoConfig();
            rewards(null);
        } else {
            objective(null);
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
        return isPlain() ? plain : isReward() ? REWARD_LEARNING_RATE : PREFERENCE_LEARNING_RATE;
    }

    /** What would not be heeded is refused. */
    private void only(String objective, String... heeded) {
        Map<String, Object> given = new LinkedHashMap<>();
        given.put("--beta", beta);
        given.put("--loss-type", lossType);
        given.put("--label-smoothing", labelSmoothing);
        given.put("--simpo-gamma", simpoGamma);
        given.put("--cpo-alpha", cpoAlpha);
        given.put("--desirable-weight", desirableWeight);
        given.put("--undesirable-weight", undesirableWeight);
        given.put("--reward-command", rewardCommand);
        given.put("--reward-adapter", rewardAdapter);
        given.put("--reward-timeout", rewardTimeout);
        given.put("--num-generations", numGenerations);
        given.put("--max-completion-length", maxCompletionLength);
        given.put("--num-iterations", numIterations);
        given.put("--epsilon", epsilon);
        given.put("--epsilon-high", epsilonHigh);
        given.put("--scale-rewards", scaleRewards);
        given.put("--mask-truncated-completions", maskTruncated ? true : null);
        given.put("--center-rewards-coefficient", centerRewards);
        given.put("--precompute-ref-log-probs", precomputeReference ? true : null);
        given.forEach((option, value) -> {
            if (value != null && !List.of(heeded).contains(option)) {
                throw new InvalidArgumentException(option + " has no meaning with --objective " + objective
                        + (objective.equals("sft") ? "; is it --objective dpo that is meant?" : ""));
            }
        });
    }

    private static double or(Double given, double otherwise) {
        return given != null ? given : otherwise;
    }
}
