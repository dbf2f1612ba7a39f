package dev.lorica.grammar;

import com.fasterxml.jackson.core.JsonPointer;
import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.JsonNodeFactory;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.grammar.Grammar.Node;
import dev.lorica.grammar.Grammar.Rule;
import dev.lorica.internal.Arguments;
import java.math.BigDecimal;
import java.math.RoundingMode;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.HashMap;
import java.util.LinkedHashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;

/**
 * Grammars of JSON texts that are valid by a schema (json-schema.org, draft 2020-12). What is written is a part of what is valid: an
 * object has the properties that its schema names, in their order and each once at most, and others only where it names none; there
 * a name may come twice, which JSON allows (RFC 8259, section 4: names "should" be unique); numbers are of at most 18 digits; between two tokens of JSON stands at most a space, or a line break with what indents the next line.
 *
 * <p>Obeyed are {@code type}, {@code properties}, {@code required}, {@code additionalProperties}, {@code items}, {@code minItems},
 * {@code maxItems}, {@code minLength}, {@code maxLength}, {@code minimum}, {@code maximum}, {@code exclusiveMinimum} and
 * {@code exclusiveMaximum} of integers, {@code enum}, {@code const}, {@code anyOf}, {@code $ref} within the schema and {@code $defs}; what
 * only describes is passed over, and all else is refused by name.
 */
public final class JsonSchema {
    private static final ObjectMapper MAPPER = JsonMapper.builder().build();
    private static final Set<String> DESCRIBING = Set.of(
            "title",
            "description",
            "default",
            "examples",
            "deprecated",
            "readOnly",
            "writeOnly",
            "$schema",
            "$id",
            "$comment",
            "$defs",
            "definitions");
    private static final Set<String> OF_OBJECTS = Set.of("properties", "required", "additionalProperties");
    private static final Set<String> OF_ARRAYS = Set.of("items", "minItems", "maxItems");
    private static final Set<String> OF_STRINGS = Set.of("minLength", "maxLength");
    private static final Set<String> OF_NUMBERS = Set.of("minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum");
    private static final List<String> TYPES =
            List.of("object", "array", "string", "number", "integer", "boolean", "null");
    private static final int DIGITS = 18;
    private static final int INDENT = 24;

    private final JsonNode root;
    private final Grammar grammar = new Grammar();
    private final Map<String, Rule> rules = new HashMap<>();
    private final Rule space = new Rule();
    private final Rule character = new Rule();
    private final Rule string = new Rule();
    private final Rule number = new Rule();
    private final Rule value = new Rule();
    private final Rule object = new Rule();
    private final Rule array = new Rule();

    private JsonSchema(JsonNode root) {
        this.root = root;
        space.begin = space();
        character.begin = character();
        string.begin = grammar.text("\"", grammar.repeat(character, 0, -1, grammar.text("\"", grammar.end())));
        number.begin = number();
        object.begin = object(value);
        array.begin = array(value, 0, -1);
        Node end = grammar.end();
        value.begin = grammar.choice(
                grammar.call(string, end),
                grammar.call(number, end),
                grammar.call(object, end),
                grammar.call(array, end),
                grammar.text("true", end),
                grammar.text("false", end),
                grammar.text("null", end));
    }

    /**
     * Allows what is valid by a schema.
     *
     * @param schema     the schema, as JSON text
     * @param vocabulary the tokens of the model that is to write
     * @return a mask for texts of that vocabulary
     * @throws InvalidArgumentException naming what is not obeyed or wrong, and where
     */
    public static TokenMask of(String schema, TokenMask.Vocabulary vocabulary) {
        Arguments.given(schema, "schema");
        Arguments.given(vocabulary, "vocabulary");
        JsonNode root;
        try {
            root = MAPPER.readTree(schema);
        } catch (JsonProcessingException e) {
            throw new InvalidArgumentException("the schema is not JSON: " + e.getOriginalMessage());
        }
        JsonSchema compiled = new JsonSchema(root);
        return new TokenMask(vocabulary, single -> compiled.grammar.begin(compiled.rule("#"), single));
    }

