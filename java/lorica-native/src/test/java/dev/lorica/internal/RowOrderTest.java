package dev.lorica.internal;

import static org.assertj.core.api.Assertions.assertThat;

import org.junit.jupiter.api.Test;

class RowOrderTest {
    @Test
    void whatHasSeveralValuesPerRowFollowsItThereAndBack() {
        RowOrder pairs = new RowOrder(new long[] {0, 2, 1, 3});
        float[] theirs = {0, 1, 10, 11, 20, 21, 30, 31};

        float[] ours = pairs.toGguf(theirs);

        assertThat(ours).containsExactly(0, 1, 20, 21, 10, 11, 30, 31);
        assertThat(pairs.toHuggingFace(ours)).containsExactly(theirs);
        assertThat(RowOrder.SAME.toGguf(theirs)).isSameAs(theirs);
    }
}
