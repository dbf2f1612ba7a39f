package dev.lorica.grammar;

import dev.lorica.Tokenizer;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.grammar.Grammar.Node;
import dev.lorica.internal.Arguments;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.BitSet;
import java.util.Comparator;
import java.util.HashMap;
import java.util.LinkedHashSet;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.function.Function;
import java.util.stream.IntStream;

/**
 * Which tokens may come next, so that a text keeps to a {@link Grammar} and can still be ended in as many tokens as are left. Any number
 * of texts, on any threads, may go by one.
 */
public final class TokenMask {
    /** So deep in rules, a text goes the shortest way out. */
    private static final int DEEPEST = 200;
    /** As many as a file may have. */
    private static final int MOST_TOKENS = 1 << 26;
    /** States that are remembered. */
    private static final int MOST_STATES = 4096;

    /** The tokens of a vocabulary by their bytes. Takes a moment to make, and may be used for any number of grammars. */
    public static final class Vocabulary {
        private final int size;
        /** In the order of their bytes; none of those that are no text. */
        private final int[] ids;

        private final byte[][] bytes;
        /** Bytes that each has in common with the one before it. */
        private final int[] common;

        private final int longest;
        private final BitSet ends = new BitSet();
        private final BitSet single = new BitSet(256);

        /**
         * Takes the bytes of each token and which tokens end a text.
         *
         * @param tokenizer of the model
         * @param size      tokens of the model
         */
        public Vocabulary(Tokenizer tokenizer, int size) {
            Arguments.given(tokenizer, "tokenizer");
            Arguments.check(size > 0 && size <= MOST_TOKENS, "size", size, "a number of tokens");
            this.size = size;
            byte[][] all = new byte[size][];
            int known = Math.min(size, tokenizer.info().vocabSize());
            for (int id = 0; id < known; id++) {
                if (tokenizer.isEndOfGeneration(id)) {
                    ends.set(id);
                } else if (!tokenizer.isControl(id)) {
                    byte[] own = tokenizer.tokenBytes(id);
                    all[id] = own.length == 0 ? null : own;
                    if (own.length == 1) {
                        single.set(own[0] & 0xff);
                    }
                }
            }
            ids = IntStream.range(0, size)
                    .filter(id -> all[id] != null)
                    .boxed()
                    .sorted(Comparator.comparing(id -> all[id], Arrays::compareUnsigned))
                    .mapToInt(Integer::intValue)
                    .toArray();
            bytes = Arrays.stream(ids).mapToObj(id -> all[id]).toArray(byte[][]::new);
            longest = Arrays.stream(bytes).mapToInt(one -> one.length).max().orElse(0);
            common = new int[ids.length];
            for (int i = 1; i < ids.length; i++) {
                int mismatch = Arrays.mismatch(bytes[i - 1], bytes[i]);
                common[i] = mismatch < 0 ? bytes[i].length : mismatch;
            }
        }
    }

    /** Where a rule goes on that has called another, and who has called it. */
    private record Return(Node node, Return outer, int depth, int distance) {
        @Override
        public boolean equals(Object other) {
            return this == other; // there is one of each
        }

        @Override
        public int hashCode() {
            return System.identityHashCode(this);
        }
    }

    private record Place(Node node, Return outer) {
        @Override
        public boolean equals(Object other) {
            return other instanceof Place place && node == place.node && outer == place.outer;
        }

        @Override
        public int hashCode() {
            return node.number * 31 + System.identityHashCode(outer);
        }

        int distance() {
            return node.distance + (outer == null ? 0 : outer.distance);
        }
    }

    /** All places where a text may stand. */
    private static final class State {
        /** Each before a byte. */
        private final List<Place> places;

        private final boolean isWhole;
        private final int distance;
        private final State[] next = new State[256];
        private BitSet tokens;
        /** How far the farthest of them leads from an end. */
        private int farthest;

        State(List<Place> places, boolean isWhole) {
            this.places = places;
            this.isWhole = isWhole;
            distance = isWhole
                    ? 0
                    : places.stream().mapToInt(Place::distance).min().orElse(Grammar.FAR);
        }
    }

    private record Key(Set<Place> places, boolean isWhole) {}

    private final Vocabulary vocabulary;
    private final Map<Key, State> states = new HashMap<>();
    private final Map<List<Object>, Return> returns = new HashMap<>();
    private final State dead = new State(List.of(), false);
    private final State begin;

    /**
     * @param grammar makes the grammar, given the bytes that there are tokens of
     * @throws InvalidArgumentException if no text is of the grammar
     */
    TokenMask(Vocabulary vocabulary, Function<BitSet, Grammar> grammar) {
        this.vocabulary = vocabulary;
        Node first = grammar.apply(vocabulary.single).start().begin;
        if (first.distance >= Grammar.FAR) {
            throw new InvalidArgumentException("the schema allows no text that the model's tokens could write");
        }
        begin = state(List.of(new Place(first, null)));
    }

    /** {@return tokens that any text takes at least, if each is one byte; the most that the shortest takes} */
    public int shortest() {
        return begin.distance;
    }

