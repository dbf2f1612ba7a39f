package dev.lorica.train;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.train.GradientTree.Node;
import java.util.HashMap;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;

class GradientTreeTest {
    private static String whole(int n) {
        return sum(new Node(0, n));
    }

    private static String sum(Node node) {
        return GradientTree.sum(
                node, one -> one.size() == 1 ? "" + (char) ('a' + one.from()) : null, (l, r) -> "(" + l + r + ")");
    }

    @Test
    void addsInPairs() {
        assertThat(whole(1)).isEqualTo("a");
        assertThat(whole(4)).isEqualTo("((ab)(cd))");
        assertThat(whole(7)).isEqualTo("(((ab)(cd))((ef)g))");
    }

    @Test
    void theOrderIsTheSameHoweverManyShareIt() {
        for (int n = 1; n <= 40; n++) {
            for (int workers = 1; workers <= 12; workers++) {
                Map<Node, String> known = new HashMap<>();
                int next = 0;
                int largest = 0;
                List<Node> shares = GradientTree.shares(n, workers);
                assertThat(shares).hasSizeLessThanOrEqualTo(workers);
                for (Node share : shares) {
                    assertThat(share.from()).isEqualTo(next);
                    next = share.to();
                    largest = Math.max(largest, share.size());
                    List<Node> nodes = GradientTree.nodes(n, share);
                    assertThat(nodes.stream().mapToInt(Node::size).sum()).isEqualTo(share.size());
                    nodes.forEach(node -> known.put(node, sum(node)));
                }
                assertThat(next).isEqualTo(n);
                assertThat(largest).isEqualTo((n + Math.min(n, workers) - 1) / Math.min(n, workers));

                assertThat(GradientTree.sum(new Node(0, n), known::get, (l, r) -> "(" + l + r + ")"))
                        .as("%d micro-batches of %d workers", n, workers)
                        .isEqualTo(whole(n));
            }
        }
    }

    @Test
    void aPowerOfTwoForEachIsOneNodeForEach() {
        for (Node share : GradientTree.shares(32, 4)) {
            assertThat(GradientTree.nodes(32, share)).containsExactly(share);
        }
    }

    @Test
    void whatIsMissingIsNamed() {
        assertThatThrownBy(() -> GradientTree.sum(new Node(0, 2), node -> null, String::concat))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("micro-batch 0");
    }

    @Test
    void roundsToTheNearestOfBfloat16AndTiesToEven() {
        float[] values = {1f, 1.00390625f, 1.01171875f, 1.0048828125f, -0f, Float.NaN, Float.MAX_VALUE, 1e-45f};
        float[] rounded =
                new Gradients(values, GradientSums.NONE).roundedToBf16().values();
        assertThat(rounded).containsExactly(1f, 1f, 1.015625f, 1.0078125f, -0f, Float.NaN, Float.POSITIVE_INFINITY, 0f);
    }
}
