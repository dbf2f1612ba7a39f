package dev.lorica.grammar;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.networknt.schema.JsonSchemaFactory;
import com.networknt.schema.SpecVersion;
import dev.lorica.TestModels;
import dev.lorica.Tokenizer;
import java.io.ByteArrayOutputStream;
import java.nio.ByteBuffer;
import java.nio.charset.CharacterCodingException;
import java.nio.charset.CodingErrorAction;
import java.nio.charset.StandardCharsets;
import java.util.List;
import java.util.Map;
import java.util.SplittableRandom;
import java.util.stream.IntStream;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.MethodSource;

/** Texts drawn at random from the tokens that are allowed, next to a validator of schemas. */
class JsonSchemaTest {
    private static final ObjectMapper MAPPER = new ObjectMapper();
    private static Tokenizer tokenizer;
    private static TokenMask.Vocabulary vocabulary;
    private static byte[][] bytes;

    @BeforeAll
    static void load() {
        tokenizer = Tokenizer.load(TestModels.austen());
        vocabulary = new TokenMask.Vocabulary(tokenizer, tokenizer.info().vocabSize());
        bytes = IntStream.range(0, tokenizer.info().vocabSize())
                .mapToObj(tokenizer::tokenBytes)
                .toArray(byte[][]::new);
    }

    @AfterAll
    static void close() {
        tokenizer.close();
    }

    static Stream<String> schemas() {
        return Stream.of(
                        "{}",
                        "true",
                        "{'type': 'string'}",
                        "{'type': 'string', 'minLength': 3, 'maxLength': 5}",
                        "{'maxLength': 0}",
                        "{'type': 'integer'}",
                        "{'type': 'integer', 'minimum': -17, 'maximum': 205}",
                        "{'type': 'integer', 'exclusiveMinimum': 99, 'exclusiveMaximum': 101}",
                        "{'type': 'integer', 'minimum': 6.5}",
                        "{'type': 'number'}",
                        "{'type': ['boolean', 'null', 'integer'], 'maximum': 3}",
                        "{'enum': ['a', 'ä\\\"', 3, null, [1, {'x': 2}]]}",
                        "{'type': 'string', 'enum': ['a', 5]}",
                        "{'const': {'a': [1.5, true]}}",
                        "{'type': 'array', 'items': {'type': 'boolean'}, 'minItems': 2, 'maxItems': 3}",
                        "{'type': 'array', 'maxItems': 0}",
                        "{'items': {'type': 'integer'}}",
                        "{'type': 'object'}",
                        "{'additionalProperties': {'type': 'integer'}}",
                        "{'type': 'object', 'additionalProperties': false}",
                        "{'type': 'object', 'properties': {'name': {'type': 'string', 'maxLength': 9}, 'age': {'type': 'integer', 'minimum': 0},"
                                + " 'tags': {'type': 'array', 'items': {'enum': ['x', 'y']}}}, 'required': ['name', 'age'], 'additionalProperties': false}",
                        "{'type': 'object', 'properties': {'a': {'type': 'null'}, 'b': {}, 'c': {'type': 'null'}}}",
                        "{'type': 'object', 'properties': {'a/b~c': {'const': 1}}, 'required': ['a/b~c', 'other']}",
                        "{'anyOf': [{'type': 'integer'}, {'type': 'object', 'properties': {'a': {'$ref': '#'}}, 'required': ['a']}]}",
                        "{'$defs': {'tree': {'type': 'object', 'title': 'Tree', 'properties': {'value': {'type': 'integer'},"
                                + " 'left': {'anyOf': [{'$ref': '#/$defs/tree'}, {'type': 'null'}]}, 'children': {'type': 'array', 'items': {'$ref': '#/$defs/tree'}}},"
                                + " 'required': ['value', 'left', 'children'], 'additionalProperties': false}}, '$ref': '#/$defs/tree'}")
                .map(schema -> schema.replace('\'', '"'));
    }

