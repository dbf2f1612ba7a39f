package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.catchThrowableOfType;
import static org.assertj.core.api.Assertions.tuple;

import dev.lorica.Tokenizer;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.nio.charset.Charset;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import java.util.zip.GZIPOutputStream;
import org.assertj.core.api.AbstractStringAssert;
import org.assertj.core.api.ThrowableAssert.ThrowingCallable;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.condition.EnabledForJreRange;
import org.junit.jupiter.api.condition.JRE;
import org.junit.jupiter.api.io.TempDir;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

/** Tables, conversations and texts; JSON itself is {@link DatasetTest}'s. */
class FormatsTest {
    @TempDir
    Path folder;

    @Test
    void readsCsvWithLineBreaksAndQuotesInsideTexts() {
        Path file =
                write("d.csv", "id,question,answer\n1,\"Who, and\nwhere?\",\"He said \"\"no\"\".\"\n\n2,Why?,So.\n");

        Dataset data = Dataset.load(file);

        assertThat(data.format()).isEqualTo("csv");
        assertThat(data)
                .containsExactly(
                        new DataRecord("Who, and\nwhere?", "", "He said \"no\".", 2),
                        new DataRecord("Why?", "", "So.", 5));
    }

    @ParameterizedTest
    @ValueSource(strings = {"UTF-8", "UTF-16LE", "UTF-16BE"})
    void readsCsvOfWindowsWithByteOrderMarkAndCrLf(String charset) {
        Path file = write("d.csv", "\uFEFFquestion,answer\r\nOù?,\"À Brighton,\r\nje crois\"\r\nB?,C\r\n", charset);

        assertThat(Dataset.load(file))
                .containsExactly(
                        new DataRecord("Où?", "", "À Brighton,\r\nje crois", 2), new DataRecord("B?", "", "C", 4));
    }

    @ParameterizedTest
    @CsvSource({"semicolon.csv, ;", "tab.tsv, '\t'", "unnamed.data, ','"})
    void findsOutWhatSeparatesColumns(String name, String separator) {
        Path file = write(name, "instruction,input,output\nAdd.,1 and 2,3\n".replace(",", separator));

        assertThat(Dataset.load(file)).containsExactly(new DataRecord("Add.", "1 and 2", "3", 2));
    }

    @Test
    void namesTheLineOfABadRow() {
        assertFails(() -> Dataset.load(write("d.csv", "question,answer\nA,B\n\"C\nD\",E\nF\n")))
                .endsWith("d.csv, line 5 (record 3) has 1 columns, the first line has 2; is a quotation mark missing?");
        assertFails(() -> Dataset.load(write("e.csv", "question,answer\nA,\"B\" x\n")))
                .contains("e.csv, line 2: the field that a quotation mark begins on line 2 goes on behind the mark");
        assertFails(() -> Dataset.load(write("f.csv", "frage,antwort\nA,B\n")))
                .contains("line 2 (record 1): no known pair of fields; found \"frage\", \"antwort\"");
        assertFails(() -> Dataset.load(write("g.csv", "question,question\nA,B\n")))
                .endsWith("line 1: two columns are called \"question\"");
        assertFails(() -> Dataset.load(write("h.csv", "question,answr\nA,B\n"), "question", "answer"))
                .endsWith("no field \"answer\"; found \"question\", \"answr\"; did you mean \"answr\"?");
        assertFails(() -> Dataset.load(write("i.csv", "question,answer\nA,\u00e9\n", "ISO-8859-1")))
                .contains("i.csv", "not valid UTF-8");
    }

    /** Everything behind it would be one field. */
    @Test
    void namesTheLineWhereAQuotationMarkBeginsThatIsNeverClosed() {
        String rows = "A,B\n".repeat(100);

        assertFails(() -> Dataset.load(write("j.csv", "question,answer\n" + rows + "C,\"D\n" + rows)))
                .endsWith("j.csv, line 102: a quotation mark that begins a field here is never closed");
        assertFails(() -> Dataset.load(write("k.csv", "question,answer\n" + rows + "C,\"D\n" + rows + "E,\"F\"\n")))
                .contains("k.csv, line 203: the field that a quotation mark begins on line 102 goes on");
        assertThat(Dataset.load(write("l.csv", "question,answer\nA,\"B \"\"C\"\"\n\"\nD,E \"F\" G\n\"\",\"\"")))
                .extracting(DataRecord::response)
                .containsExactly("B \"C\"\n", "E \"F\" G", "");
    }

