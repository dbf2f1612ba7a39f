package dev.lorica.eval;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;
import static org.assertj.core.api.Assertions.within;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.TestModels;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.Logits;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.util.Arrays;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.params.ParameterizedTest;
import org.junit.jupiter.params.provider.CsvSource;
import org.junit.jupiter.params.provider.ValueSource;

class EvaluatorTest {
    private static final String TEXT =
            ("It is a truth universally acknowledged, that a single man in possession of a good "
                            + "fortune, must be in want of a wife. However little known the feelings or views of such a man may be on his "
                            + "first entering a neighbourhood, this truth is so well fixed in the minds of the surrounding families. ")
                    .repeat(2);

    private static Model model;

    @BeforeAll
    static void load() {
        model = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.F32, 1));
    }

    @AfterAll
    static void close() {
        model.close();
    }

    /** The definition once more, token by token through the cache of generation. */
    @ParameterizedTest
    @ValueSource(ints = {16, 25})
    void perplexityOfATextScoresTheSecondHalfOfEachWindow(int window) {
        int[] ids = model.tokenizer().encode(TEXT, true, false);
        int windows = ids.length / window;
        double sum = 0;
        int scored = 0;
        for (int w = 0; w < windows; w++) {
            int[] part = Arrays.copyOfRange(ids, w * window, (w + 1) * window);
            if (model.tokenizer().info().addBos()) {
                part[0] = model.tokenizer().info().bos();
            }
            float[][] logits = Logits.of(model, null, part);
            for (int t = window / 2; t + 1 < window; t++) {
                sum -= logProbability(logits[t], part[t + 1]);
                scored++;
            }
        }

        TextEvaluation result = new Evaluator(model, null).evaluateText(TEXT, window);

        assertThat(result.windows()).isEqualTo(windows).isGreaterThan(2);
        assertThat(result.tokens()).isEqualTo(ids.length);
        assertThat(result.scoredTokens()).isEqualTo(scored);
        assertThat(result.loss()).isCloseTo(sum / scored, within(1e-3));
        assertThat(result.perplexity()).isEqualTo(Math.exp(result.loss()));
        assertThat(result.standardError()).isBetween(0.01, 1.0);
    }

    @Test
    void aTextThatIsTooShortIsRefused() {
        assertThatThrownBy(() -> new Evaluator(model, null).evaluateText("Short.", 512))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("two windows need 1024");
    }

    @Test
    void windowsBeyondTheContextOfTheModelAreRefused() {
        int context = model.info().contextLength();

        assertThatThrownBy(() -> new Evaluator(model, null).evaluateText(TEXT.repeat(100), context + 1))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining(
                        "windows of " + (context + 1) + " tokens are more than the model's context of " + context);
    }

    @Test
    void theLossDoesNotDependOnTheBatchSize() {
        TokenizedDataset data = TokenizedDataset.of(
                Dataset.of(List.of(
                        DataRecord.of("Who is Mr. Collins?", "A clergyman."),
                        DataRecord.of("Who is Lady Catherine?", "Lady Catherine de Bourgh, the aunt of Mr. Darcy."),
                        DataRecord.of("Whom does Jane marry?", "Mr. Bingley."))),
                model.tokenizer(),
                DataConfig.ofMaxLength(128));
        Evaluator evaluator = new Evaluator(model, null);
        double one = evaluator.evaluate(data, 1).loss();

        assertThat(evaluator.evaluate(data, 2).loss()).isCloseTo(one, within(1e-5));
        assertThat(evaluator.evaluate(data, 3).loss()).isCloseTo(one, within(1e-5));
    }

    @Test
    void answersOfATunedModelAgreeWithWhatItWasTaught() {
        Dataset questions = Dataset.of(List.of(
                DataRecord.of("Who is Mr. Collins?", "He is a clergyman."),
                DataRecord.of("Where is Pemberley?", "It is in Derbyshire.")));
        GenerationConfig greedy =
                GenerationConfig.builder().temperature(0).maxNewTokens(24).build();
        try (Adapter adapter =
                Adapter.create(model, LoraConfig.builder().rank(8).build())) {
            AnswerEvaluation before =
                    new Evaluator(model, adapter).evaluateAnswers(questions, PromptTemplate.INSTRUCTION, greedy);
            new Trainer(
                            model,
                            adapter,
                            TrainingConfig.builder()
                                    .maxSteps(25)
                                    .batchSize(2)
                                    .learningRate(5e-3)
                                    .maxLength(64)
                                    .build())
                    .train(questions);
            AnswerEvaluation after =
                    new Evaluator(model, adapter).evaluateAnswers(questions, PromptTemplate.INSTRUCTION, greedy);

            assertThat(before.exactMatch()).isZero();
            assertThat(after.exactMatch()).isEqualTo(1);
            assertThat(after.f1()).isEqualTo(1).isGreaterThan(before.f1());
            assertThat(after.examples()).isEqualTo(2);
        }
    }

    @ParameterizedTest
    @CsvSource({
        "The clergyman., a Clergyman, true, 1",
        "Mr. Darcy of Pemberley, Mr. Darcy, false, 0.6666666666666666",
        "Jane Jane Jane, Jane, false, 0.5",
        "'', the, true, 1",
        "'', Darcy, false, 0",
        "“Netherfield”—Park, netherfieldpark, true, 1"
    })
    void answersAreComparedAsSquadDoes(String answer, String expected, boolean same, double f1) {
        assertThat(AnswerScore.exactMatch(answer, expected)).isEqualTo(same);
        assertThat(AnswerScore.f1(answer, expected)).isCloseTo(f1, within(1e-12));
    }

    private static double logProbability(float[] logits, int id) {
        double max = Float.NEGATIVE_INFINITY;
        for (float logit : logits) {
            max = Math.max(max, logit);
        }
        double sum = 0;
        for (float logit : logits) {
            sum += Math.exp(logit - max);
        }
        return logits[id] - max - Math.log(sum);
    }
}
