package dev.lorica.generate;

import java.io.Serializable;
import java.util.List;

/**
 * What a generation came to.
 *
 * @param text            all pieces together
 * @param finishReason    why it ended
 * @param promptTokens    tokens of the prompt
 * @param reusedTokens    those of them that were in the cache from the generation before
 * @param generatedTokens tokens generated, the one that ended the text included
 * @param promptSeconds   time for processing the prompt, up to the first logits
 * @param seconds         time for generating, without the prompt
 * @param tokens          those generated; not copied, so leave them alone
 * @param logProbs        of each token, as the model has it before penalties, biases and temperature; empty unless
 *                        {@link GenerationConfig#logProbs} asks for them
 */
public record GenerationResult(
        String text,
        FinishReason finishReason,
        int promptTokens,
        int reusedTokens,
        int generatedTokens,
        double promptSeconds,
        double seconds,
        int[] tokens,
        List<TokenLogProbs> logProbs)
        implements Serializable {

    /** Why a generation ended. */
    public enum FinishReason {
        /** The model ended its text or turn. */
        END_OF_TEXT,
        /** A stop string came. */
        STOP_STRING,
        /** {@link GenerationConfig#maxNewTokens} were generated. */
        MAX_NEW_TOKENS,
        /** The model's context is full. */
        CONTEXT_FULL,
        /** {@link Generation#cancel} was called, or the generator closed. */
        CANCELLED
    }

    /** {@return generated tokens over the seconds that they took} */
    public double tokensPerSecond() {
        return seconds > 0 ? generatedTokens / seconds : 0;
    }
}
