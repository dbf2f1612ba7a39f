package dev.lorica.data;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.NoSuchElementException;
import java.util.function.Predicate;
import java.util.stream.Collectors;
import java.util.stream.StreamSupport;

/**
 * Examples as text: questions with their answers, conversations, or plain texts.
 *
 * <pre>{@code
 * Dataset data = Dataset.load(Path.of("train.json"));
 * Dataset more = Dataset.of(List.of(DataRecord.of("Who is Mr. Collins?", "A clergyman, and cousin to Mr. Bennet.")));
 * }</pre>
 *
 * A file is read once when it is loaded, so that whatever is wrong in it is known at once. A small one stays in memory; a large
 * one is read again, record by record, whenever its records are walked through, and must not change meanwhile. Immutable.
 */
public final class Dataset implements Iterable<DataRecord> {
    /** Characters of a file that stay in memory. */
    private static final long MOST_CACHED =
            Math.min(64L << 20, Runtime.getRuntime().maxMemory() / 32);

    private final List<Path> files;
    private final String name;
    private final String format;
    private final DataFields fields;
    private final List<String> unused;
    private final boolean conversation;
    private final long size;
    private final List<DataRecord> records;

    private Dataset(
            String name,
            List<Path> files,
            String format,
            DataFields fields,
            List<String> unused,
            boolean conversation,
            long size,
            List<DataRecord> records) {
        this.files = files;
        this.unused = unused;
        this.name = name;
        this.format = format;
        this.fields = fields;
        this.conversation = conversation;
        this.size = size;
        this.records = records == null ? null : List.copyOf(records);
    }

    /**
     * Reads a JSON array, JSONL, CSV, Parquet or a plain text, and finds out by itself which it is and which fields hold what is
     * to be learned. {@code hf:OWNER/SET[:SPLIT]} is a data set on Hugging Face's hub.
     *
     * @param file the file, or the name on the hub
     * @return the records, which are read again whenever they are asked for
     * @throws DataException if the file cannot be read or is not what it should be; the message names file, line, record and
     *                       field
     */
    public static Dataset load(Path file) {
        Arguments.given(file, "file");
        return load(file, FieldNames.NONE);
    }

    /**
     * As {@link #load(Path)}, one plain text per record, in the field named.
     *
     * @param file      the file
     * @param textField field with the text
     * @return the records
     */
    public static Dataset loadText(Path file, String textField) {
        Arguments.given(file, "file");
        return load(file, new FieldNames(null, null, null, null, null, textField));
    }

    /**
     * As {@link #load(Path)}.
     *
     * @param file          the file
     * @param promptField   field with the prompt; {@code null}: found by itself
     * @param responseField field with the response; {@code null}: found by itself
     * @return the records
     */
    public static Dataset load(Path file, String promptField, String responseField) {
        Arguments.given(file, "file");
        return load(file, FieldNames.of(promptField, responseField));
    }

    /**
     * Reads the first record only: what is wrong with the file or its fields is said before a model is loaded for it.
     *
     * @param file  the file
     * @param names fields that are called otherwise than most
     * @throws DataException as {@link #load(Path, FieldNames)} would throw it for that record
     */
    public static void check(Path file, FieldNames names) {
        check(file, names, RecordKind.ANSWERS);
    }

    /**
     * As {@link #check(Path, FieldNames)}, for records that are to be of that kind.
     *
     * @param file  the file
     * @param names fields that are called otherwise than most
     * @param kind  what the records are to be
     */
    public static void check(Path file, FieldNames names, RecordKind kind) {
        Arguments.given(file, "file");
        Arguments.given(names, "names");
        Arguments.given(kind, "kind");
        List<Path> files = Hub.data(file);
        try (RecordReader in = DataFile.open(files)) {
            Raw raw = first(in, file);
            record(raw, choose(raw, names, kind));
        }
    }

    private static Raw first(RecordReader in, Path file) {
        Raw raw = in.next();
        if (raw == null) {
            throw new DataException(file + " holds no records");
        }
        return raw;
    }

    /**
     * As {@link #load(Path)}, with the names of fields that are called otherwise.
     *
     * @param file  the file
     * @param names fields that are called otherwise than most
     * @return the records
     */
    public static Dataset load(Path file, FieldNames names) {
        return load(file, names, RecordKind.ANSWERS);
    }

