package dev.lorica.langchain4j;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.langchain4j.agent.tool.ToolExecutionRequest;
import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.data.message.UserMessage;
import dev.langchain4j.exception.InvalidRequestException;
import dev.langchain4j.exception.ModelNotFoundException;
import dev.langchain4j.exception.UnsupportedFeatureException;
import dev.langchain4j.model.chat.ChatModel;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.PartialResponse;
import dev.langchain4j.model.chat.response.PartialResponseContext;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.chat.response.StreamingHandle;
import dev.lorica.Model;
import dev.lorica.data.Message;
import dev.lorica.eval.Embedder;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.CountDownLatch;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** What is ours alone: the same texts as without LangChain4j, adapters by their names, many who ask, what is wrong in one line. */
@Timeout(900)
class LoricaModelsTest {
    private static final String QUESTION = "What is the capital of Germany?";

    private static LoricaChatModel.Builder over(Generator generator) {
        return LoricaChatModel.builder().generator(generator).config(Taught.GREEDY);
    }

    private static String asked(Generator generator, GenerationConfig config) {
        return generator.chat(List.of(Message.user(QUESTION)), config).result().text();
    }

    private static ChatRequest request(ChatRequestParameters parameters) {
        return ChatRequest.builder()
                .messages(UserMessage.from(QUESTION))
                .parameters(parameters)
                .build();
    }

    @Test
    void answersAreThoseOfTheGeneratorWithTheAdapterThatIsNamed() {
        GenerationConfig drawn =
                GenerationConfig.builder().maxNewTokens(12).seed(7).build();
        try (Generator taught = new Generator(Taught.MODEL, Taught.ADAPTER);
                Generator base = new Generator(Taught.MODEL)) {
            String own = asked(taught, drawn);
            String untaught = asked(base, drawn);
            assertThat(own).isNotEqualTo(untaught);
            ChatModel model = over(base)
                    .config(drawn)
                    .modelName("austen")
                    .adapter("taught", Taught.ADAPTER)
                    .build();
            assertThat(model.chat(QUESTION)).isEqualTo(untaught);
            ChatResponse named = model.chat(
                    request(ChatRequestParameters.builder().modelName("taught").build()));
            assertThat(named.aiMessage().text()).isEqualTo(own);
            assertThat(named.metadata().modelName()).isEqualTo("taught");
            assertThat(over(base).build().defaultRequestParameters().modelName())
                    .isEqualTo("austen-7m-q4_0");
        }
    }

    @Test
    void whoAsksAtTheSameTimeGetsTheSameAnswersInPiecesOrWhole() throws Exception {
        try (Generator generator = new Generator(Taught.MODEL, Taught.ADAPTER)) {
            String wanted = asked(generator, Taught.GREEDY);
            assertThat(wanted).contains("Berlin.");
            ChatModel whole = over(generator).build();
            LoricaStreamingChatModel pieces = LoricaStreamingChatModel.builder()
                    .generator(generator)
                    .config(Taught.GREEDY)
                    .build();
            List<CompletableFuture<String>> answers = new ArrayList<>();
            for (int i = 0; i < 4; i++) {
                answers.add(CompletableFuture.supplyAsync(() -> whole.chat(QUESTION)));
                answers.add(told(pieces));
            }
            for (CompletableFuture<String> answer : answers) {
                assertThat(answer.get(240, TimeUnit.SECONDS)).isEqualTo(wanted);
            }
        }
    }

