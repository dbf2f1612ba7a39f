package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.train.SchedulerType;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.io.TempDir;

/** Loops that train over HTTP. */
@Timeout(900)
class TuningTest {
    private static final String[][] PAIRS = {
        {"Who is Mr. Collins?", "A clergyman, and the heir of Longbourn."},
        {"Who marries Jane?", "Mr. Bingley of Netherfield."},
        {"Where is Pemberley?", "In Derbyshire."},
        {"Who is Lydia?", "The youngest of five sisters."},
    };
    private static final double RATE = 2e-3;

    @TempDir
    static Path folder;

    private static TestServer served;

    @BeforeAll
    static void start() {
        served = new TestServer(ServeConfig.builder().modelName("austen").texts(3), folder);
    }

    @AfterAll
    static void stop() {
        served.close();
    }

    private static JsonNode post(String verb, JsonNode body) throws Exception {
        TestServer.Answer answer =
                served.post("/v1/tuning/" + verb, body.toString().replace("'", "\\u0027"));
        assertThat(answer.status()).as("%s: %s", verb, answer.body()).isEqualTo(200);
        return answer.json();
    }

    private static ObjectNode of(String run) {
        return Json.object().put("run", run);
    }

    private static TokenizedDataset examples() {
        List<DataRecord> records = Arrays.stream(PAIRS)
                .map(pair -> DataRecord.of(pair[0], pair[1]))
                .toList();
        return TokenizedDataset.of(Dataset.of(records), served.model.tokenizer(), DataConfig.ofMaxLength(128));
    }

    private static ArrayNode records(int first, int n) {
        ArrayNode records = Json.array();
        for (int i = first; i < first + n; i++) {
            records.addObject().put("question", PAIRS[i][0]).put("answer", PAIRS[i][1]);
        }
        return records;
    }

    /** As token ids, with a weight for each. */
    private static ArrayNode sequences(int first, int n, double weight) {
        ArrayNode sequences = Json.array();
        for (Example example : examples().examples().subList(first, first + n)) {
            ObjectNode one = sequences.addObject();
            ArrayNode tokens = one.putArray("tokens");
            ArrayNode weights = one.putArray("weights");
            for (int t = 0; t < example.length(); t++) {
                tokens.add(example.ids()[t]);
                weights.add(t > 0 && example.trained()[t] ? weight : 0);
            }
        }
        return sequences;
    }

    /** Two passes, two micro-batches of two examples to a step but in the last. */
    private static byte[] trained(Path to) throws Exception {
        TrainingConfig config = TrainingConfig.builder()
                .epochs(2)
                .batchSize(2)
                .learningRate(RATE)
                .schedulerType(SchedulerType.CONSTANT)
                .warmupRatio(0)
                .shuffle(false)
                .maxLength(128)
                .build();
        try (Adapter adapter = Adapter.create(
                served.model,
                LoraConfig.builder()
                        .rank(4)
                        .alpha(8)
                        .dropout(0.1)
                        .seed(7)
                        .targetModules("q_proj", "v_proj")
                        .build())) {
            new Trainer(served.model, adapter, config.toBuilder().seed(7).build()).train(examples());
            adapter.save(to);
        }
        return Files.readAllBytes(to.resolve(Adapter.FILE_NAME));
    }

    private static void create(String run) throws Exception {
        JsonNode made = post(
                "create",
                of(run).put("lora_r", 4)
                        .put("lora_alpha", 8)
                        .put("lora_dropout", 0.1)
                        .put("seed", 7)
                        .put("target_modules", "q_proj,v_proj")
                        .put("max_length", 128));
        assertThat(made.path("objective").asText()).isEqualTo("sft");
    }

    @Test
    void aLoopOverHttpMakesTheAdapterThatTrainMakesByteForByte(@TempDir Path alone) throws Exception {
        byte[] expected = trained(alone.resolve("train"));
        for (boolean asRecords : new boolean[] {true, false}) {
            String run = asRecords ? "by-records" : "by-tokens";
            create(run);
            for (int step = 0; step < 4; step++) {
                ObjectNode body = of(run);
                if (asRecords) {
                    body.set("records", records(step % 2 * 2, 2));
                } else {
                    body.set("sequences", sequences(step % 2 * 2, 2, 1));
                }
                JsonNode sums = post("forward_backward", body);
                assertThat(sums.path("trained_tokens").asInt()).isPositive();
                JsonNode taken = post("optim_step", of(run).put("learning_rate", RATE));
                assertThat(taken.path("step").asInt()).isEqualTo(step + 1);
                assertThat(taken.path("loss").asDouble())
                        .isEqualTo(sums.path("loss").asDouble());
                assertThat(taken.path("grad_norm").asDouble()).isPositive();
            }
            JsonNode saved = post("save", of(run));
            assertThat(Files.readAllBytes(Path.of(saved.path("path").asText()).resolve(Adapter.FILE_NAME)))
                    .as(run)
                    .isEqualTo(expected);
            assertThat(served.post("/v1/tuning/save", "{'run': '" + run + "'}").status())
                    .as("nothing is replaced unasked")
                    .isEqualTo(400);
            post("save", of(run).put("overwrite", true));
            post("close", of(run));
        }
    }

