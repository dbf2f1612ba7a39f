package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluator;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.Generator;
import java.io.IOException;
import java.net.URI;
import java.net.http.HttpRequest;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.Base64;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicReference;
import java.util.stream.Collectors;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** What is asked for over HTTP, next to the same asked of the library. */
@Timeout(900)
class LoricaServerTest {
    private static final String CHAT = "/v1/chat/completions";
    private static final String COMPLETIONS = "/v1/completions";

    @TempDir
    private static Path folder;

    private static TestServer served;

    @BeforeAll
    static void start() {
        served = new TestServer(
                ServeConfig.builder().modelName("austen").texts(4).dataFolder(folder));
    }

    @AfterAll
    static void stop() {
        served.close();
    }

    private static String text(String prompt, int tokens, Adapter adapter) {
        try (Generator generator = new Generator(served.model, adapter)) {
            GenerationConfig config = GenerationConfig.builder()
                    .temperature(0)
                    .maxNewTokens(tokens)
                    .build();
            return generator.generate(prompt, config).result().text();
        }
    }

    @Test
    void modelsAreTheBaseAndItsAdapters() throws Exception {
        assertThat(served.get("/health").json().path("status").asText()).isEqualTo("ok");
        JsonNode data = served.get("/v1/models").json().path("data");
        assertThat(data.findValuesAsText("id")).contains("austen", "one", "other");
        assertThat(data.get(0).path("parent").isNull()).isTrue();
        assertThat(data.get(1).path("parent").asText()).isEqualTo("austen");
        assertThat(served.get("/v1/models/one").json()).isEqualTo(data.get(1));
        assertThat(served.get("/v1/models/none").status()).isEqualTo(404);
    }

    @Test
    void textsAreThoseOfTheModelThatIsNamed() throws Exception {
        for (Map.Entry<String, Adapter> named :
                Map.of("one", served.one, "other", served.other).entrySet()) {
            JsonNode answer = served.post(
                            COMPLETIONS,
                            "{'model': '" + named.getKey()
                                    + "', 'prompt': 'It is a truth', 'temperature': 0, 'max_tokens': 12}")
                    .json();
            assertThat(answer.at("/choices/0/text").asText()).isEqualTo(text("It is a truth", 12, named.getValue()));
            assertThat(answer.path("model").asText()).isEqualTo(named.getKey());
        }
        JsonNode answer = served.post(
                        CHAT,
                        "{'messages': [{'role': 'user', 'content': [{'type': 'text', 'text': 'Who is Mr. Collins?'}]}],"
                                + " 'temperature': 0, 'max_completion_tokens': 12, 'user': 'me'}")
                .json();
        try (Generator generator = new Generator(served.model)) {
            GenerationResult expected = generator
                    .chat(
                            List.of(Message.user("Who is Mr. Collins?")),
                            GenerationConfig.builder()
                                    .temperature(0)
                                    .maxNewTokens(12)
                                    .build())
                    .result();
            assertThat(answer.at("/choices/0/message/content").asText()).isEqualTo(expected.text());
            assertThat(answer.at("/usage/prompt_tokens").asInt()).isEqualTo(expected.promptTokens());
            assertThat(answer.at("/usage/completion_tokens").asInt()).isEqualTo(expected.generatedTokens());
        }
        assertThat(answer.at("/choices/0/finish_reason").asText()).isIn("length", "stop");
    }

    /** The events of a stream, without the last, which is to be [DONE]. */
    private static List<JsonNode> events(String body) throws Exception {
        List<String> lines = body.lines()
                .filter(line -> line.startsWith("data: "))
                .map(line -> line.substring(6))
                .collect(Collectors.toCollection(ArrayList::new));
        assertThat(lines.remove(lines.size() - 1)).isEqualTo("[DONE]");
        List<JsonNode> events = new ArrayList<>();
        for (String line : lines) {
            events.add(new ObjectMapper().readTree(line));
        }
        return events;
    }