    @Test
    void namesTheLineOfBytesThatAreNoCharacters() throws IOException {
        String before = "{\"prompt\":\"A\",\"completion\":\"B\"}\n".repeat(1000);
        byte[][] wrong = {
            {(byte) 0xc0, (byte) 0xaf}, // "/" in two bytes
            {(byte) 0xe0, (byte) 0x80, (byte) 0xaf}, // and in three
            {(byte) 0xed, (byte) 0xa0, (byte) 0x80}, // half of a surrogate pair
            {(byte) 0xf5, (byte) 0x80, (byte) 0x80, (byte) 0x80},
            {(byte) 0xff}
        };
        for (int i = 0; i < wrong.length; i++) {
            ByteArrayOutputStream bytes = new ByteArrayOutputStream();
            bytes.writeBytes((before + "{\"prompt\":\"").getBytes(StandardCharsets.UTF_8));
            bytes.writeBytes(wrong[i]);
            bytes.writeBytes("\",\"completion\":\"B\"}\n".getBytes(StandardCharsets.UTF_8));
            Path json = Files.write(folder.resolve("wrong" + i + ".jsonl"), bytes.toByteArray());
            assertFails(() -> Dataset.load(json)).endsWith(json + ", line 1001: not valid UTF-8");
            Path text = Files.write(folder.resolve("wrong" + i + ".txt"), bytes.toByteArray());
            assertFails(() -> Dataset.load(text)).endsWith(text + ", line 1001: not valid UTF-8");
        }
    }

    /** UTF-8 has no bytes for them, and a question mark instead would be learned. */
    @Test
    void namesTheLineOfHalfASurrogatePair() {
        String good = "{\"prompt\":\"\\ud83d\\ude00\",\"completion\":\"B\"}\n";
        for (String half : List.of("\\ud83d", "\\ude00", "\\ud83d\\ud83d\\ude00", "\\ude00\\ud83d")) {
            assertFails(() -> Dataset.load(
                            write("half.jsonl", good + "{\"prompt\":\"A\",\"completion\":\"so " + half + "\"}")))
                    .contains("half.jsonl, line 2 (record 2) has half of a surrogate pair", "behind \"so ");
        }
        assertFails(() -> Dataset.load(write(
                        "call.jsonl",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"A\"},{\"role\":\"assistant\",\"tool_calls\":"
                                + "[{\"function\":{\"name\":\"f\",\"arguments\":{\"a\":\"\\udc00\"}}}]}]}")))
                .contains("call.jsonl, line 1", "\\udc00");
        assertFails(() -> Dataset.of(List.of(DataRecord.of("A", "B"), DataRecord.of("A", "\ud800"))))
                .startsWith("record 2 has half of a surrogate pair");
        assertThat(Dataset.load(write("good.jsonl", good)))
                .extracting(DataRecord::prompt)
                .containsExactly("😀");
    }

    @Test
    void aWeightThatIsNoNumberOrLessThanNothingIsRefused() {
        String record = "{\"messages\":[{\"role\":\"user\",\"content\":\"A\"},"
                + "{\"role\":\"assistant\",\"content\":\"B\",\"weight\":%s}]}\n";
        for (String weight : List.of("-1", "\"half\"")) {
            assertFails(() -> Dataset.load(write("w.jsonl", record.formatted("1") + record.formatted(weight))))
                    .endsWith("line 2 (record 2), messages[1] has weight " + weight.replace("\"", "")
                            + "; a number is meant, 0 (not learned), 1 (learned as all else) or another that is not"
                            + " negative");
        }
        for (String weight : List.of("1", "1.0", "true", "null")) {
            assertThat(Dataset.load(write("w.jsonl", record.formatted(weight)))
                            .head(1)
                            .get(0)
                            .conversation()
                            .messages())
                    .extracting(Message::trained)
                    .containsExactly(true, true);
        }
        assertThat(Dataset.load(write("w.jsonl", record.formatted("0")))
                        .head(1)
                        .get(0)
                        .conversation()
                        .messages())
                .extracting(Message::trained)
                .containsExactly(true, false);
    }

