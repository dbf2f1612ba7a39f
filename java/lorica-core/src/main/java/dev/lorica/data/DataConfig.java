package dev.lorica.data;

import dev.lorica.internal.Arguments;

/**
 * How records become examples.
 *
 * @param template      what stands around a prompt; {@code null}: what {@link PromptTemplate#forDataset} chooses
 * @param maxLength     the most tokens of one example, BOS and EOS included
 * @param overflow      what becomes of longer ones
 * @param trainOnPrompt whether the prompt is learned too; otherwise only the response and EOS are
 * @param unshown       what becomes of conversations that the template cannot show
 */
public record DataConfig(
        PromptTemplate template, int maxLength, Overflow overflow, boolean trainOnPrompt, Unshown unshown) {
    /**
     * Checks the components.
     *
     * @throws DataException if the longest length is less than 2, or more than an example may have
     */
    public DataConfig {
        Arguments.given(overflow, "overflow");
        Arguments.given(unshown, "unshown");
        if (maxLength < 2 || maxLength > ExampleStore.CHUNK) {
            throw new DataException(
                    "max length is " + maxLength + "; it must be at least 2 and at most " + ExampleStore.CHUNK);
        }
    }

    /**
     * {@return the same with another template}
     *
     * @param template what stands around prompts; {@code null}: what the data ask for
     */
    public DataConfig withTemplate(PromptTemplate template) {
        return new DataConfig(template, maxLength, overflow, trainOnPrompt, unshown);
    }

    /**
     * Conversations that the template cannot show are left out.
     *
     * @param template      as {@link #template()}
     * @param maxLength     as {@link #maxLength()}
     * @param overflow      as {@link #overflow()}
     * @param trainOnPrompt as {@link #trainOnPrompt()}
     */
    public DataConfig(PromptTemplate template, int maxLength, Overflow overflow, boolean trainOnPrompt) {
        this(template, maxLength, overflow, trainOnPrompt, Unshown.SKIP);
    }

    /**
     * {@return settings with the data set's own template, responses only, longer examples left out}
     *
     * @param maxLength tokens of the longest example
     */
    public static DataConfig ofMaxLength(int maxLength) {
        return new DataConfig(null, maxLength, Overflow.DROP, false);
    }
}
