package dev.lorica.train;

import dev.lorica.data.RecordKind;

/** Plain fine-tuning; where all tokens count alike, {@link LocalSession} does it without asking, in one call. */
final class Sft implements Objective {
    private static final long serialVersionUID = 1L;
    static final Sft INSTANCE = new Sft();

    private Sft() {}

    /** There is one only, on every machine. */
    private Object readResolve() {
        return INSTANCE;
    }

    @Override
    public String name() {
        return "sft";
    }

    @Override
    public RecordKind records() {
        return RecordKind.ANSWERS;
    }

    @Override
    public boolean usesWeights() {
        return true;
    }

    @Override
    public void score(ScoredBatch batch, ObjectiveResult result) {
        for (ScoredSequence sequence : batch.sequences()) {
            for (int i = 0; i < sequence.length(); i++) {
                double weight = sequence.weight(i);
                result.loss(-weight * sequence.logProb(i), weight);
                result.gradient(sequence, i, -weight);
            }
        }
    }
}
