package dev.lorica.grammar;

import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.List;

/**
 * A language of bytes: rules that call each other, each a small machine without a memory of its own. Made of parts from their ends to
 * their beginnings: whoever makes a part says what comes behind it.
 */
public final class Grammar {
    /** Farther than any text can be long. */
    static final int FAR = 1 << 28;

    private static final int MOST_NODES = 200_000;

    /** Where a text may stand. */
    static final class Node {
        final int number;
        /** The bytes that go on to {@link #next}; {@code null}: it goes on without any. */
        final BitSet bytes;
        /** That is gone through before {@link #next}; {@code null}: none. */
        final Rule called;

        /** One behind a byte or a call; several to choose from; none: the rule is over. */
        List<Node> next;
        /** Bytes that are left of the rule, at least. */
        int distance = FAR;

        private Node(int number, BitSet bytes, Rule called, List<Node> next) {
            this.number = number;
            this.bytes = bytes;
            this.called = called;
            this.next = next;
        }

        boolean isEnd() {
            return next.isEmpty();
        }
    }

    /** A part with a name, so that it can contain itself. */
    static final class Rule {
        Node begin;
    }

    private final List<Node> nodes = new ArrayList<>();
    private final Node end = node(null, null, List.of());
    private Rule start;

    Grammar() {}

    private Node node(BitSet bytes, Rule called, List<Node> next) {
        if (nodes.size() == MOST_NODES) {
            throw new InvalidArgumentException(
                    "the schema is too large: it comes to more than " + MOST_NODES + " places of a text");
        }
        Node node = new Node(nodes.size(), bytes, called, next);
        nodes.add(node);
        return node;
    }

    /** Where a rule is over. */
    Node end() {
        return end;
    }

    Node text(String text, Node then) {
        byte[] bytes = text.getBytes(StandardCharsets.UTF_8);
        Node first = then;
        for (int i = bytes.length - 1; i >= 0; i--) {
            first = range(bytes[i] & 0xff, bytes[i] & 0xff, first);
        }
        return first;
    }

    /** One byte of these. */
    Node range(int least, int most, Node then) {
        BitSet bytes = new BitSet(256);
        bytes.set(least, most + 1);
        return node(bytes, null, List.of(then));
    }

    Node anyOf(String characters, Node then) {
        BitSet bytes = new BitSet(256);
        characters.chars().forEach(bytes::set);
        return node(bytes, null, List.of(then));
    }

    Node choice(List<Node> parts) {
        return parts.size() == 1 ? parts.get(0) : node(null, null, parts);
    }

    Node choice(Node... parts) {
        return choice(Arrays.asList(parts));
    }

    Node call(Rule rule, Node then) {
        return node(null, rule, List.of(then));
    }

    /** Whose parts are given by {@link #loop}. */
    Node later() {
        return node(null, null, new ArrayList<>());
    }

    void loop(Node later, Node... parts) {
        later.next = List.of(parts);
    }

    /** From at least to at most times; {@code most} −1: any number. */
    Node repeat(Rule rule, int least, int most, Node then) {
        Node tail = then;
        if (most < 0) {
            Node later = later();
            loop(later, call(rule, later), then);
            tail = later;
        }
        for (int i = most; i > least; i--) {
            tail = choice(call(rule, tail), then);
        }
        for (int i = 0; i < least; i++) {
            tail = call(rule, tail);
        }
        return tail;
    }

    Rule start() {
        return start;
    }

    /**
     * To be called once all is made.
     *
     * @param single the bytes that there are tokens of, by which any text can be ended
     */
    Grammar begin(Rule rule, BitSet single) {
        start = rule;
        end.distance = 0;
        for (boolean changed = true; changed; ) {
            changed = false;
            for (int i = 0; i < nodes.size(); i++) {
                Node node = nodes.get(i);
                int distance = distance(node, single);
                if (distance < node.distance) {
                    node.distance = distance;
                    changed = true;
                }
            }
        }
        return this;
    }

    private static int distance(Node node, BitSet single) {
        int nearest = node.isEnd() ? node.distance : FAR;
        for (Node next : node.next) {
            nearest = Math.min(nearest, next.distance);
        }
        if (node.bytes != null) {
            nearest = node.bytes.intersects(single) ? nearest + 1 : FAR;
        } else if (node.called != null) {
            nearest += node.called.begin == null ? FAR : node.called.begin.distance;
        }
        return Math.min(nearest, FAR);
    }
}