    /**
     * Allows any JSON object. A name in it may come twice, and most readers take what comes last.
     *
     * @param vocabulary the tokens of the model that is to write
     * @return a mask for texts of that vocabulary
     */
    public static TokenMask anyObject(TokenMask.Vocabulary vocabulary) {
        Arguments.given(vocabulary, "vocabulary");
        JsonSchema compiled = new JsonSchema(JsonNodeFactory.instance.objectNode());
        return new TokenMask(vocabulary, single -> compiled.grammar.begin(compiled.object, single));
    }

    private Rule rule(String where) {
        Rule known = rules.get(where);
        if (known == null) {
            known = new Rule();
            rules.put(where, known);
            known.begin = schema(where);
        }
        return known;
    }

    private Node call(Rule rule) {
        return grammar.call(rule, grammar.end());
    }

    private static InvalidArgumentException wrong(String where, String what) {
        return new InvalidArgumentException("the schema at " + where + ": " + what);
    }

    private Node schema(String where) {
        JsonNode schema = root.at(JsonPointer.compile(where.substring(1)));
        if (schema.isBoolean() && schema.asBoolean()) {
            return call(value);
        }
        if (!(schema instanceof ObjectNode fields)) {
            throw wrong(where, schema.isMissingNode() ? "there is nothing there" : schema + " allows nothing");
        }
        Set<String> words = new LinkedHashSet<>();
        fields.fieldNames().forEachRemaining(words::add);
        words.removeAll(DESCRIBING);
        if (words.contains("$ref")) {
            only(words, where, "$ref");
            return reference(where, fields.get("$ref"));
        }
        if (words.contains("anyOf")) {
            only(words, where, "anyOf");
            return anyOf(where, fields.get("anyOf"));
        }
        if (words.contains("const")) {
            only(words, where, "const", "type");
            return values(where, fields, List.of(fields.get("const")));
        }
        if (words.contains("enum")) {
            only(words, where, "enum", "type");
            if (!fields.get("enum").isArray()) {
                throw wrong(where, "enum must be a list of values");
            }
            List<JsonNode> values = new ArrayList<>();
            fields.get("enum").forEach(values::add);
            return values(where, fields, values);
        }
        Set<String> types = types(where, fields, words);
        Set<String> obeyed = new TreeSet<>(List.of("type"));
        List<Node> choices = new ArrayList<>();
        for (String type : types) {
            choices.add(type(where, fields, type, obeyed));
        }
        words.removeAll(obeyed);
        if (!words.isEmpty()) {
            throw wrong(
                    where,
                    words.iterator().next() + " is not supported"
                            + (types.isEmpty() ? "" : " for " + String.join(", ", types)));
        }
        return choices.isEmpty() ? call(value) : grammar.choice(choices);
    }

    private static void only(Set<String> words, String where, String... together) {
        for (String word : words) {
            if (!Arrays.asList(together).contains(word)) {
                throw wrong(where, word + " is not supported beside " + together[0]);
            }
        }
    }

    private Node reference(String where, JsonNode to) {
        if (!to.isTextual() || !to.asText().equals("#") && !to.asText().startsWith("#/")) {
            throw wrong(where, "$ref is " + to + "; it must lead into the schema itself: \"#/$defs/name\"");
        }
        return call(rule(to.asText()));
    }

    private Node anyOf(String where, JsonNode parts) {
        if (!parts.isArray() || parts.isEmpty()) {
            throw wrong(where, "anyOf must be a list of schemas");
        }
        List<Node> choices = new ArrayList<>();
        for (int i = 0; i < parts.size(); i++) {
            choices.add(call(rule(where + "/anyOf/" + i)));
        }
        return grammar.choice(choices);
    }

    private Node values(String where, ObjectNode fields, List<JsonNode> values) {
        Set<String> types = fields.has("type") ? types(where, fields, Set.of("type")) : Set.copyOf(TYPES);
        List<Node> choices = new ArrayList<>();
        for (JsonNode one : values) {
            if (isOf(one, types)) {
                choices.add(grammar.text(one.toString(), grammar.end()));
            }
        }
        if (choices.isEmpty()) {
            throw wrong(where, "none of the values is of the type");
        }
        return grammar.choice(choices);
    }

