package dev.lorica.cli;

import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.Objective;
import dev.lorica.train.Objective.CpoLoss;
import dev.lorica.train.Objective.DpoLoss;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import picocli.CommandLine.Option;

/** What training makes small. Names and defaults are TRL's. */
@Section("Objective")
final class ObjectiveOptions {
    private static final List<String> NAMES = List.of("sft", "dpo", "orpo", "simpo", "cpo", "kto");

    /** What TRL calls the loss of plain fine-tuning. */
    private static final String NLL = "nll";

    /**
     * TRL begins with 1e-6, which is for all weights; adapters want about ten times the rate (Schulman et al. 2025, LoRA Without
     * Regret).
     */
    private static final double PREFERENCE_LEARNING_RATE = 1e-5;

    @Option(
            names = "--objective",
            paramLabel = "NAME",
            description =
                    "sft: answers are learned. dpo, orpo, simpo, cpo: of two answers the better is preferred; data have "
                            + "chosen and rejected, and a prompt that may also be in both. kto: good answers are preferred; data have a "
                            + "prompt, a completion and a label. Default: ${DEFAULT-VALUE}")
    String name = "sft";

    @Option(
            names = "--beta",
            paramLabel = "X",
            description =
                    "How much the model is held to the reference, which is the model without the adapter; simpo, cpo, "
                            + "orpo: the weight of the preference. If not given, 0.1, with simpo 2.")
    Double beta;

    @Option(
            names = "--loss-type",
            paramLabel = "NAME",
            description =
                    "dpo: sigmoid, hinge, ipo, robust, exo_pair, apo_zero, apo_down or sigmoid_norm. cpo: sigmoid, hinge "
                            + "or ipo. If not given, sigmoid.")
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
            names = "--precompute-ref-log-probs",
            description = "dpo, kto: compute what the reference says once, before training.")
    boolean precomputeReference;

    Objective objective() {
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
            default -> {
                only("kto", "--beta", "--desirable-weight", "--undesirable-weight", "--precompute-ref-log-probs");
                yield Objective.kto(or(beta, 0.1), or(desirableWeight, 1), or(undesirableWeight, 1));
            }
        };
    }

    private String name() {
        String given = name.toLowerCase(Locale.ROOT);
        if (!NAMES.contains(given)) {
            throw new InvalidArgumentException(
                    "--objective " + name + " does not exist; there are " + String.join(", ", NAMES));
        }
        return given;
    }

    RecordKind records() {
        return objective().records();
    }

    boolean isPlain() {
        return objective() == Objective.sft();
    }

    double defaultLearningRate(double plain) {
        return isPlain() ? plain : PREFERENCE_LEARNING_RATE;
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
