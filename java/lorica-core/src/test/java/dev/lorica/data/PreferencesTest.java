package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.Model;
import dev.lorica.TestModels;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Pairs and labelled answers, from the file to the batch. */
class PreferencesTest {
    private static Model model;

    @TempDir
    Path folder;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen());
    }

    @AfterAll
    static void close() {
        model.close();
    }

    private Path file(String... lines) {
        try {
            return Files.write(folder.resolve("data.jsonl"), List.of(lines));
        } catch (IOException e) {
            throw new AssertionError(e);
        }
    }

    private DataRecord pair(String line) {
        return Dataset.load(file(line), FieldNames.NONE, RecordKind.PAIRS)
                .head(1)
                .get(0);
    }

    private static TokenizedDataset tokenized(Dataset data, int maxLength, Overflow overflow) {
        return TokenizedDataset.of(data, model.tokenizer(), new DataConfig(null, maxLength, overflow, false));
    }

    @Test
    void aPairHasOnePromptAndTwoAnswers() {
        DataRecord pair = pair("{\"prompt\": \"Who?\", \"chosen\": \"Collins.\", \"rejected\": \"Nobody.\"}");
        assertThat(pair)
                .isEqualTo(new DataRecord("Who?", "", "Collins.", 1).over(new DataRecord("Who?", "", "Nobody.", 1)));
    }

    @Test
    void theyMayBeMessages() {
        String chosen = "[{\"role\": \"assistant\", \"content\": \"Good.\"}]";
        String rejected = "[{\"role\": \"assistant\", \"content\": \"Bad.\"}]";
        String asked = "[{\"role\": \"user\", \"content\": \"How?\"}]";
        DataRecord pair =
                pair("{\"prompt\": " + asked + ", \"chosen\": " + chosen + ", \"rejected\": " + rejected + "}");
        assertThat(pair.conversation().messages())
                .containsExactly(Message.user("How?").withTrained(false), Message.assistant("Good."));
        assertThat(pair.rejected().answer()).isEqualTo("Bad.");
        assertThat(pair("{\"prompt\": \"How?\", \"chosen\": " + chosen + ", \"rejected\": " + rejected + "}")
                        .conversation()
                        .messages())
                .containsExactly(Message.user("How?"), Message.assistant("Good."));
        assertThat(pair("{\"prompt\": " + asked + ", \"chosen\": \"Good.\", \"rejected\": \"Bad.\"}")
                        .rejected()
                        .answer())
                .isEqualTo("Bad.");
    }

    @Test
    void thePromptMayBeWhatBothBeginWith() {
        String before =
                "[{\"role\": \"user\", \"content\": \"Hi\"}, {\"role\": \"assistant\", \"content\": \"Hello\"}, "
                        + "{\"role\": \"user\", \"content\": \"How?\"}, {\"role\": \"assistant\", \"content\": \"";
        DataRecord pair = pair("{\"chosen\": " + before + "Good.\"}], \"rejected\": " + before + "Bad.\"}]}");
        assertThat(pair.conversation().messages())
                .extracting(Message::trained)
                .containsExactly(false, false, false, true);
        assertThat(pair.rejected().conversation().messages()).hasSize(4);

        DataRecord text =
                pair("{\"chosen\": \"Human: Hi Assistant: Hello\", \"rejected\": \"Human: Hi Assistant: No\"}");
        assertThat(text.prompt()).isEqualTo("Human: Hi Assistant:");
        assertThat(text.response()).isEqualTo(" Hello");
        assertThat(text.rejected().response()).isEqualTo(" No");
    }

    @Test
    void whatIsNoPairIsNamedByItsLine() {
        assertThatThrownBy(() -> pair("{\"prompt\": \"A\", \"chosen\": \"B\"}"))
                .hasMessageContaining("line 1")
                .hasMessageContaining("chosen and rejected");
        assertThatThrownBy(() -> pair("{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": null}"))
                .hasMessageContaining("\"rejected\" is null");
        assertThatThrownBy(() -> pair("{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": [1]}"))
                .hasMessageContaining("an array");
        assertThatThrownBy(() -> pair("{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": "
                        + "[{\"role\": \"assistant\", \"content\": \"x\"}]}"))
                .hasMessageContaining("one is a text and the other one messages");
        assertThatThrownBy(() -> Dataset.load(
                        file(
                                "{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": \"C\"}",
                                "{\"prompt\": \"A\", \"chosen\": \"B\"}"),
                        FieldNames.NONE,
                        RecordKind.PAIRS))
                .hasMessageContaining("line 2");
        assertThatThrownBy(() -> Dataset.load(file("{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": \"C\"}")))
                .hasMessageContaining("such as dpo");
    }

    @Test
    void bothSidesBecomeOneExampleOfWhichTheAnswersAreLearned() {
        TokenizedDataset data = tokenized(
                Dataset.of(List.of(
                        DataRecord.pair("Who?", "Mr. Collins is a clergyman.", "He is a sailor."),
                        DataRecord.pair("What?", "A ball.", "Nothing at all, I believe."))),
                64,
                Overflow.DROP);
        assertThat(data.size()).isEqualTo(2);
        assertThat(data.examples()).hasSize(4);
        assertThat(data.sequencesPerExample()).isEqualTo(2);
        for (int i = 0; i < 4; i += 2) {
            Example chosen = data.examples().get(i);
            Example rejected = data.examples().get(i + 1);
            int prompt = 0;
            while (!chosen.trained()[prompt]) {
                prompt++;
            }
            assertThat(rejected.trained()[prompt - 1]).isFalse();
            assertThat(rejected.trained()[prompt]).isTrue();
            assertThat(chosen.ids()).startsWith(java.util.Arrays.copyOf(rejected.ids(), prompt));
        }
        Packer.Batches batches = Packer.shuffled(data, 1, 3, 0);
        assertThat(batches).hasSize(2);
        for (int i = 0; i < 2; i++) {
            int example = batches.numbers(i)[0];
            Batch batch = batches.get(i);
            assertThat(batch.sequenceLengths())
                    .as("a pair is never split")
                    .containsExactly(
                            data.examples().get(2 * example).length(),
                            data.examples().get(2 * example + 1).length());
            assertThat(batches.tokens(i)).isEqualTo(batch.tokenCount());
            assertThat(BatchShape.of(batch).fits(BatchShape.of(batches))).isTrue();
        }
    }

    @Test
    void oddPairsAreCountedAndNamed() {
        Path file = file(
                "{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": \"C\"}",
                "{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": \"B\"}",
                "{\"prompt\": \"A\", \"chosen\": \"\", \"rejected\": \"B\"}",
                "{\"prompt\": \"A\", \"chosen\": \"B\", \"rejected\": \"" + "no ".repeat(60) + "\"}");
        Dataset data = Dataset.load(file, FieldNames.NONE, RecordKind.PAIRS);
        DataReport report = tokenized(data, 40, Overflow.TRUNCATE).report();
        assertThat(report.records()).isEqualTo(4);
        assertThat(report.examples()).isEqualTo(2);
        assertThat(report.pairs())
                .isEqualTo(new PairReport(1, file + ", line 2", 1, file + ", line 3", 1, file + ", line 4"));
        assertThat(report.rejectedSample()).extracting(DataReport.Stretch::text).anyMatch(text -> text.startsWith("C"));
        assertThat(tokenized(data, 40, Overflow.DROP).size()).isEqualTo(1);
    }

    @Test
    void aLabelSaysWhetherAnAnswerIsAGoodOne() {
        Dataset data = Dataset.load(
                file(
                        "{\"prompt\": \"A\", \"completion\": \"B\", \"label\": true}",
                        "{\"prompt\": \"A\", \"completion\": \"C\", \"label\": 0}",
                        "{\"prompt\": \"A\", \"completion\": \"D\", \"label\": \"True\"}"),
                FieldNames.NONE,
                RecordKind.LABELLED);
        assertThat(data.fields()).hasToString("prompt/completion/label");
        TokenizedDataset tokens = tokenized(data, 64, Overflow.DROP);
        assertThat(tokens.values()).containsExactly(1, 0, 1);
        assertThat(tokens.split(0.3, 1).train().values().length).isEqualTo(2);
        assertThat(Packer.inOrder(tokens, 2).get(0).notes().values()).containsExactly(1, 0);
        assertThat(TokenizedDataset.concat(List.of(tokens, tokens)).values()).containsExactly(1, 0, 1, 1, 0, 1);
        assertThatThrownBy(() -> Dataset.load(
                        file("{\"prompt\": \"A\", \"completion\": \"B\", \"label\": \"maybe\"}"),
                        FieldNames.NONE,
                        RecordKind.LABELLED))
                .hasMessageContaining("\"maybe\"; true or false is meant");
        assertThatThrownBy(() -> Dataset.load(
                        file("{\"prompt\": \"A\", \"completion\": \"B\"}"), FieldNames.NONE, RecordKind.LABELLED))
                .hasMessageContaining("no field \"label\"");
    }

    @Test
    void promptsAreScoredWhereAnObjectiveAsksForThem() {
        TokenizedDataset data =
                tokenized(Dataset.of(List.of(DataRecord.pair("Who?", "He.", "She, perhaps."))), 64, Overflow.DROP);
        Batch plain = Packer.inOrder(data, 1).get(0);
        Batch scored = Packer.inOrder(data.withScoredPrompts(), 1).get(0);
        int chosen = plain.sequenceLengths()[0];
        int prompts = 0;
        for (int t = 0; t < plain.tokenCount(); t++) {
            boolean inPrompt = scored.notes().prompt()[t];
            prompts += inPrompt ? 1 : 0;
            assertThat(scored.labels()[t]).isEqualTo(inPrompt ? scored.tokens()[t + 1] : plain.labels()[t]);
            assertThat(inPrompt && t >= chosen).isFalse();
        }
        assertThat(scored.trainedCount()).isEqualTo(plain.trainedCount() + prompts);
        assertThat(prompts).isEqualTo(chosen - 1 - data.examples().get(0).trainedTokens());
    }
}