    private static boolean isOf(JsonNode one, Set<String> types) {
        boolean whole = one.isNumber()
                && (one.isIntegralNumber()
                        || one.decimalValue().stripTrailingZeros().scale() <= 0);
        return types.stream().anyMatch(type -> switch (type) {
            case "object" -> one.isObject();
            case "array" -> one.isArray();
            case "string" -> one.isTextual();
            case "number" -> one.isNumber();
            case "integer" -> whole;
            case "boolean" -> one.isBoolean();
            default -> one.isNull();
        });
    }

    /** Those that are said, or meant by the words that are there; none: any. */
    private static Set<String> types(String where, ObjectNode fields, Set<String> words) {
        Set<String> types = new LinkedHashSet<>();
        JsonNode given = fields.get("type");
        if (given == null) {
            Map<String, Set<String>> meant = new LinkedHashMap<>();
            meant.put("object", OF_OBJECTS);
            meant.put("array", OF_ARRAYS);
            meant.put("string", OF_STRINGS);
            meant.forEach((type, own) -> {
                if (own.stream().anyMatch(words::contains)) {
                    types.add(type);
                }
            });
            return types;
        }
        for (JsonNode one :
                given.isArray() ? given : JsonNodeFactory.instance.arrayNode().add(given)) {
            if (!one.isTextual() || !TYPES.contains(one.asText())) {
                throw wrong(where, "type is " + given + "; it must be of " + String.join(", ", TYPES));
            }
            types.add(one.asText());
        }
        if (types.isEmpty()) {
            throw wrong(where, "type is an empty list");
        }
        return types;
    }

    private Node type(String where, ObjectNode fields, String type, Set<String> obeyed) {
        switch (type) {
            case "object":
                obeyed.addAll(OF_OBJECTS);
                return objectOf(where, fields);
            case "array":
                obeyed.addAll(OF_ARRAYS);
                int most = count(where, fields, "maxItems", -1);
                return array(
                        fields.has("items") ? rule(where + "/items") : value,
                        least(where, fields, "minItems", most),
                        most);
            case "string":
                obeyed.addAll(OF_STRINGS);
                int longest = count(where, fields, "maxLength", -1);
                int shortest = least(where, fields, "minLength", longest);
                return grammar.text(
                        "\"", grammar.repeat(character, shortest, longest, grammar.text("\"", grammar.end())));
            case "integer":
                obeyed.addAll(OF_NUMBERS);
                return integer(where, fields);
            case "number":
                for (String word : OF_NUMBERS) {
                    if (fields.has(word)) {
                        throw wrong(where, word + " is not supported for number; it is for integer");
                    }
                }
                return call(number);
            case "boolean":
                return grammar.choice(grammar.text("true", grammar.end()), grammar.text("false", grammar.end()));
            default:
                return grammar.text("null", grammar.end());
        }
    }

    private static int count(String where, ObjectNode fields, String word, int otherwise) {
        JsonNode given = fields.get(word);
        if (given == null) {
            return otherwise;
        }
        if (!given.isIntegralNumber() || !given.canConvertToInt() || given.asInt() < 0) {
            throw wrong(where, word + " is " + given + "; it must be a whole number from 0");
        }
        return given.asInt();
    }

    private static int least(String where, ObjectNode fields, String word, int most) {
        int least = count(where, fields, word, 0);
        if (most >= 0 && least > most) {
            throw wrong(where, word + " is " + least + ", and there may be no more than " + most);
        }
        return least;
    }

