package dev.lorica.internal;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.DeviceException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InternalErrorException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_gguf;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class StatusTest {
    @Test
    void everyStatusHasItsException() {
        assertThat(Status.exception(Lorica.LORICA_ERROR_INVALID_ARGUMENT, "m"))
                .isInstanceOf(InvalidArgumentException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_IO, "m")).isInstanceOf(FileAccessException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_FORMAT, "m")).isInstanceOf(FileFormatException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_UNSUPPORTED, "m")).isInstanceOf(UnsupportedException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_OUT_OF_MEMORY, "m")).isInstanceOf(MemoryException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_DEVICE, "m")).isInstanceOf(DeviceException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_NON_FINITE, "m")).isInstanceOf(NonFiniteException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_MISMATCH, "m")).isInstanceOf(MismatchException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_INTERNAL, "m")).isInstanceOf(InternalErrorException.class);
        assertThat(Status.exception(Lorica.LORICA_ERROR_CANCELLED, "m")).isInstanceOf(CancelledException.class);
        assertThat(Status.exception(77, "m"))
                .isInstanceOf(InternalErrorException.class)
                .hasMessageContaining("77");
    }

    @Test
    void carriesTheMessageOfTheLibrary(@TempDir Path folder) throws Exception {
        NativeLibrary.load();
        Path damaged = Files.writeString(folder.resolve("damagéd.gguf"), "this is no GGUF file at all");

        assertThatThrownBy(() -> open(folder.resolve("missing.gguf")))
                .isInstanceOf(FileAccessException.class)
                .hasMessageContaining("missing.gguf");
        assertThatThrownBy(() -> open(damaged))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("damagéd.gguf");
    }

    @Test
    void aNulInsideAStringIsRefusedInsteadOfCuttingIt() {
        assertThatThrownBy(() -> Text.copy("the device", "cpu\0cuda"))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessage("the device holds a NUL character");
    }

    private static void open(Path path) {
        Status.check(Lorica.lorica_gguf_open(Text.copy("the path", path.toString()), new lorica_gguf()));
    }
}
