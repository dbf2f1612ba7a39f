package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.train.TrainingProgress;
import java.io.ByteArrayInputStream;
import java.io.ByteArrayOutputStream;
import java.io.PrintStream;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.ValueSource;

class FormatTest {
    private static final TrainingProgress HALF =
            new TrainingProgress(60, 120, 1.5, 2.34567, 1e-4, 0.5, 10_000, 5_000, 1234.5, 0.123, 30, 30.4, Map.of());

    @Test
    void writesNumbersForPeople() {
        assertThat(Format.count(1_234_567)).isEqualTo("1,234,567");
        assertThat(Format.count(1, "example")).isEqualTo("1 example");
        assertThat(Format.count(0, "example")).isEqualTo("0 examples");
        assertThat(Format.shortCount(7_344_384)).isEqualTo("7.3 M");
        assertThat(Format.shortCount(6_742_609_920L)).isEqualTo("6.74 B");
        assertThat(Format.bytes(1023)).isEqualTo("1023 B");
        assertThat(Format.bytes(4_700_000)).isEqualTo("4.5 MiB");
        assertThat(Format.bytes(3L << 40)).isEqualTo("3.0 TiB");
        assertThat(Format.duration(38.4)).isEqualTo("0:38");
        assertThat(Format.duration(3723)).isEqualTo("1:02:03");
        assertThat(Format.duration(Double.NaN)).isEqualTo("?");
        assertThat(Format.seconds(59.94)).isEqualTo("59.9 s");
        assertThat(Format.seconds(125)).isEqualTo("2 min 5 s");
        assertThat(Format.percent(1, 3)).isEqualTo("33 %");
        assertThat(Format.percent(1, 0)).isEqualTo("0.0 %");
        assertThat(Format.scientific(1.8e-4)).isEqualTo("1.80e-04");
    }

    @ParameterizedTest
    @ValueSource(ints = {10, 40, 79, 100, 200})
    void theBarNeverWrapsTheLine(int width) {
        assertThat(ProgressLine.bar(HALF, width).length()).isLessThanOrEqualTo(width);
    }

    @Test
    void theBarShowsWhatMatters() {
        assertThat(ProgressLine.bar(HALF, 120))
                .startsWith("60/120 ━")
                .contains(" 50%", "loss 2.3457", "lr 1.00e-04", "grad 0.500", "1,235 tok/s", "ETA 0:30");
    }

    @Test
    void withoutATerminalThereAreOnlyLines() {
        ByteArrayOutputStream err = new ByteArrayOutputStream();
        ProgressLine progress = new ProgressLine(new Terminal(
                new ByteArrayInputStream(new byte[0]),
                new PrintStream(new ByteArrayOutputStream()),
                new PrintStream(err)));

        progress.step(HALF);
        progress.log(HALF);
        progress.end();

        assertThat(err.toString())
                .isEqualTo(
                        "step  60/120  epoch 1.50  loss 2.3457  lr 1.00e-04  grad 0.500  1,235 tok/s (12 % of peak)  ETA 0:30"
                                + System.lineSeparator());
    }

    @Test
    void quotesWordsForAShell() {
        assertThat(Shell.quote("models/a-7m.gguf")).isEqualTo("models/a-7m.gguf");
        assertThat(Shell.quote("Who is Mr. Collins?")).isEqualTo("\"Who is Mr. Collins?\"");
        assertThat(Shell.quote("it's $5")).isEqualTo("'it'\\''s $5'");
        assertThat(Shell.quote("")).isEqualTo("\"\"");
    }
}
