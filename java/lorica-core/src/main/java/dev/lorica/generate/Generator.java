package dev.lorica.generate;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.CancelledException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import java.util.Arrays;
import java.util.List;
import java.util.Objects;
import java.util.concurrent.locks.ReentrantLock;

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
 * Adapters can be chosen anew for each text, several at once and each with a scale of its own; the model is not loaded again:
 *
 * <pre>{@code
 * generator.ask(question, config, List.of(new ScaledAdapter(austen, 1), new ScaledAdapter(brief, 0.5)));
 * }</pre>
 *
 * It keeps the cache of the text before: a prompt that begins as the last text did, with the same adapters, is processed only from
 * where it differs.
 * One generation at a time; for several at once, make several generators, which share the model's weights.
 */
public final class Generator implements AutoCloseable {
    /** Positions are allocated in multiples of this, so that not every longer prompt needs a new cache. */
    private static final int CACHE_STEP = 256;

    private final Model model;
    private final List<ScaledAdapter> adapters;
    private final Invocations invocations = new Invocations();
    /** Fair: with one that is not, a thread among many may wait for ever. */
    private final ReentrantLock turn = new ReentrantLock(true);

    private final Object encoderLock = new Object();
    private volatile KvCache cache;
    private Applied applied;
    private ExampleEncoder encoder;
    private PromptTemplate encoderTemplate;
    private volatile boolean closed;
    private volatile Generation current;

    /** Adapters in the cache, and how often each had changed then. */
    private record Applied(List<ScaledAdapter> adapters, List<Long> changes) {
        static Applied of(List<ScaledAdapter> adapters) {
            return new Applied(
                    adapters,
                    adapters.stream()
                            .map(one -> Inner.ADAPTER.of(one.adapter()).changes())
                            .toList());
        }
    }

    /**
     * Generates with the base alone.
     *
     * @param model the model, which stays the caller's
     * @throws UnsupportedException if the model writes no texts
     */
    public Generator(Model model) {
        this(model, List.of());
    }

    /**
     * Generates with a model and an adapter of it, which stay the caller's.
     *
     * @param model   the model
     * @param adapter {@code null}: the base alone
     * @throws UnsupportedException if the model writes no texts
     */
    public Generator(Model model, Adapter adapter) {
        this(model, adapter == null ? List.of() : List.of(new ScaledAdapter(adapter, 1)));
    }

    /**
     * Generates with a model and adapters of it, which stay the caller's.
     *
     * @param model    the model
     * @param adapters whose sum is applied unless a text is asked for with others; none: the base alone
     * @throws UnsupportedException if the model writes no texts
     */
    public Generator(Model model, List<ScaledAdapter> adapters) {
        Arguments.given(model, "model");
        Arguments.given(adapters, "adapters");
        requireWriter(model);
        this.model = model;
        this.adapters = Arguments.all(adapters, "adapters");
        this.adapters.forEach(one -> one.adapter().requireModel(model));
    }

    static void requireWriter(Model model) {
        if (Inner.MODEL.of(model).classifier((isEncoder, outputs, type, problem, labels) -> isEncoder)) {
            throw new UnsupportedException("architecture '" + model.info().architecture()
                    + "' is an encoder, which reads whole texts and writes none");
        }
    }

    /** {@return the model} */
    public Model model() {
        return model;
    }

    /** {@return those that are applied unless a text is asked for with others} */
    public List<ScaledAdapter> adapters() {
        return adapters;
    }

    /**
     * Answers an instruction, put into the template that the adapter was trained with; where there is none, into the model's chat
     * template, or else the {@code ### Instruction:} form.
     *
     * @param instruction what is asked
     * @param config      how the text is drawn
     * @return the answer, piece by piece
     */
    public Generation ask(String instruction, GenerationConfig config) {
        return ask(instruction, config, adapters);
    }

    /**
     * Answers an instruction with these adapters, in the template of the first of them that has one.
     *
     * @param instruction what is asked
     * @param config      how the text is drawn
     * @param adapters    whose sum is applied; none: the base alone
     * @return the answer, piece by piece
     */
    public Generation ask(String instruction, GenerationConfig config, List<ScaledAdapter> adapters) {
        Arguments.given(instruction, "instruction");
        Arguments.given(config, "config");
        Arguments.given(adapters, "adapters");
        return generate(encoder(template(adapters)).prompt(instruction, ""), config, adapters);
    }

