package dev.lorica;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.BooleanNode;
import com.fasterxml.jackson.databind.node.ContainerNode;
import com.fasterxml.jackson.databind.node.DoubleNode;
import com.fasterxml.jackson.databind.node.IntNode;
import com.fasterxml.jackson.databind.node.LongNode;
import com.fasterxml.jackson.databind.node.NullNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import java.io.ByteArrayOutputStream;
import java.io.IOException;
import java.io.UncheckedIOException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.SplittableRandom;

/** Sound files, changed at random, and the same way each time. */
final class Mutator {
    private static final long[] EXTREMES = {
        0,
        1,
        2,
        7,
        8,
        31,
        127,
        255,
        256,
        65535,
        Integer.MAX_VALUE,
        1L << 31,
        (1L << 32) - 1,
        1L << 32,
        1L << 61,
        Long.MIN_VALUE,
        -1
    };
    /** Put in the place of values and names of JSON. */
    private static final String[] JSON = {
        "0",
        "-1",
        "1e999",
        "-0.0",
        "2147483648",
        "9223372036854775808",
        "1e-400",
        "0.5",
        "\"\"",
        "\"q_proj\"",
        "null",
        "true",
        "[]",
        "{}",
        "[[]]",
        "{\"a\":1}",
        "\"\\u0000\"",
        "\"\\ud800\"",
        "\"..\\/..\\/x\"",
        "99999999",
        "16777215",
        "NaN",
        "[1,2,3,4,5,6,7,8,9]",
        ",",
        ":",
        "\"",
        "]",
        "}",
        "[".repeat(2000),
        "{\"a\":".repeat(600),
        "\"" + "x".repeat(5000) + "\"",
        "1".repeat(3000)
    };

    private static final JsonMapper MAPPER = new JsonMapper();

    private final List<byte[]> corpus;
    private final boolean json;

    /** @param json whether every other input is to be whole JSON, in which values are others, away, or elsewhere too */
    Mutator(List<byte[]> corpus, boolean json) {
        this.corpus = corpus;
        this.json = json;
    }

    /** Input {@code i} of the endless list: one of the corpus with 1 to 5 changes. */
    byte[] input(long i) {
        SplittableRandom random = new SplittableRandom(i * 0x9E3779B97F4A7C15L);
        byte[] data = corpus.get(random.nextInt(corpus.size()));
        byte[] other = corpus.get(random.nextInt(corpus.size()));
        if (json && i % 2 == 0) {
            return whole(random, data);
        }
        for (int n = 1 + random.nextInt(5); n > 0; n--) {
            data = change(random, data, other);
        }
        return data;
    }

