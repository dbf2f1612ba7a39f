package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.lorica.exceptions.LoricaException;
import java.util.List;

/**
 * LangChain4j's {@link ChatModel} over a {@link dev.lorica.generate.Generator}.
 *
 * <pre>{@code
 * ChatModel chat = LoricaChatModel.builder()
 *         .generator(new Generator(model, adapter))
 *         .config(GenerationConfig.builder().temperature(0.2).maxNewTokens(200).build())
 *         .build();
 * String answer = chat.chat("Who is Mr. Collins?");
 * }</pre>
 *
 * Any thread may ask. Those who ask models of the same generator wait for one another, and nobody else should use it; generators of
 * one model share its weights. Closing the generator, which whoever made it has to do, ends what is being answered with
 * {@link dev.lorica.exceptions.CancelledException}.
 *
 * <p>The model's name in a request chooses among the adapters that the builder was given. Questions are put into the chat template of
 * the adapter, or else of the model. Reasoning in earlier answers is not shown to the model again.
 */
public final class LoricaChatModel implements ChatModel {
    private final Chats chats;

    private LoricaChatModel(Chats chats) {
        this.chats = chats;
    }

    /** {@return a model's settings} */
    public static Builder builder() {
        return new Builder();
    }

    /** Makes a {@link LoricaChatModel}. */
    public static final class Builder extends ChatBuilder<Builder> {
        private Builder() {}

        /**
         * {@return the model with these settings}
         *
         * @throws dev.langchain4j.exception.InvalidRequestException     if there is no generator, or a parameter that cannot be
         * @throws dev.langchain4j.exception.ModelNotFoundException      if the parameters name an adapter that was not given
         * @throws dev.langchain4j.exception.UnsupportedFeatureException if the parameters want what is not there
         */
        public LoricaChatModel build() {
            return new LoricaChatModel(new Chats(this));
        }
    }

    /**
     * Answers a conversation.
     *
     * @throws dev.langchain4j.exception.InvalidRequestException     if the request cannot be
     * @throws dev.langchain4j.exception.ModelNotFoundException      if it names an adapter that was not given
     * @throws dev.langchain4j.exception.UnsupportedFeatureException if it wants what is not there
     * @throws LoricaException                                      if the answer cannot be generated
     */
    @Override
    public ChatResponse doChat(ChatRequest request) {
        return chats.asked(request).answer();
    }

    @Override
    public ChatRequestParameters defaultRequestParameters() {
        return chats.defaults();
    }

    @Override
    public List<ChatModelListener> listeners() {
        return chats.listeners();
    }
}