    /** All that is allowed as likely, or what goes on as if each byte were. */
    private static String draw(TokenMask mask, int most, SplittableRandom random, boolean short_) {
        TokenMask.Text text = mask.text();
        ByteArrayOutputStream written = new ByteArrayOutputStream();
        for (int left = most; left > 0 && !text.isOver(); left--) {
            float[] logits = new float[bytes.length];
            text.mask(logits, left);
            int best = -1;
            double highest = Double.NEGATIVE_INFINITY;
            for (int id = 0; id < logits.length; id++) {
                double value = logits[id] + random.nextDouble() - (short_ ? bytes[id].length : 0);
                if (value > highest) {
                    highest = value;
                    best = id;
                }
            }
            assertThat(best).as("something is allowed behind %s", written).isNotNegative();
            if (tokenizer.isEndOfGeneration(best)) {
                break;
            }
            written.writeBytes(bytes[best]);
            text.accept(bytes[best]);
        }
        try {
            return StandardCharsets.UTF_8
                    .newDecoder()
                    .onMalformedInput(CodingErrorAction.REPORT)
                    .decode(ByteBuffer.wrap(written.toByteArray()))
                    .toString();
        } catch (CharacterCodingException e) {
            throw new AssertionError("not UTF-8: " + written, e);
        }
    }

    @ParameterizedTest
    @MethodSource("schemas")
    void whateverIsDrawnIsValidHoweverFewTokensThereAre(String schema) throws Exception {
        TokenMask mask = JsonSchema.of(schema, vocabulary);
        com.networknt.schema.JsonSchema validator =
                JsonSchemaFactory.getInstance(SpecVersion.VersionFlag.V202012).getSchema(schema);
        for (int seed = 0; seed < 12; seed++) {
            int most = mask.shortest() + new int[] {0, 1, 7, 60}[seed % 4];
            String text = draw(mask, most, new SplittableRandom(seed), seed % 3 == 0);
            JsonNode json = MAPPER.readTree(text);
            assertThat(validator.validate(json)).as("%s of %s", text, schema).isEmpty();
        }
    }

    @Test
    void anyObjectIsAnObject() throws Exception {
        TokenMask mask = JsonSchema.anyObject(vocabulary);
        assertThat(mask.shortest()).isEqualTo(2);
        for (int seed = 0; seed < 20; seed++) {
            String text = draw(mask, 2 + seed * 3, new SplittableRandom(seed), seed % 2 == 0);
            assertThat(MAPPER.readTree(text).isObject()).as(text).isTrue();
        }
    }

    private static boolean isAllowed(TokenMask mask, String json) {
        TokenMask.Text text = mask.text();
        for (byte one : json.getBytes(StandardCharsets.UTF_8)) {
            float[] logits = new float[bytes.length];
            text.mask(logits, 10_000);
            int id = IntStream.range(0, bytes.length)
                    .filter(i -> bytes[i].length == 1 && bytes[i][0] == one && !tokenizer.isControl(i))
                    .findFirst()
                    .orElseThrow();
            if (logits[id] != 0) {
                return false;
            }
            text.accept(bytes[id]);
        }
        float[] logits = new float[bytes.length];
        text.mask(logits, 10_000);
        return text.isOver() || logits[tokenizer.info().eos()] == 0;
    }

    @Test
    void whatModelsWriteIsAllowedAndWhatIsInvalidIsNot() {
        String schema =
                "{\"properties\": {\"name\": {\"type\": \"string\"}, \"age\": {\"type\": \"integer\", \"minimum\": -5, \"maximum\": 120}, \"is\": {\"type\": \"array\"}}, \"required\": [\"name\"]}";
        Map<String, Boolean> texts = Map.ofEntries(
                Map.entry("{\"name\": \"Mr. Collins\", \"age\": 25, \"is\": [1, \"a\", null]}", true),
                Map.entry("{\"name\":\"Zoë \\u00e9\\n😀\"}", true),
                Map.entry("{\n  \"name\": \"\",\n  \"is\": []\n}", true),
                Map.entry("{\"name\": \"x\", \"age\": -5}", true),
                Map.entry("{\"name\": \"x\", \"age\": 120}", true),
                Map.entry("{\"name\": \"x\", \"age\": -6}", false),
                Map.entry("{\"name\": \"x\", \"age\": 121}", false),
                Map.entry("{\"name\": \"x\", \"age\": 012}", false),
                Map.entry("{\"name\": \"x\", \"age\": 1.5}", false),
                Map.entry("{\"age\": 3}", false),
                Map.entry("{\"name\": 3}", false),
                Map.entry("{\"name\": \"x\",}", false),
                Map.entry("{\"name\": \"x\n\"}", false),
                Map.entry("{\"name\": \"\\ud800\"}", false),
                Map.entry("[]", false),
                Map.entry("{}", false));
        TokenMask mask = JsonSchema.of(schema, vocabulary);
        texts.forEach(
                (text, allowed) -> assertThat(isAllowed(mask, text)).as(text).isEqualTo(allowed));
        assertThat(isAllowed(JsonSchema.of("{\"type\": \"number\"}", vocabulary), "-1.25e-7"))
                .isTrue();
    }