    /**
     * Goes on with a conversation, in the same template as {@link #ask}. To keep it going, add the answer as an assistant's message
     * and the next question: what the conversation had before is not processed again.
     *
     * @param messages the conversation so far, the last turn not the assistant's
     * @param config   how the text is drawn
     * @return the answer, piece by piece
     */
    public Generation chat(List<Message> messages, GenerationConfig config) {
        Arguments.given(config, "config");
        return chat(messages, template(adapters), config);
    }

    /**
     * Goes on with a conversation, in this template.
     *
     * @param messages the conversation so far, the last turn not the assistant's
     * @param template what stands around the turns
     * @param config   how the text is drawn
     * @return the answer, piece by piece
     */
    public Generation chat(List<Message> messages, PromptTemplate template, GenerationConfig config) {
        Arguments.given(template, "template");
        Arguments.given(config, "config");
        return chat(new Conversation(messages, null), template, config, adapters);
    }

    /**
     * Goes on with a conversation, with these adapters, in the template of the first of them that has one.
     *
     * @param conversation the conversation so far
     * @param config       how the text is drawn
     * @param adapters     whose sum is applied; none: the base alone
     * @return the answer, piece by piece
     */
    public Generation chat(Conversation conversation, GenerationConfig config, List<ScaledAdapter> adapters) {
        return chat(conversation, template(adapters), config, adapters);
    }

    /**
     * Goes on with a conversation, in which the assistant may call the tools that it names, in this template, with these adapters.
     *
     * @param conversation the conversation so far, with its tools
     * @param template     what stands around the turns
     * @param config       how the text is drawn
     * @param adapters     whose sum is applied; none: the base alone
     * @return the answer, piece by piece
     */
    public Generation chat(
            Conversation conversation, PromptTemplate template, GenerationConfig config, List<ScaledAdapter> adapters) {
        Arguments.given(conversation, "conversation");
        Arguments.given(template, "template");
        Arguments.given(config, "config");
        return generate(encoder(template).prompt(DataRecord.conversation(conversation)), config, adapters);
    }

    /** {@return what stands around what is asked: that of the first adapter that has one, else the model's own} */
    public PromptTemplate template() {
        return template(adapters);
    }

    private PromptTemplate template(List<ScaledAdapter> adapters) {
        return Arguments.all(adapters, "adapters").stream()
                .map(one -> one.adapter().template())
                .filter(Objects::nonNull)
                .findFirst()
                .or(() -> ChatTemplate.of(model.tokenizer().info()))
                .orElse(PromptTemplate.INSTRUCTION);
    }

    /** Whoever asks does not wait here for those who generate. */
    private ExampleEncoder encoder(PromptTemplate template) {
        synchronized (encoderLock) {
            if (encoder == null || !template.equals(encoderTemplate)) {
                encoder = new ExampleEncoder(model.tokenizer(), template, false);
                encoderTemplate = template;
            }
            return encoder;
        }
    }

    /**
     * Goes on with a prompt as it stands; control tokens written out in it become these tokens.
     *
     * @param prompt the text that it begins with
     * @param config how the text is drawn
     * @return what comes behind the prompt, piece by piece
     */
    public Generation generate(String prompt, GenerationConfig config) {
        return generate(prompt, config, adapters);
    }

    /**
     * Goes on with a prompt as it stands, with these adapters.
     *
     * @param prompt   the text that it begins with
     * @param config   how the text is drawn
     * @param adapters whose sum is applied; none: the base alone
     * @return what comes behind the prompt, piece by piece
     */
    public Generation generate(String prompt, GenerationConfig config, List<ScaledAdapter> adapters) {
        Arguments.given(prompt, "prompt");
        return generate(encoder(PromptTemplate.PLAIN).prompt(prompt, ""), config, adapters);
    }

