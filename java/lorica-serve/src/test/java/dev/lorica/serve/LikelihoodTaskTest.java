package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.within;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.Evaluation;
import dev.lorica.eval.Evaluator;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;

/**
 * A task of choices as lm-evaluation-harness asks it of {@code local-completions}: token ids of context and choice, echoed with
 * log-probabilities and one token that is thrown away; what counts is the sum over the choice.
 */
@Timeout(900)
class LikelihoodTaskTest {
    private static final String QUESTION = "Who is Mr. Collins?";
    private static final List<String> CHOICES =
            List.of("A clergyman, and the heir of Longbourn.", "A sailor.", "The father of five daughters.");

    private static TokenizedDataset example(TestServer served, String choice) {
        return TokenizedDataset.of(
                Dataset.of(List.of(DataRecord.of(QUESTION, choice))),
                served.model.tokenizer(),
                DataConfig.ofMaxLength(128).withTemplate(PromptTemplate.INSTRUCTION));
    }

    @Test
    void theLogLikelihoodOfAChoiceIsThatOfEval() throws Exception {
        try (TestServer served = new TestServer(ServeConfig.builder().modelName("austen"))) {
            for (String model : List.of("austen", "one")) {
                Adapter adapter = model.equals("one") ? served.one : null;
                ObjectNode request = Json.object()
                        .put("model", model)
                        .put("temperature", 0)
                        .put("max_tokens", 1)
                        .put("logprobs", 1)
                        .put("seed", 1234)
                        .put("echo", true);
                ArrayNode prompts = request.putArray("prompt");
                List<Example> examples = new ArrayList<>();
                for (String choice : CHOICES) {
                    Example example = example(served, choice).examples().get(0);
                    ArrayNode ids = prompts.addArray();
                    for (int id : example.ids()) {
                        ids.add(id);
                    }
                    examples.add(example);
                }
                TestServer.Answer answer = served.post("/v1/completions", request.toString());
                assertThat(answer.status()).as(answer.body()).isEqualTo(200);
                for (JsonNode choice : answer.json().path("choices")) {
                    int number = choice.path("index").asInt();
                    Example example = examples.get(number);
                    JsonNode logProbs = choice.at("/logprobs/token_logprobs");
                    assertThat(logProbs).hasSize(example.length() + 1);
                    double sum = 0;
                    int trained = 0;
                    for (int i = 0; i < example.length(); i++) {
                        sum += example.trained()[i] ? logProbs.get(i).asDouble() : 0;
                        trained += example.trained()[i] ? 1 : 0;
                    }
                    Evaluation eval =
                            new Evaluator(served.model, adapter).evaluate(example(served, CHOICES.get(number)), 1);
                    assertThat(sum)
                            .as("%s: %s", model, CHOICES.get(number))
                            .isEqualTo(-eval.loss() * trained, within(1e-3));
                    assertThat(choice.at("/logprobs/top_logprobs")).hasSize(example.length() + 1);
                }
            }
        }
    }
}
