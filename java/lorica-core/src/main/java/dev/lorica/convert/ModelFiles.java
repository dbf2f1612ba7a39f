package dev.lorica.convert;

import dev.lorica.adapter.Adapter;
import dev.lorica.eval.Evaluator;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeGguf;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;

/**
 * Writes model files from model files. Tensors are streamed: memory does not grow with the model.
 *
 * <p>A type is one of ggml's ({@code F32}, {@code F16}, {@code BF16}, {@code Q8_0}, {@code IQ4_NL}, …) or a mix of llama.cpp's
 * ({@code Q4_K_M}, {@code Q5_K_M}, …), which gives some tensors more bits.
 */
public final class ModelFiles {
    private ModelFiles() {}

    /**
     * Writes a GGUF model with the adapter folded in, so that any program can run it.
     *
     * @param adapter the adapter; it brings its base with it
     * @param output  the GGUF file, another than the base; one that is there is replaced when the new one is complete
     * @param type    of the matrices; {@code null}: as in the base, what the adapter changes in F16. Four bits can lose what was learned:
     *                compare with {@link Evaluator}.
     * @throws InvalidArgumentException if {@code output} is the base itself, or a tensor cannot have the type
     */
    public static void merge(Adapter adapter, Path output, String type) {
        Arguments.given(adapter, "adapter");
        Arguments.given(output, "output");
        requireAnother(adapter.model().file(), output);
        Inner.ADAPTER.of(adapter).merge(output.toString(), type);
    }

    /**
     * Writes a GGUF model of any architecture in another type.
     *
     * @param input   the GGUF file, or a name on the hub
     * @param output  the new file, another than {@code input}; one that is there is replaced when the new one is complete
     * @param type    of the tensors, as above; those that the type does not suit get the one that llama.cpp gives them
     * @param threads 0: all cores; does not change the result
     * @throws InvalidArgumentException if {@code output} is {@code input}, or the type is not known
     */
    public static void quantize(Path input, Path output, String type, int threads) {
        Arguments.given(input, "input");
        Arguments.given(output, "output");
        Path model = Hub.model(input);
        requireAnother(model, output);
        NativeGguf.quantize(model.toString(), output.toString(), type, threads);
    }

    /**
     * Writes a GGUF model with more tokens, behind those of its vocabulary and in this order: wherever one of them stands in a text,
     * it is one token. Their rows of the embedding, and of the head where there is one, begin as the mean of the rows that are
     * there, as transformers' {@code resize_token_embeddings} begins them but for its noise; all else is copied. They are learned
     * by an adapter with {@link dev.lorica.adapter.LoraConfig#modulesToSave} of {@code embed_tokens} and {@code lm_head}.
     *
     * @param input  a GGUF model, or {@code hf:} and its name
     * @param output the new GGUF file, another one
     * @param tokens the texts of the new tokens
     * @throws InvalidArgumentException if there is none, or one is empty, named twice, or in the vocabulary already
     * @throws dev.lorica.exceptions.UnsupportedException if the vocabulary is WordPiece, or no rows can be added to its tensors
     */
    public static void addTokens(Path input, Path output, List<String> tokens) {
        Arguments.given(input, "input");
        Arguments.given(output, "output");
        Path model = Hub.model(input);
        requireAnother(model, output);
        NativeGguf.addTokens(model.toString(), output.toString(), Arguments.all(tokens, "tokens"));
    }

    private static void requireAnother(Path input, Path output) {
        try {
            if (Files.exists(output) && Files.isSameFile(input, output)) {
                throw new InvalidArgumentException(
                        output + " is the model itself; choose another name for the new file");
            }
        } catch (IOException e) {
            throw new FileAccessException(output + " cannot be compared with " + input + ": " + e.getMessage(), e);
        }
    }
}