    /**
     * As {@link #load(Path)}, with records of that kind: pairs are a prompt with {@code chosen} and {@code rejected}, which may be
     * texts or messages, and of which both may begin with the prompt instead; labelled ones have a {@code label} beside a prompt
     * and its answer.
     *
     * @param file  the file
     * @param names fields that are called otherwise than most
     * @param kind  what the records are to be
     * @return the records
     */
    public static Dataset load(Path file, FieldNames names, RecordKind kind) {
        Arguments.given(file, "file");
        Arguments.given(names, "names");
        Arguments.given(kind, "kind");
        return load(file, Hub.data(file), names, kind, false);
    }

    /** withHistory: a record has something that was said before, which makes conversations of all. */
    private static Dataset load(Path file, List<Path> files, FieldNames names, RecordKind kind, boolean withHistory) {
        try (RecordReader in = DataFile.open(files)) {
            Raw raw = first(in, file);
            DataFields fields = withHistory ? choose(raw, names, kind).withHistory() : choose(raw, names, kind);
            List<String> unused = fields.unused(names(raw.fields()));
            List<DataRecord> cached = new ArrayList<>();
            long characters = 0;
            long size = 0;
            boolean conversation = record(raw, fields).isConversation();
            for (; raw != null; raw = in.next(), size++) {
                DataRecord record = record(raw, fields);
                if (!withHistory && !conversation && hasHistory(raw, fields)) {
                    return load(file, files, names, kind, true);
                }
                if (record.isConversation() != conversation) {
                    throw new DataException(raw.where() + " is " + (conversation ? "no" : "a")
                            + " conversation, unlike those before it");
                }
                characters += record.size() + 64;
                if (characters > MOST_CACHED) {
                    cached = null;
                } else {
                    cached.add(record);
                }
            }
            return new Dataset(file.toString(), files, in.format(), fields, unused, conversation, size, cached);
        }
    }

    /**
     * Records from elsewhere. They must all be questions, all conversations or all plain texts.
     *
     * @param records the records
     * @return a data set in memory
     */
    public static Dataset of(List<DataRecord> records) {
        if (Arguments.all(records, "records").isEmpty()) {
            throw new DataException("a data set needs at least one record");
        }
        boolean text = records.get(0).isText();
        boolean conversation = records.get(0).isConversation();
        if (records.stream().anyMatch(record -> record.isText() != text || record.isConversation() != conversation)) {
            throw new DataException(
                    "a data set holds either questions with answers, conversations or plain texts, not both");
        }
        boolean pairs = records.get(0).rejected() != null;
        boolean labelled = records.get(0).value() != null;
        if (records.stream()
                .anyMatch(record -> (record.rejected() != null) != pairs || (record.value() != null) != labelled)) {
            throw new DataException("either all records of a data set are pairs, or none; so it is with numbers");
        }
        for (int i = 0; i < records.size(); i++) {
            Characters.check(records.get(i), "record " + (i + 1));
        }
        DataFields fields = text
                ? DataFields.text("text")
                : conversation ? DataFields.conversation("messages") : DataFields.of("prompt", "response");
        if (pairs) {
            fields = new DataFields(
                    conversation ? null : "prompt",
                    null,
                    DataFields.CHOSEN,
                    "system",
                    null,
                    null,
                    DataFields.REJECTED,
                    null,
                    null);
        } else if (labelled) {
            fields = fields.withLabel();
        }
        return new Dataset("", List.of(), "memory", fields, List.of(), conversation, records.size(), records);
    }

    /** {@return the file that it was read from, {@code ""} for records from elsewhere} */
    public String name() {
        return name;
    }

    /** {@return {@code json}, {@code jsonl}, {@code csv}, {@code parquet}, {@code text} or {@code memory}} */
    public String format() {
        return format;
    }

    /** {@return the fields that hold what is to be learned} */
    public DataFields fields() {
        return fields;
    }

    /** Fields of the first record that nothing is made of. */
    List<String> unusedFields() {
        return unused;
    }

    /** {@return whether its records are conversations} */
    public boolean isConversation() {
        return conversation;
    }

    /** {@return the number of records; a file is read to its end for it} */
    public long size() {
        return size;
    }

    /** Whether records are pieces of one text, which is learned in windows. */
    boolean isContinuous() {
        return format.equals("text");
    }

    /**
     * {@return the first {@code count} records, or fewer where there are not so many}
     *
     * @param count how many at most
     */
    public List<DataRecord> head(int count) {
        List<DataRecord> head = new ArrayList<>();
        try (Records all = open()) {
            while (head.size() < count && all.hasNext()) {
                head.add(all.next());
            }
        }
        return head;
    }

    /**
     * {@return the same data with its first {@code count} records only; itself where there are not more}
     *
     * @param count how many at most
     */
    public Dataset first(int count) {
        if (count < 1) {
            throw new DataException("of " + (name.isEmpty() ? "the data" : name) + " " + count
                    + " records are asked for; at least 1 is needed");
        }
        return count >= size
                ? this
                : new Dataset(name, files, format, fields, unused, conversation, count, head(count));
    }

