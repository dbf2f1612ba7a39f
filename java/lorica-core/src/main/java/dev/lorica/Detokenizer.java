package dev.lorica;

import dev.lorica.internal.NativeDetokenizer;

/** Turns a stream of ids into a stream of text that never ends inside a character. Made by {@link Tokenizer#detokenizer}. */
public final class Detokenizer implements AutoCloseable {
    private final NativeDetokenizer engine;

    Detokenizer(NativeDetokenizer engine) {
        this.engine = engine;
    }

    /**
     * Takes one id and gives the text that is complete now, possibly none.
     *
     * @param id a token's id, 0 to the vocabulary's size − 1
     * @return what became complete with it; a character that is spread over several tokens comes with the last of them
     */
    public String push(int id) {
        return engine.push(id);
    }

    /** {@return the end of the stream: what is still held back, each byte that is no character given as U+FFFD} */
    public String finish() {
        return engine.finish();
    }

    @Override
    public void close() {
        engine.close();
    }
}
