package dev.lorica.langchain4j;

import dev.langchain4j.data.message.AiMessage;
import dev.langchain4j.exception.InvalidRequestException;
import dev.langchain4j.exception.ModelNotFoundException;
import dev.langchain4j.exception.UnsupportedFeatureException;
import dev.langchain4j.model.chat.listener.ChatModelListener;
import dev.langchain4j.model.chat.request.ChatRequest;
import dev.langchain4j.model.chat.request.ChatRequestParameters;
import dev.langchain4j.model.chat.request.ResponseFormatType;
import dev.langchain4j.model.chat.request.ToolChoice;
import dev.langchain4j.model.chat.response.ChatResponse;
import dev.langchain4j.model.chat.response.ChatResponseMetadata;
import dev.langchain4j.model.output.FinishReason;
import dev.langchain4j.model.output.TokenUsage;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Conversation;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.Generation;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.Generator;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.UUID;
import java.util.function.Consumer;
import java.util.function.Supplier;

/** What answers whole and in pieces have in common: requests understood, and answered one at a time. */
final class Chats {
    private final Generator generator;
    private final GenerationConfig config;
    private final ChatRequestParameters defaults;
    private final List<ChatModelListener> listeners;
    private final Map<String, List<ScaledAdapter>> adapters;

    Chats(ChatBuilder<?> builder) {
        generator = given(builder.generator, "generator");
        config = given(builder.config, "config");
        listeners = List.copyOf(given(builder.listeners, "listeners"));
        String own = builder.modelName != null ? builder.modelName : fileName(generator);
        adapters = new LinkedHashMap<>();
        adapters.put(own, generator.adapters());
        builder.adapters.forEach((name, values) -> {
            if (adapters.put(name, checked(() -> List.copyOf(values))) != null) {
                throw new InvalidRequestException("two models have the name " + name + "; each needs its own");
            }
            checked(() -> {
                values.forEach(one -> one.adapter().requireModel(generator.model()));
                return null;
            });
        });
        ChatRequestParameters said = ChatRequestParameters.builder()
                .modelName(own)
                .temperature(config.temperature())
                .topP(config.topP())
                .topK(config.topK())
                .frequencyPenalty(config.frequencyPenalty())
                .presencePenalty(config.presencePenalty())
                .maxOutputTokens(config.maxNewTokens())
                .stopSequences(config.stop())
                .build();
        defaults = builder.parameters == null ? said : said.overrideWith(builder.parameters);
        config(defaults);
        adapters(defaults.modelName());
    }

    private static String fileName(Generator generator) {
        return generator.model().file().getFileName().toString().replaceFirst("\\.gguf$", "");
    }

    private static <T> T given(T value, String name) {
        if (value == null) {
            throw new InvalidRequestException(name + " is null; the builder needs one");
        }
        return value;
    }

    /** What is wrong in our words, as an exception of LangChain4j. */
    private static <T> T checked(Supplier<T> what) {
        try {
            return what.get();
        } catch (InvalidArgumentException e) {
            throw new InvalidRequestException(e.getMessage(), e);
        }
    }

    ChatRequestParameters defaults() {
        return defaults;
    }

    List<ChatModelListener> listeners() {
        return listeners;
    }

    Asked asked(ChatRequest request) {
        ChatRequestParameters parameters = request.parameters();
        String name = parameters.modelName() == null ? defaults.modelName() : parameters.modelName();
        return new Asked(Messages.of(request.messages()), config(parameters), adapters(name), name);
    }

    private List<ScaledAdapter> adapters(String name) {
        List<ScaledAdapter> found = adapters.get(name);
        if (found == null) {
            throw new ModelNotFoundException(
                    "there is no model " + name + "; there are " + String.join(", ", adapters.keySet()));
        }
        return found;
    }

    private GenerationConfig config(ChatRequestParameters parameters) {
        if (parameters.toolChoice() == ToolChoice.REQUIRED) {
            throw new UnsupportedFeatureException(
                    "ToolChoice.REQUIRED and tools are not supported: a model answers with text");
        }
        if (!parameters.toolSpecifications().isEmpty()) {
            throw new UnsupportedFeatureException("tools are not supported: a model answers with text");
        }
        if (parameters.responseFormat() != null && parameters.responseFormat().type() == ResponseFormatType.JSON) {
            throw new UnsupportedFeatureException(
                    "the JSON response format is not supported: nothing holds a model to it; ask for JSON in words");
        }
        return checked(() -> {
            GenerationConfig.Builder wanted = config.toBuilder();
            given(parameters.temperature(), wanted::temperature);
            // 0, which others take, leaves the likeliest
            given(parameters.topP(), value -> wanted.topP(value == 0 ? Double.MIN_VALUE : value));
            given(parameters.topK(), wanted::topK);
            given(parameters.frequencyPenalty(), wanted::frequencyPenalty);
            given(parameters.presencePenalty(), wanted::presencePenalty);
            given(parameters.maxOutputTokens(), wanted::maxNewTokens);
            given(parameters.stopSequences(), values -> {
                if (!values.isEmpty()) {
                    wanted.stop(values);
                }
            });
            return wanted.build();
        });
    }

    private static <T> void given(T value, Consumer<T> setter) {
        if (value != null) {
            setter.accept(value);
        }
    }

    /** A request that can be answered. */
    final class Asked {
        private final Conversation conversation;
        private final GenerationConfig config;
        private final List<ScaledAdapter> adapters;
        private final String name;

        private Asked(Conversation conversation, GenerationConfig config, List<ScaledAdapter> adapters, String name) {
            this.conversation = conversation;
            this.config = config;
            this.adapters = adapters;
            this.name = name;
        }

        ChatResponse answer() {
            return answer(generation -> {}, piece -> {});
        }

        /** Waits for whoever asked before. */
        ChatResponse answer(Consumer<Generation> begun, Consumer<String> pieces) {
            synchronized (generator) {
                Generation generation = generator.chat(conversation, config, adapters);
                begun.accept(generation);
                for (String piece : generation) {
                    pieces.accept(piece);
                }
                return response(generation.result());
            }
        }

        private ChatResponse response(GenerationResult result) {
            FinishReason reason =
                    switch (result.finishReason()) {
                        case END_OF_TEXT, STOP_STRING -> FinishReason.STOP;
                        case MAX_NEW_TOKENS, CONTEXT_FULL -> FinishReason.LENGTH;
                        case CANCELLED -> throw new CancelledException("the answer was cancelled");
                    };
            return ChatResponse.builder()
                    .aiMessage(AiMessage.from(result.text()))
                    .metadata(ChatResponseMetadata.builder()
                            .id("chat-" + UUID.randomUUID())
                            .modelName(name)
                            .tokenUsage(new TokenUsage(result.promptTokens(), result.generatedTokens()))
                            .finishReason(reason)
                            .build())
                    .build();
        }
    }
}
