package dev.lorica.internal.json;

import com.fasterxml.jackson.annotation.JsonSubTypes;
import com.fasterxml.jackson.annotation.JsonTypeInfo;
import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.core.type.TypeReference;
import com.fasterxml.jackson.databind.DeserializationFeature;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.MapperFeature;
import com.fasterxml.jackson.databind.PropertyNamingStrategies;
import com.fasterxml.jackson.databind.SerializationFeature;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TextTemplate;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.util.Map;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Records as JSON, in the files of an adapter and of a checkpoint: names in snake case, enums in the lower case of their names. */
public final class Json {
    private static final Logger LOG = LoggerFactory.getLogger(Json.class);

    public static final JsonMapper MAPPER = JsonMapper.builder()
            .propertyNamingStrategy(PropertyNamingStrategies.SNAKE_CASE)
            .disable(DeserializationFeature.FAIL_ON_UNKNOWN_PROPERTIES)
            .enable(MapperFeature.ACCEPT_CASE_INSENSITIVE_ENUMS)
            .enable(SerializationFeature.WRITE_ENUMS_USING_TO_STRING)
            .enable(DeserializationFeature.READ_ENUMS_USING_TO_STRING)
            .enable(SerializationFeature.INDENT_OUTPUT)
            .addMixIn(PromptTemplate.class, OneOfItsKinds.class)
            .build();

    /** Which kind of template it is, its fields say. */
    @JsonTypeInfo(use = JsonTypeInfo.Id.DEDUCTION)
    @JsonSubTypes({@JsonSubTypes.Type(TextTemplate.class), @JsonSubTypes.Type(ChatTemplate.class)})
    private interface OneOfItsKinds {}

    private Json() {}

    /** Reads settings of which an older version may not have known all: what is missing is as in {@code defaults}. */
    @SuppressWarnings("unchecked")
    public static <T> T withDefaults(JsonNode json, T defaults) throws JacksonException {
        if (json == null || json.isNull()) {
            return null;
        }
        ObjectNode all = MAPPER.valueToTree(defaults);
        json.fields().forEachRemaining(field -> all.set(field.getKey(), field.getValue()));
        return (T) MAPPER.treeToValue(all, defaults.getClass());
    }

    /** A record as names and values, which are what is read when that was written as JSON. */
    public static Map<String, Object> toMap(Object value) {
        try {
            return MAPPER.readValue(MAPPER.writeValueAsBytes(value), new TypeReference<Map<String, Object>>() {});
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** What {@link #toMap} took apart. {@code null} for {@code null}, and for what another version wrote and this cannot read. */
    public static <T> T ofMap(Map<String, Object> map, Class<T> type, T defaults) {
        try {
            JsonNode json = MAPPER.valueToTree(map);
            return map == null
                    ? null
                    : defaults == null ? MAPPER.treeToValue(json, type) : withDefaults(json, defaults);
        } catch (JacksonException e) {
            LOG.warn("{} is not understood and left aside: {}", type.getSimpleName(), e.getOriginalMessage());
            return null;
        }
    }
}
