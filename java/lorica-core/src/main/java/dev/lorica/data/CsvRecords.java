package dev.lorica.data;

import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import de.siegmar.fastcsv.reader.CloseableIterator;
import de.siegmar.fastcsv.reader.CsvParseException;
import de.siegmar.fastcsv.reader.CsvReader;
import de.siegmar.fastcsv.reader.CsvRecord;
import java.io.Reader;
import java.io.UncheckedIOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.List;
import java.util.Set;

/**
 * Reads a table of texts (RFC 4180) with names in its first line. Which of comma, semicolon and tab separates them, that line
 * says. Line breaks inside quotes belong to the text, and those of Windows too.
 */
final class CsvRecords implements RecordReader {
    private final Path path;
    private final String file;
    private final CsvReader<CsvRecord> reader;
    private final CloseableIterator<CsvRecord> rows;
    private final List<String> names;
    private long records;
    private long line = 1;

    CsvRecords(Path path, Reader in, byte[] head) {
        this.path = path;
        this.file = path.toString();
        String firstLine = DataFile.text(head).lines().findFirst().orElse("");
        reader = CsvReader.builder()
                .fieldSeparator(separator(firstLine))
                .skipEmptyLines(true)
                .allowMissingFields(true)
                .allowExtraFields(true)
                .ofCsvRecord(new QuoteCheck(in, separator(firstLine)));
        rows = reader.iterator();
        CsvRecord header = row();
        if (header == null) {
            throw new DataException(file + " is empty");
        }
        names = header.getFields().stream().map(String::strip).toList();
        Set<String> seen = new HashSet<>();
        for (String name : names) {
            if (!seen.add(name)) {
                throw new DataException(file + ", line " + line + ": two columns are called \"" + name + "\"");
            }
        }
    }

    /** The names in the first line of such a file. */
    static List<String> header(String line) {
        List<String> names = new ArrayList<>();
        for (String name : line.split(String.valueOf(separator(line)), -1)) {
            names.add(name.strip().replaceAll("^\"|\"$", ""));
        }
        return names;
    }

    private static char separator(String line) {
        char best = ',';
        long most = -1;
        for (char candidate : new char[] {',', ';', '\t'}) {
            long count = line.chars().filter(c -> c == candidate).count();
            if (count > most) {
                most = count;
                best = candidate;
            }
        }
        return best;
    }

    @Override
    public String format() {
        return "csv";
    }

    @Override
    public Raw next() {
        CsvRecord row = row();
        if (row == null) {
            return null;
        }
        records++;
        String where = file + ", line " + line + " (record " + records + ")";
        if (row.getFieldCount() != names.size()) {
            throw new DataException(where + " has " + row.getFieldCount() + " columns, the first line has "
                    + names.size() + "; is a quotation mark missing?");
        }
        ObjectNode fields = JsonNodeFactory.instance.objectNode();
        for (int i = 0; i < names.size(); i++) {
            fields.put(names.get(i), row.getField(i));
        }
        return new Raw(fields, line, where);
    }

    private CsvRecord row() {
        try {
            if (!rows.hasNext()) {
                return null;
            }
            CsvRecord row = rows.next();
            line = row.getStartingLineNumber();
            return row;
        } catch (CsvParseException | UncheckedIOException e) {
            Throwable cause = e.getCause() == null ? e : e.getCause();
            if (cause instanceof CharacterCodingException malformed) {
                throw DataFile.malformed(path, malformed);
            }
            if (cause instanceof QuoteCheck.QuoteException quote) {
                throw new DataException(file + ", " + quote.getMessage(), e);
            }
            throw new DataException(
                    e instanceof CsvParseException
                            ? file + ", behind line " + line + ": not valid CSV: " + cause.getMessage()
                            : file + " cannot be read: " + cause.getMessage(),
                    e);
        }
    }

    @Override
    public void close() {
        DataFile.closeQuietly(reader);
    }
}
