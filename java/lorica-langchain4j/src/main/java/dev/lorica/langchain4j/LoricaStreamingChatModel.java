package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import java.util.List;
import java.util.concurrent.Executor;
import java.util.concurrent.Executors;

/**
 * LangChain4j's {@link StreamingChatModel} over a {@link dev.lorica.generate.Generator}: pieces of text come as soon as they are
 * certain, which is never half a character and never part of a stop string. Otherwise as {@link LoricaChatModel}.
 *
 * <p>One thread calls the handler of a request from its first piece to its end. What a handler throws goes to its {@code onError}, and
 * the answer goes on. After a cancellation through its handle a handler is not called any more.
 */
public final class LoricaStreamingChatModel implements StreamingChatModel {
    private final Chats chats;
    private final Executor executor;

    private LoricaStreamingChatModel(Chats chats, Executor executor) {
        this.chats = chats;
        this.executor = executor;
    }

    /** {@return a model's settings} */
    public static Builder builder() {
        return new Builder();
    }

    /** Makes a {@link LoricaStreamingChatModel}. */
    public static final class Builder extends ChatBuilder<Builder> {
        private Executor executor;

        private Builder() {}

        /**
         * What runs the generation of each answer; without one, daemon threads that end after a minute without work.
         *
         * @param value the executor, which stays the caller's
         * @return this builder
         */
        public Builder executor(Executor value) {
            executor = value;
            return this;
        }

        /**
         * {@return the model with these settings}
         *
         * @throws dev.langchain4j.exception.InvalidRequestException     if there is no generator, or a parameter that cannot be
         * @throws dev.langchain4j.exception.ModelNotFoundException      if the parameters name an adapter that was not given
         * @throws dev.langchain4j.exception.UnsupportedFeatureException if the parameters want what is not there
         */
        public LoricaStreamingChatModel build() {
            return new LoricaStreamingChatModel(new Chats(this), executor == null ? Threads.SHARED : executor);
        }
    }

    private static final class Threads {
        static final Executor SHARED = Executors.newCachedThreadPool(task -> {
            Thread thread = new Thread(task, "lorica-chat");
            thread.setDaemon(true);
            return thread;
        });
    }

    /**
     * Answers a conversation; returns at once. What is wrong with the request is thrown here, what goes wrong with the answer is
     * told to the handler.
     *
     * @throws dev.langchain4j.exception.InvalidRequestException     if the request cannot be
     * @throws dev.langchain4j.exception.ModelNotFoundException      if it names an adapter that was not given
     * @throws dev.langchain4j.exception.UnsupportedFeatureException if it wants what is not there
     */
    @Override
    public void doChat(ChatRequest request, StreamingChatResponseHandler handler) {
        Chats.Asked asked = chats.asked(request);
        executor.execute(() -> new Telling(handler).tell(asked));
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
