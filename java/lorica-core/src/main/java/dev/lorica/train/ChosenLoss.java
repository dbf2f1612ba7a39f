package dev.lorica.train;

/**
 * The loss of the better sides of a micro-batch with their prompts, which some objectives add.
 *
 * @param mean   of −log p
 * @param tokens how many it is over
 */
record ChosenLoss(double mean, int tokens) {
    static ChosenLoss of(ScoredBatch batch) {
        double sum = 0;
        int tokens = 0;
        for (int i = 0; i < batch.size(); i++) {
            ScoredSequence chosen = batch.chosen(i);
            sum -= chosen.logProb() + chosen.promptLogProb();
            tokens += chosen.length() + chosen.promptLength();
        }
        return new ChosenLoss(sum / tokens, tokens);
    }

    /** Adds it {@code weight} times to each pair's loss. */
    void add(ScoredBatch batch, double weight, ObjectiveResult result) {
        result.loss(weight * mean * batch.size(), 0);
        for (int i = 0; i < batch.size(); i++) {
            double derivative = -weight * batch.size() / tokens;
            result.gradient(batch.chosen(i), derivative);
            result.promptGradient(batch.chosen(i), derivative);
        }
    }
}
