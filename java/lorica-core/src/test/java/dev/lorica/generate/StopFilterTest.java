package dev.lorica.generate;

import static org.assertj.core.api.Assertions.assertThat;

import java.util.List;
import org.junit.jupiter.api.Test;

class StopFilterTest {
    @Test
    void withoutStopStringsEverythingPassesAtOnce() {
        StopFilter filter = new StopFilter(List.of());

        assertThat(filter.push("Mr. ")).isEqualTo("Mr. ");
        assertThat(filter.push("Collins")).isEqualTo("Collins");
        assertThat(filter.finish()).isEmpty();
    }

    @Test
    void endsBeforeAStopStringWithinAPiece() {
        StopFilter filter = new StopFilter(List.of("###"));

        assertThat(filter.push("Yes.### Instruction")).isEqualTo("Yes.");
        assertThat(filter.stopped()).isTrue();
        assertThat(filter.push("more")).isEmpty();
        assertThat(filter.finish()).isEmpty();
    }

    @Test
    void findsAStopStringThatIsCutAnywhere() {
        String text = "Yes, indeed.\n\n### Instruction:\nNext";
        String stop = "\n\n### Instruction";
        for (int first = 0; first <= text.length(); first++) {
            for (int second = first; second <= text.length(); second++) {
                StopFilter filter = new StopFilter(List.of(stop));
                String passed = filter.push(text.substring(0, first))
                        + filter.push(text.substring(first, second))
                        + filter.push(text.substring(second))
                        + filter.finish();
                assertThat(passed).isEqualTo("Yes, indeed.");
                assertThat(filter.stopped()).isTrue();
            }
        }
    }

    @Test
    void holdsBackOnlyWhatMayBecomeAStopString() {
        StopFilter filter = new StopFilter(List.of("\n\n##"));

        assertThat(filter.push("a\n")).isEqualTo("a");
        assertThat(filter.push("\n")).isEmpty();
        assertThat(filter.push("\n")).isEqualTo("\n");
        assertThat(filter.push("#")).isEmpty();
        assertThat(filter.push("b")).isEqualTo("\n\n#b");
        assertThat(filter.stopped()).isFalse();
    }

    @Test
    void givesWhatWasHeldBackAtTheEnd() {
        StopFilter filter = new StopFilter(List.of("###"));

        assertThat(filter.push("C#")).isEqualTo("C");
        assertThat(filter.finish()).isEqualTo("#");
    }

    @Test
    void theEarliestOfSeveralStopStringsCounts() {
        StopFilter filter = new StopFilter(List.of("END", "STOP"));

        assertThat(filter.push("a STOP b END")).isEqualTo("a ");
    }

    @Test
    void holdsBackForTheLongestOfSeveral() {
        StopFilter filter = new StopFilter(List.of("bcX", "abcdX"));

        assertThat(filter.push("zabc")).isEqualTo("z");
        assertThat(filter.push("d!")).isEqualTo("abcd!");
    }
}
