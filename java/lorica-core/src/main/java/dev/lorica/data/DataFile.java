package dev.lorica.data;

import java.io.BufferedInputStream;
import java.io.IOException;
import java.io.InputStream;
import java.io.InputStreamReader;
import java.io.Reader;
import java.nio.ByteBuffer;
import java.nio.CharBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.Charset;
import java.nio.charset.CharsetDecoder;
import java.nio.charset.CoderResult;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.List;
import java.util.Locale;
import java.util.zip.GZIPInputStream;

/** Finds out what a data file is, by its first bytes and by its name, and opens the reader for it. */
final class DataFile {
    private static final int SNIFFED_BYTES = 4096;

    private DataFile() {}

    /** The records of all, one file behind the other. */
    static RecordReader open(List<Path> paths) {
        return paths.size() == 1 ? open(paths.get(0)) : new SeveralFiles(paths);
    }

    static RecordReader open(Path path) {
        InputStream in = null;
        try {
            if (Files.isDirectory(path)) {
                throw new DataException(path + " is a folder; a JSON, JSONL, CSV, Parquet or text file is meant");
            }
            in = new BufferedInputStream(Files.newInputStream(path), 1 << 16);
            byte[] head = head(in);
            String name = path.getFileName().toString().toLowerCase(Locale.ROOT);
            if (startsWith(head, 0x1f, 0x8b)) {
                in = new BufferedInputStream(new GZIPInputStream(in, 1 << 16), 1 << 16);
                head = head(in);
                name = name.endsWith(".gz") ? name.substring(0, name.length() - 3) : name;
            }
            return open(path, name, in, head);
        } catch (NoSuchFileException e) {
            throw new DataException(path + " does not exist", e);
        } catch (IOException e) {
            closeQuietly(in);
            throw new DataException(path + " cannot be read: " + e.getMessage(), e);
        } catch (DataException e) {
            closeQuietly(in);
            throw e;
        }
    }

    private static RecordReader open(Path path, String name, InputStream in, byte[] head) throws IOException {
        if (startsWith(head, 'P', 'A', 'R', '1')) {
            closeQuietly(in);
            try {
                return new ParquetRecords(path);
            } catch (UnsupportedClassVersionError e) {
                throw new DataException(
                        path + " is a Parquet file; reading those needs Java 21 or newer, this is Java "
                                + Runtime.version().feature(),
                        e);
            }
        }
        String other = startsWith(head, 'P', 'K', 3, 4)
                ? "a ZIP archive: unpack it first"
                : startsWith(head, 'G', 'G', 'U', 'F') ? "a GGUF model" : null;
        if (other == null && isBlank(head)) {
            throw new DataException(path + " is empty");
        }
        if (other == null) {
            boolean json = isJson(head);
            if (name.endsWith(".csv")
                    || name.endsWith(".tsv")
                    || !json && !name.contains(".json") && isKnownHeader(head)) {
                return new CsvRecords(path, reader(in, head), head);
            }
            if (name.endsWith(".txt") || name.endsWith(".md")) {
                return new TextRecords(path, reader(in, head));
            }
            if (json) {
                return new JsonRecords(path, reader(in, head));
            }
            other = "not JSON: it begins with \"" + preview(head) + "\"";
        }
        throw new DataException(
                path + " is " + other + "; a JSON array, JSONL (one object per line), a table (.csv, .tsv,"
                        + " .parquet) or a text (.txt) is meant");
    }

    private static byte[] head(InputStream in) throws IOException {
        in.mark(SNIFFED_BYTES);
        byte[] head = in.readNBytes(SNIFFED_BYTES);
        in.reset();
        return head;
    }

    /** Characters, without a byte order mark, and an error where bytes are none. */
    private static Reader reader(InputStream in, byte[] head) throws IOException {
        in.skipNBytes(
                startsWith(head, 0xEF, 0xBB, 0xBF) ? 3 : isUtf32(head) && hasMark(head) ? 4 : isUtf16(head) ? 2 : 0);
        return new InputStreamReader(in, decoder(head));
    }

    private static CharsetDecoder decoder(byte[] head) {
        return charset(head)
                .newDecoder()
                .onMalformedInput(CodingErrorAction.REPORT)
                .onUnmappableCharacter(CodingErrorAction.REPORT);
    }