    @Test
    void namesRepeatOnlyWhereTheSchemaNamesNone() {
        String twice = "{\"a\": 1, \"a\": 2}";
        TokenMask named = JsonSchema.of("{\"properties\": {\"a\": {}, \"b\": {}}}", vocabulary);
        assertThat(isAllowed(named, "{\"a\": 1, \"b\": 2}")).isTrue();
        assertThat(isAllowed(named, twice)).isFalse();
        assertThat(isAllowed(named, "{\"b\": 1, \"a\": 2}"))
                .as("in their order")
                .isFalse();
        TokenMask required = JsonSchema.of("{\"required\": [\"a\"], \"additionalProperties\": {}}", vocabulary);
        assertThat(isAllowed(required, twice)).isFalse();
        assertThat(isAllowed(JsonSchema.anyObject(vocabulary), twice)).isTrue();
        assertThat(isAllowed(JsonSchema.of("{\"additionalProperties\": {\"type\": \"integer\"}}", vocabulary), twice))
                .isTrue();
    }

    @Test
    void deepTextsFindTheirWayOut() throws Exception {
        TokenMask mask = JsonSchema.of("{}", vocabulary);
        TokenMask.Text text = mask.text();
        StringBuilder written = new StringBuilder();
        int left = 5000;
        for (; left > 0 && !text.isOver(); left--) {
            float[] logits = new float[bytes.length];
            text.mask(logits, left);
            int best = 0;
            for (int id = 0; id < logits.length; id++) {
                boolean opens = bytes[id].length == 1 && bytes[id][0] == '[';
                logits[id] += opens ? 2 : bytes[id].length == 1 ? 1 : 0;
                best = logits[id] > logits[best] ? id : best;
            }
            if (tokenizer.isEndOfGeneration(best)) {
                break;
            }
            written.append(new String(bytes[best], StandardCharsets.ISO_8859_1));
            text.accept(bytes[best]);
        }
        assertThat(MAPPER.readTree(written.toString()).isArray()).isTrue();
        assertThat(written.toString()).startsWith("[".repeat(50));
    }

    @Test
    void whatIsNotObeyedIsRefusedByName() {
        for (String[] one : List.of(
                new String[] {"{'type': 'string', 'pattern': 'a+'}", "pattern is not supported for string"},
                new String[] {"{'type': 'string', 'format': 'date'}", "format"},
                new String[] {"{'properties': {'a': {'oneOf': [{}]}}}", "#/properties/a: oneOf"},
                new String[] {"{'allOf': [{}]}", "allOf"},
                new String[] {"{'type': 'number', 'minimum': 3}", "minimum is not supported for number"},
                new String[] {"{'type': 'array', 'uniqueItems': true}", "uniqueItems"},
                new String[] {"{'type': 'string', 'minItems': 3}", "minItems"},
                new String[] {"{'$ref': 'http://example.com'}", "$ref"},
                new String[] {"{'$ref': '#/$defs/none'}", "there is nothing there"},
                new String[] {
                    "{'$ref': '#/$defs/a', 'minLength': 2, '$defs': {'a': {}}}",
                    "minLength is not supported beside $ref"
                },
                new String[] {"{'type': 'text'}", "type is"},
                new String[] {"{'type': 'integer', 'minimum': 5, 'maximum': 4}", "no integer"},
                new String[] {"{'minLength': 5, 'maxLength': 4}", "no more than 4"},
                new String[] {"{'minLength': -1}", "minLength is -1"},
                new String[] {"{'properties': [], 'type': 'object'}", "properties must be an object"},
                new String[] {"{'required': ['a'], 'additionalProperties': false}", "required names \"a\""},
                new String[] {"{'type': 'string', 'enum': [3]}", "none of the values"},
                new String[] {"{'properties': {'a': {'$ref': '#'}}, 'required': ['a']}", "allows no text"},
                new String[] {"false", "allows nothing"},
                new String[] {"{'minLength': 1000000}", "too large"},
                new String[] {"{", "not JSON"})) {
            assertThatThrownBy(() -> JsonSchema.of(one[0].replace('\'', '"'), vocabulary))
                    .as(one[0])
                    .hasMessageContaining(one[1]);
        }
    }
}
