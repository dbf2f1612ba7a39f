package dev.lorica.adapter;

import dev.lorica.internal.Arguments;
import java.util.List;

/**
 * What a new IA3 adapter looks like; names and meanings are those of PEFT's {@code IA3Config}. All factors begin as 1.
 *
 * @param targetModules      {@code target_modules}: names as in {@link LoraConfig}; empty: PEFT's for the model's architecture, with
 *                           its feed-forward modules
 * @param feedforwardModules {@code feedforward_modules}: those of them whose input is multiplied, not their output
 */
public record Ia3Config(List<String> targetModules, List<String> feedforwardModules) implements AdapterConfig {
    /**
     * Checks the components.
     *
     * @throws dev.lorica.exceptions.InvalidArgumentException naming the one that is wrong
     */
    public Ia3Config {
        targetModules = TargetModules.split(Arguments.all(targetModules, "targetModules"));
        feedforwardModules = TargetModules.split(Arguments.all(feedforwardModules, "feedforwardModules"));
    }

    /** {@return settings with PEFT's own modules for the architecture} */
    public static Ia3Config defaults() {
        return new Ia3Config(List.of(), List.of());
    }

    @Override
    public Method method() {
        return Method.IA3;
    }
}