    boolean allMatch(Predicate<DataRecord> predicate) {
        try (Records all = open()) {
            while (all.hasNext()) {
                if (!predicate.test(all.next())) {
                    return false;
                }
            }
        }
        return true;
    }

    /** Holds the file open until the last record was taken. */
    @Override
    public Iterator<DataRecord> iterator() {
        return open();
    }

    /** Records one after another. */
    final class Records implements Iterator<DataRecord>, AutoCloseable {
        private final Iterator<DataRecord> cached;
        private final RecordReader in;
        private DataRecord next;

        private Records() {
            cached = records == null ? null : records.iterator();
            in = records == null ? DataFile.open(files) : null;
            advance();
        }

        private void advance() {
            if (cached != null) {
                next = cached.hasNext() ? cached.next() : null;
                return;
            }
            Raw raw = in.next();
            next = raw == null ? null : record(raw, fields);
            if (next == null) {
                in.close();
            }
        }

        @Override
        public boolean hasNext() {
            return next != null;
        }

        @Override
        public DataRecord next() {
            if (next == null) {
                throw new NoSuchElementException();
            }
            DataRecord taken = next;
            advance();
            return taken;
        }

        @Override
        public void close() {
            if (in != null) {
                in.close();
            }
        }
    }

    Records open() {
        return new Records();
    }

    private static DataRecord record(Raw raw, DataFields fields) {
        DataRecord record = made(raw, fields);
        Characters.check(record, raw.where());
        return record;
    }

    private static DataRecord made(Raw raw, DataFields fields) {
        if (fields.isPairs()) {
            return Preferences.pair(raw, fields, text(raw, fields.system(), false));
        }
        if (fields.isClasses()) {
            return labelled(raw, fields);
        }
        DataRecord record = answer(raw, fields);
        if (fields.weight() != null) {
            JsonNode weight = raw.fields().get(fields.weight());
            record = record.withWeight(Conversations.weight(raw.where(), weight, 1));
        }
        return fields.label() == null ? record : record.withValue(Preferences.label(raw, fields.label()));
    }

    /** A text with what is to be said of it, lists as they are written. */
    private static DataRecord labelled(Raw raw, DataFields fields) {
        JsonNode label = raw.fields().get(fields.label());
        String said = label != null && label.isArray()
                ? label.toString()
                : text(raw, fields.label(), true).strip();
        if (said.isEmpty()) {
            throw new DataException(raw.where() + ": field \"" + fields.label() + "\" is empty; a label is meant");
        }
        String second = fields.input() == null ? "" : text(raw, fields.input(), true);
        return new DataRecord("", text(raw, fields.prompt(), true), second, said, null, raw.line());
    }

    private static DataRecord answer(Raw raw, DataFields fields) {
        String system = text(raw, fields.system(), false);
        if (fields.isConversation()) {
            Conversation conversation =
                    Conversations.parse(raw, fields.messages(), raw.fields().get(fields.messages()));
            return new DataRecord(system, null, "", "", conversation, raw.line());
        }
        if (!fields.isText() && Conversations.isMessages(raw.fields().get(fields.prompt()))) {
            return new DataRecord(system, null, "", "", Conversations.parse(raw, fields), raw.line());
        }
        String prompt = fields.isText() ? null : text(raw, fields.prompt(), true);
        String input = fields.input() == null ? "" : text(raw, fields.input(), false);
        String response = fields.response() == null ? "" : text(raw, fields.response(), true);
        DataRecord record = new DataRecord(fields.isText() ? "" : system, prompt, input, response, null, raw.line());
        return fields.history() == null ? record : record.after(Conversations.history(raw, fields.history()));
    }

    /** Pairs, that is: a field of that name may also be about the past. */
    private static boolean hasHistory(Raw raw, DataFields fields) {
        JsonNode history = raw.fields().get(DataFields.KNOWN_HISTORY);
        if (history == null || fields.isText() || fields.isConversation() || fields.isPairs()) {
            return false;
        }
        return history.isTextual()
                ? history.asText().strip().startsWith("[[")
                : history.path(0).isArray();
    }

