package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.openai.client.OpenAIClient;
import com.openai.client.okhttp.OpenAIOkHttpClient;
import com.openai.core.http.StreamResponse;
import com.openai.errors.BadRequestException;
import com.openai.errors.NotFoundException;
import com.openai.models.chat.completions.ChatCompletion;
import com.openai.models.chat.completions.ChatCompletionChunk;
import com.openai.models.chat.completions.ChatCompletionCreateParams;
import com.openai.models.chat.completions.ChatCompletionStreamOptions;
import com.openai.models.completions.Completion;
import com.openai.models.completions.CompletionCreateParams;
import com.openai.models.embeddings.EmbeddingCreateParams;
import com.openai.models.models.Model;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.StreamingChatResponseHandler;
import dev.langchain4j.model.openai.OpenAiChatModel;
import dev.langchain4j.model.openai.OpenAiStreamingChatModel;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.Message;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Generator;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.TimeUnit;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/** The clients that people have already: OpenAI's own for Java, and LangChain4j's. */
@Timeout(900)
class ClientsTest {
    private static final String QUESTION = "Who is Mr. Collins?";
    private static final int TOKENS = 12;

    private static TestServer served;
    private static OpenAIClient client;

    @BeforeAll
    static void start() {
        served = new TestServer(ServeConfig.builder().modelName("austen").apiKey(TestServer.KEY));
        client = OpenAIOkHttpClient.builder()
                .baseUrl(served.server.uri() + "/v1")
                .apiKey(TestServer.KEY)
                .build();
    }

    @AfterAll
    static void stop() {
        client.close();
        served.close();
    }

    private static Map<String, Adapter> models() {
        return Map.of("one", served.one, "other", served.other);
    }

    private static String expected(Adapter adapter) {
        try (Generator generator = new Generator(served.model, adapter)) {
            return generator
                    .chat(
                            List.of(Message.user(QUESTION)),
                            GenerationConfig.builder()
                                    .temperature(0)
                                    .maxNewTokens(TOKENS)
                                    .build())
                    .result()
                    .text();
        }
    }

    private static ChatCompletionCreateParams.Builder chat(String model) {
        return ChatCompletionCreateParams.builder()
                .model(model)
                .addUserMessage(QUESTION)
                .temperature(0)
                .maxCompletionTokens(TOKENS);
    }

    @Test
    void openAisClientChatsWithSeveralAdapters() {
        assertThat(client.models().list().data().stream().map(Model::id)).containsExactly("austen", "one", "other");
        for (Map.Entry<String, Adapter> model : models().entrySet()) {
            ChatCompletion answer =
                    client.chat().completions().create(chat(model.getKey()).build());
            assertThat(answer.choices().get(0).message().content()).contains(expected(model.getValue()));
            assertThat(answer.usage().orElseThrow().completionTokens()).isBetween(1L, (long) TOKENS);
        }
    }

    @Test
    void openAisClientStreams() {
        StringBuilder text = new StringBuilder();
        List<Long> usage = new ArrayList<>();
        ChatCompletionCreateParams params = chat("one")
                .streamOptions(
                        ChatCompletionStreamOptions.builder().includeUsage(true).build())
                .build();
        try (StreamResponse<ChatCompletionChunk> stream =
                client.chat().completions().createStreaming(params)) {
            stream.stream().forEach(chunk -> {
                chunk.choices().forEach(choice -> choice.delta().content().ifPresent(text::append));
                chunk.usage().ifPresent(used -> usage.add(used.completionTokens()));
            });
        }
        assertThat(text.toString()).isEqualTo(expected(served.one));
        assertThat(usage).hasSize(1);
    }

    @Test
    void openAisClientCompletesEmbedsAndUnderstandsErrors() {
        Completion completion = client.completions()
                .create(CompletionCreateParams.builder()
                        .model("austen")
                        .prompt("It is a truth")
                        .maxTokens(3)
                        .logprobs(2)
                        .echo(true)
                        .build());
        assertThat(completion.choices().get(0).text()).startsWith("It is a truth");
        assertThat(completion.choices().get(0).logprobs().orElseThrow().tokens().orElseThrow())
                .hasSizeGreaterThan(4);
        assertThat(client.embeddings()
                        .create(EmbeddingCreateParams.builder()
                                .model("austen")
                                .input("Jane")
                                .build())
                        .data()
                        .get(0)
                        .embedding())
                .hasSize(served.model.info().embedding());
        assertThatThrownBy(() -> client.chat().completions().create(chat("none").build()))
                .isInstanceOf(NotFoundException.class)
                .hasMessageContaining("the model none does not exist");
        assertThatThrownBy(() -> client.chat()
                        .completions()
                        .create(chat("one")
                                .reasoningEffort(com.openai.models.ReasoningEffort.HIGH)
                                .build()))
                .isInstanceOf(BadRequestException.class)
                .hasMessageContaining("reasoning_effort is not supported");
    }

    @Test
    void langChain4jChatsAndStreams() throws Exception {
        String url = served.server.uri() + "/v1";
        for (Map.Entry<String, Adapter> model : models().entrySet()) {
            OpenAiChatModel chat = OpenAiChatModel.builder()
                    .baseUrl(url)
                    .apiKey(TestServer.KEY)
                    .modelName(model.getKey())
                    .temperature(0.0)
                    .maxTokens(TOKENS)
                    .build();
            assertThat(chat.chat(QUESTION)).isEqualTo(expected(model.getValue()));
        }
        OpenAiStreamingChatModel streaming = OpenAiStreamingChatModel.builder()
                .baseUrl(url)
                .apiKey(TestServer.KEY)
                .modelName("other")
                .temperature(0.0)
                .maxTokens(TOKENS)
                .build();
        StringBuilder pieces = new StringBuilder();
        CompletableFuture<String> whole = new CompletableFuture<>();
        streaming.chat(QUESTION, new StreamingChatResponseHandler() {
            @Override
            public void onPartialResponse(String piece) {
                pieces.append(piece);
            }

            @Override
            public void onCompleteResponse(ChatResponse response) {
                whole.complete(response.aiMessage().text());
            }

            @Override
            public void onError(Throwable error) {
                whole.completeExceptionally(error);
            }
        });
        assertThat(whole.get(TestServer.PATIENCE.toSeconds(), TimeUnit.SECONDS))
                .isEqualTo(expected(served.other))
                .isEqualTo(pieces.toString());
    }
}