    @Test
    void aStreamHasTheSameTextInPiecesThenItsUsage() throws Exception {
        String asked = "'messages': [{'role': 'user', 'content': 'Who is Mr. Collins?'}], 'n': 2, 'seed': 7,"
                + " 'max_tokens': 10, 'logprobs': true, 'top_logprobs': 2";
        JsonNode whole = served.post(CHAT, "{" + asked + "}").json();
        List<JsonNode> events =
                events(served.post(CHAT, "{" + asked + ", 'stream': true, 'stream_options': {'include_usage': true}}")
                        .body());

        assertThat(events.get(0).at("/choices/0/delta/role").asText()).isEqualTo("assistant");
        for (int i = 0; i < 2; i++) {
            StringBuilder text = new StringBuilder();
            List<String> tokens = new ArrayList<>();
            String reason = "";
            for (JsonNode event : events) {
                JsonNode choice = event.at("/choices/0");
                if (choice.path("index").asInt(-1) == i) {
                    text.append(choice.at("/delta/content").asText(""));
                    choice.at("/logprobs/content")
                            .forEach(token -> tokens.add(token.path("token").asText()));
                    reason += choice.path("finish_reason").asText("").replace("null", "");
                }
            }
            JsonNode choice = whole.at("/choices/" + i);
            assertThat(text.toString()).isEqualTo(choice.at("/message/content").asText());
            assertThat(reason).isEqualTo(choice.path("finish_reason").asText());
            assertThat(tokens).isEqualTo(tokensOf(choice)).isNotEmpty();
            assertThat(choice.at("/logprobs/content/0/top_logprobs")).hasSize(2);
        }
        JsonNode usage = events.get(events.size() - 1);
        assertThat(usage.path("choices")).isEmpty();
        assertThat(usage.at("/usage/completion_tokens")).isEqualTo(whole.at("/usage/completion_tokens"));
        assertThat(whole.at("/choices/0/message/content").asText())
                .as("each has its own seed")
                .isNotEqualTo(whole.at("/choices/1/message/content").asText());
    }

    private static List<String> tokensOf(JsonNode choice) {
        List<String> tokens = new ArrayList<>();
        choice.at("/logprobs/content")
                .forEach(token -> tokens.add(token.path("token").asText()));
        return tokens;
    }

    @Test
    void echoWithLogprobsMeasuresAsEvalDoes() throws Exception {
        Dataset data = Dataset.of(List.of(DataRecord.of("Who is Mr. Collins?", "A clergyman, and heir of Longbourn.")));
        DataConfig config = DataConfig.ofMaxLength(200).withTemplate(PromptTemplate.INSTRUCTION);
        TokenizedDataset examples = TokenizedDataset.of(data, served.model.tokenizer(), config);
        Example example = examples.examples().get(0);
        String ids = Arrays.toString(example.ids());
        JsonNode choice = served.post(
                        COMPLETIONS,
                        "{'model': 'other', 'prompt': " + ids
                                + ", 'echo': true, 'logprobs': 1, 'max_tokens': 0, 'temperature': 0}")
                .json()
                .at("/choices/0");
        JsonNode values = choice.at("/logprobs/token_logprobs");
        assertThat(values).hasSize(example.length());
        assertThat(values.get(0).isNull()).isTrue();
        double sum = 0;
        for (int i = 1; i < example.length(); i++) {
            sum -= example.trained()[i] ? values.get(i).asDouble() : 0;
            JsonNode top = choice.at("/logprobs/top_logprobs").get(i);
            double likeliest = Double.NEGATIVE_INFINITY;
            for (JsonNode one : top) {
                likeliest = Math.max(likeliest, one.asDouble());
            }
            assertThat(likeliest).isGreaterThanOrEqualTo(values.get(i).asDouble());
        }
        assertThat(sum / example.trainedTokens())
                .isEqualTo(
                        new Evaluator(served.model, served.other)
                                .evaluate(examples, 1)
                                .loss(),
                        within(1e-4));

        // as lm-evaluation-harness asks, which leaves one token to be generated
        JsonNode more = served.post(
                        COMPLETIONS,
                        "{'model': 'other', 'prompt': [" + ids + "], 'echo': true, 'logprobs': 1, 'max_tokens': 1,"
                                + " 'temperature': 0, 'seed': 1234}")
                .json()
                .at("/choices/0/logprobs/token_logprobs");
        assertThat(more).hasSize(example.length() + 1);
        assertThat(more.get(5)).isEqualTo(values.get(5));
        assertThat(choice.path("text").asText())
                .isEqualTo(served.model.tokenizer().decode(example.ids()));
    }

