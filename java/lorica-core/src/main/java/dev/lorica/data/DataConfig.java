package dev.lorica.data;

import java.util.Objects;

/**
 * How records become examples.
 *
 * @param template      what stands around a prompt; {@code null}: what {@link PromptTemplate#forDataset} chooses
 * @param maxLength     the most tokens of one example, BOS and EOS included
 * @param overflow      what becomes of longer ones
 * @param trainOnPrompt whether the prompt is learned too; otherwise only the response and EOS are
 */
public record DataConfig(PromptTemplate template, int maxLength, Overflow overflow, boolean trainOnPrompt) {
    public DataConfig {
        Objects.requireNonNull(overflow, "overflow");
        if (maxLength < 2 || maxLength > ExampleStore.CHUNK) {
            throw new DataException(
                    "max length is " + maxLength + "; it must be at least 2 and at most " + ExampleStore.CHUNK);
        }
    }

    /** The data set's own template, responses only, longer examples left out. */
    public static DataConfig ofMaxLength(int maxLength) {
        return new DataConfig(null, maxLength, Overflow.DROP, false);
    }
}
