package dev.lorica.train;

import dev.lorica.data.Labels;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.List;
import java.util.Map;

/**
 * What training makes small: a pure function from the log-probabilities of a micro-batch's sequences to a loss, and to the
 * derivative of that loss by each of them. The engine does the rest: {@code log p} comes from its forward pass, and the derivatives
 * are the weights with which its backward pass begins.
 *
 * <pre>{@code
 * new Trainer(model, adapter, config, Objective.dpo(0.1)).train(pairs);
 *
 * Objective unlikelihood = Objective.of("unlikelihood", RecordKind.LABELLED, (batch, result) -> {
 *     for (ScoredSequence s : batch.sequences()) {
 *         double sign = s.value() > 0 ? -1 : 1;
 *         result.loss(sign * s.meanLogProb());
 *         result.gradient(s, sign / s.length());
 *     }
 * });
 * }</pre>
 *
 * The loss of a step is the mean over its {@linkplain ObjectiveResult#loss(double) units}, whatever micro-batches they come in.
 * Names, defaults and metrics are those of TRL. What {@link GradientWorkers} are to compute is sent to them, a function of one's own too.
 */
public interface Objective extends Serializable {
    /** {@return what people call it: {@code dpo}} */
    String name();

    /** {@return what records it learns from} */
    RecordKind records();

    /** {@return whether it asks for {@link ScoredSequence#referenceLogProb()}} */
    default boolean usesReference() {
        return false;
    }

    /** {@return whether it asks for {@link ScoredSequence#promptLogProb()} of the first sequence of each example} */
    default boolean scoresPrompts() {
        return false;
    }

    /**
     * {@return whether it is about what a {@link Teacher} says} Then its sequences have log-probabilities of several tokens at each
     * place, the teacher's and the model's, instead of one. Its data are {@link TokenizedDataset#withTeacher}.
     */
    default boolean usesTeacher() {
        return false;
    }

    /**
     * {@return whether it heeds {@link ScoredSequence#weight(int)}} Data in which some of that is not 1 are refused by one that does
     * not.
     */
    default boolean usesWeights() {
        return false;
    }

    /** {@return whether it asks for {@link ScoredBatch#kl()}} */
    default boolean usesKl() {
        return false;
    }

    /** {@return all that decides what it makes of a batch, by name: a run cannot go on with other settings} */
    default Map<String, Object> settings() {
        return Map.of();
    }

    /**
     * Loss and gradients of one micro-batch.
     *
     * @param batch  what the model says of the micro-batch
     * @param result takes losses, gradients and metrics
     */
    void score(ScoredBatch batch, ObjectiveResult result);

    /**
     * {@return what the best of several evaluations has least of: as a rule the loss}
     *
     * @param evaluation an evaluation
     */
    default double toBeat(Evaluation evaluation) {
        return Arguments.given(evaluation, "evaluation").loss();
    }

    /** {@return for people: {@code dpo (beta 0.1, loss_type sigmoid)}} */
    default String inWords() {
        StringBuilder words = new StringBuilder(name());
        settings().forEach((name, value) -> words.append(words.length() == name().length() ? " (" : ", ")
                .append(name)
                .append(' ')
                .append(value));
        return words.append(settings().isEmpty() ? "" : ")").toString();
    }

    /** One's own. */
    @FunctionalInterface
    interface Function extends Serializable {
        /**
         * Loss and gradients of one micro-batch.
         *
         * @param batch  what the model says of the micro-batch
         * @param result takes losses, gradients and metrics
         */
        void score(ScoredBatch batch, ObjectiveResult result);
    }

    /**
     * {@return an objective of one's own, without a reference}
     *
     * @param name     what people call it
     * @param records  what it learns from
     * @param function computes loss and gradients
     */
    static Objective of(String name, RecordKind records, Function function) {
        return of(name, records, false, function);
    }

    /**
     * {@return an objective of one's own}
     *
     * @param name          what people call it
     * @param records       what it learns from
     * @param usesReference whether it asks for {@link ScoredSequence#referenceLogProb()}
     * @param function      computes loss and gradients
     */
    static Objective of(String name, RecordKind records, boolean usesReference, Function function) {
        Arguments.given(name, "name");
        Arguments.given(records, "records");
        Arguments.given(function, "function");
        return new Objective() {
            @Override
            public String name() {
                return name;
            }

            @Override
            public RecordKind records() {
                return records;
            }

            @Override
            public boolean usesReference() {
                return usesReference;
            }

            @Override
            public boolean usesWeights() {
                return true;
            }

            @Override
            public void score(ScoredBatch batch, ObjectiveResult result) {
                function.score(batch, result);
            }
        };
    }

