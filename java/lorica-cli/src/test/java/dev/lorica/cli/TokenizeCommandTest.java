package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.stream.StreamSupport;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class TokenizeCommandTest {
    @ParameterizedTest
    @ValueSource(strings = {"It is a truth", " \n\n  naïve — “quoted” 🏖\n", "", "a\r\nb\t"})
    void idsComeBackAsTheSameText(String text) {
        Program ids = Program.runWithInput(text, "tokenize", Program.model()).succeeds();
        assertThat(ids.out()).matches("[0-9 ]*\\R");

        Program back = Program.runWithInput(ids.out(), "tokenize", Program.model(), "--ids")
                .succeeds();

        assertThat(back.out()).isEqualTo(text);
    }

    @Test
    void takesIdsInAnyWrittenList() {
        String ids = Program.run("tokenize", Program.model(), "--text", "Mr. Collins", "--no-add-special")
                .succeeds()
                .out()
                .strip();

        assertThat(Program.runWithInput("[" + ids.replace(" ", ", ") + "]", "tokenize", Program.model(), "--ids")
                        .succeeds()
                        .out())
                .isEqualTo("Mr. Collins");
    }

    @Test
    void jsonHasIdsAndPieces() {
        JsonNode json = Program.runWithInput("Elizabeth", "tokenize", Program.model(), "--json")
                .succeeds()
                .json();

        assertThat(json.get("count").asInt())
                .isEqualTo(json.get("ids").size())
                .isEqualTo(json.get("pieces").size());
        assertThat(StreamSupport.stream(json.get("pieces").spliterator(), false)
                        .map(JsonNode::asText)
                        .reduce("", String::concat))
                .endsWith("Elizabeth");
        assertThat(Program.runWithInput(json.get("ids").toString(), "tokenize", Program.model(), "--ids", "--json")
                        .json()
                        .get("text")
                        .asText())
                .isEqualTo("Elizabeth");
    }

    @Test
    void worksOnAFileThatHoldsOnlyAVocabulary() {
        String vocabulary = Program.repository("../shared/data/vocab/llama-spm.gguf");
        assumeTrue(Files.exists(Path.of(vocabulary)), () -> vocabulary + " is not there");

        String with = Program.run("tokenize", vocabulary, "--text", "Hello")
                .succeeds()
                .out();
        String without = Program.run("tokenize", vocabulary, "--text", "Hello", "--no-add-special")
                .succeeds()
                .out();

        assertThat(with.strip()).isEqualTo("1 15043");
        assertThat(without.strip()).isEqualTo("15043");
    }

    @Test
    void saysWhatIsWrong() {
        Program.runWithInput("1 2 x", "tokenize", Program.model(), "--ids")
                .failsWith(ExitCode.FAILED, "\"x\" is no token id");
        Program.runWithInput("999999", "tokenize", Program.model(), "--ids").failsWith(ExitCode.FAILED, "999999");
        Program.run("tokenize", "no-such-file.gguf").failsWith(ExitCode.FAILED, "no-such-file.gguf");
    }
}
