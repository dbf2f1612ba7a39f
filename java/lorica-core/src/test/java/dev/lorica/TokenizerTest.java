package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatIllegalStateException;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.ThreadLocalRandom;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class TokenizerTest {
    private static final List<String> TEXTS = List.of(
            "Mr. Collins",
            "",
            "  two leading spaces, three trailing   ",
            "It is a truth universally acknowledged,\n\n\n\tthat",
            "naïve façade — “quoted”",
            "漢字かな交じり文 и кириллица",
            "🦀🇬🇧👩‍👩‍👧",
            "a\0b",
            "1234567890");

    private static Tokenizer tokenizer;

    @BeforeAll
    static void load() {
        tokenizer = Tokenizer.load(TestModels.austen());
    }

    @AfterAll
    static void close() {
        tokenizer.close();
    }

    @Test
    void everyTextComesBackFromItsIds() {
        for (String text : TEXTS) {
            assertThat(tokenizer.decode(tokenizer.encode(text, false, false))).isEqualTo(text);
        }
    }

    @Test
    void textsEncodedTogetherGetTheIdsTheyGetAlone() {
        boolean[] parseSpecial = new boolean[TEXTS.size()];
        parseSpecial[3] = true;

        List<int[]> together = tokenizer.encodeBatch(TEXTS, parseSpecial);

        assertThat(together).hasSameSizeAs(TEXTS);
        for (int i = 0; i < TEXTS.size(); i++) {
            assertThat(together.get(i)).isEqualTo(tokenizer.encode(TEXTS.get(i), false, parseSpecial[i]));
        }
        assertThat(tokenizer.encodeBatch(List.of(), new boolean[0])).isEmpty();
        assertThatThrownBy(() -> tokenizer.encodeBatch(TEXTS, new boolean[1]))
                .isInstanceOf(InvalidArgumentException.class);
    }

    @Test
    void controlTokensInTextAreParsedOnlyWhenAskedFor() {
        int eos = tokenizer.info().eos();
        String spelled = tokenizer.tokenText(eos);

        assertThat(tokenizer.encode(spelled, false, true)).containsExactly(eos);
        assertThat(tokenizer.encode(spelled, false, false)).doesNotContain(eos);
        assertThat(tokenizer.isControl(eos)).isTrue();
        assertThat(tokenizer.isEndOfGeneration(eos)).isTrue();
        assertThat(tokenizer.decode(new int[] {eos}, false)).isEmpty();
        assertThat(tokenizer.decode(new int[] {eos}, true)).isEqualTo(spelled);
    }

    @Test
    void specialTokensArePutWhereTheVocabularyWantsThem() {
        TokenizerInfo info = tokenizer.info();
        int[] bare = tokenizer.encode("Mr. Collins", false, false);
        List<Integer> expected = new ArrayList<>();
        if (info.addBos()) {
            expected.add(info.bos());
        }
        for (int id : bare) {
            expected.add(id);
        }
        if (info.addEos()) {
            expected.add(info.eos());
        }

        assertThat(tokenizer.encode("Mr. Collins", true, false))
                .isEqualTo(expected.stream().mapToInt(Integer::intValue).toArray());
    }

    @Test
    void aStreamGivesWholeCharactersAndInTheEndTheSameText() {
        String text = "naïve 漢字 🦀🇬🇧 end";
        int[] ids = tokenizer.encode(text, false, false);
        StringBuilder streamed = new StringBuilder();
        try (Detokenizer stream = tokenizer.detokenizer(false)) {
            for (int id : ids) {
                String piece = stream.push(id);
                assertThat(piece).doesNotContain("\ufffd");
                streamed.append(piece);
            }
            streamed.append(stream.finish());
        }
        assertThat(streamed.toString()).isEqualTo(text);
    }

    @Test
    void aStreamThatEndsInsideACharacterSaysSo() {
        int[] ids = tokenizer.encode("🦀", false, false);
        try (Detokenizer stream = tokenizer.detokenizer(false)) {
            StringBuilder text = new StringBuilder();
            for (int i = 0; i < ids.length - 1; i++) {
                text.append(stream.push(ids[i]));
            }
            assertThat(text).isEmpty();
            assertThat(stream.finish()).matches("\ufffd+");
        }
    }

    @Test
    void idsOutsideTheVocabularyAreRefused() {
        int size = tokenizer.info().vocabSize();

        assertThatThrownBy(() -> tokenizer.decode(size)).isInstanceOf(InvalidArgumentException.class);
        assertThatThrownBy(() -> tokenizer.decode(-1)).isInstanceOf(InvalidArgumentException.class);
        assertThatThrownBy(() -> tokenizer.tokenText(size))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("token id " + size + " is not in the vocabulary, which has " + size + " tokens");
        try (Detokenizer stream = tokenizer.detokenizer(false)) {
            assertThatThrownBy(() -> stream.push(size)).isInstanceOf(InvalidArgumentException.class);
        }
    }

    @Test
    void readsVocabularyOnlyFiles() {
        try (Tokenizer spm = Tokenizer.load(TestModels.vocabulary("llama-spm.gguf"))) {
            // ids as llama.cpp publishes them for this vocabulary
            assertThat(spm.encode("Hello world", false, false)).containsExactly(15043, 3186);
            assertThat(spm.info().model()).isEqualTo("llama");
            assertThat(spm.info().addBos()).isTrue();
        }
    }

    @Test
    void refusesWhatIsNoVocabulary(@TempDir Path folder) throws Exception {
        Path damaged = Files.writeString(folder.resolve("damaged.gguf"), "GGUF, but not really");

        assertThatThrownBy(() -> Tokenizer.load(folder.resolve("missing.gguf")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("missing.gguf");
        assertThatThrownBy(() -> Tokenizer.load(damaged))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("damaged.gguf");
    }

    @Test
    void whatIsClosedCannotBeUsed() {
        Tokenizer closed = Tokenizer.load(TestModels.austen());
        Detokenizer stream = closed.detokenizer(false);
        int id = closed.encode("Mr", false, false)[0];
        closed.close();
        closed.close();

        assertThatIllegalStateException()
                .isThrownBy(() -> closed.encode("a", false, false))
                .withMessage("the tokenizer is closed");
        assertThatIllegalStateException().isThrownBy(() -> closed.decode(1));
        assertThatIllegalStateException().isThrownBy(() -> closed.detokenizer(false));
        // a stream keeps what it needs
        assertThat(stream.push(id)).isNotEmpty();
        stream.close();
        assertThatIllegalStateException().isThrownBy(() -> stream.push(id)).withMessage("the detokenizer is closed");
    }

    @Test
    void closingWhileOthersEncodeEndsInAnExceptionAndNeverInACrash() throws Exception {
        ExecutorService executor = Executors.newFixedThreadPool(3);
        try {
            for (int round = 0; round < 20; round++) {
                Tokenizer shared = Tokenizer.load(TestModels.austen());
                int[] expected = shared.encode("It is a truth universally acknowledged", false, false);
                List<Future<Integer>> users = new ArrayList<>();
                for (int user = 0; user < 2; user++) {
                    users.add(executor.submit(() -> {
                        int calls = 0;
                        try {
                            while (true) {
                                assertThat(shared.encode("It is a truth universally acknowledged", false, false))
                                        .isEqualTo(expected);
                                calls++;
                            }
                        } catch (IllegalStateException e) {
                            return calls;
                        }
                    }));
                }
                Thread.sleep(ThreadLocalRandom.current().nextInt(5));
                shared.close();
                for (Future<Integer> user : users) {
                    assertThat(user.get()).isNotNegative();
                }
            }
        } finally {
            executor.shutdown();
        }
    }
}
