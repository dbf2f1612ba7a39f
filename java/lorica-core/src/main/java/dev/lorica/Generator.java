package dev.lorica;

import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.Arrays;

/**
 * Generates text, with an adapter or without.
 *
 * <pre>{@code
 * try (Generator generator = new Generator(model, adapter)) {
 *     for (String piece : generator.ask("Who is Mr. Collins?", GenerationConfig.defaults())) {
 *         System.out.print(piece);
 *     }
 * }
 * }</pre>
 *
 * It keeps the cache of the text before: a prompt that begins as the last text did is processed only from where it differs.
 * One generation at a time; for several at once, make several generators, which share the model's weights.
 */
public final class Generator implements AutoCloseable {
    /** Positions are allocated in multiples of this, so that not every longer prompt needs a new cache. */
    private static final int CACHE_STEP = 256;

    private final Model model;
    private final Adapter adapter;
    private KvCache cache;
    private long adapterChanges;
    private boolean closed;
    private Generation current;

    /** The base alone. */
    public Generator(Model model) {
        this(model, null);
    }

    /** @param adapter {@code null}: the base alone */
    public Generator(Model model, Adapter adapter) {
        if (adapter != null && adapter.model() != model) {
            throw new InvalidArgumentException("the adapter belongs to another model; load it with this model's loadAdapter");
        }
        this.model = model;
        this.adapter = adapter;
    }

    /** Answers an instruction, put into the template that the adapter was trained with. */
    public Generation ask(String instruction, GenerationConfig config) {
        PromptTemplate template = adapter != null && adapter.template() != null
                ? adapter.template()
                : PromptTemplate.INSTRUCTION;
        return generate(new ExampleEncoder(model.tokenizer(), template, false).prompt(instruction, ""), config);
    }

    /** Goes on with a prompt as it stands; control tokens written out in it become these tokens. */
    public Generation generate(String prompt, GenerationConfig config) {
        return generate(new ExampleEncoder(model.tokenizer(), PromptTemplate.PLAIN, false).prompt(prompt, ""), config);
    }

    /**
     * Goes on with the text of these ids. Nothing is computed before the first piece is asked for.
     *
     * @throws InvalidArgumentException if there are no ids, or more than the model's context has positions for
     */
    public synchronized Generation generate(int[] prompt, GenerationConfig config) {
        requireOpen();
        int context = model.info().contextLength();
        if (prompt.length == 0) {
            throw new InvalidArgumentException("the prompt is empty");
        }
        if (prompt.length > context) {
            throw new InvalidArgumentException(
                    "the prompt has " + prompt.length + " tokens, more than the " + context + " of the model's context");
        }
        current = new Generation(this, model, prompt.clone(), config);
        return current;
    }

    @Override
    public synchronized void close() {
        closed = true;
        current = null;
        if (cache != null) {
            cache.close();
            cache = null;
        }
    }

    /** Puts the prompt into the cache. Returns how many of its tokens were there already. */
    synchronized int begin(Generation generation, int[] prompt, int maxNewTokens, float[] logits) {
        requireCurrent(generation);
        int needed = (int) Math.min(model.info().contextLength(), (long) prompt.length + maxNewTokens);
        if (cache != null && (cache.capacity() < needed || adapter != null && adapter.changes() != adapterChanges)) {
            cache.close();
            cache = null;
        }
        if (cache == null) {
            long rounded = (needed + CACHE_STEP - 1L) / CACHE_STEP * CACHE_STEP;
            adapterChanges = adapter == null ? 0 : adapter.changes();
            cache = new KvCache(model, adapter, (int) Math.min(rounded, model.info().contextLength()));
        }
        // The last token is always processed, because its logits are wanted.
        int reused = Math.min(cache.commonPrefix(prompt), prompt.length - 1);
        cache.truncate(reused);
        cache.append(Arrays.copyOfRange(prompt, reused, prompt.length), logits);
        return reused;
    }

    /** Appends one token. False when the context is full. */
    synchronized boolean append(Generation generation, int token, float[] logits) {
        requireCurrent(generation);
        if (cache.length() == cache.capacity()) {
            return false;
        }
        cache.append(new int[] {token}, logits);
        return true;
    }

    private void requireCurrent(Generation generation) {
        requireOpen();
        if (generation != current) {
            throw new IllegalStateException("another generation was begun on this generator");
        }
    }

    private void requireOpen() {
        if (closed) {
            throw new IllegalStateException("the generator is closed");
        }
    }
}
