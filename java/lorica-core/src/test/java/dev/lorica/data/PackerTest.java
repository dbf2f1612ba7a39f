package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import dev.lorica.exceptions.InvalidArgumentException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Collections;
import java.util.HashSet;
import java.util.IntSummaryStatistics;
import java.util.List;
import java.util.Random;
import java.util.Set;
import java.util.stream.IntStream;
import org.junit.jupiter.api.Test;

class PackerTest {
    private static final int NO = Batch.IGNORE;

    @Test
    void shiftsLabelsByOneWithinEachSequence() {
        Example first = new Example(new int[] {1, 10, 11, 2}, new boolean[] {false, false, true, true});
        Example second = new Example(new int[] {1, 20, 2}, new boolean[] {true, true, true});

        Batch batch = Packer.pack(List.of(first, second));

        assertThat(batch.tokens()).containsExactly(1, 10, 11, 2, 1, 20, 2);
        assertThat(batch.labels()).containsExactly(NO, 11, 2, NO, 20, 2, NO);
        assertThat(batch.positions()).containsExactly(0, 1, 2, 3, 0, 1, 2);
        assertThat(batch.sequenceLengths()).containsExactly(4, 3);
        assertThat(batch.trainedCount()).isEqualTo(first.trainedTokens() + second.trainedTokens());
    }

    @Test
    void aPackedBatchIsItsPartsOneAfterAnother() {
        List<Example> examples = examples(7);

        Batch packed = Packer.pack(examples);

        List<Integer> tokens = new ArrayList<>();
        List<Integer> labels = new ArrayList<>();
        for (Example example : examples) {
            Batch alone = Packer.pack(List.of(example));
            Arrays.stream(alone.tokens()).forEach(tokens::add);
            Arrays.stream(alone.labels()).forEach(labels::add);
        }
        assertThat(packed.tokens())
                .containsExactly(tokens.stream().mapToInt(Integer::intValue).toArray());
        assertThat(packed.labels())
                .containsExactly(labels.stream().mapToInt(Integer::intValue).toArray());
    }

    @Test
    void everyEpochHasEveryExampleOnceInAnOrderOfItsOwn() {
        List<Example> examples = examples(10);

        TokenizedDataset data = TokenizedDataset.of(examples);
        List<Integer> inOrder = firstTokens(Packer.inOrder(data, 4));
        List<Integer> epoch0 = firstTokens(Packer.shuffled(data, 4, 42, 0));
        List<Integer> epoch1 = firstTokens(Packer.shuffled(data, 4, 42, 1));

        assertThat(Packer.shuffled(data, 4, 42, 0))
                .extracting(Batch::sequenceCount)
                .containsExactly(4, 4, 2);
        assertThat(inOrder).isSorted();
        assertThat(epoch0).containsExactlyInAnyOrderElementsOf(inOrder).isNotEqualTo(inOrder);
        assertThat(epoch1).containsExactlyInAnyOrderElementsOf(inOrder).isNotEqualTo(epoch0);
        assertThat(firstTokens(Packer.shuffled(data, 4, 42, 0))).isEqualTo(epoch0);
        assertThat(firstTokens(Packer.shuffled(data, 4, 43, 0))).isNotEqualTo(epoch0);
    }

    /** A run that was begun before is to see the same batches when it goes on. */
    @Test
    void theOrderIsThatOfCollectionsShuffle() {
        List<Integer> shuffled =
                new ArrayList<>(IntStream.range(0, 1000).boxed().toList());
        Collections.shuffle(shuffled, new Random(7));

        assertThat(Packer.permutation(1000, 7))
                .containsExactly(shuffled.stream().mapToInt(Integer::intValue).toArray());
    }

    @Test
    void knowsHowLargeBatchesAreWithoutMakingThem() {
        Packer.Batches batches = Packer.shuffled(TokenizedDataset.of(examples(10)), 4, 42, 0);

        for (int i = 0; i < batches.size(); i++) {
            assertThat(batches.tokens(i)).isEqualTo(batches.get(i).tokenCount());
            assertThat(batches.longest(i)).isEqualTo(batches.get(i).longestSequence());
            assertThat(batches.examples(i)).isEqualTo(batches.get(i).sequenceCount());
        }
    }

    @Test
    void refusesEmptyBatches() {
        assertThatExceptionOfType(InvalidArgumentException.class).isThrownBy(() -> Packer.pack(List.of()));
        assertThatExceptionOfType(InvalidArgumentException.class)
                .isThrownBy(() -> Packer.inOrder(TokenizedDataset.of(examples(2)), 0));
        assertThatExceptionOfType(InvalidArgumentException.class)
                .isThrownBy(() -> new Example(new int[0], new boolean[0]));
        assertThatExceptionOfType(InvalidArgumentException.class)
                .isThrownBy(() -> new Example(new int[2], new boolean[1]));
    }

    /** Example i begins with token 100 + i, has i + 2 tokens, and is trained on from its second half. */
    private static List<Example> examples(int n) {
        return IntStream.range(0, n)
                .mapToObj(i -> {
                    int[] ids = IntStream.range(0, i + 2)
                            .map(t -> t == 0 ? 100 + i : t)
                            .toArray();
                    boolean[] trained = new boolean[ids.length];
                    Arrays.fill(trained, ids.length / 2, ids.length, true);
                    return new Example(ids, trained);
                })
                .toList();
    }

    private static List<Integer> firstTokens(List<Batch> batches) {
        List<Integer> first = new ArrayList<>();
        for (Batch batch : batches) {
            int at = 0;
            for (int length : batch.sequenceLengths()) {
                first.add(batch.tokens()[at]);
                at += length;
            }
        }
        return first;
    }

    @Test
    void groupsByLengthAndLeavesOutNothing() {
        List<Example> examples = new ArrayList<>();
        for (int i = 0; i < 451; i++) {
            int length = 2 + (i * 7919) % 97;
            examples.add(new Example(new int[length], new boolean[length]));
        }
        TokenizedDataset data = TokenizedDataset.of(examples);

        Packer.Batches grouped = Packer.groupedByLength(data, 4, 7, 2);

        Set<Integer> seen = new HashSet<>();
        int spread = 0;
        List<Integer> longest = new ArrayList<>();
        for (int i = 0; i < grouped.size(); i++) {
            IntSummaryStatistics lengths =
                    IntStream.of(grouped.numbers(i)).map(data::length).summaryStatistics();
            IntStream.of(grouped.numbers(i)).forEach(seen::add);
            spread = Math.max(spread, i == grouped.size() - 1 ? 0 : lengths.getMax() - lengths.getMin());
            longest.add(lengths.getMax());
        }
        assertThat(seen).hasSize(451);
        // The last stretch is the shortest: 12 batches of lengths from 2 to 98.
        assertThat(spread).isLessThan(20);
        assertThat(grouped.numbers(grouped.size() - 1)).hasSize(3);
        // Not from short to long: batches come in any order.
        assertThat(longest).isNotEqualTo(longest.stream().sorted().toList());
        assertThat(Packer.groupedByLength(data, 4, 7, 2).numbers(5)).isEqualTo(grouped.numbers(5));
        assertThat(Packer.groupedByLength(data, 4, 7, 3).numbers(5)).isNotEqualTo(grouped.numbers(5));
    }
}
