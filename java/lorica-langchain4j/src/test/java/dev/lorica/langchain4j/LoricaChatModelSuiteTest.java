package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.common.AbstractChatModelIT;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.lorica.generate.Generator;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;

/** What LangChain4j asks of every ChatModel. */
@Timeout(900)
class LoricaChatModelSuiteTest extends AbstractChatModelIT {
    private static Generator generator;

    @BeforeAll
    static void open() {
        generator = new Generator(Taught.MODEL, Taught.ADAPTER);
    }

    @AfterAll
    static void close() {
        generator.close();
    }

    private static LoricaChatModel.Builder model() {
        return LoricaChatModel.builder()
                .generator(generator)
                .config(Taught.GREEDY)
                .adapters("untaught", List.of());
    }

    @Override
    protected List<ChatModel> models() {
        return List.of(model().build());
    }

    @Override
    protected ChatModel createModelWith(ChatRequestParameters parameters) {
        return model().defaultRequestParameters(parameters).build();
    }

    @Override
    protected String customModelName() {
        return "untaught";
    }

    @Override
    protected ChatRequestParameters createIntegrationSpecificParameters(int maxOutputTokens) {
        return ChatRequestParameters.builder().maxOutputTokens(maxOutputTokens).build();
    }

    @Override
    protected boolean supportsTools() {
        return false;
    }

    @Override
    protected boolean supportsToolChoiceRequired() {
        return false;
    }

    @Override
    protected boolean supportsJsonResponseFormat() {
        return false;
    }

    @Override
    protected boolean supportsJsonResponseFormatWithSchema() {
        return false;
    }

    @Override
    protected boolean supportsJsonResponseFormatWithRawSchema() {
        return false;
    }

    @Override
    protected boolean supportsSingleImageInputAsBase64EncodedString() {
        return false;
    }

    @Override
    protected boolean supportsSingleImageInputAsPublicURL() {
        return false;
    }
}
