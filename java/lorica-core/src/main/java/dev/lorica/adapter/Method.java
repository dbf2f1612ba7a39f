package dev.lorica.adapter;

import dev.lorica.internal.NativeAdapter;
import java.util.Locale;

/** What is trained of a model. */
public enum Method {
    /** Pairs of small matrices beside linear layers, with DoRA's magnitudes or without: {@link LoraConfig}. */
    LORA(NativeAdapter.METHOD_LORA),
    /** Factors of what goes into linear layers or comes out of them (Liu et al. 2022): {@link Ia3Config}. */
    IA3(NativeAdapter.METHOD_IA3),
    /** Biases, and norms with them (Ben Zaken et al. 2021): {@link BitFitConfig}. */
    BITFIT(NativeAdapter.METHOD_BITFIT),
    /** The model's own weights, all or some: {@link FullConfig}. */
    FULL(NativeAdapter.METHOD_FULL),
    /** Embeddings in front of every text (Lester et al. 2021): {@link PromptTuningConfig}. */
    PROMPT_TUNING(NativeAdapter.METHOD_PROMPT_TUNING),
    /** The same out of a small network, which is trained (Liu et al. 2021): {@link PTuningConfig}. */
    P_TUNING(NativeAdapter.METHOD_P_TUNING),
    /** Keys and values in front of every text (Li and Liang 2021): {@link PrefixTuningConfig}. */
    PREFIX_TUNING(NativeAdapter.METHOD_PREFIX_TUNING),
    /** Small layers behind the branches of each layer (Houlsby et al. 2019): {@link BottleneckConfig}. */
    BOTTLENECK(NativeAdapter.METHOD_BOTTLENECK);

    final int code;

    Method(int code) {
        this.code = code;
    }

    static Method of(int code) {
        for (Method method : values()) {
            if (method.code == code) {
                return method;
            }
        }
        throw new IllegalStateException("method " + code);
    }

    @Override
    public String toString() {
        return name().toLowerCase(Locale.ROOT).replace('_', '-');
    }
}