    private static DataFields choose(Raw first, FieldNames given, RecordKind kind) {
        DataFields fields = chooseWithoutWeight(first, given, kind);
        if (kind != RecordKind.ANSWERS) {
            return fields.withWeight(null);
        }
        if (given.weight() != null) {
            return fields.withWeight(blankToNull(given.weight()));
        }
        // A field of that name may also be about something else, such as what is weighed.
        JsonNode weight = first.fields().get(DataFields.KNOWN_WEIGHT);
        boolean isOther = weight != null
                && !weight.isNull()
                && !weight.asText("-").isBlank()
                && Double.isNaN(weight.asDouble(Double.NaN));
        return isOther ? fields.withWeight(null) : fields;
    }

    private static DataFields chooseWithoutWeight(Raw first, FieldNames given, RecordKind kind) {
        List<String> present = names(first.fields());
        for (String named : new String[] {
            given.prompt(), given.response(), given.messages(), given.text(), blankToNull(given.weight())
        }) {
            if (named != null && !present.contains(named)) {
                throw missing(first, named);
            }
        }
        if (kind == RecordKind.PAIRS) {
            return DataFields.detectPairs(present, given)
                    .orElseThrow(() -> new DataException(first.where() + ": no pair of answers; found "
                            + quoted(present) + ", meant chosen and rejected, with a prompt or each with its own"))
                    .with(given);
        }
        if (kind == RecordKind.PROMPTS) {
            return DataFields.detectPrompts(present, given)
                    .orElseThrow(() -> new DataException(first.where() + ": nothing is asked; found " + quoted(present)
                            + ", meant prompt, instruction, question or messages"))
                    .with(given);
        }
        if (kind == RecordKind.CLASSES) {
            for (String named : new String[] {given.label(), given.textPair()}) {
                if (named != null && !present.contains(named)) {
                    throw missing(first, named);
                }
            }
            return DataFields.detectClasses(present, given)
                    .orElseThrow(() -> new DataException(first.where() + ": no text with a label; found "
                            + quoted(present) + ", meant text or sentence, and label; name the text field and the label"
                            + " field"));
        }
        if (kind == RecordKind.LABELLED) {
            if (!present.contains("label")) {
                throw missing(first, "label");
            }
            return chooseWithoutWeight(first, given, RecordKind.ANSWERS).withLabel();
        }
        if (given.text() != null) {
            return DataFields.text(given.text());
        }
        if (given.messages() != null) {
            return DataFields.conversation(given.messages()).with(given);
        }
        if (given.prompt() == null && given.response() == null) {
            DataFields found = DataFields.detect(present).orElseThrow(() -> unknownFields(first, present));
            boolean isTrl = !found.isConversation()
                    && !found.isText()
                    && Conversations.isMessages(first.fields().get(found.prompt()));
            return (isTrl ? new DataFields(found.prompt(), null, found.response()) : found).with(given);
        }
        String prompt = given.prompt() != null
                ? given.prompt()
                : DataFields.detectPrompt(present).orElseThrow(() -> otherHalf(first, present, "prompt"));
        String response = given.response() != null
                ? given.response()
                : DataFields.detectResponse(present).orElseThrow(() -> otherHalf(first, present, "response"));
        if (prompt.equals(response)) {
            throw new DataException("field \"" + prompt + "\" cannot be both prompt and response");
        }
        return new DataFields(prompt, DataFields.inputBeside(prompt, present), response).with(given);
    }

    private static String blankToNull(String text) {
        return text == null || text.isEmpty() ? null : text;
    }

    private static DataException unknownFields(Raw first, List<String> present) {
        if (present.contains(DataFields.CHOSEN) && present.contains(DataFields.REJECTED)) {
            return new DataException(first.where() + " is a pair of a chosen and a rejected answer; it is learned from"
                    + " with an objective for pairs, such as dpo");
        }
        return new DataException(first.where() + ": no known pair of fields; found " + quoted(present) + ", meant "
                + DataFields.knownInWords() + "; name the prompt field and the response field");
    }

    private static DataException otherHalf(Raw first, List<String> present, String half) {
        return new DataException(first.where() + ": which field holds the " + half + "? Found " + quoted(present)
                + "; name it with --" + half + "-field");
    }

    private static DataException missing(Raw raw, String field) {
        List<String> present = names(raw.fields());
        String near = present.stream()
                .filter(name -> isNear(name, field))
                .findFirst()
                .map(name -> "; did you mean \"" + name + "\"?")
                .orElse("");
        return new DataException(raw.where() + ": no field \"" + field + "\"; found " + quoted(present) + near);
    }

    /** Text of a field. Numbers and truth values are taken as they are written. */
    private static String text(Raw raw, String field, boolean required) {
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

    static List<String> names(JsonNode object) {
        Iterable<String> names = object::fieldNames;
        return StreamSupport.stream(names.spliterator(), false).toList();
    }

    static String quoted(List<String> names) {
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