    /** What is wrong with bytes that are no characters, and on which line: the file is read once more for that. */
    static DataException malformed(Path path, CharacterCodingException e) {
        long line = 1;
        String charset = "UTF-8";
        try (InputStream in = decompressed(path)) {
            byte[] head = head(in);
            charset = charset(head).name();
            CharsetDecoder decoder = decoder(head);
            ByteBuffer bytes = ByteBuffer.allocate(1 << 16);
            CharBuffer characters = CharBuffer.allocate(1 << 16);
            for (boolean more = true; more; ) {
                int read = in.readNBytes(bytes.array(), bytes.position(), bytes.remaining());
                more = bytes.hasRemaining() && read == bytes.remaining();
                bytes.limit(bytes.position() + read).position(0);
                CoderResult result = decoder.decode(bytes, characters, !more);
                characters.flip();
                line += characters.chars().filter(c -> c == '\n').count();
                characters.clear();
                if (result.isError()) {
                    break;
                }
                bytes.compact();
            }
        } catch (IOException again) {
            e.addSuppressed(again);
        }
        return new DataException(path + ", line " + line + ": not valid " + charset, e);
    }

    private static InputStream decompressed(Path path) throws IOException {
        InputStream in = new BufferedInputStream(Files.newInputStream(path), 1 << 16);
        return startsWith(head(in), 0x1f, 0x8b)
                ? new BufferedInputStream(new GZIPInputStream(in, 1 << 16), 1 << 16)
                : in;
    }

    /** By its mark, or, as JSON without one begins with ASCII, by where the zeros are. */
    private static Charset charset(byte[] head) {
        if (isUtf32(head)) {
            return Charset.forName(head[0] == 0 ? "UTF-32BE" : "UTF-32LE");
        }
        if (startsWith(head, 0xFE, 0xFF) || head.length > 1 && head[0] == 0) {
            return StandardCharsets.UTF_16BE;
        }
        return startsWith(head, 0xFF, 0xFE) || head.length > 1 && head[1] == 0
                ? StandardCharsets.UTF_16LE
                : StandardCharsets.UTF_8;
    }

    private static boolean isUtf32(byte[] head) {
        return startsWith(head, 0, 0, 0xFE, 0xFF)
                || startsWith(head, 0xFF, 0xFE, 0, 0)
                || head.length > 3 && (head[0] == 0 && head[1] == 0 && head[2] == 0)
                || head.length > 3 && (head[1] == 0 && head[2] == 0 && head[3] == 0);
    }

    private static boolean hasMark(byte[] head) {
        return startsWith(head, 0, 0, 0xFE, 0xFF) || startsWith(head, 0xFF, 0xFE, 0, 0);
    }

    private static boolean isUtf16(byte[] head) {
        return startsWith(head, 0xFE, 0xFF) || startsWith(head, 0xFF, 0xFE);
    }

    /** The first bytes as text, without a byte order mark. */
    static String text(byte[] head) {
        String text = new String(head, charset(head));
        return text.startsWith("\uFEFF") ? text.substring(1) : text;
    }

    private static boolean isBlank(byte[] head) {
        return head.length < SNIFFED_BYTES && text(head).isBlank();
    }

    private static boolean isJson(byte[] head) {
        String text = text(head).stripLeading();
        return text.isEmpty() || text.charAt(0) == '[' || text.charAt(0) == '{';
    }

    private static boolean isKnownHeader(byte[] head) {
        String line = text(head).lines().findFirst().orElse("");
        return DataFields.detect(CsvRecords.header(line)).isPresent()
                && CsvRecords.header(line).size() > 1;
    }

    private static String preview(byte[] head) {
        StringBuilder text = new StringBuilder();
        for (char c : text(head).stripLeading().toCharArray()) {
            if (text.length() == 30 || c == '\n' || c == '\r') {
                break;
            }
            text.append(c >= 0x20 && c < 0x7f ? c : '.');
        }
        return text.toString();
    }

    private static boolean startsWith(byte[] head, int... bytes) {
        for (int i = 0; i < bytes.length; i++) {
            if (i >= head.length || (head[i] & 0xff) != bytes[i]) {
                return false;
            }
        }
        return true;
    }

    static void closeQuietly(AutoCloseable in) {
        if (in != null) {
            try {
                in.close();
            } catch (Exception e) {
                // Nothing was written, so nothing is lost.
            }
        }
    }
}
