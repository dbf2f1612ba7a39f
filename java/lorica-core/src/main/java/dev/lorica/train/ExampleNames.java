package dev.lorica.train;

import dev.lorica.Tokenizer;
import dev.lorica.data.Example;
import dev.lorica.data.Packer;
import dev.lorica.data.TokenizedDataset;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;

/** Says of which examples micro-batches are: their places in the data from 1, and how what is trained on begins. */
final class ExampleNames {
    private static final int NAMED_EXAMPLES = 4;
    private static final int NAMED_TOKENS = 8;

    private final TokenizedDataset data;
    private final Tokenizer tokenizer;

    ExampleNames(TokenizedDataset data, Tokenizer tokenizer) {
        this.data = data;
        this.tokenizer = tokenizer;
    }

    /** {@code examples 4 ("Mr. Collins is"), 11 ("At Longbourn")}, of the micro-batches from {@code from} to before {@code end}. */
    String of(Packer.Batches batches, int from, int end) {
        List<String> examples = new ArrayList<>();
        int more = 0;
        for (int i = from; i < end; i++) {
            for (int index : batches.numbers(i)) {
                if (examples.size() < NAMED_EXAMPLES) {
                    examples.add((index + 1) + " (\""
                            + beginning(data.examples().get(index * data.sequencesPerExample())) + "\")");
                } else {
                    more++;
                }
            }
        }
        return (examples.size() == 1 ? "example " : "examples ")
                + String.join(", ", examples)
                + (more > 0 ? " and " + more + " more" : "");
    }

    private String beginning(Example example) {
        int first = 0;
        while (first < example.length() - 1 && !example.trained()[first]) {
            first++;
        }
        // Of prompts, how they end.
        first = example.trainedTokens() == 0 ? Math.max(0, example.length() - NAMED_TOKENS) : first;
        int end = Math.min(first + NAMED_TOKENS, example.length());
        return tokenizer
                .decode(Arrays.copyOfRange(example.ids(), first, end))
                .replaceAll("\\s+", " ")
                .strip();
    }
}
