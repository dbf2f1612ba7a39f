package dev.lorica.cli;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.Method;
import java.util.Optional;

/** What llama.cpp can do with adapters. */
final class LlamaCpp {
    private LlamaCpp() {}

    /** Whether it can be a part of a model, which is what makes llama.cpp run what it lacks. */
    static boolean canBeFoldedIn(Adapter adapter) {
        return adapter.info().virtualTokens() == 0
                && adapter.info().method() != Method.BOTTLENECK
                && adapter.info().invocationTokens().isEmpty();
    }

    /** What of an adapter llama.cpp has not, so that only a model with it folded in runs there; empty: it reads it. */
    static Optional<String> lacks(Adapter adapter) {
        Method method = adapter.info().method();
        if (adapter.info().virtualTokens() > 0) {
            return Optional.of("trained prompts");
        }
        if (method == Method.BOTTLENECK) {
            return Optional.of("bottlenecks");
        }
        if (method != Method.LORA) {
            return Optional.of(
                    method == Method.IA3 ? "IA3" : method == Method.BITFIT ? "BitFit" : "adapters of all weights");
        }
        if (adapter.info().useDora()) {
            return Optional.of("DoRA");
        }
        if (adapter.tensors().stream().anyMatch(Adapter.Tensor::isWhole)) {
            return Optional.of("modules to save");
        }
        // A tied head has no tensor of its own there.
        boolean onHead = adapter.tensors().stream()
                .anyMatch(tensor -> tensor.isA() && !tensor.name().startsWith("blk."));
        return onHead && adapter.model().info().tiedOutput()
                ? Optional.of("LoRA on a head that is the embedding")
                : Optional.empty();
    }
}