    /**
     * {@return to resemble a larger model of the same vocabulary: the generalized Jensen-Shannon divergence from what that says of the
     * answers in the data (Agarwal et al. 2024)}
     *
     * @param beta 0: the forward divergence, KL(teacher ‖ model); 1: the reverse one, KL(model ‖ teacher); between them a mixture of
     *     both, at 0.5 Jensen and Shannon's
     */
    static Objective distill(double beta) {
        return new Distill(beta);
    }

    /**
     * {@return plain fine-tuning: −log p of every token that is learned} Each counts alike, or by its {@linkplain
     * dev.lorica.data.DataRecord#weight weight}, by whose sum the loss is divided then.
     */
    static Objective sft() {
        return Sft.INSTANCE;
    }

    /**
     * {@return what a classifier is to say of texts; the adapter has one for these labels}
     *
     * @param labels the labels
     */
    static Objective classification(Labels labels) {
        return classification(labels, List.of(), Classification.LOSS);
    }

    /**
     * {@return what a classifier is to say of texts, of which some may count more}
     *
     * @param labels       the labels
     * @param classWeights by which the loss of a text of each class is multiplied; none: all count alike
     * @param best         what tells the best evaluation: {@code loss}, {@code accuracy} or {@code f1}
     */
    static Objective classification(Labels labels, List<Double> classWeights, String best) {
        return new Classification(
                Arguments.given(labels, "labels"),
                Arguments.all(classWeights, "classWeights"),
                Arguments.given(best, "best"));
    }

    /**
     * {@return weights that make classes count alike of which there are more and less: texts / (classes · texts of the class)}
     *
     * @param classCounts texts of each class, by its name
     */
    static List<Double> balancedWeights(Map<String, Long> classCounts) {
        return Classification.balanced(Arguments.all(classCounts, "classCounts"));
    }

    /**
     * {@return direct preference optimization (Rafailov et al. 2023)}
     *
     * @param beta how much the model is held to the reference, more than 0
     */
    static Objective dpo(double beta) {
        return dpo(beta, DpoLoss.SIGMOID, 0);
    }

    /**
     * {@return direct preference optimization or one of its relatives}
     *
     * @param beta           how much the model is held to the reference
     * @param loss           which of them
     * @param labelSmoothing share of pairs that are the wrong way round, of {@link DpoLoss#ROBUST} and {@link DpoLoss#EXO_PAIR}
     */
    static Objective dpo(double beta, DpoLoss loss, double labelSmoothing) {
        Arguments.given(loss, "loss");
        return new Dpo(beta, loss, labelSmoothing);
    }

    /**
     * {@return odds ratio preference optimization (Hong et al. 2024): no reference, and the better answer is learned as well}
     *
     * @param beta weight of the odds ratio, TRL's and the paper's λ
     */
    static Objective orpo(double beta) {
        return new Orpo(beta);
    }

    /**
     * {@return simple preference optimization (Meng et al. 2024): no reference, log p per token, a margin}
     *
     * @param beta  what the difference is multiplied by
     * @param gamma the margin
     */
    static Objective simpo(double beta, double gamma) {
        return new Cpo(beta, CpoLoss.SIMPO, gamma, 0, 0);
    }

    /**
     * {@return contrastive preference optimization (Xu et al. 2024), of which SimPO is one form}
     *
     * @param beta           what the difference is multiplied by
     * @param loss           which form
     * @param gamma          margin of {@link CpoLoss#SIMPO}
     * @param alpha          weight of the loss of the better answer
     * @param labelSmoothing share of pairs that are the wrong way round
     */
    static Objective cpo(double beta, CpoLoss loss, double gamma, double alpha, double labelSmoothing) {
        Arguments.given(loss, "loss");
        return new Cpo(beta, loss, gamma, alpha, labelSmoothing);
    }

    /**
     * {@return a reward model (Ouyang et al. 2022), which learns from pairs to give the better answer more} The adapter has a classifier
     * for {@link Labels#reward}; {@link RewardFunction#of(dev.lorica.eval.RewardModel)} gives its rewards to {@link #grpo}.
     */
    static Objective reward() {
        return reward(0);
    }

