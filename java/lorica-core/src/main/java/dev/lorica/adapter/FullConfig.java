package dev.lorica.adapter;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.stream.Collectors;

/**
 * Full fine-tuning: a model's own weights are trained, in f32 whatever the file has them in; quantized ones are expanded. An embedding
 * that is the output head too is one tensor. Weight decay leaves biases and norms alone.
 *
 * @param trainLayers these layers alone, from 0, and nothing that is no layer; empty: everything
 * @param frozen      what of the rest is not trained
 */
public record FullConfig(List<Integer> trainLayers, Set<Part> frozen) implements AdapterConfig {
    /** What is no layer. */
    public enum Part {
        /** The embeddings of the tokens. */
        EMBED,
        /** The output head, where it is a tensor of its own. */
        HEAD
    }

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public FullConfig {
        trainLayers = Arguments.all(trainLayers, "trainLayers");
        frozen = Set.copyOf(Arguments.given(frozen, "frozen"));
        for (int layer : trainLayers) {
            if (layer < 0) {
                throw new InvalidArgumentException("trainLayers names layer " + layer + "; layers count from 0");
            }
        }
    }

    /** {@return settings that train everything} */
    public static FullConfig defaults() {
        return new FullConfig(List.of(), Set.of());
    }

    @Override
    public Method method() {
        return Method.FULL;
    }

    /** As the native library takes it: {@code 0,1,7}. */
    String layersInWords() {
        return trainLayers.stream().map(String::valueOf).collect(Collectors.joining(","));
    }

    String frozenInWords() {
        return new TreeSet<>(frozen)
                .stream()
                        .map(part -> part.name().toLowerCase(java.util.Locale.ROOT))
                        .collect(Collectors.joining(","));
    }
}
