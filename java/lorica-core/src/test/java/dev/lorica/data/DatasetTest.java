package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;

import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import org.assertj.core.api.AbstractStringAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class DatasetTest {
    @TempDir
    Path folder;

    @ParameterizedTest
    @CsvSource({
        "instruction, response",
        "instruction, output",
        "question, answer",
        "prompt, completion",
        "prompt, answer",
        "prompt, response"
    })
    void findsKnownPairsOfFieldsByItself(String prompt, String response) {
        Path file = write("d.json", "[{\"id\": 7, \"" + response + "\": \"B\", \"" + prompt + "\": \"A\"}]");

        Dataset data = Dataset.load(file);

        assertThat(data.fields().toString()).isEqualTo(prompt + "/" + response);
        assertThat(data).singleElement().satisfies(record -> {
            assertThat(record.prompt()).isEqualTo("A");
            assertThat(record.response()).isEqualTo("B");
            assertThat(record.input()).isEmpty();
        });
    }

    @Test
    void makesConversationsOfAlpacasHistory() {
        Path file = write(
                "d.jsonl",
                """
                {"instruction": "Alone", "output": "A", "history": []}
                {"instruction": "And", "input": "this?", "output": "B", "system": "Be brief.", "history": [["One?", "1"], ["Two?", "2"]]}
                {"instruction": "Without", "output": "C"}
                """);

        Dataset data = Dataset.load(file);

        assertThat(data.fields().toString()).isEqualTo("history/instruction/output");
        assertThat(data.isConversation()).isTrue();
        assertThat(data.head(3))
                .map(record -> record.asConversation().messages())
                .containsExactly(
                        List.of(Message.user("Alone"), Message.assistant("A")),
                        List.of(
                                Message.system("Be brief."),
                                Message.user("One?"),
                                Message.assistant("1"),
                                Message.user("Two?"),
                                Message.assistant("2"),
                                Message.user("And\n\nthis?"),
                                Message.assistant("B")),
                        List.of(Message.user("Without"), Message.assistant("C")));
    }

    @ParameterizedTest
    @ValueSource(strings = {"[]", "null", "\"\"", "\"Waterloo was in 1815.\"", "[\"of the house\"]", "1815"})
    void leavesQuestionsAloneWhereNothingWasSaidBefore(String history) {
        Dataset data = Dataset.load(
                write("d.json", "[{\"instruction\": \"A\", \"output\": \"B\", \"history\": " + history + "}]"));

        assertThat(data.isConversation()).isFalse();
        assertThat(data.fields()).isEqualTo(new DataFields("instruction", "input", "output"));
    }

    @Test
    void readsAHistoryThatACsvFileHas() {
        Dataset data =
                Dataset.load(write("d.csv", "instruction,output,history\nA,B,\nC,D,\"[[\"\"Q\"\", \"\"R\"\"]]\"\n"));

        assertThat(data.head(2))
                .map(record -> record.asConversation().messages())
                .containsExactly(
                        List.of(Message.user("A"), Message.assistant("B")),
                        List.of(Message.user("Q"), Message.assistant("R"), Message.user("C"), Message.assistant("D")));
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            value = {
                "[[\"a\"]]              | line 2 (record 2), history[0] is no pair of a question and its answer",
                "{\"a\": 1}             | line 2 (record 2): field \"history\" is an object; what was said before is meant",
                "\"and then\"           | line 2 (record 2): field \"history\" is a text but not JSON",
            })
    void saysWhatAHistoryMustBe(String history, String meant) {
        Path file = write(
                "d.jsonl",
                "{\"instruction\": \"A\", \"output\": \"B\", \"history\": [[\"Q\", \"R\"]]}\n"
                        + "{\"instruction\": \"A\", \"output\": \"B\", \"history\": " + history + "}\n");

        assertThat(catchThrowableOfType(DataException.class, () -> Dataset.load(file)))
                .hasMessageContaining(meant);
    }

    @Test
    void prefersAPairToATextThatWasMadeFromIt() {
        Path file = write("d.json", "[{\"instruction\":\"A\",\"input\":\"\",\"output\":\"B\",\"text\":\"A B\"}]");

        assertThat(Dataset.load(file).fields()).isEqualTo(new DataFields("instruction", "input", "output"));
    }

    @Test
    void readsPlainTexts() {
        Dataset data = Dataset.load(
                write("d.jsonl", "{\"text\":\"It is a truth\"}\n{\"text\":\"universally acknowledged\"}\n"));

        assertThat(data.fields().isText()).isTrue();
        assertThat(data).allMatch(DataRecord::isText);
        assertThat(data).extracting(DataRecord::response).containsExactly("It is a truth", "universally acknowledged");
    }

    @Test
    void takesAlpacasInputAlsoWhereTheFirstRecordHasNone() {
        Path file = write(
                "d.jsonl",
                """
                {"instruction":"Name a colour.","output":"Red."}
                {"instruction":"Add.","input":"1 and 2","output":"3"}
                {"instruction":"Say hello.","input":null,"output":"Hello."}
                """);

        assertThat(Dataset.load(file)).extracting(DataRecord::input).containsExactly("", "1 and 2", "");
    }

    @Test
    void takesDollysContextAsInput() {
        Path file = write("d.jsonl", "{\"instruction\":\"When?\",\"context\":\"In 1813.\",\"response\":\"1813\"}");

        assertThat(Dataset.load(file).head(1).get(0).input()).isEqualTo("In 1813.");
    }

    @Test
    void takesNamedFields() {
        Path file = write("d.jsonl", "{\"q\":\"A\",\"a\":\"B\",\"text\":\"C\"}");

        assertThat(Dataset.load(file, "q", "a").head(1).get(0)).isEqualTo(new DataRecord("A", "", "B", 1));
        assertThat(Dataset.loadText(file, "text").head(1).get(0)).isEqualTo(new DataRecord(null, "", "C", 1));
    }

    @Test
    void findsTheOtherFieldWhenOneIsNamed() {
        Path file = write("d.jsonl", "{\"question\":\"A\",\"reply\":\"B\",\"comment\":\"C\"}");

        assertThat(Dataset.load(file, null, "reply").head(1).get(0).prompt()).isEqualTo("A");
        assertFails(() -> Dataset.load(file, "question", null))
                .isEqualTo(file
                        + ", line 1 (record 1): which field holds the response? Found \"question\", \"reply\","
                        + " \"comment\"; name it with --response-field");
        assertFails(() -> Dataset.load(file, "question", "question")).contains("cannot be both prompt and response");
    }

    @Test
    void takesNumbersAndTruthValuesAsTheyAreWritten() {
        Path file =
                write("d.jsonl", "{\"question\":\"6 × 7?\",\"answer\":42}\n{\"question\":\"Even?\",\"answer\":true}");

        assertThat(Dataset.load(file)).extracting(DataRecord::response).containsExactly("42", "true");
    }

    @ParameterizedTest
    @ValueSource(strings = {"UTF-8", "UTF-16LE", "UTF-16BE"})
    void toleratesByteOrderMarks(String charset) {
        Path file = folder.resolve("d.json");
        String text = "\uFEFF[{\"question\":\"Où?\",\"answer\":\"À Brighton 🏖\"}]";
        write(file, text.getBytes(Charset.forName(charset)));

        assertThat(Dataset.load(file)).containsExactly(new DataRecord("Où?", "", "À Brighton 🏖", 1));
    }

    @Test
    void toleratesWindowsLineEndsAndBlankLinesAndCountsThem() {
        Path file = write(
                "d.jsonl",
                "\r\n{\"question\":\"A\",\"answer\":\"B\\r\\nC\"}\r\n\r\n{\"question\":\"D\",\"answer\":\"E\"}\r\n");

        Dataset data = Dataset.load(file);

        assertThat(data.format()).isEqualTo("jsonl");
        assertThat(data).containsExactly(new DataRecord("A", "", "B\r\nC", 2), new DataRecord("D", "", "E", 4));
    }

    @Test
    void tellsArrayFromLinesByContentNotByName() {
        assertThat(Dataset.load(write("a.jsonl", "[{\"text\":\"x\"}]")).format())
                .isEqualTo("json");
        assertThat(Dataset.load(write("b.json", "{\"text\":\"x\"}\n{\"text\":\"y\"}"))
                        .format())
                .isEqualTo("jsonl");
    }

    @Test
    void readsObjectsThatSpanLines() {
        Path file = write("d.jsonl", "{\n  \"text\": \"x\"\n}\n{\n  \"text\": \"y\"\n}\n");

        assertThat(Dataset.load(file)).extracting(DataRecord::line).containsExactly(1L, 4L);
    }

    @Test
    void saysWhichFieldsWereFoundAndWhatIsMeant() {
        Path file = write("d.json", "[{\"frage\":\"A\",\"antwort\":\"B\"}]");

        assertFails(() -> Dataset.load(file))
                .isEqualTo(file + ", line 1 (record 1): no known pair of fields; found \"frage\", \"antwort\", meant"
                        + " messages, conversations, instruction/response, instruction/output, question/answer, prompt/completion,"
                        + " prompt/answer or text; name the prompt field and the response field");
    }

    @Test
    void asksBackWhenANamedFieldIsNearlyRight() {
        Path file = write("d.json", "[{\"Question\":\"A\",\"answer\":\"B\"}]");

        assertFails(() -> Dataset.load(file, "question", "anwser"))
                .isEqualTo(file
                        + ", line 1 (record 1): no field \"question\"; found \"Question\", \"answer\"; did you mean "
                        + "\"Question\"?");
        assertFails(() -> Dataset.load(file, "Question", "anwser")).endsWith("did you mean \"answer\"?");
    }

    @Test
    void namesTheRecordThatLacksAField() {
        Path file = write("d.jsonl", "{\"question\":\"A\",\"answer\":\"B\"}\n\n{\"question\":\"C\"}\n");

        assertFails(() -> Dataset.load(file))
                .isEqualTo(file + ", line 3 (record 2): no field \"answer\"; found \"question\"");
    }

    @Test
    void namesTheFieldThatHoldsNoText() {
        Path array = write("a.json", "[{\"question\":\"A\",\"answer\":[\"B\"]}]");
        Path nothing = write("n.json", "[{\"question\":null,\"answer\":\"B\"}]");

        assertFails(() -> Dataset.load(array))
                .isEqualTo(array + ", line 1 (record 1): field \"answer\" is an array; a text is meant");
        assertFails(() -> Dataset.load(nothing))
                .isEqualTo(nothing + ", line 1 (record 1): field \"question\" is null; a text is meant");
    }

    @Test
    void namesLineAndColumnOfWhatIsNotJson() {
        Path file = write("d.jsonl", "{\"text\":\"A\"}\n{\"text\":\"B\",}\n{\"text\":\"C\"}\n");

        assertFails(() -> Dataset.load(file))
                .startsWith(file + ", line 2, column 13: not valid JSON: ")
                .doesNotContain("\n");
    }

    @Test
    void namesTheRecordThatALineLeftOpen() {
        Path file = write("d.jsonl", "{\"text\":\"A\"}\n{\"text\":\"B\"\n{\"text\":\"C\"}\n");

        assertFails(() -> Dataset.load(file))
                .startsWith(file + ", line 3, column ")
                .contains("begins on line 2");
    }

    @Test
    void noticesAFileThatWasCutOff() {
        assertFails(() -> Dataset.load(write("a.json", "[{\"text\":\"A\"},"))).contains("a.json");
        assertFails(() -> Dataset.load(write("b.json", "[{\"text\":\"A\"}"))).contains("b.json");
        assertFails(() -> Dataset.load(write("c.jsonl", "{\"text\":\"A\"}\n{\"text\":\"B")))
                .contains("c.jsonl, line 2, column ")
                .contains("not valid JSON");
    }

    @Test
    void noticesWhatFollowsTheArray() {
        assertFails(() -> Dataset.load(write("d.json", "[{\"text\":\"A\"}]\n{\"text\":\"B\"}")))
                .endsWith("line 2: there is more after the end of the array; one array, or one object per line, is"
                        + " meant");
    }

    @ParameterizedTest
    @CsvSource(
            delimiter = '|',
            quoteCharacter = '`',
            value = {
                "[\"A\", \"B\"]          | record 1) is a string; an object",
                "[[{\"text\": \"A\"}]]   | record 1) is an array; an object",
                "{\"text\":\"A\"} 5      | record 2) is a number; an object",
                "[]                      | holds no records",
                "question,answer         | is not JSON: it begins with \"question,answer\"",
                "GGUF                    | is a GGUF model",
                "{\"messages\": []}      | field \"messages\" is an empty array; a list of messages is meant"
            })
    void saysWhatItFoundInstead(String content, String message) {
        assertFails(() -> Dataset.load(write("d.json", content)))
                .contains("d.json")
                .contains(message);
    }

    @Test
    void noticesWhatOnlyBeginsAsParquet() {
        // which older ones cannot read at all
        String wanted = Runtime.version().feature() < 21 ? "needs Java 21 or newer" : "not a sound Parquet file";
        assertFails(() -> Dataset.load(write("d.json", "PAR1")))
                .contains("d.json")
                .contains(wanted);
    }

    @Test
    void refusesEmptyAndMissingFilesAndFolders() {
        assertFails(() -> Dataset.load(write("empty.json", " \n"))).endsWith("empty.json is empty");
        assertFails(() -> Dataset.load(folder.resolve("none.json"))).endsWith("none.json does not exist");
        assertFails(() -> Dataset.load(folder)).contains("is a folder");
    }

    @Test
    void refusesBytesThatAreNoText() {
        ByteArrayOutputStream bytes = new ByteArrayOutputStream();
        bytes.writeBytes("{\"text\":\"A\"}\n{\"text\":\"".getBytes(StandardCharsets.UTF_8));
        bytes.write(0xFF);
        bytes.writeBytes("\"}\n".getBytes(StandardCharsets.UTF_8));
        Path file = folder.resolve("d.jsonl");
        write(file, bytes.toByteArray());

        assertFails(() -> Dataset.load(file))
                .contains("line 2")
                .contains("UTF-8")
                .doesNotContain("\n");
    }

    @Test
    void readsTheProjectsOwnSet() {
        Path file = Repository.file("models/data/pride_and_prejudice_train.json");

        Dataset data = Dataset.load(file);

        assertThat(data.size()).isGreaterThanOrEqualTo(300);
        assertThat(data)
                .noneMatch(
                        record -> record.prompt().isBlank() || record.response().isBlank());
    }

    @Test
    void takesRecordsFromElsewhereButNoMixture() {
        assertThat(Dataset.of(List.of(DataRecord.of("A", "B"))).size()).isEqualTo(1);
        assertFails(() -> Dataset.of(List.of())).contains("at least one record");
        assertFails(() -> Dataset.of(List.of(DataRecord.of("A", "B"), DataRecord.text("C"))))
                .contains("not both");
    }

    private static AbstractStringAssert<?> assertFails(ThrowingCallable action) {
        return assertThat(catchThrowableOfType(DataException.class, action).getMessage());
    }

    private Path write(String name, String content) {
        return write(folder.resolve(name), content.getBytes(StandardCharsets.UTF_8));
    }

    private static Path write(Path file, byte[] content) {
        try {
            return Files.write(file, content);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