    /**
     * Goes on with the text of these ids. Nothing is computed before the first piece is asked for.
     *
     * @param prompt token ids
     * @param config how the text is drawn
     * @return what comes behind the prompt, piece by piece
     * @throws InvalidArgumentException if there are no ids, or more than the model's context has positions for
     */
    public Generation generate(int[] prompt, GenerationConfig config) {
        return generate(prompt, config, adapters);
    }

    /**
     * Goes on with the text of these ids, with these adapters; none: the base alone.
     *
     * @param prompt   token ids
     * @param config   how the text is drawn
     * @param adapters whose sum is applied; none: the base alone
     * @return what comes behind the prompt, piece by piece
     */
    public Generation generate(int[] prompt, GenerationConfig config, List<ScaledAdapter> adapters) {
        Arguments.given(prompt, "prompt");
        Arguments.given(config, "config");
        Arguments.given(adapters, "adapters");
        turn.lock();
        try {
            return current = generation(prompt, config, adapters);
        } finally {
            turn.unlock();
        }
    }

    private Generation generation(int[] prompt, GenerationConfig config, List<ScaledAdapter> adapters) {
        requireOpen();
        List<ScaledAdapter> applied = Arguments.all(adapters, "adapters");
        applied.forEach(one -> one.adapter().requireModel(model));
        int context = model.info().contextLength();
        if (prompt.length == 0) {
            throw new InvalidArgumentException("the prompt is empty");
        }
        if (prompt.length > context) {
            throw new InvalidArgumentException("the prompt has " + prompt.length + " tokens, more than the " + context
                    + " of the model's context");
        }
        invocations.look(prompt, applied);
        return new Generation(this, model, prompt.clone(), config, applied);
    }

    /** Ends a generation that runs on another thread, and does not wait for its prompt. */
    @Override
    public void close() {
        closed = true;
        stop();
        turn.lock();
        try {
            current = null;
            if (cache != null) {
                cache.close();
                cache = null;
            }
        } finally {
            turn.unlock();
        }
    }

    /** From any thread, without waiting for the one that generates. */
    void cancel(Generation generation) {
        if (generation == current) {
            stop();
        }
    }

    private void stop() {
        KvCache running = cache;
        if (running != null) {
            running.cancel(true);
        }
    }

    /** Puts the prompt into the cache. Returns how many of its tokens were there already. */
    int begin(Generation generation, int[] prompt, int maxNewTokens, float[] logits) {
        turn.lock();
        try {
            return beginNow(generation, prompt, maxNewTokens, logits);
        } finally {
            turn.unlock();
        }
    }

    private int beginNow(Generation generation, int[] prompt, int maxNewTokens, float[] logits) {
        requireCurrent(generation);
        int needed = (int) Math.min(model.info().contextLength(), (long) prompt.length + maxNewTokens);
        if (cache != null && cache.capacity() < needed) {
            cache.close();
            cache = null;
        }
        if (cache == null) {
            long rounded = (needed + CACHE_STEP - 1L) / CACHE_STEP * CACHE_STEP;
            cache = new KvCache(model, (int) Math.min(rounded, model.info().contextLength()));
            applied = Applied.of(List.of());
        }
        Applied wanted = Applied.of(generation.adapters());
        if (!wanted.equals(applied)) {
            cache.setAdapters(wanted.adapters());
            applied = wanted;
        }
        cache.cancel(false);
        requireGoingOn(generation); // whoever cancels later finds this cache
        // The last token is always processed, because its logits are wanted.
        int reused = cache.truncate(Math.min(cache.commonPrefix(prompt), prompt.length - 1));
        cache.append(Arrays.copyOfRange(prompt, reused, prompt.length), logits);
        return reused;
    }

    /** Appends one token. False when the context is full. */
    boolean append(Generation generation, int token, float[] logits) {
        turn.lock();
        try {
            requireCurrent(generation);
            if (cache.length() == cache.capacity()) {
                return false;
            }
            requireGoingOn(generation);
            cache.append(new int[] {token}, logits);
            return true;
        } finally {
            turn.unlock();
        }
    }

    private void requireGoingOn(Generation generation) {
        requireOpen();
        if (generation.isCancelled()) {
            throw new CancelledException("the generation is cancelled");
        }
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
