package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.IntNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.fasterxml.jackson.databind.node.TextNode;
import dev.lorica.Model;
import dev.lorica.eval.TokenScorer;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationService;
import dev.lorica.generate.StreamedText;
import dev.lorica.generate.TokenLogProbs;
import java.time.Instant;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.UUID;

/** {@code /v1/completions}, with {@code echo}, by which likelihoods of given texts are asked for. */
final class CompletionEndpoint {
    private static final int MOST_LIKELIEST = 20;
    private static final int MOST_PROMPTS = 1024;
    private static final int MAX_TOKENS = 16; // OpenAI's default

    private final Model model;
    private final GenerationService service;
    private final ServedModels models;
    private final TokenNames names;
    private final ResponseFormats formats;
    /** One text is scored at a time: each takes memory of its own. */
    private final Object scoring = new Object();

    CompletionEndpoint(Model model, GenerationService service, ServedModels models, ResponseFormats formats) {
        this.formats = formats;
        this.model = model;
        this.service = service;
        this.models = models;
        names = new TokenNames(model.tokenizer());
    }

    /** @param text what echo gives */
    private record Prompt(int[] tokens, String text) {}

    /** @param likeliest {@code null}: no log-probabilities */
    private record Asked(
            String id,
            long created,
            Served served,
            StreamOptions options,
            Integer likeliest,
            boolean echo,
            boolean ids,
            List<Prompt> prompts,
            int each) {
        Prompt prompt(int choice) {
            return prompts.get(choice / each);
        }
    }

    void answer(Call call) {
        Fields fields = call.json();
        models.with(fields.text("model"), served -> {
            answer(call, fields, served);
            return null;
        });
    }

    /** With a model that is known already. */
    void answer(Call call, Fields fields, Served served) {
        List<Prompt> prompts = prompts(fields);
        StreamOptions options = StreamOptions.of(fields);
        Sampling sampling = new Sampling(fields, model, formats);
        Integer likeliest = fields.integer("logprobs", 0, MOST_LIKELIEST);
        if (likeliest != null) {
            sampling.logProbs(likeliest);
        }
        boolean echo = fields.flag("echo", false);
        boolean ids = fields.flag("return_token_ids", false); // vLLM's
        if (ids && options.stream()) {
            throw ApiException.field("return_token_ids", "return_token_ids is not for streams");
        }
        int maxTokens = fields.integer("max_tokens", echo ? 0 : 1, Integer.MAX_VALUE, MAX_TOKENS);
        fields.ignore("user");
        fields.only("best_of", "as many are made as are given", IntNode.valueOf(sampling.texts()));
        fields.only("suffix", "texts are gone on with at their end", new TextNode(""));
        fields.end();
        if ((long) prompts.size() * sampling.texts() > MOST_PROMPTS) {
            throw ApiException.field("n", "prompts times n are more than " + MOST_PROMPTS);
        }
        List<Request> requests = new ArrayList<>();
        for (Prompt prompt : prompts) {
            // Of a text that is only measured, the last token may be in the last position.
            int positions = service.positions() + (maxTokens == 0 ? 1 : 0);
            requests.addAll(sampling.requests(
                    prompt.tokens,
                    requests.size() / sampling.texts(),
                    Math.max(1, maxTokens),
                    "max_tokens",
                    positions));
        }
        Asked asked = new Asked(
                "cmpl-" + UUID.randomUUID(),
                Instant.now().getEpochSecond(),
                served,
                options,
                likeliest,
                echo,
                ids,
                prompts,
                sampling.texts());
        Usage usage =
                new Usage(prompts.stream().mapToLong(one -> one.tokens.length).sum());
        List<StreamedText> texts = maxTokens == 0 ? List.of() : service.submit(requests, served.adapters());
        List<Written> written = new ArrayList<>();
        try {
            for (int i = 0; i < requests.size(); i++) {
                written.add(new Written(call, asked, i));
            }
        } catch (RuntimeException e) {
            texts.forEach(StreamedText::cancel);
            throw e;
        }
        if (options.stream()) {
            stream(call, asked, texts, written, usage);
            return;
        }
        ObjectNode[] choices = new ObjectNode[written.size()];
        if (maxTokens == 0) {
            written.forEach(one -> choices[one.number] = one.choice("", List.of(), "length"));
        }
        Reading.read(call, texts, false, (number, result) -> {
            usage.add(result);
            choices[number] =
                    written.get(number).choice(result.text(), result.logProbs(), Reading.finishReason(result));
            if (asked.ids) {
                ArrayNode drawn = choices[number].putArray("token_ids");
                Arrays.stream(result.tokens()).forEach(drawn::add);
                ArrayNode before = choices[number].putArray("prompt_token_ids");
                Arrays.stream(asked.prompt(number).tokens).forEach(before::add);
            }
        });
        ObjectNode answer = head(asked);
        answer.putArray("choices").addAll(List.of(choices));
        answer.set("usage", usage.json());
        call.answer(200, answer);
    }

