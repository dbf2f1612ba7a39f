package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.common.AbstractChatModelListenerIT;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;

/** What LangChain4j asks of every ChatModel that has listeners. */
@Timeout(900)
class LoricaChatModelListenerSuiteTest extends AbstractChatModelListenerIT {
    private static Generator generator;

    @BeforeAll
    static void open() {
        generator = new Generator(Taught.MODEL, Taught.ADAPTER);
    }

    @AfterAll
    static void close() {
        generator.close();
    }

    private ChatModel model(Generator generator, ChatModelListener listener) {
        return LoricaChatModel.builder()
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
    protected ChatModel createModel(ChatModelListener listener) {
        return model(generator, listener);
    }

    @Override
    protected String modelName() {
        return "austen";
    }

    @Override
    protected ChatModel createFailingModel(ChatModelListener listener) {
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