    @Test
    void samplingObeysItsFields() throws Exception {
        int[] ids = served.model.tokenizer().encode(" Elizabeth", false, false);
        String biased = "{'prompt': 'It is', 'max_tokens': 3, 'temperature': 0, 'logit_bias': {'" + ids[0] + "': 100}}";
        assertThat(served.post(COMPLETIONS, biased).json().at("/choices/0/text").asText())
                .isEqualTo(new String(served.model.tokenizer().tokenBytes(ids[0]), StandardCharsets.UTF_8).repeat(3));
        String seeded = "{'prompt': 'It is', 'max_tokens': 12, 'seed': 5, 'top_k': 50, 'top_p': 0.9, 'min_p': 0.01,"
                + " 'repetition_penalty': 1.1, 'presence_penalty': 0.5, 'frequency_penalty': 0.5}";
        String first =
                served.post(COMPLETIONS, seeded).json().at("/choices/0/text").asText();
        assertThat(first).isNotEmpty();
        assertThat(served.post(COMPLETIONS, seeded).json().at("/choices/0/text").asText())
                .isEqualTo(first);

        String greedy = text("It is a truth", 30, null);
        String stop = greedy.substring(8, 12);
        JsonNode stopped = served.post(
                        COMPLETIONS,
                        new ObjectMapper()
                                .writeValueAsString(Map.of(
                                        "prompt",
                                        "It is a truth",
                                        "temperature",
                                        0,
                                        "max_tokens",
                                        30,
                                        "stop",
                                        List.of(stop, "nowhere"))))
                .json()
                .at("/choices/0");
        assertThat(stopped.path("text").asText()).isEqualTo(greedy.substring(0, greedy.indexOf(stop)));
        assertThat(stopped.path("finish_reason").asText()).isEqualTo("stop");

        JsonNode several = served.post(
                        COMPLETIONS, "{'prompt': ['It is', 'He was'], 'n': 2, 'max_tokens': 2, 'temperature': 0}")
                .json()
                .path("choices");
        assertThat(several).hasSize(4);
        assertThat(several.get(1).path("text")).isEqualTo(several.get(0).path("text"));
        assertThat(several.get(2).path("text").asText()).isEqualTo(text("He was", 2, null));
        assertThat(several.get(3).path("index").asInt()).isEqualTo(3);
    }

    @Test
    void embeddingsAreNumbersOrTheirBytes() throws Exception {
        JsonNode numbers = served.post("/v1/embeddings", "{'input': ['Jane', 'Mr. Darcy']}")
                .json();
        JsonNode bytes = served.post("/v1/embeddings", "{'input': 'Mr. Darcy', 'encoding_format': 'base64'}")
                .json();
        ByteBuffer decoded = ByteBuffer.wrap(
                        Base64.getDecoder().decode(bytes.at("/data/0/embedding").asText()))
                .order(ByteOrder.LITTLE_ENDIAN);
        JsonNode vector = numbers.at("/data/1/embedding");
        assertThat(vector).hasSize(served.model.info().embedding());
        double squares = 0;
        for (JsonNode value : vector) {
            squares += value.asDouble() * value.asDouble();
            assertThat(decoded.getFloat()).isEqualTo((float) value.asDouble(), within(1e-5f));
        }
        assertThat(squares).isEqualTo(1, within(1e-4));
        assertThat(numbers.at("/usage/prompt_tokens").asInt()).isPositive();
    }

