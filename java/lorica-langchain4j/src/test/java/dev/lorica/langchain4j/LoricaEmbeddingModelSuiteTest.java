package dev.lorica.langchain4j;

import dev.langchain4j.model.embedding.EmbeddingModel;
import dev.langchain4j.model.embedding.common.AbstractEmbeddingModelIT;
import dev.langchain4j.model.embedding.listener.EmbeddingModelListener;
import dev.lorica.Model;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Timeout;

/** What LangChain4j asks of every EmbeddingModel, of an encoder and of a decoder. */
@Timeout(900)
class LoricaEmbeddingModelSuiteTest extends AbstractEmbeddingModelIT {
    private static Model encoder;

    @BeforeAll
    static void open() {
        encoder = Model.load(Taught.repository("java/lorica-core/src/test/resources/convert/bert/expected.gguf"));
    }

    @AfterAll
    static void close() {
        encoder.close();
    }

    /** New ones for each test: JUnit closes arguments that can be closed. */
    @Override
    protected List<EmbeddingModel> models() {
        return List.of(
                LoricaEmbeddingModel.builder().model(encoder).build(),
                LoricaEmbeddingModel.builder().model(Taught.MODEL).build());
    }

    @Override
    protected EmbeddingModel modelWith(EmbeddingModelListener listener) {
        return LoricaEmbeddingModel.builder()
                .model(Taught.MODEL)
                .listeners(List.of(listener))
                .build();
    }

    @Override
    protected EmbeddingModel failingModelWith(EmbeddingModelListener listener) {
        LoricaEmbeddingModel closed = (LoricaEmbeddingModel) modelWith(listener);
        closed.close();
        return closed;
    }

    @Override
    protected boolean supportsInputTypeParameter() {
        return false;
    }

    @Override
    protected boolean supportsDimensionsParameter() {
        return false;
    }

    @Override
    protected boolean supportsImageInput() {
        return false;
    }
}
