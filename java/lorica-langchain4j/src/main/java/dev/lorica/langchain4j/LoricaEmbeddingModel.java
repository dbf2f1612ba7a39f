package dev.lorica.langchain4j;

import dev.langchain4j.data.embedding.Embedding;
import dev.langchain4j.exception.InvalidRequestException;
import dev.langchain4j.model.embedding.EmbeddingModel;
import dev.langchain4j.model.embedding.listener.EmbeddingModelListener;
import dev.langchain4j.model.embedding.request.EmbeddingInput;
import dev.langchain4j.model.embedding.request.EmbeddingRequest;
import dev.langchain4j.model.embedding.response.EmbeddingResponse;
import dev.langchain4j.model.embedding.response.EmbeddingResponseMetadata;
import dev.langchain4j.model.output.TokenUsage;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.eval.Embedder;
import java.util.List;

/**
 * LangChain4j's {@link EmbeddingModel} over a model, best an encoder such as BERT or MiniLM: vectors of length 1.
 *
 * <pre>{@code
 * try (Model model = Model.load(Path.of("all-minilm-l6-v2-f16.gguf"));
 *         LoricaEmbeddingModel embeddings = LoricaEmbeddingModel.builder().model(model).build()) {
 *     float[] vector = embeddings.embed("Who is Mr. Collins?").content().vector();
 * }
 * }</pre>
 *
 * Of a text that is longer than the model's context, or than 2048 tokens, the beginning is read. Other numbers of dimensions, kinds of
 * input and images are refused with {@link dev.langchain4j.exception.UnsupportedFeatureException}. Any thread may ask; one at a time
 * is served.
 */
public final class LoricaEmbeddingModel implements EmbeddingModel, AutoCloseable {
    private final Embedder embedder;
    private final Embedder.Pooling pooling;
    private final String name;
    private final int dimension;
    private final List<EmbeddingModelListener> listeners;

    private LoricaEmbeddingModel(Builder builder) {
        if (builder.model == null) {
            throw new InvalidRequestException("model is null; the builder needs one");
        }
        Model model = builder.model;
        pooling = builder.pooling == null ? Embedder.Pooling.of(model) : builder.pooling;
        name = builder.modelName == null
                ? model.file().getFileName().toString().replaceFirst("\\.gguf$", "")
                : builder.modelName;
        dimension = model.info().embedding();
        listeners = List.copyOf(builder.listeners);
        embedder = new Embedder(model, builder.adapter);
    }

    /** {@return a model's settings} */
    public static Builder builder() {
        return new Builder();
    }

    /** Makes a {@link LoricaEmbeddingModel}. */
    public static final class Builder {
        private Model model;
        private Adapter adapter;
        private Embedder.Pooling pooling;
        private String modelName;
        private List<EmbeddingModelListener> listeners = List.of();

        private Builder() {}

        /**
         * What reads the texts; has to be given, and to be closed by whoever loaded it.
         *
         * @param value the model
         * @return this builder
         */
        public Builder model(Model value) {
            model = value;
            return this;
        }

        /**
         * What was trained on it; without one, the model alone.
         *
         * @param value the adapter, which stays the caller's
         * @return this builder
         */
        public Builder adapter(Adapter value) {
            adapter = value;
            return this;
        }

        /**
         * How the states of a text's tokens become one vector; without it, as the model's file says.
         *
         * @param value which tokens make the vector
         * @return this builder
         */
        public Builder pooling(Embedder.Pooling value) {
            pooling = value;
            return this;
        }

        /**
         * The name that responses have; the model's file's without this.
         *
         * @param value the name
         * @return this builder
         */
        public Builder modelName(String value) {
            modelName = value;
            return this;
        }

        /**
         * Are told of requests, responses and errors.
         *
         * @param values the listeners
         * @return this builder
         */
        public Builder listeners(List<EmbeddingModelListener> values) {
            listeners = values;
            return this;
        }

        /**
         * {@return the model with these settings, which has to be closed}
         *
         * @throws InvalidRequestException             if there is no model
         * @throws dev.lorica.exceptions.LoricaException if the adapter is not one of this model, or there is too little memory
         */
        public LoricaEmbeddingModel build() {
            return new LoricaEmbeddingModel(this);
        }
    }

    @Override
    public EmbeddingResponse doEmbed(EmbeddingRequest request) {
        List<String> texts = request.inputs().stream().map(EmbeddingInput::text).toList();
        List<Embedding> vectors;
        synchronized (this) {
            vectors = embedder.embed(texts, pooling, true).stream()
                    .map(Embedding::from)
                    .toList();
        }
        return EmbeddingResponse.builder()
                .embeddings(vectors)
                .metadata(EmbeddingResponseMetadata.builder()
                        .modelName(name)
                        .tokenUsage(new TokenUsage(embedder.tokens(texts)))
                        .build())
                .build();
    }

    @Override
    public int dimension() {
        return dimension;
    }

    @Override
    public String modelName() {
        return name;
    }

    @Override
    public List<EmbeddingModelListener> listeners() {
        return listeners;
    }

    /** Gives back the memory; the model stays open. */
    @Override
    public synchronized void close() {
        embedder.close();
    }
}
