package dev.lorica;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.NativeDetokenizer;
import dev.lorica.internal.NativeModel;
import dev.lorica.internal.NativeTokenizer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;

/**
 * Text to token ids and back, with the vocabulary of a GGUF file. Its ids are those of llama.cpp.
 *
 * <p>Immutable; any number of threads may use one at the same time.
 */
public final class Tokenizer implements AutoCloseable {
    private final NativeTokenizer engine;
    private final TokenizerInfo info;

    private Tokenizer(NativeTokenizer engine) {
        this.engine = engine;
        this.info = engine.info(TokenizerInfo::new);
    }

    /**
     * Reads the vocabulary of a GGUF file, which may be one that holds nothing else.
     *
     * @param file a GGUF file, or a name on the hub
     * @return the tokenizer, which the caller closes; that of a model is {@link Model#tokenizer}
     * @throws dev.lorica.exceptions.LoricaException if the file is damaged or its kind of vocabulary is not known
     */
    public static Tokenizer load(Path file) {
        Arguments.given(file, "file");
        return new Tokenizer(NativeTokenizer.load(Hub.model(file).toString()));
    }

    /** Of a model, with which it is closed. */
    static Tokenizer of(NativeModel model) {
        return new Tokenizer(NativeTokenizer.of(model));
    }

    /** {@return the kind of the vocabulary, its size and its special tokens} */
    public TokenizerInfo info() {
        return info;
    }

    /**
     * Turns a text into token ids.
     *
     * @param text         any text; {@code ""} gives only what {@code addSpecial} adds
     * @param addSpecial   whether BOS and EOS are put where the vocabulary asks for them
     * @param parseSpecial whether control tokens written out in the text ({@code <|im_end|>}) become these tokens instead of plain text;
     *                     false for text from strangers
     * @return the ids, each 0 to the vocabulary's size − 1
     */
    public int[] encode(String text, boolean addSpecial, boolean parseSpecial) {
        Arguments.given(text, "text");
        return engine.encode(text.getBytes(StandardCharsets.UTF_8), addSpecial, parseSpecial);
    }

    /**
     * Encodes many texts at once, on all cores, without BOS and EOS.
     *
     * @param texts        the texts
     * @param parseSpecial as in {@link #encode}, for each text
     * @return the ids of each text, in the order of the texts
     */
    public List<int[]> encodeBatch(List<String> texts, boolean[] parseSpecial) {
        Arguments.all(texts, "texts");
        Arguments.given(parseSpecial, "parseSpecial");
        int n = texts.size();
        if (parseSpecial.length != n) {
            throw new InvalidArgumentException(n + " texts but " + parseSpecial.length + " flags");
        }
        if (n == 0) {
            return List.of();
        }
        return engine.encodeBatch(
                texts.stream()
                        .map(text -> text.getBytes(StandardCharsets.UTF_8))
                        .toArray(byte[][]::new),
                parseSpecial);
    }

    /**
     * {@return the text that ids stand for, without control tokens} Bytes that are no character come as U+FFFD.
     *
     * @param ids token ids
     */
    public String decode(int... ids) {
        return decode(ids, false);
    }

    /**
     * {@return the text that ids stand for}
     *
     * @param ids     token ids
     * @param special whether control tokens are written out
     */
    public String decode(int[] ids, boolean special) {
        Arguments.given(ids, "ids");
        return new String(engine.decode(ids, special), StandardCharsets.UTF_8);
    }

    /**
     * {@return the bytes that a token puts behind a text: part of a character only, of some tokens; a control token written out}
     *
     * @param id a token id
     */
    public byte[] tokenBytes(int id) {
        requireId(id);
        // SentencePiece takes a space off where a text begins, so it does not begin here.
        int[] before = encode("a", false, false);
        int[] both = Arrays.copyOf(before, before.length + 1);
        both[before.length] = id;
        byte[] all = engine.decode(both, true);
        return Arrays.copyOfRange(all, Math.min(engine.decode(before, true).length, all.length), all.length);
    }

    /**
     * {@return the text of one token as the vocabulary spells it}
     *
     * @param id a token id
     */
    public String tokenText(int id) {
        requireId(id);
        return engine.tokenText(id);
    }

    /**
     * {@return whether this is a control token: never produced from plain text, hidden by {@link #decode(int...)}}
     *
     * @param id a token id
     */
    public boolean isControl(int id) {
        requireId(id);
        return engine.isControl(id);
    }

    /**
     * {@return whether this token ends a text or a turn}
     *
     * @param id a token id
     */
    public boolean isEndOfGeneration(int id) {
        requireId(id);
        return engine.isEndOfGeneration(id);
    }

    /**
     * {@return a stream from ids to text}
     *
     * @param special whether control tokens are written out
     */
    public Detokenizer detokenizer(boolean special) {
        return new Detokenizer(new NativeDetokenizer(engine, special));
    }

    @Override
    public void close() {
        engine.close();
    }

    private void requireId(int id) {
        if (id < 0 || id >= info.vocabSize()) {
            throw new InvalidArgumentException(
                    "token id " + id + " is not in the vocabulary, which has " + info.vocabSize() + " tokens");
        }
    }
}