    private Node objectOf(String where, ObjectNode fields) {
        JsonNode properties = fields.path("properties");
        if (!properties.isMissingNode() && !properties.isObject()) {
            throw wrong(where, "properties must be an object");
        }
        JsonNode additional = fields.path("additionalProperties");
        Rule other = additional.isMissingNode() || additional.isBoolean() && additional.asBoolean()
                ? value
                : additional.isBoolean() ? null : rule(where + "/additionalProperties");
        Map<String, Rule> members = new LinkedHashMap<>();
        properties
                .fieldNames()
                .forEachRemaining(name -> members.put(
                        name,
                        rule(where + "/properties/" + name.replace("~", "~0").replace("/", "~1"))));
        Set<String> required = new LinkedHashSet<>();
        JsonNode needed = fields.path("required");
        if (!needed.isMissingNode() && !needed.isArray()) {
            throw wrong(where, "required must be a list of names");
        }
        for (JsonNode name : needed) {
            required.add(name.asText());
            if (!members.containsKey(name.asText())) {
                if (other == null) {
                    throw wrong(where, "required names " + name + ", which is no property");
                }
                members.put(name.asText(), other);
            }
        }
        if (members.isEmpty() && other != null) {
            return object(other);
        }
        // From the last to the first: with nothing before them, and behind others.
        Node close = grammar.text("}", grammar.end());
        Node first = close;
        Node more = grammar.call(space, close);
        List<String> names = new ArrayList<>(members.keySet());
        for (int i = names.size() - 1; i >= 0; i--) {
            String name = names.get(i);
            Node own = grammar.text(
                    JsonNodeFactory.instance.textNode(name) + ":",
                    grammar.call(space, grammar.call(members.get(name), more)));
            Node behind = grammar.text(",", grammar.call(space, own));
            boolean must = required.contains(name);
            first = must ? own : grammar.choice(own, first);
            more = must ? behind : grammar.choice(behind, more);
        }
        return grammar.text("{", grammar.call(space, first));
    }

    /** With any names. */
    private Node object(Rule members) {
        Node close = grammar.text("}", grammar.end());
        Node again = grammar.later();
        Node member = grammar.call(string, grammar.text(":", grammar.call(space, grammar.call(members, again))));
        grammar.loop(again, grammar.text(",", grammar.call(space, member)), grammar.call(space, close));
        return grammar.text("{", grammar.call(space, grammar.choice(member, close)));
    }

    private Node array(Rule items, int least, int most) {
        Node close = grammar.text("]", grammar.end());
        if (most == 0) {
            return grammar.text("[", close);
        }
        Rule further = new Rule();
        further.begin = grammar.text(",", grammar.call(space, grammar.call(items, grammar.end())));
        Node rest =
                grammar.repeat(further, Math.max(0, least - 1), most < 0 ? -1 : most - 1, grammar.call(space, close));
        Node first = grammar.call(items, rest);
        return grammar.text("[", grammar.call(space, least == 0 ? grammar.choice(first, close) : first));
    }

    private Node space() {
        Rule one = new Rule();
        one.begin = grammar.anyOf(" ", grammar.end());
        return grammar.choice(
                grammar.end(),
                grammar.anyOf(" ", grammar.end()),
                grammar.anyOf("\n", grammar.repeat(one, 0, INDENT, grammar.end())));
    }

    /** A code point within a string: UTF-8 without what is no character (RFC 3629, section 4), or escaped. */
    private Node character() {
        Node end = grammar.end();
        BitSet plain = new BitSet();
        plain.set(0x20, 0x80);
        plain.clear('"');
        plain.clear('\\');
        Node last = grammar.range(0x80, 0xbf, end);
        Node lastTwo = grammar.range(0x80, 0xbf, last);
        String hex = "0123456789abcdefABCDEF";
        Node two = grammar.anyOf(hex, grammar.anyOf(hex, end));
        Node low = grammar.text("\\u", grammar.anyOf("dD", grammar.anyOf("cdefCDEF", two)));
        Node unicode = grammar.choice(
                grammar.anyOf("0123456789abcABCefEF", grammar.anyOf(hex, two)),
                grammar.anyOf(
                        "dD",
                        grammar.choice(
                                grammar.anyOf("01234567", two),
                                grammar.anyOf("89abAB", grammar.anyOf(hex, grammar.anyOf(hex, low))))));
        StringBuilder ascii = new StringBuilder();
        plain.stream().forEach(one -> ascii.append((char) one));
        return grammar.choice(
                grammar.anyOf(ascii.toString(), end),
                grammar.range(0xc2, 0xdf, last),
                grammar.range(0xe0, 0xe0, grammar.range(0xa0, 0xbf, last)),
                grammar.range(0xe1, 0xec, lastTwo),
                grammar.range(0xed, 0xed, grammar.range(0x80, 0x9f, last)),
                grammar.range(0xee, 0xef, lastTwo),
                grammar.range(0xf0, 0xf0, grammar.range(0x90, 0xbf, lastTwo)),
                grammar.range(0xf1, 0xf3, grammar.range(0x80, 0xbf, lastTwo)),
                grammar.range(0xf4, 0xf4, grammar.range(0x80, 0x8f, lastTwo)),
                grammar.text("\\", grammar.choice(grammar.anyOf("\"\\/bfnrt", end), grammar.text("u", unicode))));
    }

