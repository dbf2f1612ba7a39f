package dev.lorica.adapter;

/** What a new adapter looks like: one record for each {@link Method}. */
public sealed interface AdapterConfig
        permits LoraConfig,
                Ia3Config,
                BitFitConfig,
                FullConfig,
                PromptTuningConfig,
                PTuningConfig,
                PrefixTuningConfig,
                BottleneckConfig {
    /** {@return the method that these are the settings of} */
    Method method();
}
