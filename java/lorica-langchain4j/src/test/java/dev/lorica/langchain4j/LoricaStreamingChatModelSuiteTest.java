package dev.lorica.langchain4j;

import dev.langchain4j.model.chat.StreamingChatModel;
import dev.langchain4j.model.chat.common.AbstractStreamingChatModelIT;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.lorica.generate.Generator;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;

/** What LangChain4j asks of every StreamingChatModel. */
@Timeout(900)
class LoricaStreamingChatModelSuiteTest extends AbstractStreamingChatModelIT {
    private static Generator generator;

    @BeforeAll
    static void open() {
        generator = new Generator(Taught.MODEL, Taught.ADAPTER);
    }

    @AfterAll
    static void close() {
        generator.close();
    }

    private static LoricaStreamingChatModel.Builder model() {
        return LoricaStreamingChatModel.builder()
                .generator(generator)
                .config(Taught.GREEDY)
                .adapters("untaught", List.of());
    }

    @Override
    protected List<StreamingChatModel> models() {
        return List.of(model().build());
    }

    @Override
    protected StreamingChatModel createModelWith(ChatRequestParameters parameters) {
        return model().defaultRequestParameters(parameters).build();
    }

    @Override
    public StreamingChatModel createModelWith(ChatModelListener listener) {
        return model().listeners(List.of(listener)).build();
    }

    @Override
    protected String customModelName() {
        return "untaught";
    }

    @Override
    protected ChatRequestParameters createIntegrationSpecificParameters(int maxOutputTokens) {
        return ChatRequestParameters.builder().maxOutputTokens(maxOutputTokens).build();
    }

    /** That test of the suite waits for 30 seconds whether anything comes; LoricaModelsTest does not. */
    @Override
    protected boolean supportsStreamingCancellation() {
        return Boolean.getBoolean("lorica.langchain4j.suite");
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