    private static byte[] whole(SplittableRandom random, byte[] data) {
        try {
            JsonNode tree = MAPPER.readTree(data);
            for (int n = 1 + random.nextInt(3); n > 0; n--) {
                List<ContainerNode<?>> places = new ArrayList<>();
                collect(tree, places);
                change(random, places.get(random.nextInt(places.size())));
            }
            return MAPPER.writeValueAsBytes(tree);
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** What has something in it. */
    private static void collect(JsonNode node, List<ContainerNode<?>> places) {
        if (node instanceof ContainerNode<?> container) {
            places.add(container);
            node.forEach(child -> collect(child, places));
        }
    }

    private static void change(SplittableRandom random, ContainerNode<?> place) {
        if (place instanceof ArrayNode array) {
            if (array.isEmpty() || random.nextInt(4) == 0) {
                array.add(other(random, IntNode.valueOf(1)));
            } else if (random.nextInt(3) == 0) {
                array.remove(random.nextInt(array.size()));
            } else {
                int at = random.nextInt(array.size());
                array.set(at, other(random, array.get(at)));
            }
            return;
        }
        ObjectNode object = (ObjectNode) place;
        List<String> names = new ArrayList<>();
        object.fieldNames().forEachRemaining(names::add);
        if (names.isEmpty() || random.nextInt(6) == 0) {
            object.put("name_of_nothing", random.nextInt());
            return;
        }
        String name = names.get(random.nextInt(names.size()));
        switch (random.nextInt(4)) {
            case 0 -> object.remove(name);
            case 1 -> object.set(name, object.get(names.get(random.nextInt(names.size()))));
            default -> object.set(name, other(random, object.get(name)));
        }
    }

    /** A value near to this one, or far from it. */
    private static JsonNode other(SplittableRandom random, JsonNode value) {
        if (value.isBoolean() && random.nextInt(4) > 0) {
            return BooleanNode.valueOf(!value.asBoolean());
        }
        if (value.isNumber() && random.nextInt(4) > 0) {
            double number = value.asDouble();
            double[] near = {number + 1, number - 1, 2 * number, number / 2, -number, 0, 1e30};
            double chosen = near[random.nextInt(near.length)];
            return value.isIntegralNumber() ? LongNode.valueOf((long) chosen) : DoubleNode.valueOf(chosen);
        }
        return switch (random.nextInt(6)) {
            case 0 -> NullNode.instance;
            case 1 -> TextNode.valueOf(value.asText() + "x");
            case 2 -> LongNode.valueOf(EXTREMES[random.nextInt(EXTREMES.length)]);
            case 3 -> MAPPER.createArrayNode().add(value);
            case 4 -> MAPPER.createObjectNode().set("a", value);
            default -> TextNode.valueOf("");
        };
    }

    private static byte[] change(SplittableRandom random, byte[] data, byte[] other) {
        if (data.length == 0) {
            return new byte[] {(byte) random.nextInt(256)};
        }
        byte[] changed = data.clone();
        // Headers are small and data are not.
        int at = random.nextInt(random.nextBoolean() ? Math.min(data.length, 2048) : data.length);
        int end = Math.min(data.length, at + 1 + random.nextInt(random.nextInt(4) == 0 ? 256 : 12));
        switch (random.nextInt(11)) {
            case 0 -> changed[at] ^= (byte) (1 << random.nextInt(8));
            case 1 -> changed[at] = (byte) random.nextInt(256);
            case 2 -> {
                long value = EXTREMES[random.nextInt(EXTREMES.length)];
                for (int i = 0; i < 1 << random.nextInt(4) && at + i < data.length; i++) {
                    changed[at + i] = (byte) (value >>> 8 * i);
                }
            }
            case 3 -> {
                return splice(data, at, end, new byte[0]);
            }
            case 4 -> {
                return splice(data, at, at, Arrays.copyOfRange(data, at, end));
            }
            case 5 -> {
                int from = other.length == 0 ? 0 : random.nextInt(other.length);
                return splice(data, at, end, Arrays.copyOfRange(other, from, Math.min(other.length, from + end - at)));
            }
            case 6, 7, 8 -> {
                // A value of JSON, or what would be one.
                int begin = boundary(data, at);
                return splice(
                        data,
                        begin,
                        boundary(data, begin),
                        JSON[random.nextInt(JSON.length)].getBytes(StandardCharsets.UTF_8));
            }
            case 9 -> {
                if (random.nextInt(4) == 0) {
                    return Arrays.copyOf(data, at);
                }
                changed[at] = (byte) (random.nextBoolean() ? 0 : 0xff);
            }
            default -> {
                int with = random.nextInt(data.length);
                for (int i = 0; at + i < end && with + i < data.length; i++) {
                    byte kept = changed[at + i];
                    changed[at + i] = changed[with + i];
                    changed[with + i] = kept;
                }
            }
        }
        return changed;
    }

    /** Behind the next of {@code : , [ {}, or the end. */
    private static int boundary(byte[] data, int from) {
        for (int i = from; i < data.length && i < from + 400; i++) {
            if (data[i] == ':' || data[i] == ',' || data[i] == '[' || data[i] == '{') {
                return i + 1;
            }
        }
        return Math.min(data.length, from + 1);
    }

    private static byte[] splice(byte[] data, int begin, int end, byte[] middle) {
        ByteArrayOutputStream result = new ByteArrayOutputStream(data.length + middle.length);
        result.write(data, 0, begin);
        result.writeBytes(middle);
        result.write(data, Math.max(begin, end), data.length - Math.max(begin, end));
        return result.toByteArray();
    }
}