    @Test
    void tokensGoThereAndBack() throws Exception {
        JsonNode there = served.post("/tokenize", "{'prompt': 'It is a truth', 'return_token_strs': true}")
                .json();
        assertThat(there.path("count").asInt()).isEqualTo(there.path("tokens").size());
        assertThat(there.path("max_model_len").asInt()).isEqualTo(256);
        assertThat(there.path("token_strs")).hasSameSizeAs(there.path("tokens"));
        JsonNode plain = served.post("/tokenize", "{'prompt': 'It is a truth', 'add_special_tokens': false}")
                .json();
        assertThat(served.post("/detokenize", "{'tokens': " + plain.path("tokens") + "}")
                        .json()
                        .path("prompt")
                        .asText())
                .isEqualTo("It is a truth");
        JsonNode chat = served.post("/tokenize", "{'messages': [{'role': 'user', 'content': 'Who?'}]}")
                .json();
        assertThat(chat.path("count").asInt()).isGreaterThan(3);
    }

    @Test
    void answersKeepToASchemaAtAnyTemperatureHoweverShort() throws Exception {
        String schema =
                "{'type': 'object', 'properties': {'name': {'type': 'string'}, 'age': {'type': 'integer', 'minimum': 1, 'maximum': 99}},"
                        + " 'required': ['name', 'age'], 'additionalProperties': false}";
        String format =
                "'response_format': {'type': 'json_schema', 'json_schema': {'name': 'person', 'strict': true, 'schema': "
                        + schema + "}}";
        for (String sampling : List.of(
                "'temperature': 0, 'max_tokens': 40",
                "'temperature': 1, 'n': 3, 'max_tokens': 24, 'model': 'one'",
                "'temperature': 5, 'n': 3, 'max_tokens': 90, 'top_p': 0.9",
                "'temperature': 100, 'n': 3, 'presence_penalty': 2")) {
            JsonNode answer = served.post(
                            CHAT,
                            "{'messages': [{'role': 'user', 'content': 'Who is Mr. Collins?'}], " + sampling + ", "
                                    + format + "}")
                    .json();
            assertThat(answer.path("choices")).as(answer.toString()).isNotEmpty();
            for (JsonNode choice : answer.path("choices")) {
                String text = choice.at("/message/content").asText();
                JsonNode person = new ObjectMapper().readTree(text);
                assertThat(person.isObject()).as(text).isTrue();
                assertThat(person).as(text).hasSize(2);
                assertThat(person.path("name").isTextual()).as(text).isTrue();
                assertThat(person.path("age").isInt()).as(text).isTrue();
                assertThat(person.path("age").asInt()).isBetween(1, 99);
                assertThat(choice.path("finish_reason").asText()).isIn("stop", "length");
            }
        }
    }