    @Test
    void weightsOfTokensMoveTheModelAndSamplesAreOfTheModelAsItIs() throws Exception {
        create("weighted");
        JsonNode before =
                post("forward_backward", of("weighted").put("backward", false).set("sequences", sequences(0, 1, 1)));
        double first = sum(before.at("/logprobs/0"));
        ObjectNode asks = of("weighted")
                .put("prompt", "Who is Mr. Collins?")
                .put("temperature", 0)
                .put("max_tokens", 12)
                .put("logprobs", 0)
                .put("return_token_ids", true);
        JsonNode base = post("sample", asks);
        assertThat(base.at("/choices/0/token_ids")).isNotEmpty();
        for (int i = 0; i < 6; i++) {
            ObjectNode body = of("weighted").put("logprobs", true).put("units", 1);
            body.set("sequences", sequences(0, 1, 0.5));
            JsonNode sums = post("forward_backward", body);
            assertThat(sums.at("/logprobs/0")).hasSameSizeAs(sequences(0, 1, 1).at("/0/tokens"));
            post("optim_step", of("weighted").put("learning_rate", 1e-2).put("max_grad_norm", 0));
        }
        JsonNode after =
                post("forward_backward", of("weighted").put("backward", false).set("sequences", sequences(0, 1, 1)));
        assertThat(sum(after.at("/logprobs/0"))).isGreaterThan(first + 1);
        JsonNode now = post("sample", asks);
        assertThat(now.at("/choices/0/logprobs/token_logprobs"))
                .as("what was cached is of the adapter before")
                .isNotEqualTo(base.at("/choices/0/logprobs/token_logprobs"));
        // log p of what is drawn, by the pass that trains
        ObjectNode drawn = Json.object();
        ArrayNode tokens = drawn.putArray("tokens");
        now.at("/choices/0/prompt_token_ids").forEach(tokens::add);
        now.at("/choices/0/token_ids").forEach(tokens::add);
        ObjectNode measure = of("weighted").put("backward", false);
        measure.putArray("sequences").add(drawn);
        JsonNode measured = post("forward_backward", measure).at("/logprobs/0");
        JsonNode sampled = now.at("/choices/0/logprobs/token_logprobs");
        int prompt = tokens.size() - sampled.size();
        for (int i = 0; i < sampled.size(); i++) {
            assertThat(measured.get(prompt + i).asDouble())
                    .isEqualTo(sampled.get(i).asDouble(), within(1e-3));
        }
        post("close", of("weighted"));
    }

    private static double sum(JsonNode logProbs) {
        double sum = 0;
        for (JsonNode one : logProbs) {
            sum += one.asDouble();
        }
        return sum;
    }

    @Test
    void preferencesAreLearnedFromPairs() throws Exception {
        post(
                "create",
                of("pairs")
                        .put("objective", "dpo")
                        .put("beta", 0.2)
                        .put("lora_r", 2)
                        .put("max_length", 128));
        ObjectNode body = of("pairs");
        body.putArray("records")
                .addObject()
                .put("prompt", "Who is Mr. Collins?")
                .put("chosen", "A clergyman.")
                .put("rejected", "A sailor.");
        JsonNode first = post("forward_backward", body);
        assertThat(first.path("loss").asDouble()).isEqualTo(Math.log(2), within(1e-4));
        post("optim_step", of("pairs").put("learning_rate", 5e-3));
        JsonNode second = post("forward_backward", body);
        assertThat(second.path("loss").asDouble()).isLessThan(Math.log(2) - 0.01);
        assertThat(second.at("/metrics/rewards~1accuracies").asDouble()).isEqualTo(1);
        post("close", of("pairs"));
    }

    @Test
    void whatIsWrongIsRefusedByName() throws Exception {
        create("wrong");
        String[][] wrong = {
            {"create", "{'run': 'wrong'}", "there is a run called wrong already"},
            {"create", "{'run': '../x'}", "run must be"},
            {"create", "{'run': 'x', 'objective': 'magic'}", "objective must be sft"},
            {"create", "{'run': 'x', 'target_modules': 'none_proj'}", "none_proj"},
            {"create", "{'run': 'x', 'lora_rank': 3}", "lora_rank is not supported"},
            {"forward_backward", "{'run': 'wrong'}", "either records or sequences"},
            {"forward_backward", "{'run': 'none', 'records': []}", "no run called none"},
            {"forward_backward", "{'run': 'wrong', 'records': [{'nonsense': 1}]}", "records"},
            {
                "forward_backward",
                "{'run': 'wrong', 'sequences': [{'tokens': [1, 2], 'weights': [1, 1]}]}",
                "0 for the first"
            },
            {
                "forward_backward",
                "{'run': 'wrong', 'sequences': [{'tokens': [1, 2], 'weights': [0]}]}",
                "as many numbers"
            },
            {
                "forward_backward",
                "{'run': 'wrong', 'sequences': [{'tokens': [1, 2], 'weights': [0, 0]}]}",
                "no token has a weight"
            },
            {"forward_backward", "{'run': 'wrong', 'sequences': [{'tokens': [99999999]}]}", "list of token ids"},
            {"optim_step", "{'run': 'wrong'}", "learning_rate is missing"},
            {"optim_step", "{'run': 'wrong', 'learning_rate': 1e-3}", "no gradients"},
            {"save", "{'run': 'wrong', 'name': '../../etc'}", "name must be"},
            {"sample", "{'run': 'wrong'}", "prompt is missing"},
            {"nothing", "{}", "nothing of this path"},
        };
        for (String[] one : wrong) {
            TestServer.Answer answer = served.post("/v1/tuning/" + one[0], one[1]);
            assertThat(answer.status())
                    .as("%s %s: %s", one[0], one[1], answer.body())
                    .isIn(400, 404);
            assertThat(answer.error().path("message").asText()).contains(one[2]);
        }
        post("close", of("wrong"));
        assertThat(served.post("/v1/tuning/close", "{'run': 'wrong'}").status()).isEqualTo(404);
    }
}
