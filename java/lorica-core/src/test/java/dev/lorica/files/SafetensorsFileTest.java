package dev.lorica.files;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.UnsupportedException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Random;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class SafetensorsFileTest {
    @TempDir
    Path folder;

    @Test
    void readsWhatIsWritten() throws IOException {
        Path file = folder.resolve("x.safetensors");
        new SafetensorsWriter()
                .metadata("format", "pt")
                .add("a", List.of(2L, 3L), () -> new float[] {1, 2, 3, 4, 5, -0.1f})
                .add("empty", List.of(0L, 4L), () -> new float[0])
                .add("large", List.of(20_000L), () -> new float[20_000])
                .write(file);

        try (SafetensorsFile read = SafetensorsFile.open(file)) {
            assertThat(read.metadata()).containsEntry("format", "pt");
            assertThat(read.tensors().keySet()).containsExactly("a", "empty", "large");
            assertThat(read.tensors().get("a").shape()).containsExactly(2L, 3L);
            assertThat(read.tensors().get("a").offset() % 8).isZero();
            assertThat(read.read(read.tensors().get("a"))).containsExactly(1, 2, 3, 4, 5, -0.1f);
            assertThat(read.read(read.tensors().get("empty"))).isEmpty();
            assertThat(read.read(read.tensors().get("large"))).hasSize(20_000).containsOnly(0);
        }
        assertThat(folder.toFile().list()).containsExactly("x.safetensors");
    }

    @Test
    void theSameTensorsMakeTheSameBytesInWhateverOrderTheyCome() throws IOException {
        Path one = folder.resolve("one.safetensors");
        Path other = folder.resolve("other.safetensors");
        new SafetensorsWriter()
                .metadata("format", "pt")
                .metadata("by", "lorica")
                .add("b", List.of(1L), () -> new float[] {2})
                .add("a", List.of(2L), () -> new float[] {1, 3})
                .write(one);
        new SafetensorsWriter()
                .metadata("by", "lorica")
                .metadata("format", "pt")
                .add("a", List.of(2L), () -> new float[] {1, 3})
                .add("b", List.of(1L), () -> new float[] {2})
                .write(other);

        byte[] bytes = Files.readAllBytes(one);
        assertThat(bytes).isEqualTo(Files.readAllBytes(other));
        assertThat(new String(bytes, 8, bytes.length - 8, StandardCharsets.ISO_8859_1))
                .startsWith("{\"__metadata__\":{\"by\":\"lorica\",\"format\":\"pt\"},"
                        + "\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]},"
                        + "\"b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}");
    }

    @Test
    void readsHalfPrecisionExactly() throws IOException {
        short[] bits = {
            0x0000,
            (short) 0x8000,
            0x3c00,
            (short) 0xc000,
            0x7bff,
            0x0400,
            0x0001,
            0x03ff,
            0x7c00,
            (short) 0xfc00,
            0x7e00,
            0x3555
        };
        float[] halves = {
            0f,
            -0f,
            1f,
            -2f,
            65504f,
            0x1p-14f,
            0x1p-24f,
            0x3ffp-24f,
            Float.POSITIVE_INFINITY,
            Float.NEGATIVE_INFINITY,
            Float.NaN,
            0.333251953125f
        };
        for (int i = 0; i < bits.length; i++) {
            assertThat(SafetensorsFile.float16(bits[i])).isEqualTo(Float.valueOf(halves[i]));
        }
        write(
                "{\"h\":{\"dtype\":\"F16\",\"shape\":[1],\"data_offsets\":[0,2]},\"b\":{\"dtype\":\"BF16\",\"shape\":[1],\"data_offsets\":[2,4]}}",
                new byte[] {0x55, 0x35, (byte) 0x80, 0x3f});
        try (SafetensorsFile read = SafetensorsFile.open(file())) {
            assertThat(read.read(read.tensors().get("h"))).containsExactly(0.333251953125f);
            assertThat(read.read(read.tensors().get("b"))).containsExactly(1f);
        }
    }

    @Test
    void namesWhatIsWrong() throws IOException {
        assertThatThrownBy(() -> SafetensorsFile.open(file()))
                .isInstanceOf(FileAccessException.class)
                .hasMessageEndingWith("does not exist");
        refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}", 7, "lies at 0 to 8 of 7 bytes");
        refused(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                9,
                "the last 1 bytes belong to no tensor");
        refused(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[3],\"data_offsets\":[0,8]}}",
                8,
                "takes 8 bytes, its shape [3] in F32 needs 12");
        refused(
                "{\"a\":{\"dtype\":\"F32\",\"shape\":[4611686018427387904],\"data_offsets\":[0,0]}}",
                0,
                "which is too large");
        refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[-1],\"data_offsets\":[0,8]}}", 8, "has the dimension -1");
        for (String offsets :
                List.of("[0.5,8.5]", "[0,8.5]", "[0.0,8]", "[0,8e0]", "[\"0\",8]", "[0,99999999999999999999]")) {
            refused(
                    "{\"a\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":" + offsets + "}}",
                    8,
                    "has no data_offsets [begin, end]");
        }
        refused("{\"a\":{\"dtype\":\"F32\",\"shape\":[2.0],\"data_offsets\":[0,8]}}", 8, "has the dimension 2.0");
        refused(
                "{\"a\":{\"dtype\":\"F31\",\"shape\":[2],\"data_offsets\":[0,8]}}",
                8,
                "has the dtype \"F31\", which is unknown");
        refused(
                "{\"a\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[0,4]},\"b\":{\"dtype\":\"U8\",\"shape\":[4],\"data_offsets\":[2,6]}}",
                6,
                "tensor \"b\" overlaps");
        refused("{\"a\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[1,2]}}", 2, "leaves a gap before it");
        refused("{\"a\":{}}", 0, "has the dtype , which is unknown");
        refused("{\"a\":1,\"a\":2}", 0, "its header is not JSON: Duplicate field 'a'");
        refused("[1]", 0, "is not a JSON object");
        ByteBuffer huge = ByteBuffer.allocate(16).order(ByteOrder.LITTLE_ENDIAN).putLong(Long.MAX_VALUE);
        Files.write(file(), huge.array());
        assertThatThrownBy(() -> SafetensorsFile.open(file()))
                .hasMessageContaining("is said to have 9223372036854775807 bytes, the file has 16");
        write("{\"a\":{\"dtype\":\"I64\",\"shape\":[1],\"data_offsets\":[0,8]}}", new byte[8]);
        try (SafetensorsFile read = SafetensorsFile.open(file())) {
            assertThatThrownBy(() -> read.read(read.tensors().get("a")))
                    .isInstanceOf(UnsupportedException.class)
                    .hasMessageContaining("is of type I64");
        }
    }

    @Test
    void thousandsOfDamagedFilesAreErrorsOrFiles() throws IOException {
        new SafetensorsWriter()
                .metadata("format", "pt")
                .add("a", List.of(2L, 3L), () -> new float[6])
                .add("b", List.of(4L), () -> new float[4])
                .write(file());
        byte[] sound = Files.readAllBytes(file());
        Random random = new Random(1);
        int errors = 0;
        for (int i = 0; i < 1000; i++) {
            byte[] damaged =
                    random.nextInt(4) == 0 ? Arrays.copyOf(sound, random.nextInt(sound.length)) : sound.clone();
            for (int flips = random.nextInt(4); flips >= 0 && damaged.length > 0; flips--) {
                damaged[random.nextInt(Math.min(damaged.length, 200))] = (byte) random.nextInt(256);
            }
            Files.write(file(), damaged);
            try (SafetensorsFile read = SafetensorsFile.open(file())) {
                read.tensors().values().stream()
                        .filter(tensor -> tensor.type().equals("F32"))
                        .forEach(read::read);
            } catch (LoricaException e) {
                assertThat(e.getMessage())
                        .startsWith(file() + ": damaged safetensors file: ")
                        .doesNotContain("\n");
                errors++;
            }
        }
        assertThat(errors).isBetween(200, 1000);
    }

    private void refused(String header, int dataBytes, String message) throws IOException {
        write(header, new byte[dataBytes]);
        assertThatThrownBy(() -> SafetensorsFile.open(file()))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining(message);
    }

    private void write(String header, byte[] data) throws IOException {
        byte[] json = header.getBytes(StandardCharsets.UTF_8);
        Files.write(
                file(),
                ByteBuffer.allocate(8 + json.length + data.length)
                        .order(ByteOrder.LITTLE_ENDIAN)
                        .putLong(json.length)
                        .put(json)
                        .put(data)
                        .array());
    }

    private Path file() {
        return folder.resolve("file.safetensors");
    }
}