    @Test
    void whatIsWrongIsRefusedByName() throws Exception {
        String[][] wrong = {
            {COMPLETIONS, "{'prompt': 'x', 'guided_regex': 'a'}", "400", "guided_regex is not supported"},
            {COMPLETIONS, "{'prompt': 'x', 'best_of': 3}", "400", "best_of is 3, which is not supported"},
            {COMPLETIONS, "{'prompt': 'x', 'temperature': 'hot'}", "400", "temperature is \"hot\"; it must be a number"
            },
            {COMPLETIONS, "{'prompt': 'x', 'temperature': -1}", "400", "temperature is -1"},
            {COMPLETIONS, "{'prompt': 'x', 'n': 0}", "400", "n is 0"},
            {COMPLETIONS, "{'prompt': 'x', 'max_tokens': 100000}", "400", "there is room for 256 tokens"},
            {COMPLETIONS, "{'prompt': [1, 99999999]}", "400", "prompt is 99999999; it must be a list of token ids"},
            {COMPLETIONS, "{'prompt': ''}", "400", ""},
            {COMPLETIONS, "{}", "400", "prompt is missing"},
            {COMPLETIONS, "{'prompt': 'x', 'prompt': 'y'}", "400", "the body is not JSON: Duplicate"},
            {COMPLETIONS, "{'prompt': 'x'} {}", "400", "the body is not JSON"},
            {COMPLETIONS, "['prompt']", "400", "the body is not a JSON object"},
            {COMPLETIONS, "[".repeat(5000), "400", "the body is not JSON"},
            {COMPLETIONS, "{'prompt': 'x', 'logit_bias': {'-4': 1}}", "400", "logit_bias"},
            {COMPLETIONS, "{'prompt': 'x', 'stream_options': {}}", "400", "stream is not true"},
            {COMPLETIONS, "{'model': 'none', 'prompt': 'x'}", "404", "the model none does not exist"},
            {CHAT, "{'messages': []}", "400", "messages is []"},
            {CHAT, "{'messages': [{'role': 'god', 'content': 'x'}]}", "400", "there is no role god"},
            {CHAT, "{'messages': [{'role': 'user', 'content': 'x', 'mood': 1}]}", "400", "messages[0].mood is not"},
            {CHAT, "{'messages': [{'role': 'user', 'content': [{'type': 'image_url'}]}]}", "400", "not understood"},
            {CHAT, "{'messages': [{'role': 'user', 'content': 'x'}], 'tools': [1]}", "400", "tools is [1]"},
            {
                CHAT,
                "{'messages': [{'role': 'user', 'content': 'x'}], 'response_format': {'type': 'regex'}}",
                "400",
                "response_format.type is regex; it must be text, json_object or json_schema"
            },
            {
                COMPLETIONS,
                "{'prompt': 'x', 'response_format': {'type': 'json_schema', 'json_schema': {'name': 'a', 'schema': {'properties': {'a': {'pattern': 'b'}}}}}}",
                "400",
                "the schema at #/properties/a: pattern is not supported"
            },
            {
                COMPLETIONS,
                "{'prompt': 'x', 'max_tokens': 1, 'response_format': {'type': 'json_object'}}",
                "400",
                "an answer of the response_format may take 2 tokens, and there may be 1"
            },
            {CHAT, "{'messages': [{'role': 'user', 'content': 'x'}], 'top_logprobs': 2}", "400", "needs logprobs"},
            {"/v1/embeddings", "{'input': 'x', 'dimensions': 3}", "400", "dimensions is not supported"},
            {"/v2/completions", "{}", "404", "there is nothing of this path"},
            {"/v1/completions/", "{}", "404", "there is nothing of this path"},
            {"/v1/../v1/completions", "{}", "404", "there is nothing of this path"},
            {"/v1/models", "{}", "405", "asked for with GET"},
        };
        for (String[] one : wrong) {
            TestServer.Answer answer = served.post(one[0], one[1]);
            assertThat(answer.status()).as("%s: %s", one[1], answer.body()).isEqualTo(Integer.parseInt(one[2]));
            assertThat(answer.error().path("message").asText()).as(one[1]).contains(one[3]);
            assertThat(answer.error().path("type").asText()).isEqualTo("invalid_request_error");
        }
        assertThat(served.post(COMPLETIONS, "{'prompt': 'x', 'guided_regex': 'a'}")
                        .error()
                        .path("param")
                        .asText())
                .isEqualTo("guided_regex");
        assertThat(served.get(COMPLETIONS).response().headers().firstValue("Allow"))
                .contains("POST");
    }