    /** {@return a text from its beginning} */
    public Text text() {
        return new Text();
    }

    /** One text. Not for use by several threads at once. */
    public final class Text {
        private State state = begin;

        private Text() {}

        /**
         * Makes the logits of all tokens that may not come −∞.
         *
         * @param logits of all tokens, as many as the vocabulary has; changed in place
         * @param left   tokens that may come, this one included
         */
        public void mask(float[] logits, int left) {
            Arguments.given(logits, "logits");
            Arguments.check(left > 0, "left", left, "more than 0");
            BitSet allowed = allowed(state, left);
            for (int id = allowed.nextClearBit(0); id < logits.length; id = allowed.nextClearBit(id + 1)) {
                logits[id] = Float.NEGATIVE_INFINITY;
            }
        }

        /**
         * Goes on by the bytes of a token that was allowed.
         *
         * @param bytes of the token, as {@link Tokenizer#tokenBytes} gives them
         */
        public void accept(byte[] bytes) {
            Arguments.given(bytes, "bytes");
            synchronized (TokenMask.this) {
                for (byte one : bytes) {
                    state = step(state, one & 0xff);
                }
            }
        }

        /** {@return whether nothing can follow} */
        public boolean isOver() {
            return state.isWhole && state.places.isEmpty();
        }
    }

    private synchronized BitSet allowed(State state, int left) {
        if (state.tokens == null) {
            state.tokens = new BitSet(vocabulary.size);
            state.farthest = walk(state, Integer.MAX_VALUE, state.tokens);
        }
        if (left - 1 >= state.farthest) {
            return state.tokens;
        }
        BitSet few = new BitSet(vocabulary.size);
        walk(state, left - 1, few);
        return few;
    }

    /** The tokens behind which a text is at most so far from its end. Returns how far the farthest of them leads. */
    private int walk(State from, int most, BitSet allowed) {
        if (from.isWhole) {
            allowed.or(vocabulary.ends);
        }
        int farthest = 0;
        State[] at = new State[vocabulary.longest + 1];
        at[0] = from;
        int alive = 0; // bytes of the last token that the grammar has
        for (int i = 0; i < vocabulary.ids.length; i++) {
            byte[] bytes = vocabulary.bytes[i];
            alive = Math.min(alive, vocabulary.common[i]);
            if (alive < vocabulary.common[i]) {
                continue; // ends where the one before it did
            }
            while (alive < bytes.length) {
                State next = step(at[alive], bytes[alive] & 0xff);
                if (next == dead) {
                    break;
                }
                at[++alive] = next;
            }
            if (alive == bytes.length && at[alive].distance <= most) {
                allowed.set(vocabulary.ids[i]);
                farthest = Math.max(farthest, at[alive].distance);
            }
        }
        return farthest;
    }

    private State step(State state, int one) {
        State known = state.next[one];
        if (known != null) {
            return known;
        }
        List<Place> places = new ArrayList<>();
        for (Place place : state.places) {
            if (place.node.bytes.get(one)) {
                places.add(new Place(place.node.next.get(0), place.outer));
            }
        }
        State next = places.isEmpty() ? dead : state(places);
        state.next[one] = next;
        return next;
    }

    private State state(List<Place> from) {
        Set<Place> seen = new LinkedHashSet<>();
        List<Place> open = new ArrayList<>(from);
        Set<Place> places = new LinkedHashSet<>();
        boolean isWhole = false;
        while (!open.isEmpty()) {
            Place place = open.remove(open.size() - 1);
            if (!seen.add(place)) {
                continue;
            }
            Node node = place.node;
            if (node.distance >= Grammar.FAR) {
                continue; // leads nowhere
            }
            if (node.bytes != null) {
                places.add(place);
            } else if (node.called != null) {
                open.add(new Place(node.called.begin, inside(node.next.get(0), place.outer)));
            } else if (!node.isEnd()) {
                boolean deep = place.outer != null && place.outer.depth >= DEEPEST;
                for (Node next : node.next) {
                    if (!deep || next.distance == node.distance) {
                        open.add(new Place(next, place.outer));
                    }
                }
            } else if (place.outer == null) {
                isWhole = true;
            } else {
                open.add(new Place(place.outer.node, place.outer.outer));
            }
        }
        if (places.isEmpty() && !isWhole) {
            return dead;
        }
        if (states.size() >= MOST_STATES) {
            states.clear();
            returns.clear();
        }
        boolean whole = isWhole;
        return states.computeIfAbsent(new Key(places, isWhole), key -> new State(List.copyOf(key.places), whole));
    }

    private Return inside(Node node, Return outer) {
        // The last call of a rule comes back to who called the rule: lists do not grow deep.
        if (node.isEnd() && outer != null) {
            return outer;
        }
        return returns.computeIfAbsent(
                Arrays.asList(node, outer),
                key -> new Return(
                        node,
                        outer,
                        outer == null ? 1 : outer.depth + 1,
                        node.distance + (outer == null ? 0 : outer.distance)));
    }
}
