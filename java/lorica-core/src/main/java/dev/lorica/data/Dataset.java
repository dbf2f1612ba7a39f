package dev.lorica.data;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;

/**
 * Examples as text: questions with their answers, or plain texts.
 *
 * <pre>{@code
 * Dataset data = Dataset.load(Path.of("train.json"));
 * Dataset more = Dataset.of(List.of(DataRecord.of("Who is Mr. Collins?", "A clergyman, and cousin to Mr. Bennet.")));
 * }</pre>
 *
 * Immutable.
 */
public final class Dataset implements Iterable<DataRecord> {
    private final String name;
    private final String format;
    private final DataFields fields;
    private final List<DataRecord> records;

    private Dataset(String name, String format, DataFields fields, List<DataRecord> records) {
        this.name = name;
        this.format = format;
        this.fields = fields;
        this.records = List.copyOf(records);
    }

    /** Reads a JSON array or a JSONL file and finds out by itself which fields hold prompt and response. */
    public static Dataset load(Path file) {
        return load(file, null, null);
    }

    /** Reads a JSON array or a JSONL file with one plain text per record, in the field named. */
    public static Dataset loadText(Path file, String textField) {
        return load(file, first -> {
            if (!first.fields().has(textField)) {
                throw missing(first, textField);
            }
            return DataFields.text(textField);
        });
    }

    /**
     * Reads a JSON array or a JSONL file.
     *
     * @param promptField   field with the prompt; {@code null}: found by itself
     * @param responseField field with the response; {@code null}: found by itself
     * @throws DataException if the file cannot be read or is not what it should be; the message names file, line,
     *                       record and field
     */
    public static Dataset load(Path file, String promptField, String responseField) {
        return load(file, first -> choose(first, promptField, responseField));
    }

    /** Records from elsewhere. They must all have a prompt, or all be plain texts. */
    public static Dataset of(List<DataRecord> records) {
        if (records.isEmpty()) {
            throw new DataException("a data set needs at least one record");
        }
        boolean text = records.get(0).isText();
        if (records.stream().anyMatch(record -> record.isText() != text)) {
            throw new DataException("a data set holds either questions with answers or plain texts, not both");
        }
        return new Dataset("", "memory", text ? DataFields.text("text") : DataFields.of("prompt", "response"), records);
    }

    /** The file that it was read from, {@code ""} for records from elsewhere. */
    public String name() {
        return name;
    }

    /** {@code json}, {@code jsonl} or {@code memory}. */
    public String format() {
        return format;
    }

    public DataFields fields() {
        return fields;
    }

    public int size() {
        return records.size();
    }

    public DataRecord get(int index) {
        return records.get(index);
    }

    @Override
    public Iterator<DataRecord> iterator() {
        return records.iterator();
    }

    private interface FieldChoice {
        DataFields of(JsonRecords.Raw first);
    }

    private static Dataset load(Path file, FieldChoice choice) {
        try (JsonRecords in = new JsonRecords(file)) {
            JsonRecords.Raw raw = in.next();
            if (raw == null) {
                throw new DataException(file + " holds no records");
            }
            DataFields fields = choice.of(raw);
            List<DataRecord> records = new ArrayList<>();
            for (; raw != null; raw = in.next()) {
                String prompt = fields.isText() ? null : text(raw, fields.prompt(), true);
                String input = fields.input() == null ? "" : text(raw, fields.input(), false);
                records.add(new DataRecord(prompt, input, text(raw, fields.response(), true), raw.line()));
            }
            return new Dataset(file.toString(), in.isArray() ? "json" : "jsonl", fields, records);
        }
    }

    private static DataFields choose(JsonRecords.Raw first, String promptField, String responseField) {
        List<String> present = names(first.fields());
        for (String named : new String[] {promptField, responseField}) {
            if (named != null && !present.contains(named)) {
                throw missing(first, named);
            }
        }
        if (promptField == null && responseField == null) {
            return DataFields.detect(present).orElseThrow(() -> unknownFields(first, present));
        }
        String prompt = promptField != null
                ? promptField
                : DataFields.detectPrompt(present).orElseThrow(() -> otherHalf(first, present, "prompt"));
        String response = responseField != null
                ? responseField
                : DataFields.detectResponse(present).orElseThrow(() -> otherHalf(first, present, "response"));
        if (prompt.equals(response)) {
            throw new DataException("field \"" + prompt + "\" cannot be both prompt and response");
        }
        return new DataFields(prompt, DataFields.inputBeside(prompt, present), response);
    }

    private static DataException unknownFields(JsonRecords.Raw first, List<String> present) {
        for (String chat : List.of("messages", "conversations", "conversation")) {
            if (present.contains(chat)) {
                return new DataException(first.where() + " is a conversation (field \"" + chat
                        + "\"), which cannot be trained on yet; one prompt and one response per record are meant");
            }
        }
        return new DataException(first.where() + ": no known pair of fields; found " + quoted(present) + ", meant "
                + DataFields.knownInWords() + "; name your own with --prompt-field and --response-field");
    }

    private static DataException otherHalf(JsonRecords.Raw first, List<String> present, String half) {
        return new DataException(first.where() + ": which field holds the " + half + "? Found " + quoted(present)
                + "; name it with --" + half + "-field");
    }

    private static DataException missing(JsonRecords.Raw raw, String field) {
        List<String> present = names(raw.fields());
        String near = present.stream()
                .filter(name -> isNear(name, field))
                .findFirst()
                .map(name -> "; did you mean \"" + name + "\"?")
                .orElse("");
        return new DataException(raw.where() + ": no field \"" + field + "\"; found " + quoted(present) + near);
    }

    /** Text of a field. Numbers and truth values are taken as they are written. */
    private static String text(JsonRecords.Raw raw, String field, boolean required) {
        JsonNode value = raw.fields().get(field);
        if (value == null || value.isNull()) {
            if (!required) {
                return "";
            }
            throw value == null
                    ? missing(raw, field)
                    : new DataException(raw.where() + ": field \"" + field + "\" is null; a text is meant");
        }
        if (!value.isValueNode()) {
            throw new DataException(
                    raw.where() + ": field \"" + field + "\" is " + JsonRecords.kind(value) + "; a text is meant");
        }
        return value.asText();
    }

    private static List<String> names(ObjectNode object) {
        Iterable<String> names = object::fieldNames;
        return StreamSupport.stream(names.spliterator(), false).toList();
    }

    private static String quoted(List<String> names) {
        return names.isEmpty()
                ? "no fields at all"
                : names.stream().map(name -> "\"" + name + "\"").collect(Collectors.joining(", "));
    }

    /** Equal but for case, or at most two letters apart. */
    private static boolean isNear(String a, String b) {
        String x = a.toLowerCase(Locale.ROOT);
        String y = b.toLowerCase(Locale.ROOT);
        return x.equals(y) || (Math.min(x.length(), y.length()) > 3 && distance(x, y) <= 2);
    }

    /** Levenshtein's distance. */
    private static int distance(String a, String b) {
        int[] above = new int[b.length() + 1];
        for (int j = 0; j <= b.length(); j++) {
            above[j] = j;
        }
        for (int i = 1; i <= a.length(); i++) {
            int[] row = new int[b.length() + 1];
            row[0] = i;
            for (int j = 1; j <= b.length(); j++) {
                int change = above[j - 1] + (a.charAt(i - 1) == b.charAt(j - 1) ? 0 : 1);
                row[j] = Math.min(change, 1 + Math.min(above[j], row[j - 1]));
            }
            above = row;
        }
        return above[b.length()];
    }
}