    /**
     * {@return a reward model whose rewards of a pair are drawn towards opposite numbers}
     *
     * @param centerRewardsCoefficient how much the rewards of a pair are drawn towards opposite numbers, such as 0.01; 0: not
     */
    static Objective reward(double centerRewardsCoefficient) {
        return new Reward(centerRewardsCoefficient);
    }

    /**
     * {@return Kahneman-Tversky optimization (Ethayarajh et al. 2024), from single answers that are good or not}
     *
     * @param beta how much the model is held to the reference, more than 0
     */
    static Objective kto(double beta) {
        return new Kto(beta, 1, 1);
    }

    /**
     * {@return Kahneman-Tversky optimization where there are more answers of one kind than of the other}
     *
     * @param beta              how much the model is held to the reference, more than 0
     * @param desirableWeight   of good answers
     * @param undesirableWeight of the others
     */
    static Objective kto(double beta, double desirableWeight, double undesirableWeight) {
        return new Kto(beta, desirableWeight, undesirableWeight);
    }

    /**
     * {@return group relative policy optimization (Shao et al. 2024)} The model learns from rewards for answers that it draws itself while
     * it learns. Its data are {@link dev.lorica.data.TokenizedDataset#prompts prompts alone}, and a micro-batch has the answers to as
     * many prompts as a batch has examples.
     *
     * @param config  how answers are drawn and compared
     * @param rewards what judges the answers; several are added up
     */
    static Objective grpo(GrpoConfig config, RewardFunction... rewards) {
        Arguments.given(config, "config");
        List<RewardFunction> all = Arguments.all("rewards", rewards);
        if (all.isEmpty()) {
            throw new InvalidArgumentException("rewards are none; grpo needs something that judges answers");
        }
        return new Grpo(config, all);
    }

    /** How the losses of tokens are added up, by TRL's names. */
    enum GrpoLoss {
        /** The mean of the means of the answers. */
        GRPO,
        /** The mean over the tokens of a micro-batch. */
        BNPO,
        /** The sum of an answer's tokens over the most that it may have: long answers are not favoured (Liu et al. 2025). */
        DR_GRPO,
        /** The mean over all tokens of a step (Yu et al. 2025). */
        DAPO,
        /** The same, of log p times a ratio that is bounded by {@code epsilon_high} and has no gradient (MiniMax 2025). */
        CISPO,
        /** The mean of the means of the answers, with a gate that closes softly instead of a bound (Gao et al. 2025). */
        SAPO,
        /** The mean of the sums of the answers: long ones weigh more (Liu et al. 2025, LUSPO). */
        LUSPO
    }

    /** Of what the probability is compared with that when it was drawn. */
    enum ImportanceSampling {
        /** Each token. */
        TOKEN,
        /** A whole answer, per token (Zheng et al. 2025, GSPO). */
        SEQUENCE
    }

    /** By what differences of rewards are divided. */
    enum RewardScale {
        /** The standard deviation of the answers to the same prompt. */
        GROUP,
        /** The standard deviation of all answers of a step. */
        BATCH,
        /** Nothing. */
        NONE
    }

    /** Forms of direct preference optimization, by TRL's names. */
    enum DpoLoss {
        /** −log σ(β Δ). */
        SIGMOID,
        /** max(0, 1 − β Δ) (SLiC, Zhao et al. 2023). */
        HINGE,
        /** (Δ per token − 1 / 2β)² (Azar et al. 2023). */
        IPO,
        /** Sigmoid that expects some pairs to be the wrong way round (Chowdhury et al. 2024). */
        ROBUST,
        /** (Ji et al. 2024). */
        EXO_PAIR,
        /** For better answers that are better than the model's (D'Oosterlinck et al. 2024). */
        APO_ZERO,
        /** For better answers that are worse than the model's. */
        APO_DOWN,
        /** Sigmoid of Δ per token. */
        SIGMOID_NORM
    }

    /** Forms of contrastive preference optimization, by TRL's names. */
    enum CpoLoss {
        /** −log σ(β · (log p of the better answer − log p of the worse one)). */
        SIGMOID,
        /** max(0, 1 − β · (log p of the better answer − log p of the worse one)). */
        HINGE,
        /** The square of the difference of both log p less 1 / (2 β). */
        IPO,
        /** −log σ(β · the difference of both log p per token − γ). */
        SIMPO
    }
}