    private void stream(Call call, Asked asked, List<StreamedText> texts, List<Written> written, Usage usage) {
        if (asked.echo) {
            String reason = texts.isEmpty() ? "length" : null;
            try {
                written.forEach(one -> call.event(chunk(asked, one.choice("", List.of(), reason))));
            } catch (RuntimeException e) {
                texts.forEach(StreamedText::cancel);
                throw e;
            }
        }
        Reading.read(call, texts, true, new Reading.Sink() {
            @Override
            public void piece(int number, StreamedText.Piece piece) {
                call.event(chunk(asked, written.get(number).choice(piece.text(), piece.logProbs(), null)));
            }

            @Override
            public void ended(int number, GenerationResult result) {
                usage.add(result);
                String reason = Reading.finishReason(result);
                call.event(chunk(asked, written.get(number).choice("", List.of(), reason)));
            }
        });
        if (asked.options.usage()) {
            ObjectNode last = head(asked);
            last.putArray("choices");
            last.set("usage", usage.json());
            call.event(last);
        }
        call.done();
    }

    /** A text as it is written: first what is echoed, then what is generated. */
    private final class Written {
        private final Asked asked;
        private final int number;
        private final TokenNames.Completion logProbs;
        /** What stands before all else; {@code null}: it is written already, or not wanted. */
        private Prompt echoed;

        private List<TokenLogProbs> scores = List.of();

        Written(Call call, Asked asked, int number) {
            this.asked = asked;
            this.number = number;
            logProbs = asked.likeliest == null ? null : names.new Completion(asked.likeliest, 0);
            echoed = asked.echo ? asked.prompt(number) : null;
            if (echoed != null && logProbs != null) {
                if (call.millisecondsLeft() == 0) {
                    throw ApiException.of(504, "timeout_error", "timeout", "the time that a request may take is over");
                }
                call.requireClient();
                synchronized (scoring) {
                    scores = new TokenScorer(model, asked.served.adapters()).score(echoed.tokens, asked.likeliest);
                }
            }
        }

        ObjectNode choice(String text, List<TokenLogProbs> tokens, String reason) {
            ObjectNode choice =
                    Json.object().put("index", number).put("text", echoed == null ? text : echoed.text + text);
            if (logProbs == null) {
                choice.putNull("logprobs");
            } else {
                List<TokenLogProbs> all = new ArrayList<>(scores);
                all.addAll(tokens);
                choice.set("logprobs", logProbs.of(echoed == null ? null : echoed.tokens[0], all));
            }
            echoed = null;
            scores = List.of();
            return choice.put("finish_reason", reason);
        }
    }

    private static ObjectNode chunk(Asked asked, ObjectNode choice) {
        ObjectNode chunk = head(asked);
        chunk.putArray("choices").add(choice);
        if (asked.options.usage()) {
            chunk.putNull("usage");
        }
        return chunk;
    }

    private static ObjectNode head(Asked asked) {
        return Json.object()
                .put("id", asked.id)
                .put("object", "text_completion")
                .put("created", asked.created)
                .put("model", asked.served.name());
    }

    /** A text, token ids, or a list of either. */
    private List<Prompt> prompts(Fields fields) {
        JsonNode given = fields.take("prompt");
        if (given == null) {
            throw fields.missing("prompt");
        }
        List<Prompt> prompts = new ArrayList<>();
        if (given.isTextual()) {
            prompts.add(prompt(given.asText()));
        } else if (given.isArray() && !given.isEmpty() && given.get(0).isNumber()) {
            prompts.add(prompt(fields, given));
        } else if (given.isArray() && !given.isEmpty() && given.size() <= MOST_PROMPTS) {
            for (JsonNode one : given) {
                prompts.add(one.isTextual() ? prompt(one.asText()) : prompt(fields, one));
            }
        } else {
            throw fields.wrong("prompt", given, "a string, a list of token ids, or a list of such");
        }
        return prompts;
    }

    private Prompt prompt(String text) {
        return new Prompt(model.tokenizer().encode(text, true, true), text);
    }

    private Prompt prompt(Fields fields, JsonNode ids) {
        int[] tokens = Ids.of(fields, "prompt", ids, model);
        return new Prompt(tokens, model.tokenizer().decode(tokens));
    }
}
