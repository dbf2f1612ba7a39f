package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.util.ArrayList;
import java.util.HashSet;
import java.util.Iterator;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** The fields of a request. Whoever has taken those that he knows says so, and what is left is refused by name. */
final class Fields {
    private final ObjectNode json;
    private final String prefix;
    private final Set<String> taken = new HashSet<>();

    Fields(ObjectNode json) {
        this(json, "");
    }

    /** @param prefix what stands before names in messages */
    Fields(ObjectNode json, String prefix) {
        this.json = json;
        this.prefix = prefix;
    }

    /** {@code null}: it is not given, or null. */
    JsonNode take(String name) {
        taken.add(name);
        JsonNode value = json.get(name);
        return value == null || value.isNull() ? null : value;
    }

    List<String> names() {
        List<String> names = new ArrayList<>();
        json.fieldNames().forEachRemaining(names::add);
        return names;
    }

    String text(String name) {
        JsonNode value = take(name);
        if (value != null && !value.isTextual()) {
            throw wrong(name, value, "a string");
        }
        return value == null ? null : value.asText();
    }

    String requiredText(String name) {
        String text = text(name);
        if (text == null) {
            throw missing(name);
        }
        return text;
    }

    /** {@code null}: not given. */
    Integer integer(String name, int least, int most) {
        JsonNode value = take(name);
        if (value == null) {
            return null;
        }
        if (!value.isIntegralNumber() || !value.canConvertToInt() || value.asInt() < least || value.asInt() > most) {
            throw wrong(name, value, "a whole number from " + least + " to " + most);
        }
        return value.asInt();
    }

    int integer(String name, int least, int most, int otherwise) {
        Integer value = integer(name, least, most);
        return value == null ? otherwise : value;
    }

    double number(String name, double least, double most, double otherwise) {
        JsonNode value = take(name);
        if (value == null) {
            return otherwise;
        }
        if (!value.isNumber() || !(value.asDouble() >= least && value.asDouble() <= most)) {
            throw wrong(name, value, "a number from " + least + " to " + most);
        }
        return value.asDouble();
    }

    boolean flag(String name, boolean otherwise) {
        JsonNode value = take(name);
        if (value != null && !value.isBoolean()) {
            throw wrong(name, value, "true or false");
        }
        return value == null ? otherwise : value.asBoolean();
    }

    /** {@code null}: not given. */
    Fields object(String name) {
        JsonNode value = take(name);
        if (value == null) {
            return null;
        }
        if (value instanceof ObjectNode object) {
            return new Fields(object, prefix + name + ".");
        }
        throw wrong(name, value, "an object");
    }

    /** Says nothing of what comes out. */
    void ignore(String... names) {
        taken.addAll(Set.of(names));
    }

    /** Taken with these values, which ask for what is done anyway, and refused with others. */
    void only(String name, String meant, JsonNode... values) {
        JsonNode value = take(name);
        if (value != null && !Set.of(values).contains(value)) {
            throw ApiException.field(
                    prefix + name,
                    "unsupported_value",
                    prefix + name + " is " + shown(value) + ", which is not supported; " + meant);
        }
    }

    /** Refuses what nobody has taken. */
    void end() {
        for (Iterator<Map.Entry<String, JsonNode>> all = json.fields(); all.hasNext(); ) {
            Map.Entry<String, JsonNode> field = all.next();
            if (!taken.contains(field.getKey()) && !field.getValue().isNull()) {
                String name = prefix + cut(field.getKey());
                throw ApiException.field(name, "unsupported_parameter", name + " is not supported");
            }
        }
    }

    ApiException missing(String name) {
        return ApiException.field(prefix + name, "missing_required_parameter", prefix + name + " is missing");
    }

    ApiException wrong(String name, JsonNode value, String meant) {
        return ApiException.field(
                prefix + name, "invalid_value", prefix + name + " is " + shown(value) + "; it must be " + meant);
    }

    private static String shown(JsonNode value) {
        return cut(value.toString());
    }

    private static String cut(String text) {
        return text.length() <= 80 ? text : text.substring(0, 80) + "…";
    }
}
