package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import dev.lorica.Tokenizer;
import dev.lorica.data.DataReport.Stretch;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.stream.IntStream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenizedDatasetTest {
    private static final DataRecord COLLINS = DataRecord.of("Who is Mr. Collins?", "A clergyman — and a cousin.");
    private static final String PROMPT = "### Instruction:\nWho is Mr. Collins?\n\n### Response:\n";

    private static Tokenizer tokenizer;

    @BeforeAll
    static void load() {
        tokenizer = Tokenizer.load(Repository.file("models/austen-7m-q4_0.gguf"));
    }

    @AfterAll
    static void close() {
        tokenizer.close();
    }

    @Test
    void trainsOnTheResponseAndEosOnly() {
        Example example = encode(tokenizer, COLLINS);

        assertThat(text(tokenizer, example, false)).isEqualTo(PROMPT);
        assertThat(text(tokenizer, example, true)).isEqualTo("A clergyman — and a cousin." + eos(tokenizer));
        assertThat(example.trainedTokens()).isEqualTo(trained(example).length);
    }

    @Test
    void trainsOnEverythingWhenToldTo() {
        DataConfig config = new DataConfig(null, 512, Overflow.DROP, true);

        Example example = TokenizedDataset.of(Dataset.of(List.of(COLLINS)), tokenizer, config)
                .examples()
                .get(0);

        assertThat(text(tokenizer, example, true)).isEqualTo(PROMPT + COLLINS.response() + eos(tokenizer));
        assertThat(example.trainedTokens()).isEqualTo(example.length() - 1);
    }

    @ParameterizedTest
    @ValueSource(
            strings = {
                "A clergyman.",
                " begins with a blank",
                "\nbegins with a line break",
                "ends with one\n",
                "###",
                "🏖"
            })
    void generationBeginsWithTheVeryIdsOfTraining(String response) {
        int[] prompt = new ExampleEncoder(tokenizer, PromptTemplate.INSTRUCTION, false).prompt(COLLINS.prompt(), "");

        Example example = encode(tokenizer, DataRecord.of(COLLINS.prompt(), response));

        assertThat(Arrays.copyOf(example.ids(), prompt.length)).isEqualTo(prompt);
        assertThat(IntStream.range(0, prompt.length)).noneMatch(i -> example.trained()[i]);
        assertThat(IntStream.range(prompt.length, example.length())).allMatch(i -> example.trained()[i]);
        assertThat(text(tokenizer, example, true)).isEqualTo(response + eos(tokenizer));
    }

    @Test
    void aPromptThatLooksLikeAResponseMarkIsNotMistakenForOne() {
        DataRecord tricky = DataRecord.of("Repeat: ### Response:\nHa!", "### Response:\nHa!");

        Example example = encode(tokenizer, tricky);

        assertThat(text(tokenizer, example, true)).isEqualTo(tricky.response() + eos(tokenizer));
    }

    @Test
    void learnsPlainTextsFromTheFirstTokenToEos() {
        Example example = encode(tokenizer, DataRecord.text("It is a truth universally acknowledged"));

        assertThat(text(tokenizer, example, true)).isEqualTo("It is a truth universally acknowledged" + eos(tokenizer));
    }

    @Test
    void textThatEndsWithEosAlreadyDoesNotGetASecond() {
        Example example = encode(tokenizer, DataRecord.text("The end." + eos(tokenizer)));

        int eos = tokenizer.info().eos();
        assertThat(Arrays.stream(example.ids()).filter(id -> id == eos).count()).isEqualTo(1);
        assertThat(example.trained()[example.length() - 1]).isTrue();
    }

    @Test
    void answersCannotForgeControlTokens() {
        Example example = encode(tokenizer, DataRecord.of("Say it.", "before" + eos(tokenizer) + "after"));

        int eos = tokenizer.info().eos();
        assertThat(Arrays.stream(example.ids()).filter(id -> id == eos).count()).isEqualTo(1);
        assertThat(example.ids()[example.length() - 1]).isEqualTo(eos);
    }

    @Test
    void sentencePieceGetsOneBosAndNoBlankBeforeTheResponse() {
        Path vocabulary = Repository.file("../shared/data/vocab/llama-spm.gguf");
        assumeTrue(Files.exists(vocabulary), () -> vocabulary + " is not there");
        try (Tokenizer llama = Tokenizer.load(vocabulary)) {
            int bos = llama.info().bos();
            Example example = encode(llama, COLLINS);
            int[] whole = llama.encode(PROMPT + COLLINS.response(), true, false);

            assertThat(Arrays.stream(example.ids()).filter(id -> id == bos).count())
                    .isEqualTo(1);
            assertThat(example.ids()[0]).isEqualTo(bos);
            assertThat(Arrays.copyOf(example.ids(), example.length() - 1)).isEqualTo(whole);
            assertThat(text(llama, example, true)).isEqualTo(COLLINS.response() + "</s>");

            Example prepared = encode(llama, DataRecord.text("<s>[INST] Who? [/INST] He.</s>"));
            assertThat(Arrays.stream(prepared.ids()).filter(id -> id == bos).count())
                    .isEqualTo(1);
            assertThat(Arrays.stream(prepared.ids())
                            .filter(id -> id == llama.info().eos())
                            .count())
                    .isEqualTo(1);
        }
    }

    @Test
    void reportsWhatBecameOfTheData() {
        Dataset data = Dataset.of(List.of(
                COLLINS,
                DataRecord.of("Long?", "Very long. ".repeat(50)),
                new DataRecord("Add.", "1 and 2", "3", 0),
                DataRecord.of("?", " ")));

        DataReport report =
                TokenizedDataset.of(data, tokenizer, DataConfig.ofMaxLength(64)).report();

        assertThat(report.records()).isEqualTo(4);
        assertThat(report.examples()).isEqualTo(2);
        assertThat(report.empty()).isEqualTo(1);
        assertThat(report.withInput()).isEqualTo(1);
        assertThat(report.overLong()).isEqualTo(1);
        assertThat(report.dropped()).isEqualTo(1);
        assertThat(report.truncated()).isZero();
        assertThat(report.longest())
                .isEqualTo(encode(tokenizer, data.head(4).get(1)).length());
        assertThat(report.tokens())
                .isEqualTo(encode(tokenizer, data.head(1).get(0)).length()
                        + encode(tokenizer, data.head(4).get(2)).length());
        assertThat(report.trainedTokens())
                .isEqualTo(encode(tokenizer, data.head(1).get(0)).trainedTokens()
                        + encode(tokenizer, data.head(4).get(2)).trainedTokens());
        assertThat(report.endsWithEos()).isTrue();
        assertThat(report.sample())
                .containsExactly(new Stretch(PROMPT, false), new Stretch(COLLINS.response() + eos(tokenizer), true));
    }

    @Test
    void cutsOverLongExamplesOnlyWhenToldTo() {
        Dataset data = Dataset.of(List.of(DataRecord.of("Long?", "Very long. ".repeat(50))));
        Example whole = encode(tokenizer, data.head(1).get(0));

        TokenizedDataset cut = TokenizedDataset.of(data, tokenizer, new DataConfig(null, 64, Overflow.TRUNCATE, false));

        assertThat(cut.examples().get(0).ids()).isEqualTo(Arrays.copyOf(whole.ids(), 64));
        assertThat(cut.report().truncated()).isEqualTo(1);
        assertThat(cut.report().dropped()).isZero();
    }

    @Test
    void dropsWhatHasNothingToLearnAfterTheCut() {
        Dataset data = Dataset.of(List.of(COLLINS, DataRecord.of("Why? ".repeat(100), "So.")));

        DataReport report = TokenizedDataset.of(data, tokenizer, new DataConfig(null, 64, Overflow.TRUNCATE, false))
                .report();

        assertThat(report.overLong()).isEqualTo(1);
        assertThat(report.truncated()).isZero();
        assertThat(report.dropped()).isEqualTo(1);
    }

    @Test
    void refusesOverLongExamplesWhenToldTo() {
        Dataset data = Dataset.of(List.of(COLLINS, DataRecord.of("Long?", "Very long. ".repeat(50))));

        assertThatExceptionOfType(DataException.class)
                .isThrownBy(() -> TokenizedDataset.of(data, tokenizer, new DataConfig(null, 64, Overflow.ERROR, false)))
                .withMessageStartingWith("example 2 has ")
                .withMessageContaining("more than the maximum of 64");
    }

    @Test
    void refusesToTrainOnNothing() {
        assertThatExceptionOfType(DataException.class)
                .isThrownBy(() -> TokenizedDataset.of(
                        Dataset.of(List.of(DataRecord.of("A", ""))), tokenizer, DataConfig.ofMaxLength(64)))
                .withMessageContaining("nothing to train on");
        assertThatExceptionOfType(DataException.class)
                .isThrownBy(
                        () -> TokenizedDataset.of(Dataset.of(List.of(COLLINS)), tokenizer, DataConfig.ofMaxLength(8)))
                .withMessageContaining("1 have more than 8 tokens")
                .withMessageContaining("raise the max length");
    }

    private static Example encode(Tokenizer tokenizer, DataRecord record) {
        return TokenizedDataset.of(Dataset.of(List.of(record)), tokenizer, DataConfig.ofMaxLength(4096))
                .examples()
                .get(0);
    }

    private static String eos(Tokenizer tokenizer) {
        return tokenizer.tokenText(tokenizer.info().eos());
    }

    private static int[] trained(Example example) {
        return IntStream.range(0, example.length())
                .filter(i -> example.trained()[i])
                .map(i -> example.ids()[i])
                .toArray();
    }

    /** What is trained on, or what is not, decoded again. */
    private static String text(Tokenizer tokenizer, Example example, boolean trained) {
        StringBuilder text = new StringBuilder();
        for (Stretch stretch : TokenizedDataset.stretches(example, tokenizer)) {
            text.append(stretch.trained() == trained ? stretch.text() : "");
        }
        return text.toString();
    }
}