    private static CompletableFuture<String> told(LoricaStreamingChatModel model) {
        CompletableFuture<String> answer = new CompletableFuture<>();
        StringBuilder text = new StringBuilder();
        model.chat(QUESTION, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String piece) {
                text.append(piece);
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
                answer.complete(text.toString());
            }

            @Override
            public void onError(Throwable error) {
                answer.completeExceptionally(error);
            }
        });
        return answer;
    }

    @Test
    void anAnswerThatIsCancelledEndsAtOnceAndItsHandlerHearsNothingMore() throws Exception {
        try (Generator generator = new Generator(Taught.MODEL)) {
            LoricaStreamingChatModel model = LoricaStreamingChatModel.builder()
                    .generator(generator)
                    .config(GenerationConfig.builder()
                            .maxNewTokens(100_000)
                            .logitBias(Map.of(Taught.MODEL.tokenizer().info().eos(), -100.0))
                            .build())
                    .build();
            AtomicInteger pieces = new AtomicInteger();
            AtomicInteger ends = new AtomicInteger();
            CompletableFuture<StreamingHandle> cancelled = new CompletableFuture<>();
            model.chat(QUESTION, new StreamingChatResponseHandler() {
                @Override
                public void onPartialResponse(PartialResponse piece, PartialResponseContext context) {
                    if (pieces.incrementAndGet() == 3) {
                        context.streamingHandle().cancel();
                        cancelled.complete(context.streamingHandle());
                    }
                }

                @Override
                public void onCompleteResponse(ChatResponse response) {
                    ends.incrementAndGet();
                }

                @Override
                public void onError(Throwable error) {
                    ends.incrementAndGet();
                }
            });
            assertThat(cancelled.get(240, TimeUnit.SECONDS).isCancelled()).isTrue();
            // waits until the one before is over
            assertThat(over(generator)
                            .adapter("taught", Taught.ADAPTER)
                            .build()
                            .chat(request(ChatRequestParameters.builder()
                                    .modelName("taught")
                                    .build()))
                            .aiMessage()
                            .text())
                    .contains("Berlin.");
            assertThat(pieces).hasValue(3);
            assertThat(ends).hasValue(0);
        }
    }

    @Test
    void aGeneratorThatIsClosedEndsAnAnswerWithAnErrorAndNotWithHalfOfIt() throws Exception {
        Generator generator = new Generator(Taught.MODEL);
        LoricaStreamingChatModel model = LoricaStreamingChatModel.builder()
                .generator(generator)
                .config(GenerationConfig.builder().maxNewTokens(100_000).build())
                .build();
        CountDownLatch begun = new CountDownLatch(1);
        CompletableFuture<Throwable> error = new CompletableFuture<>();
        model.chat(QUESTION, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String piece) {
                begun.countDown();
                if (!error.isDone()) {
                    generator.close();
                }
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
                error.completeExceptionally(new AssertionError("complete: " + response));
            }

            @Override
            public void onError(Throwable thrown) {
                error.complete(thrown);
            }
        });
        assertThat(begun.await(240, TimeUnit.SECONDS)).isTrue();
        assertThat(error.get(240, TimeUnit.SECONDS))
                .isInstanceOfAny(CancelledException.class, IllegalStateException.class);
    }

    @Test
    void whatIsWrongIsSaidInOneLine() {
        try (Generator generator = new Generator(Taught.MODEL)) {
            ChatModel model = over(generator).adapter("taught", Taught.ADAPTER).build();
            assertThatThrownBy(() -> model.chat(request(
                            ChatRequestParameters.builder().modelName("other").build())))
                    .isExactlyInstanceOf(ModelNotFoundException.class)
                    .hasMessage("there is no model other; there are austen-7m-q4_0, taught");
            assertThatThrownBy(() -> model.chat(request(
                            ChatRequestParameters.builder().temperature(-1.0).build())))
                    .isExactlyInstanceOf(InvalidRequestException.class)
                    .hasMessage("temperature is -1.0; it must be 0 (always the likeliest) or more");
            assertThatThrownBy(() -> model.chat(UserMessage.from(QUESTION), AiMessage.from("Berlin.")))
                    .isExactlyInstanceOf(InvalidRequestException.class)
                    .hasMessageContaining("nothing to answer");
            assertThatThrownBy(() -> model.chat(
                            AiMessage.from(ToolExecutionRequest.builder()
                                    .name("weather")
                                    .build()),
                            UserMessage.from(QUESTION)))
                    .isExactlyInstanceOf(UnsupportedFeatureException.class)
                    .hasMessageContaining("calls of tools");
            assertThatThrownBy(() -> over(generator)
                            .adapter("austen-7m-q4_0", Taught.ADAPTER)
                            .build())
                    .hasMessage("two models have the name austen-7m-q4_0; each needs its own");
            assertThatThrownBy(() -> LoricaChatModel.builder().build())
                    .hasMessage("generator is null; the builder needs one");
            assertThatThrownBy(() -> LoricaEmbeddingModel.builder().build())
                    .hasMessage("model is null; the builder needs one");
        }
    }

    @Test
    void vectorsAreThoseOfTheEmbedderWithItsTokensCounted() {
        List<String> texts = List.of("Jane", "who is Mr. Collins?");
        try (Model encoder = Model.load(
                        Taught.repository("java/lorica-core/src/test/resources/convert/bert/expected.gguf"));
                Embedder embedder = new Embedder(encoder);
                LoricaEmbeddingModel model = LoricaEmbeddingModel.builder()
                        .model(encoder)
                        .pooling(Embedder.Pooling.CLS)
                        .build()) {
            List<float[]> wanted = embedder.embed(texts, Embedder.Pooling.CLS, true);
            for (int i = 0; i < texts.size(); i++) {
                assertThat(model.embed(texts.get(i)).content().vector()).isEqualTo(wanted.get(i));
            }
            int tokens = encoder.tokenizer().encode(texts.get(0), true, false).length;
            assertThat(model.embed(texts.get(0)).tokenUsage().inputTokenCount()).isEqualTo(tokens);
        }
    }
}
