package dev.lorica.data;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import java.io.BufferedReader;
import java.io.IOException;
import java.io.Reader;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Path;

/** Reads a plain text in pieces that end with a line. Together they are the text, with all its line breaks as {@code \n}. */
final class TextRecords implements RecordReader {
    private static final int PIECE = 1 << 15;

    private final Path path;
    private final String file;
    private final BufferedReader in;
    private long line = 1;
    private boolean afterReturn;

    TextRecords(Path path, Reader in) {
        this.path = path;
        this.file = path.toString();
        this.in = new BufferedReader(in, 1 << 16);
    }

    @Override
    public String format() {
        return "text";
    }

    @Override
    public Raw next() {
        StringBuilder piece = new StringBuilder();
        long begin = line;
        try {
            for (int c = in.read(); c >= 0; c = in.read()) {
                boolean lineEnds = c == '\r' || c == '\n' && !afterReturn;
                if (c != '\n' || lineEnds) {
                    piece.append(c == '\r' ? '\n' : (char) c);
                }
                afterReturn = c == '\r';
                line += lineEnds ? 1 : 0;
                // A line that never ends is cut between words.
                boolean mayEnd = lineEnds || piece.length() >= 8 * PIECE && c == ' ';
                if (piece.length() >= PIECE && mayEnd
                        || piece.length() >= 64 * PIECE && !Character.isHighSurrogate((char) c)) {
                    break;
                }
            }
        } catch (CharacterCodingException e) {
            throw DataFile.malformed(path, e);
        } catch (IOException e) {
            throw new DataException(file + " cannot be read: " + e.getMessage(), e);
        }
        return piece.length() == 0
                ? null
                : new Raw(
                        JsonNodeFactory.instance.objectNode().put("text", piece.toString()),
                        begin,
                        file + ", line " + begin);
    }

    @Override
    public void close() {
        DataFile.closeQuietly(in);
    }
}
