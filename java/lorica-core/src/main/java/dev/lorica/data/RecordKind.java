package dev.lorica.data;

/** What a record of a data file is to be, which the objective decides. */
public enum RecordKind {
    /** A prompt with its answer, a conversation, or a plain text. */
    ANSWERS,
    /** A prompt with two answers, of which {@code chosen} is better than {@code rejected}. */
    PAIRS,
    /** A prompt with an answer, and a {@code label}: whether it is a good one. */
    LABELLED,
    /** A text, or two, and what a classifier is to say of it. */
    CLASSES,
    /** What is asked, by itself; an answer that stands beside it is not looked at. */
    PROMPTS
}
