package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import dev.lorica.train.Resumption;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingPlan;
import java.io.IOException;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Consumer;
import java.util.function.Supplier;

/**
 * The same questions, asked before training and at every evaluation: {@code step}, {@code question}, {@code answer}, one a line. A run that
 * goes on takes what came after its checkpoint away.
 */
final class AnswerLog implements TrainerListener {
    static final String FILE_NAME = "train_answers.jsonl";

    private static final ObjectMapper JSON = new ObjectMapper();

    private final Path file;
    private final Questions questions;
    private final List<String> before;
    private final Supplier<List<String>> ask;
    private final Consumer<String> problem;
    private List<String> lines = new ArrayList<>();

    /**
     * @param before  the answers of the untrained model; none where it was not asked
     * @param ask     asks the model as it is now
     * @param problem is told what cannot be written; training goes on
     */
    AnswerLog(
            Path file, Questions questions, List<String> before, Supplier<List<String>> ask, Consumer<String> problem) {
        this.file = file;
        this.questions = questions;
        this.before = before;
        this.ask = ask;
        this.problem = problem;
    }

    @Override
    public void onStart(TrainingPlan plan) {
        lines = new ArrayList<>();
        if (!before.isEmpty()) {
            add(0, before);
        }
    }

    @Override
    public void onResume(Resumption resumption) {
        lines = new ArrayList<>();
        try {
            for (String line : Files.exists(file) ? Files.readAllLines(file) : List.<String>of()) {
                int step = JSON.readTree(line).path("step").asInt();
                boolean comesAgain = step == resumption.step() && resumption.evaluationPending();
                if (step <= resumption.step() && !comesAgain) {
                    lines.add(line);
                }
            }
            write();
        } catch (IOException e) {
            problem.accept(file + " cannot be read: " + e.getMessage());
        }
    }

    @Override
    public void onEvaluate(int step, Evaluation evaluation) {
        add(step, ask.get());
    }

    private void add(int step, List<String> answers) {
        try {
            for (int i = 0; i < answers.size(); i++) {
                Map<String, Object> line = new LinkedHashMap<>();
                line.put("step", step);
                line.put("question", Questions.inWords(questions.records().get(i)));
                line.put("answer", answers.get(i));
                lines.add(JSON.writeValueAsString(line));
            }
        } catch (JacksonException e) {
            throw new IllegalStateException(e);
        }
        write();
    }

    /** As a whole: it is small, and a run that is killed leaves no half line. */
    private void write() {
        StringBuilder text = new StringBuilder();
        lines.forEach(line -> text.append(line).append('\n'));
        try {
            AtomicFile.write(file, text.toString().getBytes(StandardCharsets.UTF_8));
        } catch (LoricaException e) {
            problem.accept(e.getMessage());
        }
    }
}
