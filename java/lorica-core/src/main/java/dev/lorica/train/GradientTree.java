package dev.lorica.train;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.List;
import java.util.function.BinaryOperator;
import java.util.function.Function;

/**
 * The order in which the gradients of a step's micro-batches are added up: a binary tree over their numbers 0 … n−1. A node [from, to)
 * of more than one micro-batch is the sum of a left node, as large as the largest power of two below to − from, and of the rest. So the
 * sum is the same to the bit, however the micro-batches are shared out.
 */
public final class GradientTree {
    private GradientTree() {}

    /**
     * Some micro-batches that stand one behind the other.
     *
     * @param from the first
     * @param to   the one behind the last
     */
    public record Node(int from, int to) implements Serializable {
        /** Checks that a node is not empty. */
        public Node {
            if (from < 0 || to <= from) {
                throw new InvalidArgumentException("there is no node from " + from + " to " + to);
            }
        }

        /** {@return the number of micro-batches below it} */
        public int size() {
            return to - from;
        }

        private int middle() {
            return from + Integer.highestOneBit(size() - 1);
        }

        Node left() {
            return new Node(from, middle());
        }

        Node right() {
            return new Node(middle(), to);
        }
    }

    /**
     * Shares out n micro-batches, one share for each worker at most. The largest share is as small as can be; where that is so with
     * shares of a power of two, each of which is one node, these are taken.
     *
     * @param n       micro-batches of a step
     * @param workers how many may compute at once
     * @return a stretch of micro-batches for each worker that gets one
     */
    public static List<Node> shares(int n, int workers) {
        Arguments.atLeast(1, n, "n");
        Arguments.atLeast(1, workers, "workers");
        int count = Math.min(n, workers);
        int largest = (n + count - 1) / count;
        List<Node> shares = new ArrayList<>();
        if (Integer.bitCount(largest) == 1) {
            for (int from = 0; from < n; from += largest) {
                shares.add(new Node(from, Math.min(n, from + largest)));
            }
            return shares;
        }
        for (int i = 0; i < count; i++) {
            shares.add(new Node((int) ((long) n * i / count), (int) ((long) n * (i + 1) / count)));
        }
        return shares;
    }

    /**
     * {@return the nodes of the tree over n micro-batches that a share comes to, as few as there can be}
     *
     * @param n     micro-batches of a step
     * @param share one of {@link #shares}
     */
    public static List<Node> nodes(int n, Node share) {
        Arguments.given(share, "share");
        Arguments.check(share.to <= n, "share", share, "within " + n + " micro-batches");
        List<Node> nodes = new ArrayList<>();
        collect(new Node(0, n), share, nodes);
        return nodes;
    }

    private static void collect(Node node, Node share, List<Node> nodes) {
        if (share.from <= node.from && node.to <= share.to) {
            nodes.add(node);
        } else if (share.from < node.to && node.from < share.to) {
            collect(node.left(), share, nodes);
            collect(node.right(), share, nodes);
        }
    }

    /**
     * {@return the sum of a node}
     *
     * @param <T>   what is added up
     * @param node  the node
     * @param known the sum of a node where it is known, as it is of single micro-batches at the latest; {@code null} elsewhere
     * @param plus  left and right in this order; may change what it is given
     */
    public static <T> T sum(Node node, Function<Node, T> known, BinaryOperator<T> plus) {
        Arguments.given(plus, "plus");
        T sum = Arguments.given(known, "known").apply(Arguments.given(node, "node"));
        if (sum != null) {
            return sum;
        }
        Arguments.check(node.size() > 1, "known", "without micro-batch " + node.from, "complete");
        T left = sum(node.left(), known, plus);
        return plus.apply(left, sum(node.right(), known, plus));
    }
}
