package dev.lorica.serve;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.PromptTemplate;
import dev.lorica.eval.Embedder;
import java.util.List;
import java.util.regex.Pattern;

/** What a request can name as its model: the base, or the base with an adapter. */
final class Served {
    static final String NAMES = "up to 128 letters, digits and . _ : / -, the first of them a letter or a digit";
    private static final Pattern NAME = Pattern.compile("[A-Za-z0-9][A-Za-z0-9._:/-]{0,127}");

    private final String name;
    private final Model model;
    /** {@code null}: the base. */
    private final Adapter adapter;

    private final String root;
    private final boolean owned;
    /** Made when it is first wanted; so the next. */
    private ExampleEncoder encoder;

    private final Object encoding = new Object();

    private Embedder embedder;

    /** So many requests use it, and it itself while it is not unloaded. */
    private int users = 1;

    /**
     * @param root  where it comes from
     * @param owned whether the adapter is closed with this
     */
    Served(String name, Model model, Adapter adapter, String root, boolean owned) {
        this.name = name;
        this.model = model;
        this.adapter = adapter;
        this.root = root;
        this.owned = owned;
    }

    static boolean isName(String name) {
        return NAME.matcher(name).matches();
    }

    String name() {
        return name;
    }

    String root() {
        return root;
    }

    boolean isAdapter() {
        return adapter != null;
    }

    List<ScaledAdapter> adapters() {
        return adapters(1);
    }

    /** With its adapter times {@code scale}; the base has none. */
    List<ScaledAdapter> adapters(double scale) {
        return adapter == null ? List.of() : List.of(new ScaledAdapter(adapter, scale));
    }

    /** What stands around a conversation. */
    ExampleEncoder encoder() {
        synchronized (encoding) {
            return madeEncoder();
        }
    }

    private ExampleEncoder madeEncoder() {
        if (encoder == null) {
            PromptTemplate own = adapter == null ? null : adapter.template();
            encoder = new ExampleEncoder(
                    model.tokenizer(),
                    own != null
                            ? own
                            : ChatTemplate.of(model.tokenizer().info())
                                    .map(PromptTemplate.class::cast)
                                    .orElse(PromptTemplate.INSTRUCTION),
                    false);
        }
        return encoder;
    }

    /** One call at a time. */
    synchronized List<float[]> embed(List<String> texts) {
        if (embedder == null) {
            embedder = new Embedder(model, adapter);
        }
        return embedder.embed(texts, Embedder.Pooling.of(model), true);
    }

    /** Under the lock of those who are served. */
    void use() {
        users++;
    }

    /** Under the same lock. Returns whether nobody is left. */
    boolean leave() {
        return --users == 0;
    }

    synchronized void close() {
        if (embedder != null) {
            embedder.close();
        }
        if (owned && adapter != null) {
            adapter.close();
        }
    }
}
