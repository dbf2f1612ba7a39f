package dev.lorica.train;

import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Message;
import dev.lorica.eval.RewardModel;
import dev.lorica.internal.Arguments;
import java.time.Duration;
import java.util.ArrayList;
import java.util.List;
import java.util.function.ToDoubleFunction;

/**
 * Judges answers that a model drew while it learns, for {@link Objective#grpo}.
 *
 * <pre>{@code
 * RewardFunction brief = RewardFunction.of("brief", answer -> answer.text().split(" ").length <= 10 ? 1 : 0);
 * }</pre>
 *
 * The same answers have to get the same rewards, or a run that goes on from a checkpoint does not end as it would have.
 */
@FunctionalInterface
public interface RewardFunction {
    /**
     * An answer.
     *
     * @param record what it answers, as it stands in the data
     * @param prompt what was asked: the prompt, or what the user said last
     * @param text   the answer, without what ends it
     * @param tokens of the answer, the one that ended it included
     * @param ended  whether the model ended it; otherwise it was cut off at the most tokens that it may have
     */
    record Completion(DataRecord record, String prompt, String text, int tokens, boolean ended) {
        /** Checks that there are a record, a prompt and a text. */
        public Completion {
            Arguments.given(record, "record");
            Arguments.given(prompt, "prompt");
            Arguments.given(text, "text");
        }
    }

    /**
     * {@return a number for each, in their order, the more the better; NaN for one that it has nothing to say of} All answers of a step
     * come in one call.
     *
     * @param completions the answers with their prompts
     */
    double[] rewards(List<Completion> completions);

    /** {@return what its metrics are called: {@code rewards/NAME/mean}} */
    default String name() {
        return "reward";
    }

    /** {@return the number by which its rewards are multiplied before those of several functions are added up} */
    default double weight() {
        return 1;
    }

    /**
     * {@return a function that looks at each answer by itself}
     *
     * @param name     what its metrics are called
     * @param function judges one answer
     */
    static RewardFunction of(String name, ToDoubleFunction<Completion> function) {
        Arguments.given(function, "function");
        return named(Arguments.given(name, "name"), 1, completions -> Arguments.all(completions, "completions").stream()
                .mapToDouble(function)
                .toArray());
    }

    /**
     * {@return a program, which is started for all answers of a step} It reads a JSON object per line, with {@code prompt},
     * {@code completion}, {@code tokens}, {@code ended} and, where the record has an answer, {@code answer}; and writes a line with a
     * number for each, or {@code null}, in their order.
     *
     * @param command the program and its arguments
     * @param timeout after which it is ended, and training with a {@link dev.lorica.exceptions.RewardException}
     */
    static RewardFunction command(List<String> command, Duration timeout) {
        return new RewardCommand(Arguments.all(command, "command"), Arguments.given(timeout, "timeout"));
    }

    /**
     * {@return a reward model, which is called {@code reward_model} and has to stay open as long as there is training} An answer without text
     * gets no reward of it.
     *
     * @param judge the reward model, which stays the caller's
     */
    static RewardFunction of(RewardModel judge) {
        Arguments.given(judge, "judge");
        return named(
                "reward_model",
                1,
                completions -> judge.rewards(Arguments.all(completions, "completions").stream()
                        .map(RewardFunction::answered)
                        .toList()));
    }

    /** What was asked, with the answer that was drawn. */
    private static DataRecord answered(Completion completion) {
        DataRecord asked = completion.record();
        if (!asked.isConversation()) {
            return new DataRecord(
                    asked.system(), completion.prompt(), asked.input(), completion.text(), null, asked.line());
        }
        List<Message> turns = new ArrayList<>(asked.conversation().messages());
        while (!turns.isEmpty() && turns.get(turns.size() - 1).role().equals("assistant")) {
            turns.remove(turns.size() - 1);
        }
        turns.add(Message.assistant(completion.text()));
        Conversation conversation = new Conversation(turns, asked.conversation().tools());
        return new DataRecord(asked.system(), null, "", "", conversation, asked.line());
    }

    /**
     * {@return the same with another weight}
     *
     * @param weight what its rewards are multiplied by
     */
    default RewardFunction weighted(double weight) {
        return named(name(), Settings.finite("reward weight", weight), this);
    }

    private static RewardFunction named(String name, double weight, RewardFunction function) {
        return new RewardFunction() {
            @Override
            public double[] rewards(List<Completion> completions) {
                return function.rewards(completions);
            }

            @Override
            public String name() {
                return name;
            }

            @Override
            public double weight() {
                return weight;
            }
        };
    }
}