    @Test
    void namesFieldsThatNothingIsMadeOf() {
        assertThat(Dataset.load(write("u.jsonl", "{\"text\":\"A\",\"label\":1}"))
                        .unusedFields())
                .containsExactly("label");
        assertThat(Dataset.load(write("v.csv", "id,instruction,input,output,source\n1,A,B,C,D\n"))
                        .unusedFields())
                .containsExactly("id", "source");
        assertThat(Dataset.load(write(
                                "x.jsonl", "{\"messages\":[{\"role\":\"assistant\",\"content\":\"A\"}],\"tools\":[]}"))
                        .unusedFields())
                .isEmpty();
    }

    @Test
    void readsConversationsInBothForms() {
        Path openAi = write(
                "a.jsonl",
                """
                {"messages":[{"role":"system","content":"S"},{"role":"user","content":"A"},{"role":"assistant","content":"B","weight":0},{"role":"user","content":[{"type":"text","text":"C"}]},{"role":"assistant","content":"D"}]}
                """);
        Path shareGpt = write(
                "b.json",
                """
                [{"id": 1, "system": "S", "conversations": [{"from": "human", "value": "A"}, {"from": "gpt", "value": "B"}]}]
                """);

        assertThat(Dataset.load(openAi)).singleElement().satisfies(record -> {
            assertThat(record.conversation().messages())
                    .extracting(Message::role)
                    .containsExactly("system", "user", "assistant", "user", "assistant");
            assertThat(record.conversation().messages())
                    .extracting(Message::content)
                    .containsExactly("S", "A", "B", "C", "D");
            assertThat(record.conversation().messages())
                    .extracting(Message::trained)
                    .containsExactly(true, true, false, true, true);
        });
        assertThat(Dataset.load(shareGpt)).singleElement().satisfies(record -> {
            assertThat(record.asConversation().messages())
                    .containsExactly(Message.system("S"), Message.user("A"), Message.assistant("B"));
        });
    }

    @Test
    void readsConversationsOfTrlsPromptAndCompletionAndOfCsv() {
        Path trl = write(
                "a.jsonl",
                "{\"prompt\":[{\"role\":\"user\",\"content\":\"A\"},{\"role\":\"assistant\",\"content\":\"B\"},{\"role\":\"user\","
                        + "\"content\":\"C\"}],\"completion\":[{\"role\":\"assistant\",\"content\":\"D\"}]}");
        Path csv = write(
                "b.csv",
                "chat\n\"[{\"\"role\"\": \"\"user\"\", \"\"content\"\": \"\"A\"\"}, "
                        + "{\"\"role\"\": \"\"assistant\"\", \"\"content\"\": \"\"B\"\"}]\"\n");

        assertThat(Dataset.load(trl)).singleElement().satisfies(record -> assertThat(
                        record.conversation().messages())
                .extracting(Message::trained)
                .containsExactly(false, false, false, true));
        assertThat(Dataset.load(csv, new FieldNames(null, null, null, null, "chat", null))
                        .head(1)
                        .get(0)
                        .conversation()
                        .messages())
                .containsExactly(Message.user("A"), Message.assistant("B"));
    }

    @Test
    void saysWhatIsWrongInAConversation() {
        assertFails(() -> Dataset.load(write(
                        "a.jsonl",
                        "{\"messages\":[{\"role\":\"user\",\"content\":\"A\"}]}\n"
                                + "{\"messages\":[{\"speaker\":\"user\",\"text\":\"A\"}]}")))
                .endsWith(
                        "line 2 (record 2), messages[0] does not say who speaks; found \"speaker\", \"text\", meant role and"
                                + " content, or from and value");
        assertFails(() -> Dataset.load(write("b.jsonl", "{\"conversations\":[{\"from\":\"alien\",\"value\":\"A\"}]}")))
                .contains("conversations[0] is from \"alien\"");
        assertFails(() -> Dataset.load(write("c.jsonl", "{\"messages\":[{\"role\":\"user\"}]}")))
                .endsWith("messages[0] has no content; found \"role\"");
        assertFails(() -> Dataset.load(write("d.jsonl", "{\"messages\":\"Hello\"}")))
                .contains("is a text but not JSON");
        assertFails(() -> Dataset.load(write(
                        "e.jsonl",
                        "{\"messages\":[{\"role\":\"user\",\"content\":[{\"type\":\"image\",\"url\":\"x\"}]}]}")))
                .contains("holds image in its content");
    }

