package dev.lorica.internal;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class RowOrderTest {
    @Test
    void pairsInterleaveTheHalvesOfEachHead() {
        RowOrder pairs = new RowOrder(RowOrder.Kind.ROPE_PAIRS, 2, 2, 4);

        assertThat(pairs.rows()).containsExactly(0, 2, 1, 3, 4, 6, 5, 7);
    }

    @Test
    void groupsOfQueriesKeysAndValuesArePulledApart() {
        // Hugging Face: q0 q1 k0 v0 | q2 q3 k1 v1, of two rows each
        RowOrder grouped = new RowOrder(RowOrder.Kind.GROUPED_QKV, 4, 2, 2);

        assertThat(grouped.rows()).containsExactly(0, 1, 2, 3, 8, 9, 10, 11, 4, 5, 12, 13, 6, 7, 14, 15);
    }

    @Test
    void whatHasSeveralValuesPerRowFollowsItThereAndBack() {
        RowOrder pairs = new RowOrder(RowOrder.Kind.ROPE_PAIRS, 1, 1, 4);
        float[] theirs = {0, 1, 10, 11, 20, 21, 30, 31};

        float[] ours = pairs.toGguf(theirs);

        assertThat(ours).containsExactly(0, 1, 20, 21, 10, 11, 30, 31);
        assertThat(pairs.toHuggingFace(ours)).containsExactly(theirs);
        assertThat(RowOrder.SAME.toGguf(theirs)).isSameAs(theirs);
    }
}