    @Test
    void adaptersComeAndGoFromTheDataFolderAlone(@TempDir Path elsewhere) throws Exception {
        served.one.save(folder.resolve("below/saved"));
        served.one.save(elsewhere.resolve("outside"));
        Files.createSymbolicLink(folder.resolve("link"), elsewhere.resolve("outside"));
        Files.createDirectory(folder.resolve("empty"));
        String load = "{'lora_name': 'late', 'lora_path': '%s'}";

        for (String path : List.of(
                elsewhere.resolve("outside").toString(),
                "../" + elsewhere.getFileName() + "/outside",
                "below/../../" + elsewhere.getFileName() + "/outside",
                "link",
                "nowhere",
                "/etc/passwd")) {
            TestServer.Answer refused = served.post("/v1/load_lora_adapter", String.format(load, path));
            assertThat(refused.status()).as(path).isEqualTo(403);
            assertThat(refused.error().path("message").asText())
                    .isEqualTo("lora_path is nothing that lies in the data folder");
        }
        assertThat(served.post("/v1/load_lora_adapter", String.format(load, "empty"))
                        .status())
                .isEqualTo(400);
        String ask = "{'model': 'late', 'prompt': 'It is a truth', 'temperature': 0, 'max_tokens': 12}";
        assertThat(served.post(COMPLETIONS, ask).status()).isEqualTo(404);
        for (String path : List.of("below/saved", folder.resolve("below/saved").toString())) {
            TestServer.Answer loaded = served.post("/v1/load_lora_adapter", String.format(load, path));
            assertThat(loaded.body()).isEqualTo("Success: LoRA adapter 'late' added successfully.");
            assertThat(served.post("/v1/load_lora_adapter", String.format(load, path))
                            .status())
                    .isEqualTo(400);
            assertThat(served.post(COMPLETIONS, ask)
                            .json()
                            .at("/choices/0/text")
                            .asText())
                    .isEqualTo(text("It is a truth", 12, served.one));
            assertThat(served.post("/v1/unload_lora_adapter", "{'lora_name': 'late'}")
                            .status())
                    .isEqualTo(200);
            assertThat(served.post(COMPLETIONS, ask).status()).isEqualTo(404);
        }
        assertThat(served.post("/v1/unload_lora_adapter", "{'lora_name': 'austen'}")
                        .status())
                .as("the base stays")
                .isEqualTo(404);
    }

    private static long reused() throws Exception {
        return served.get("/metrics")
                .body()
                .lines()
                .filter(line -> line.startsWith("lorica_prompt_tokens_reused_total "))
                .mapToLong(line -> Long.parseLong(line.substring(line.indexOf(' ') + 1)))
                .findFirst()
                .orElseThrow();
    }

    private static String scaled(String model, double scale) throws Exception {
        TestServer.Answer answer = served.post(
                CHAT,
                "{'model': '" + model + "', 'adapter_scale': " + scale
                        + ", 'temperature': 0, 'max_tokens': 6, 'messages': [{'role': 'user', 'content': 'Who is Mr. Collins?'}]}");
        assertThat(answer.status()).as(answer.body()).isEqualTo(200);
        return answer.json().at("/choices/0/message/content").asText();
    }

