package dev.lorica.cli;

import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.train.Resumption;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingProgress;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;

/** A run while it goes on: what is said of it, and what is remembered for the result. */
final class RunProgress implements TrainerListener {
    private final ProgressLine line;
    private final Runnable writeConfig;
    private final List<Map<String, Object>> log = new ArrayList<>();
    private boolean configIsWritten;
    private int resumedFrom;
    private int savedStep;

    /** @param writeConfig saves the run's options, once it has begun */
    RunProgress(ProgressLine line, Runnable writeConfig) {
        this.line = line;
        this.writeConfig = writeConfig;
    }

    /** The records of {@code --json}. */
    List<Map<String, Object>> log() {
        return log;
    }

    /** The step of the checkpoint from which it went on; 0: it began anew. */
    int resumedFrom() {
        return resumedFrom;
    }

    /** The step of the newest checkpoint; 0: there is none. */
    int savedStep() {
        return savedStep;
    }

    @Override
    public void onResume(Resumption resumption) {
        line.line("goes on from " + resumption.checkpoint() + ", step " + resumption.step() + " of "
                + resumption.totalSteps());
        resumption.changes().forEach(change -> line.line("note: " + change));
        resumedFrom = resumption.step();
        savedStep = resumption.step();
    }

    @Override
    public void onStep(TrainingProgress now) {
        if (!configIsWritten) {
            configIsWritten = true;
            try {
                writeConfig.run();
            } catch (LoricaException e) {
                line.line("warning: " + e.getMessage());
            }
        }
        line.step(now);
    }

    @Override
    public void onSave(int step, Path checkpoint) {
        line.line("saved " + checkpoint);
        savedStep = step;
    }

    @Override
    public void onSaveFailed(int step, LoricaException reason) {
        line.line("warning: no checkpoint of step " + step + ": " + reason.getMessage()
                + "; training goes on, checkpoints before it are in place");
    }

    @Override
    public void onLog(TrainingProgress now) {
        line.log(now);
        Map<String, Object> entry = new LinkedHashMap<>();
        entry.put("step", now.step());
        entry.put("epoch", now.epoch());
        entry.put("loss", now.loss());
        entry.put("learning_rate", now.learningRate());
        entry.put("grad_norm", now.gradNorm());
        entry.put("tokens_per_second", now.tokensPerSecond());
        entry.put("utilization", now.utilization());
        entry.putAll(now.metrics());
        log.add(entry);
    }

    @Override
    public void onEvaluate(int step, Evaluation evaluation) {
        line.line("eval after step " + step + ": " + inWords(evaluation));
        Map<String, Object> entry = new LinkedHashMap<>();
        entry.put("step", step);
        entry.put("eval_loss", evaluation.loss());
        if (evaluation.hasPerplexity()) {
            entry.put("eval_perplexity", evaluation.perplexity());
        }
        evaluation.metrics().forEach((name, value) -> entry.put("eval_" + name, value));
        log.add(entry);
    }

    static String inWords(Evaluation evaluation) {
        return "loss " + Format.fixed(evaluation.loss(), 4)
                + (evaluation.hasPerplexity()
                        ? ", perplexity " + Format.fixed(evaluation.perplexity(), 2)
                        : ProgressLine.metrics(evaluation.metrics()).replace("  ", ", "));
    }
}
