package dev.lorica.adapter;

/** The biases of a model's linear layers and its norms, trained themselves; there is nothing to set. Weight decay leaves them alone. */
public record BitFitConfig() implements AdapterConfig {
    @Override
    public Method method() {
        return Method.BITFIT;
    }
}