    @Test
    void anAdapterIsMultipliedAndTheLastScalesAreKept() throws Exception {
        GenerationConfig config =
                GenerationConfig.builder().temperature(0).maxNewTokens(6).build();
        for (double scale : new double[] {0, 0.5, 2, -1}) {
            try (Generator generator = new Generator(served.model, List.of(new ScaledAdapter(served.one, scale)))) {
                assertThat(scaled("one", scale))
                        .as("times %s", scale)
                        .isEqualTo(generator
                                .chat(List.of(Message.user("Who is Mr. Collins?")), config)
                                .result()
                                .text());
            }
        }
        String first = scaled("one", 0.25);
        long before = reused();
        assertThat(scaled("one", 0.25)).isEqualTo(first);
        assertThat(reused() - before).as("the question was processed once").isGreaterThan(5);
        for (int i = 0; i < 12; i++) {
            scaled("other", 1.05 + 0.05 * i);
        }
        before = reused();
        assertThat(scaled("one", 0.25)).as("what was let go comes again").isEqualTo(first);
        assertThat(reused()).as("and is processed again").isEqualTo(before);
        assertThat(served.post(CHAT, "{'adapter_scale': 2, 'messages': [{'role': 'user', 'content': 'x'}]}")
                        .error()
                        .path("message")
                        .asText())
                .contains("adapter_scale is for adapters");

        Path saved = folder.resolve("scaled");
        served.one.save(saved);
        String load = "{'lora_name': 'scaled', 'lora_path': 'scaled'}";
        for (int i = 0; i < 2; i++) {
            assertThat(served.post("/v1/load_lora_adapter", load).status()).isEqualTo(200);
            assertThat(scaled("scaled", 0.25)).isEqualTo(first);
            assertThat(served.post("/v1/unload_lora_adapter", "{'lora_name': 'scaled'}")
                            .status())
                    .as("it is closed with all of its scales")
                    .isEqualTo(200);
        }
    }

    @Test
    void metricsCountWhatWasDone() throws Exception {
        served.post(COMPLETIONS, "{'prompt': 'It is', 'max_tokens': 4, 'temperature': 0}");
        // A request is counted when its answer has gone out.
        AtomicReference<String> seen = new AtomicReference<>();
        TestServer.await(() -> {
            seen.set(served.get("/metrics").body());
            return seen.get().contains("lorica_requests_active 1\n");
        });
        String metrics = seen.get();
        assertThat(metrics).contains("lorica_request_seconds_count{path=\"/v1/completions\",status=\"200\"} ");
        assertThat(metrics).contains("lorica_requests_active 1\n").contains("# TYPE lorica_texts_running gauge\n");
        assertThat(metrics).containsPattern("lorica_generated_tokens_total [1-9]");
    }

    @Test
    void whoAsksBeforeTheModelIsThereIsToldSo() throws Exception {
        ServeConfig config = ServeConfig.builder().port(0).positions(256).build();
        try (ServerAddress address = ServerAddress.listen(config)) {
            String uri = address.uri().toString();
            TestServer.Answer health = served.send(
                    HttpRequest.newBuilder(URI.create(uri + "/health")).build());
            assertThat(health.status()).isEqualTo(503);
            assertThat(health.json().path("status").asText()).isEqualTo("loading model");
            TestServer.Answer models = served.send(
                    HttpRequest.newBuilder(URI.create(uri + "/v1/models")).build());
            assertThat(models.status()).isEqualTo(503);
            assertThat(models.error().path("code").asText()).isEqualTo("loading_model");
            assertThat(models.response().headers().firstValue("Retry-After")).contains("1");
            try (LoricaServer server = new LoricaServer(served.model, address)) {
                HttpRequest request =
                        HttpRequest.newBuilder(URI.create(uri + "/health")).build();
                assertThat(served.send(request).status()).as("before start()").isEqualTo(503);
                server.start();
                assertThat(server.uri()).isEqualTo(address.uri());
                TestServer.Answer ready = served.send(request);
                assertThat(ready.status()).isEqualTo(200);
                assertThat(ready.json().path("status").asText()).isEqualTo("ok");
            }
            assertThatThrownBy(() -> served.send(
                            HttpRequest.newBuilder(URI.create(uri + "/health")).build()))
                    .isInstanceOf(IOException.class);
        }
    }

    @Test
    void listeningForOthersNeedsAKey() {
        assertThatThrownBy(() -> new LoricaServer(
                        served.model,
                        ServeConfig.builder().host("0.0.0.0").port(0).build()))
                .hasMessageContaining("needs an API key");
        assertThatThrownBy(() -> ServeConfig.builder().apiKey(" ").build()).hasMessageContaining("apiKey is blank");
        assertThatThrownBy(() -> served.server.add("one", served.one)).hasMessageContaining("called one already");
    }
}
