package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import dev.lorica.Model;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.grammar.JsonSchema;
import dev.lorica.grammar.TokenMask;
import java.util.LinkedHashMap;
import java.util.Map;

/** {@code response_format}: what answers must be, held by masking tokens. */
final class ResponseFormats {
    /** Schemas that are kept compiled, with what was found of them. */
    private static final int MOST_KEPT = 16;

    private final Model model;
    /** By the schema; made when it is first wanted. */
    private final Map<String, TokenMask> masks = new LinkedHashMap<>(16, 0.75f, true) {
        @Override
        protected boolean removeEldestEntry(Map.Entry<String, TokenMask> eldest) {
            return size() > MOST_KEPT;
        }
    };

    private TokenMask.Vocabulary vocabulary;

    ResponseFormats(Model model) {
        this.model = model;
    }

    /** {@code null}: any text. */
    TokenMask of(Fields fields) {
        Fields format = fields.object("response_format");
        if (format == null) {
            return null;
        }
        String type = format.requiredText("type");
        TokenMask mask =
                switch (type) {
                    case "text" -> null;
                    case "json_object" -> mask("");
                    case "json_schema" -> ofSchema(format);
                    default ->
                        throw ApiException.field(
                                "response_format.type",
                                "response_format.type is " + (type.length() > 80 ? type.substring(0, 80) : type)
                                        + "; it must be text, json_object or json_schema");
                };
        format.end();
        return mask;
    }

    private TokenMask ofSchema(Fields format) {
        Fields named = format.object("json_schema");
        if (named == null) {
            throw format.missing("json_schema");
        }
        named.ignore("name", "description", "strict"); // it is always kept
        JsonNode schema = named.take("schema");
        if (schema == null) {
            throw named.missing("schema");
        }
        named.end();
        return mask(schema.toString());
    }

    /** @param schema empty: any object */
    private synchronized TokenMask mask(String schema) {
        TokenMask known = masks.get(schema);
        if (known != null) {
            return known;
        }
        if (vocabulary == null) {
            vocabulary =
                    new TokenMask.Vocabulary(model.tokenizer(), model.info().vocabSize());
        }
        try {
            TokenMask mask = schema.isEmpty() ? JsonSchema.anyObject(vocabulary) : JsonSchema.of(schema, vocabulary);
            masks.put(schema, mask);
            return mask;
        } catch (InvalidArgumentException e) {
            throw ApiException.field("response_format", e.getMessage());
        }
    }
}
