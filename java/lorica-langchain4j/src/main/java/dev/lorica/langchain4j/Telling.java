package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.PartialResponse;
import dev.langchain4j.model.chat.response.PartialResponseContext;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.chat.response.StreamingHandle;
import dev.lorica.generate.Generation;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/** Tells a handler of one answer, and is what it may cancel it by. */
final class Telling implements StreamingHandle {
    private static final Logger LOG = LoggerFactory.getLogger(Telling.class);

    private final StreamingChatResponseHandler handler;
    private final PartialResponseContext context = new PartialResponseContext(this);
    private Generation generation;
    private boolean cancelled;

    Telling(StreamingChatResponseHandler handler) {
        this.handler = handler;
    }

    void tell(Chats.Asked asked) {
        ChatResponse response;
        try {
            response = asked.answer(this::began, this::piece);
        } catch (Exception e) {
            if (!isCancelled()) {
                error(e);
            }
            return;
        }
        if (!isCancelled()) {
            told(() -> handler.onCompleteResponse(response));
        }
    }

    private synchronized void began(Generation begun) {
        generation = begun;
    }

    private void piece(String text) {
        if (!isCancelled()) {
            told(() -> handler.onPartialResponse(new PartialResponse(text), context));
        }
    }

    private void told(Runnable call) {
        try {
            call.run();
        } catch (Exception e) {
            error(e);
        }
    }

    private void error(Exception error) {
        try {
            handler.onError(error);
        } catch (Exception e) {
            LOG.warn("a handler's onError has thrown an exception, which is ignored", e);
        }
    }

    @Override
    public synchronized void cancel() {
        cancelled = true;
        generation.cancel();
    }

    @Override
    public synchronized boolean isCancelled() {
        return cancelled;
    }
}