    @Test
    @EnabledForJreRange(max = JRE.JAVA_20)
    void saysThatParquetNeedsANewerJava() {
        assertFails(() -> Dataset.load(resource("questions-none.parquet")))
                .contains("questions-none.parquet is a Parquet file; reading those needs Java 21 or newer");
    }

    /** Written with pyarrow by scripts/make_parquet_fixtures.py. */
    @ParameterizedTest
    @ValueSource(
            strings = {
                "questions-snappy",
                "questions-zstd",
                "questions-none",
                "questions-gzip",
                "questions-brotli",
                "questions-lz4"
            })
    @EnabledForJreRange(min = JRE.JAVA_21) // which the library that reads them was made for
    void readsParquet(String name) {
        Dataset data = Dataset.load(resource(name + ".parquet"));

        assertThat(data.format()).isEqualTo("parquet");
        assertThat(data.size()).isEqualTo(300);
        assertThat(data.head(2))
                .containsExactly(
                        new DataRecord("Who is number 0?", "", "He is “0”.\nIndeed.", 1),
                        new DataRecord("Who is number 1?", "context 1", "He is “1”.\nIndeed.", 2));
    }

    @Test
    @EnabledForJreRange(min = JRE.JAVA_21) // which the library that reads them was made for
    void readsClassLabelsByTheirNames() {
        Dataset data = Dataset.load(resource("labels.parquet"), "text", "label");

        assertThat(data)
                .extracting(DataRecord::prompt, DataRecord::response)
                .containsExactly(tuple("Dull.", "negative"), tuple("A delight.", "positive"), tuple("Unseen.", "-1"));
        assertThat(Dataset.load(resource("labels.parquet")).unusedFields()).containsExactly("label", "tags");
    }

    @Test
    @EnabledForJreRange(min = JRE.JAVA_21) // which the library that reads them was made for
    void saysWhatOfParquetItCannotRead() {
        assertFails(() -> Dataset.load(resource("lzo.parquet")))
                .endsWith(
                        "lzo.parquet: it is compressed with LZO, which is not read; zstd, snappy, gzip, brotli and lz4"
                                + " are");
        assertFails(() -> ParquetRecords.requireLibrary("LZ4", "not.there.Factory", "at.yawk.lz4:lz4-java"))
                .isEqualTo(
                        "it is compressed with LZ4, for which at.yawk.lz4:lz4-java is needed: add it to the program");
        assertFails(() -> Dataset.load(resource("malformed.parquet")))
                .endsWith(
                        "malformed.parquet, behind record 1: field \"completion\" of the next record is not valid UTF-8");
    }

    @Test
    @EnabledForJreRange(min = JRE.JAVA_21) // which the library that reads them was made for
    void readsConversationsOfParquetAndNoticesDamage() throws IOException {
        Path chat = resource("chat.parquet");
        Path cut = folder.resolve("cut.parquet");
        byte[] bytes = Files.readAllBytes(chat);
        Files.write(cut, Arrays.copyOf(bytes, bytes.length / 2));

        assertThat(Dataset.load(chat).head(1).get(0).conversation().messages())
                .containsExactly(
                        Message.user("Q0"), Message.assistant("A0"), Message.user("R0"), Message.assistant("B0"));
        assertFails(() -> Dataset.load(cut)).contains("cut.parquet").contains("not a sound Parquet file");
    }

    @Test
    void unpacksGzip() throws IOException {
        Path file = folder.resolve("d.jsonl.gz");
        try (OutputStream out = new GZIPOutputStream(Files.newOutputStream(file))) {
            out.write("{\"question\":\"A\",\"answer\":\"B\"}\n".getBytes(StandardCharsets.UTF_8));
        }

        assertThat(Dataset.load(file)).containsExactly(new DataRecord("A", "", "B", 1));
    }

