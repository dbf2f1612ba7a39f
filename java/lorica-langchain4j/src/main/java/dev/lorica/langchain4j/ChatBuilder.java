package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/**
 * What {@link LoricaChatModel} and {@link LoricaStreamingChatModel} are made of.
 *
 * @param <B> the builder itself
 */
public abstract sealed class ChatBuilder<B extends ChatBuilder<B>>
        permits LoricaChatModel.Builder, LoricaStreamingChatModel.Builder {
    Generator generator;
    GenerationConfig config = GenerationConfig.defaults();
    String modelName;
    ChatRequestParameters parameters;
    List<ChatModelListener> listeners = List.of();
    final Map<String, List<ScaledAdapter>> adapters = new LinkedHashMap<>();

    ChatBuilder() {}

    @SuppressWarnings("unchecked")
    private B self() {
        return (B) this;
    }

    /**
     * What generates; has to be given, and to be closed by whoever made it.
     *
     * @param value the generator
     * @return this builder
     */
    public B generator(Generator value) {
        generator = value;
        return self();
    }

    /**
     * How text is generated where a request says nothing; {@link GenerationConfig#defaults} without this. Its seed is that of every
     * answer: the same request gives the same text.
     *
     * @param value the settings
     * @return this builder
     */
    public B config(GenerationConfig value) {
        config = value;
        return self();
    }

    /**
     * The name of what the generator has of itself; the model's file's without this.
     *
     * @param value the name
     * @return this builder
     */
    public B modelName(String value) {
        modelName = value;
        return self();
    }

    /**
     * Requests with this name of a model are answered with this adapter instead of the generator's own.
     *
     * @param name  by which requests ask for it
     * @param value the adapter, which stays the caller's
     * @return this builder
     */
    public B adapter(String name, Adapter value) {
        return adapters(name, List.of(new ScaledAdapter(value, 1)));
    }

    /**
     * Requests with this name of a model are answered with the sum of these adapters; none: by the base alone.
     *
     * @param name   by which requests ask for them
     * @param values the adapters with their scales, which stay the caller's
     * @return this builder
     */
    public B adapters(String name, List<ScaledAdapter> values) {
        adapters.put(name, values);
        return self();
    }

    /**
     * What requests ask for where they say nothing; goes before {@link #config}.
     *
     * @param value the parameters
     * @return this builder
     */
    public B defaultRequestParameters(ChatRequestParameters value) {
        parameters = value;
        return self();
    }

    /**
     * Are told of requests, responses and errors.
     *
     * @param values the listeners
     * @return this builder
     */
    public B listeners(List<ChatModelListener> values) {
        listeners = values;
        return self();
    }
}