    private Node number() {
        Node end = grammar.end();
        Rule digit = new Rule();
        digit.begin = grammar.range('0', '9', end);
        Node exponent = grammar.choice(
                end,
                grammar.anyOf(
                        "eE",
                        grammar.choice(
                                grammar.anyOf("+-", grammar.repeat(digit, 1, 2, end)),
                                grammar.repeat(digit, 1, 2, end))));
        Node behind = grammar.choice(exponent, grammar.text(".", grammar.repeat(digit, 1, DIGITS, exponent)));
        Node magnitude = grammar.choice(
                grammar.text("0", behind), grammar.range('1', '9', grammar.repeat(digit, 0, DIGITS - 1, behind)));
        return grammar.choice(magnitude, grammar.text("-", magnitude));
    }

    private Node integer(String where, ObjectNode fields) {
        BigDecimal bound = BigDecimal.TEN.pow(DIGITS).subtract(BigDecimal.ONE);
        BigDecimal least = bound.negate();
        BigDecimal most = bound;
        for (String word : OF_NUMBERS) {
            JsonNode given = fields.get(word);
            if (given == null) {
                continue;
            }
            if (!given.isNumber()) {
                throw wrong(where, word + " is " + given + "; it must be a number");
            }
            boolean isLeast = word.toLowerCase(Locale.ROOT).contains("min");
            BigDecimal exact = given.decimalValue();
            BigDecimal whole = exact.setScale(0, isLeast ? RoundingMode.CEILING : RoundingMode.FLOOR);
            if (word.startsWith("exclusive") && whole.compareTo(exact) == 0) {
                whole = isLeast ? whole.add(BigDecimal.ONE) : whole.subtract(BigDecimal.ONE);
            }
            least = isLeast ? least.max(whole) : least;
            most = isLeast ? most : most.min(whole);
        }
        if (least.compareTo(most) > 0) {
            throw wrong(where, "no integer of " + DIGITS + " digits lies between its bounds");
        }
        long from = least.longValueExact();
        long to = most.longValueExact();
        List<Node> choices = new ArrayList<>();
        for (long low = Math.max(0, from); low <= to; ) {
            long high = Math.min(to, last(low));
            choices.add(between(Long.toString(low), Long.toString(high)));
            low = high + 1;
        }
        for (long low = Math.max(1, -to); low <= -from; ) {
            long high = Math.min(-from, last(low));
            choices.add(grammar.text("-", between(Long.toString(low), Long.toString(high))));
            low = high + 1;
        }
        return grammar.choice(choices);
    }

    /** The last number of as many digits. */
    private static long last(long number) {
        return Long.parseLong("9".repeat(Long.toString(number).length()));
    }

    /** The numbers between two of as many digits. */
    private Node between(String low, String high) {
        if (low.isEmpty()) {
            return grammar.end();
        }
        char a = low.charAt(0);
        char b = high.charAt(0);
        String rest = low.substring(1);
        String top = high.substring(1);
        String zeros = "0".repeat(rest.length());
        String nines = "9".repeat(rest.length());
        if (a == b) {
            return grammar.range(a, a, between(rest, top));
        }
        if (rest.equals(zeros) && top.equals(nines)) {
            return grammar.range(a, b, digits(rest.length()));
        }
        List<Node> choices = new ArrayList<>();
        choices.add(grammar.range(a, a, between(rest, nines)));
        choices.add(grammar.range(b, b, between(zeros, top)));
        if (b - a > 1) {
            choices.add(grammar.range(a + 1, b - 1, digits(rest.length())));
        }
        return grammar.choice(choices);
    }

    private Node digits(int n) {
        Node node = grammar.end();
        for (int i = 0; i < n; i++) {
            node = grammar.range('0', '9', node);
        }
        return node;
    }
}
