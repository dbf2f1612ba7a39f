package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.BooleanNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.Model;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationService;
import dev.lorica.generate.StreamedText;
import java.time.Instant;
import java.util.List;
import java.util.UUID;

/** {@code /v1/chat/completions}. */
final class ChatEndpoint {
    private static final int MOST_LIKELIEST = 20;

    private final Model model;
    private final GenerationService service;
    private final ServedModels models;
    private final TokenNames names;
    private final ResponseFormats formats;

    ChatEndpoint(Model model, GenerationService service, ServedModels models, ResponseFormats formats) {
        this.formats = formats;
        this.model = model;
        this.service = service;
        this.models = models;
        names = new TokenNames(model.tokenizer());
    }

    /** What is the same for a stream and one that is none. */
    private record Asked(String id, long created, Served served, StreamOptions options, boolean logProbs) {}

    void answer(Call call) {
        Fields fields = call.json();
        models.with(fields.text("model"), served -> {
            answer(call, fields, served);
            return null;
        });
    }

    private void answer(Call call, Fields fields, Served served) {
        Conversation conversation = Messages.of(fields);
        StreamOptions options = StreamOptions.of(fields);
        Sampling sampling = new Sampling(fields, model, formats);
        boolean logProbs = fields.flag("logprobs", false);
        Integer top = fields.integer("top_logprobs", 0, MOST_LIKELIEST);
        if (top != null && !logProbs) {
            throw ApiException.field("top_logprobs", "top_logprobs needs logprobs to be true");
        }
        if (logProbs) {
            sampling.logProbs(top == null ? 0 : top);
        }
        String limit = fields.names().contains("max_completion_tokens") ? "max_completion_tokens" : "max_tokens";
        Integer maxTokens = fields.integer(limit, 1, Integer.MAX_VALUE);
        double scale = fields.number("adapter_scale", -10, 10, 1);
        if (scale != 1 && !served.isAdapter()) {
            throw ApiException.field(
                    "adapter_scale", "adapter_scale is for adapters, and " + served.name() + " is none");
        }
        refuse(fields);
        models.scaled(served, scale, adapters -> {
            answer(call, served, conversation, options, sampling, logProbs, limit, maxTokens, adapters);
            return null;
        });
    }

    private void answer(
            Call call,
            Served served,
            Conversation conversation,
            StreamOptions options,
            Sampling sampling,
            boolean logProbs,
            String limit,
            Integer maxTokens,
            List<ScaledAdapter> adapters) {
        int[] prompt = served.encoder().prompt(DataRecord.conversation(conversation));
        List<StreamedText> texts =
                service.submit(sampling.requests(prompt, 0, maxTokens, limit, service.positions()), adapters);
        Asked asked =
                new Asked("chatcmpl-" + UUID.randomUUID(), Instant.now().getEpochSecond(), served, options, logProbs);
        Usage usage = new Usage(prompt.length);
        if (options.stream()) {
            stream(call, asked, texts, usage);
        } else {
            ObjectNode[] choices = new ObjectNode[texts.size()];
            Reading.read(call, texts, false, (number, result) -> {
                usage.add(result);
                choices[number] = choice(number, asked, result);
            });
            ObjectNode answer = head(asked, "chat.completion");
            answer.putArray("choices").addAll(List.of(choices));
            answer.set("usage", usage.json());
            call.answer(200, answer);
        }
    }

    /** What says nothing of the answer, and what asks for what is done anyway. */
    private static void refuse(Fields fields) {
        fields.ignore(
                "user", "metadata", "safety_identifier", "prompt_cache_key", "service_tier", "parallel_tool_calls");
        fields.only("store", "nothing is stored", BooleanNode.FALSE);
        fields.only("tools", "tools are not called here", Json.array());
        fields.only("tool_choice", "tools are not called here", new TextNode("none"), new TextNode("auto"));
        fields.only("modalities", "there is text", Json.array().add("text"));
        fields.end();
    }

    private ObjectNode choice(int number, Asked asked, GenerationResult result) {
        ObjectNode choice = Json.object().put("index", number);
        choice.putObject("message")
                .put("role", "assistant")
                .put("content", result.text())
                .putNull("refusal");
        choice.set("logprobs", asked.logProbs ? names.chat(result.logProbs()) : null);
        return choice.put("finish_reason", Reading.finishReason(result));
    }

    private void stream(Call call, Asked asked, List<StreamedText> texts, Usage usage) {
        boolean[] begun = new boolean[texts.size()];
        Reading.read(call, texts, true, new Reading.Sink() {
            private void begin(int number) {
                if (!begun[number]) {
                    begun[number] = true;
                    ObjectNode delta = Json.object().put("role", "assistant").put("content", "");
                    call.event(chunk(asked, number, delta, null, null));
                }
            }

            @Override
            public void piece(int number, StreamedText.Piece piece) {
                begin(number);
                ObjectNode delta = Json.object().put("content", piece.text());
                JsonNode logProbs = asked.logProbs ? names.chat(piece.logProbs()) : null;
                call.event(chunk(asked, number, delta, logProbs, null));
            }

            @Override
            public void ended(int number, GenerationResult result) {
                begin(number);
                usage.add(result);
                call.event(chunk(asked, number, Json.object(), null, Reading.finishReason(result)));
            }
        });
        if (asked.options.usage()) {
            ObjectNode last = head(asked, "chat.completion.chunk");
            last.putArray("choices");
            last.set("usage", usage.json());
            call.event(last);
        }
        call.done();
    }

    private static ObjectNode chunk(Asked asked, int number, ObjectNode delta, JsonNode logProbs, String reason) {
        ObjectNode chunk = head(asked, "chat.completion.chunk");
        ArrayNode choices = chunk.putArray("choices");
        ObjectNode choice = choices.addObject().put("index", number);
        choice.set("delta", delta);
        choice.set("logprobs", logProbs);
        choice.put("finish_reason", reason);
        if (asked.options.usage()) {
            chunk.putNull("usage");
        }
        return chunk;
    }

    private static ObjectNode head(Asked asked, String object) {
        return Json.object()
                .put("id", asked.id)
                .put("object", object)
                .put("created", asked.created)
                .put("model", asked.served.name());
    }
}
