package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class SideBySideTest {
    @Test
    void twoTextsStandInTwoColumnsBrokenBetweenWords() {
        String left = "The first of two answers, which is longer than one column.\nAnd a line.";
        assertThat(SideBySide.lines("base", left, "tuned", "Short.", 53))
                .containsExactly(
                        "base                      │ tuned",
                        "──────────────────────────┼─" + "─".repeat(25),
                        "The first of two answers, │ Short.",
                        "which is longer than one  │",
                        "column.                   │",
                        "And a line.               │");
    }

    @Test
    void wideCharactersTakeTwoColumnsAndAWordThatIsTooLongIsBroken() {
        assertThat(SideBySide.wrap("柯林斯先生", 4)).containsExactly("柯林", "斯先", "生");
        assertThat(SideBySide.wrap("abcdefgh i", 4)).containsExactly("abcd", "efgh", "i");
    }

    @Test
    void whereThereIsNoRoomOneStandsBelowTheOther() {
        assertThat(SideBySide.lines("base", "One.", "tuned", "Two.", 30))
                .containsExactly("base:", "One.", "", "tuned:", "Two.");
    }
}
