package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.nio.charset.StandardCharsets;
import org.junit.jupiter.api.Test;

class WordWrapTest {
    private final ByteArrayOutputStream bytes = new ByteArrayOutputStream();
    private final PrintStream out = new PrintStream(new WordWrap(bytes, () -> 50), false, StandardCharsets.UTF_8);

    private String written() {
        return bytes.toString(StandardCharsets.UTF_8);
    }

    @Test
    void longLinesAreBrokenBetweenWordsAndShortOnesAreLeftAlone() {
        out.println("note: every one of these words is there, and none of them is cut in two, is it?");
        out.println("  is   short");
        out.println("    a list entry that is longer than the terminal, which is narrow");

        assertThat(written())
                .isEqualTo("note: every one of these words is there, and none\n  of them is cut in two, is it?\n"
                        + "  is   short\n    a list entry that is longer than the terminal,\n      which is narrow\n");
    }

    @Test
    void coloursAndTheRestOfACharacterTakeNoColumns() {
        out.println("\u001b[1mé\u001b[0m" + "é".repeat(48) + " x");
        out.println("\u001b[32m" + "━".repeat(50) + "\u001b[0m");

        assertThat(written().lines()).hasSize(3);
        assertThat(written()).contains("é\n  x\n", "━\u001b[0m\n");
    }

    @Test
    void aNameLongerThanALineIsNotTornApart() {
        out.println("writes " + "/a".repeat(40) + " and more");
        assertThat(written()).isEqualTo("writes\n  " + "/a".repeat(40) + "\n  and more\n");
    }

    @Test
    void whatIsFlushedAppearsAndALineThatIsDrawnAgainBeginsAnew() {
        out.print("> ");
        out.flush();
        assertThat(written()).isEqualTo("> ");
        for (int i = 0; i < 3; i++) {
            out.print("\r\u001b[K" + "x".repeat(45));
            out.flush();
        }
        assertThat(written()).doesNotContain("\n").endsWith("x".repeat(45));
    }

    /** A format is written piece by piece. */
    @Test
    void piecesOfAWordStayTogether() {
        out.printf("%s %d/%d%n", "x".repeat(44), 1234, 5678);
        assertThat(written()).isEqualTo("x".repeat(44) + "\n  1234/5678\n");
    }
}
