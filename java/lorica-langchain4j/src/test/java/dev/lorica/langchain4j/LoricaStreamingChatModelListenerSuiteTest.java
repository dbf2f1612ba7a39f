package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.common.AbstractStreamingChatModelListenerIT;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;

/** What LangChain4j asks of every StreamingChatModel that has listeners. */
@Timeout(900)
class LoricaStreamingChatModelListenerSuiteTest extends AbstractStreamingChatModelListenerIT {
    private static Generator generator;

    @BeforeAll
    static void open() {
        generator = new Generator(Taught.MODEL, Taught.ADAPTER);
    }

    @AfterAll
    static void close() {
        generator.close();
    }

    private StreamingChatModel model(Generator generator, ChatModelListener listener) {
        return LoricaStreamingChatModel.builder()
                .generator(generator)
                .modelName(modelName())
                .config(GenerationConfig.builder()
                        .temperature(temperature())
                        .topP(topP())
                        .maxNewTokens(maxTokens())
                        .build())
                .listeners(List.of(listener))
                .build();
    }

    @Override
    protected StreamingChatModel createModel(ChatModelListener listener) {
        return model(generator, listener);
    }

    @Override
    protected String modelName() {
        return "austen";
    }

    @Override
    protected StreamingChatModel createFailingModel(ChatModelListener listener) {
        Generator closed = new Generator(Taught.MODEL);
        closed.close();
        return model(closed, listener);
    }

    @Override
    protected Class<? extends Exception> expectedExceptionClass() {
        return IllegalStateException.class;
    }

    @Override
    protected boolean supportsTools() {
        return false;
    }
}