    @ParameterizedTest
    @ValueSource(ints = {100, 97})
    void learnsATextInWindowsWithoutLosingATokenOrItsEnd(int length) {
        try (Tokenizer tokenizer = Tokenizer.load(Repository.file("models/austen-7m-q4_0.gguf"))) {
            String text = "It is a truth universally acknowledged,\r\nthat a single man…\n\n".repeat(2000);
            Dataset data = Dataset.load(write("novel.txt", "\uFEFF" + text));

            TokenizedDataset windows = TokenizedDataset.of(data, tokenizer, DataConfig.ofMaxLength(length));

            int[] whole = tokenizer.encode(text.replace("\r\n", "\n"), false, false);
            int[] joined = windows.examples().stream()
                    .limit((whole.length + length - 1) / length)
                    .flatMapToInt(example -> Arrays.stream(example.ids()))
                    .toArray();
            Example last = windows.examples().get(windows.size() - 1);
            assertThat(Arrays.copyOf(joined, whole.length)).isEqualTo(whole);
            assertThat(last.ids()[last.length() - 1]).isEqualTo(tokenizer.info().eos());
            assertThat(last.trained()[last.length() - 1]).isTrue();
            // 40,000 tokens: with windows of 100 the end has one of its own, behind the token that it follows
            assertThat(whole).hasSize(40_000);
            assertThat(windows.size()).isEqualTo(length == 100 ? 401 : 413);
            assertThat(windows.report().trainedTokens()).isEqualTo(whole.length + 1 - (length == 100 ? 400 : 413));
            assertThat(windows.report().overLong()).isZero();
        }
    }

    @Test
    void splitsAndWeighs() {
        try (Tokenizer tokenizer = Tokenizer.load(Repository.file("models/austen-7m-q4_0.gguf"))) {
            TokenizedDataset ten = TokenizedDataset.of(
                    Dataset.of(IntStream.range(0, 10)
                            .mapToObj(i -> DataRecord.of("Q" + i, "A" + i))
                            .toList()),
                    tokenizer,
                    DataConfig.ofMaxLength(64));

            TokenizedDataset.Split split = ten.split(0.25, 42);
            List<String> eval = texts(split.eval(), tokenizer);
            List<String> train = texts(split.train(), tokenizer);
            assertThat(eval).hasSize(3).doesNotContainAnyElementsOf(train);
            assertThat(train).hasSize(7).isSubsetOf(texts(ten, tokenizer));
            assertThat(texts(ten.split(0.25, 42).eval(), tokenizer)).isEqualTo(eval);
            assertThat(texts(ten.split(0.25, 7).eval(), tokenizer)).isNotEqualTo(eval);
            assertThat(split.eval().report().tokens() + split.train().report().tokens())
                    .isEqualTo(ten.report().tokens());

            assertThat(ten.weighted(0.5, 1).size()).isEqualTo(5);
            assertThat(texts(ten.weighted(2.3, 1), tokenizer)).hasSize(23).containsAll(texts(ten, tokenizer));
            assertThat(TokenizedDataset.concat(List.of(ten, ten.weighted(0.5, 1)))
                            .size())
                    .isEqualTo(15);
            assertFails(() -> ten.split(1, 1)).contains("leaves nothing to train on");
            assertFails(() -> ten.weighted(0, 1)).contains("a weight of 0.0");
        }
    }

    @Test
    void countsDuplicatesAndLengths() {
        try (Tokenizer tokenizer = Tokenizer.load(Repository.file("models/austen-7m-q4_0.gguf"))) {
            DataRecord one = DataRecord.of("A", "B");
            DataReport report = TokenizedDataset.of(
                            Dataset.of(List.of(
                                    one, DataRecord.of("A", "C"), one, one, DataRecord.of("D", "E ".repeat(100)))),
                            tokenizer,
                            DataConfig.ofMaxLength(64))
                    .report();

            assertThat(report.duplicates()).isEqualTo(2);
            assertThat(report.lengths().total()).isEqualTo(5);
            assertThat(report.lengths().longest()).isEqualTo(report.longest()).isGreaterThan(64);
            assertThat(report.lengths().quantile(0.5)).isLessThan(64);
            assertThat(report.lengths().between(0, 65)).isEqualTo(4);
        }
    }

    private static List<String> texts(TokenizedDataset data, Tokenizer tokenizer) {
        return data.examples().stream()
                .map(example -> tokenizer.decode(example.ids()))
                .toList();
    }

    private static AbstractStringAssert<?> assertFails(ThrowingCallable action) {
        return assertThat(catchThrowableOfType(DataException.class, action).getMessage());
    }

    private static Path resource(String name) {
        return Repository.file("java/lorica-core/src/test/resources/data").resolve(name);
    }

    private Path write(String name, String content) {
        return write(name, content, "UTF-8");
    }

    private Path write(String name, String content, String charset) {
        try {
            return Files.write(folder.resolve(name), content.getBytes(Charset.forName(charset)));
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
