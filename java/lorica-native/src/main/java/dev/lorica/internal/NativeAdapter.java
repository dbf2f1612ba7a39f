package dev.lorica.internal;

import static dev.lorica.internal.Status.check;

import dev.lorica.internal.c.Lorica;
import dev.lorica.internal.c.lorica_adapter;
import dev.lorica.internal.c.lorica_adapter_info;
import dev.lorica.internal.c.lorica_adapter_params;
import dev.lorica.internal.c.lorica_adapter_tensor;
import dev.lorica.internal.c.lorica_write_params;
import java.util.ArrayList;
import java.util.List;
import java.util.function.Function;
import org.bytedeco.javacpp.BytePointer;
import org.bytedeco.javacpp.IntPointer;
import org.bytedeco.javacpp.PointerPointer;

/** An adapter, as the native library holds it. */
public final class NativeAdapter implements AutoCloseable {
    public static final int INIT_DEFAULT = Lorica.LORICA_LORA_INIT_DEFAULT;
    public static final int INIT_GAUSSIAN = Lorica.LORICA_LORA_INIT_GAUSSIAN;
    public static final int INIT_PISSA = Lorica.LORICA_LORA_INIT_PISSA;
    public static final int METHOD_LORA = Lorica.LORICA_METHOD_LORA;
    public static final int METHOD_IA3 = Lorica.LORICA_METHOD_IA3;
    public static final int METHOD_BITFIT = Lorica.LORICA_METHOD_BITFIT;
    public static final int METHOD_FULL = Lorica.LORICA_METHOD_FULL;
    public static final int METHOD_PROMPT_TUNING = Lorica.LORICA_METHOD_PROMPT_TUNING;
    public static final int METHOD_P_TUNING = Lorica.LORICA_METHOD_P_TUNING;
    public static final int METHOD_PREFIX_TUNING = Lorica.LORICA_METHOD_PREFIX_TUNING;
    public static final int METHOD_BOTTLENECK = Lorica.LORICA_METHOD_BOTTLENECK;
    public static final int PLACEMENT_HOULSBY = Lorica.LORICA_BOTTLENECK_HOULSBY;
    public static final int PLACEMENT_PFEIFFER = Lorica.LORICA_BOTTLENECK_PFEIFFER;
    public static final int BIASES_NONE = Lorica.LORICA_BIASES_NONE;
    public static final int BIASES_LORA_ONLY = Lorica.LORICA_BIASES_LORA_ONLY;
    public static final int BIASES_ALL = Lorica.LORICA_BIASES_ALL;

    final NativeModel model;
    final NativeHandle<lorica_adapter> handle;
    private volatile long changes;

    private NativeAdapter(NativeModel model, lorica_adapter pointer) {
        this.model = model;
        handle = new NativeHandle<>("the adapter", pointer, Lorica::lorica_adapter_free, model.handle);
    }

    private static IntPointer ints(int[] values) {
        return Memory.ints(values.length).put(values, 0, values.length);
    }

    /**
     * @param init             and bias: constants above
     * @param invocationTokens of an activated LoRA; none of another
     */
    public record Params(
            int rank,
            double alpha,
            double dropout,
            boolean useRslora,
            boolean useDora,
            int init,
            int pissaIterations,
            long seed,
            String targetModules,
            String modulesToSave,
            int bias,
            int[] invocationTokens) {}

    /**
     * A classifier that is trained beside the rest.
     *
     * @param outputs of a text; 0: there is none
     * @param labels  what they are called; none: nothing
     * @param problem transformers' problem_type
     */
    public record Outputs(int outputs, List<String> labels, String problem) {
        public static final Outputs NONE = new Outputs(0, List.of(), "");
    }

    /** Outputs as the native library takes them, as long as it reads them. */
    private static final class NativeOutputs implements AutoCloseable {
        private final Outputs given;
        private final List<BytePointer> texts = new ArrayList<>();
        private final PointerPointer<BytePointer> labels;
        private final BytePointer problem;

        NativeOutputs(Outputs given) {
            this.given = given;
            given.labels().forEach(label -> texts.add(Text.copy("a label", label)));
            labels = texts.isEmpty() ? null : Memory.pointers(texts.size());
            for (int i = 0; i < texts.size(); i++) {
                labels.put(i, texts.get(i));
            }
            problem = Text.copy("the problem", given.problem());
        }

        void into(lorica_adapter_params params) {
            params.n_outputs(given.outputs()).problem(problem);
            if (labels != null) {
                params.labels(labels);
            }
        }

        @Override
        public void close() {
            texts.forEach(BytePointer::close);
            if (labels != null) {
                labels.close();
            }
            problem.close();
        }
    }

    public static NativeAdapter create(NativeModel model, Params given, Outputs outputs) {
        lorica_adapter pointer = new lorica_adapter();
        int[] invocation = given.invocationTokens();
        try (NativeOutputs classifier = new NativeOutputs(outputs);
                IntPointer invocationTokens = invocation.length == 0 ? null : ints(invocation);
                BytePointer targets = Text.copy("target modules", given.targetModules());
                BytePointer saved = Text.copy("modules to save", given.modulesToSave());
                lorica_adapter_params params = Structs.defaults(
                        lorica_adapter_params::new,
                        lorica_adapter_params::struct_size,
                        Lorica::lorica_adapter_default_params)) {
            params.rank(given.rank())
                    .alpha(given.alpha())
                    .dropout(given.dropout())
                    .use_rslora(given.useRslora())
                    .use_dora(given.useDora())
                    .init(given.init())
                    .pissa_iterations(given.pissaIterations())
                    .seed(given.seed())
                    .target_modules(targets)
                    .modules_to_save(saved)
                    .bias(given.bias())
                    .invocation_tokens(invocationTokens)
                    .n_invocation_tokens(invocation.length);
            classifier.into(params);
            check(model.handle.shared(m -> Lorica.lorica_adapter_create(m, params, pointer)));
        }
        return new NativeAdapter(model, pointer);
    }

    /**
     * What an adapter of another method than LoRA is made with.
     *
     * @param method one of the constants above; what it has no use for is empty
     */
    public record Other(int method, String targetModules, String feedforwardModules, String layers, String frozen) {}

    public static NativeAdapter create(NativeModel model, Other given, Outputs outputs) {
        lorica_adapter pointer = new lorica_adapter();
        try (NativeOutputs classifier = new NativeOutputs(outputs);
                BytePointer targets = Text.copy("target modules", given.targetModules());
                BytePointer feedforward = Text.copy("feed-forward modules", given.feedforwardModules());
                BytePointer layers = Text.copy("layers", given.layers());
                BytePointer frozen = Text.copy("what is frozen", given.frozen());
                lorica_adapter_params params = Structs.defaults(
                        lorica_adapter_params::new,
                        lorica_adapter_params::struct_size,
                        Lorica::lorica_adapter_default_params)) {
            params.method(given.method())
                    .target_modules(targets)
                    .feedforward_modules(feedforward)
                    .layers(layers)
                    .frozen(frozen);
            classifier.into(params);
            check(model.handle.shared(m -> Lorica.lorica_adapter_create(m, params, pointer)));
        }
        return new NativeAdapter(model, pointer);
    }

    /**
     * Embeddings in front of every text.
     *
     * @param ids    the tokens as whose embeddings they begin; {@code null}: N(0, 1)
     * @param hidden of the network that they come out of; 0: as wide as the embeddings
     */
    public record Prompt(int method, int virtualTokens, int[] ids, int hidden, long seed) {
        public static Prompt tuning(int virtualTokens, int[] ids, long seed) {
            return new Prompt(METHOD_PROMPT_TUNING, virtualTokens, ids, 0, seed);
        }

        public static Prompt prefix(int virtualTokens, long seed) {
            return new Prompt(METHOD_PREFIX_TUNING, virtualTokens, null, 0, seed);
        }

        public static Prompt encoded(int virtualTokens, int hidden, long seed) {
            return new Prompt(METHOD_P_TUNING, virtualTokens, null, hidden, seed);
        }
    }

    public static NativeAdapter create(NativeModel model, Prompt given, Outputs outputs) {
        int[] ids = given.ids();
        lorica_adapter pointer = new lorica_adapter();
        try (NativeOutputs classifier = new NativeOutputs(outputs);
                IntPointer tokens = ids == null ? null : ints(ids);
                lorica_adapter_params params = Structs.defaults(
                        lorica_adapter_params::new,
                        lorica_adapter_params::struct_size,
                        Lorica::lorica_adapter_default_params)) {
            params.method(given.method())
                    .seed(given.seed())
                    .n_virtual_tokens(given.virtualTokens())
                    .virtual_ids(tokens)
                    .encoder_hidden_size(given.hidden());
            classifier.into(params);
            check(model.handle.shared(m -> Lorica.lorica_adapter_create(m, params, pointer)));
        }
        return new NativeAdapter(model, pointer);
    }

    /**
     * Bottleneck adapters.
     *
     * @param size         how wide they are
     * @param placement    one of the constants above
     * @param nonLinearity by AdapterHub's name
     */
    public record Bottleneck(int size, int placement, String nonLinearity, long seed) {}

    public static NativeAdapter create(NativeModel model, Bottleneck given, Outputs outputs) {
        lorica_adapter pointer = new lorica_adapter();
        try (NativeOutputs classifier = new NativeOutputs(outputs);
                BytePointer nonLinearity = Text.copy("the non-linearity", given.nonLinearity());
                lorica_adapter_params params = Structs.defaults(
                        lorica_adapter_params::new,
                        lorica_adapter_params::struct_size,
                        Lorica::lorica_adapter_default_params)) {
            params.method(METHOD_BOTTLENECK)
                    .seed(given.seed())
                    .bottleneck_size(given.size())
                    .bottleneck_placement(given.placement())
                    .non_linearity(nonLinearity);
            classifier.into(params);
            check(model.handle.shared(m -> Lorica.lorica_adapter_create(m, params, pointer)));
        }
        return new NativeAdapter(model, pointer);
    }

    /** What bottlenecks it has; {@code null}: it is of another method. */
    public Bottleneck bottleneck() {
        return handle.shared(adapter -> {
            try (lorica_adapter_info i = Structs.sized(lorica_adapter_info::new, lorica_adapter_info::struct_size)) {
                check(Lorica.lorica_adapter_get_info(adapter, i));
                return i.method() == METHOD_BOTTLENECK
                        ? new Bottleneck(i.bottleneck_size(), i.bottleneck_placement(), Text.of(i.non_linearity()), 0)
                        : null;
            }
        });
    }

    /** With which an activated LoRA begins in a text; none of all else. */
    public int[] invocationTokens() {
        return handle.shared(adapter -> {
            try (lorica_adapter_info i = Structs.sized(lorica_adapter_info::new, lorica_adapter_info::struct_size)) {
                check(Lorica.lorica_adapter_get_info(adapter, i));
                int[] tokens = new int[i.n_invocation_tokens()];
                if (tokens.length > 0) {
                    i.invocation_tokens().get(tokens);
                }
                return tokens;
            }
        });
    }

    public static NativeAdapter load(NativeModel model, String file) {
        lorica_adapter pointer = new lorica_adapter();
        try (BytePointer path = Text.copy("the path", file)) {
            check(model.handle.shared(m -> Lorica.lorica_adapter_load(m, path, pointer)));
        }
        return new NativeAdapter(model, pointer);
    }

    /** @param adapters at least one, all of {@code model} */
    public static NativeAdapter stack(NativeModel model, List<NativeAdapter> adapters, double[] scales) {
        lorica_adapter pointer = AdapterArray.with(adapters, scales, (pointers, factors, n) -> {
            try (PointerPointer<lorica_adapter> out = Memory.pointers(1)) {
                check(Lorica.lorica_adapter_stack(pointers, factors, n, out));
                return out.get(lorica_adapter.class);
            }
        });
        return new NativeAdapter(model, pointer);
    }

    /** What becomes of an adapter's description. */
    public interface Info<R> {
        R of(
                int rank,
                double alpha,
                double scale,
                double dropout,
                boolean useRslora,
                boolean useDora,
                int pairs,
                long parameters,
                List<String> targetModules,
                String baseFingerprint,
                int method,
                int virtualTokens,
                boolean frozenHalf);
    }

    public <R> R info(Info<R> info) {
        return handle.shared(adapter -> {
            try (lorica_adapter_info i = Structs.sized(lorica_adapter_info::new, lorica_adapter_info::struct_size)) {
                check(Lorica.lorica_adapter_get_info(adapter, i));
                return info.of(
                        i.rank(),
                        i.alpha(),
                        i.scale(),
                        i.dropout(),
                        i.use_rslora(),
                        i.use_dora(),
                        i.n_pairs(),
                        i.n_params(),
                        List.of(Text.of(i.target_modules()).split(",")),
                        Text.of(i.base_fingerprint()),
                        i.method(),
                        i.n_virtual_tokens(),
                        i.frozen_half());
            }
        });
    }

    /** The classifier that it has, or none. */
    public Outputs outputs() {
        return handle.shared(adapter -> {
            try (lorica_adapter_info i = Structs.sized(lorica_adapter_info::new, lorica_adapter_info::struct_size)) {
                check(Lorica.lorica_adapter_get_info(adapter, i));
                List<String> labels = new ArrayList<>();
                for (int n = 0; n < i.n_outputs(); n++) {
                    BytePointer label = Lorica.lorica_adapter_label(adapter, n);
                    if (label != null && !label.isNull()) {
                        labels.add(Text.of(label));
                    }
                }
                return new Outputs(i.n_outputs(), labels, Text.of(i.problem()));
            }
        });
    }

    /** What becomes of the description of a tensor. */
    public interface Tensor<R> {
        R of(String name, long rows, long columns, double alpha);
    }

    public <R> List<R> tensors(Tensor<R> tensor) {
        return handle.shared(adapter -> {
            List<R> tensors = new ArrayList<>();
            try (lorica_adapter_tensor t =
                    Structs.sized(lorica_adapter_tensor::new, lorica_adapter_tensor::struct_size)) {
                for (int i = 0; i < Lorica.lorica_adapter_n_tensors(adapter); i++) {
                    check(Lorica.lorica_adapter_tensor_info(adapter, i, t));
                    tensors.add(tensor.of(Text.of(t.name()), t.rows(), t.cols(), t.alpha()));
                }
            }
            return tensors;
        });
    }

    /** Copies a tensor. */
    public void get(int index, float[] values) {
        check(handle.shared(adapter -> Lorica.lorica_adapter_get_tensor(adapter, index, values, values.length)));
    }

    /** Replaces a tensor. */
    public void set(int index, float[] values) {
        check(changing(adapter -> Lorica.lorica_adapter_set_tensor(adapter, index, values, values.length)));
    }

    /** Whether anything is other than before training; what is not finite is an error that names its tensor. */
    public boolean hasEffect() {
        boolean[] hasEffect = new boolean[1];
        check(handle.shared(adapter -> Lorica.lorica_adapter_check(adapter, hasEffect)));
        return hasEffect[0];
    }

    public void setScale(double factor) {
        check(changing(adapter -> Lorica.lorica_adapter_set_scale(adapter, factor)));
    }

    public void save(String file) {
        try (BytePointer path = Text.copy("the path", file)) {
            check(handle.shared(adapter -> Lorica.lorica_adapter_save(adapter, path)));
        }
    }

    /** Writes the model with this folded in. {@code type}: {@code null} for the model's own types. */
    public void merge(String output, String type) {
        try (BytePointer path = Text.copy("the path", output);
                BytePointer name = type == null ? null : Text.copy("the type", type);
                lorica_write_params params = Structs.defaults(
                        lorica_write_params::new,
                        lorica_write_params::struct_size,
                        Lorica::lorica_write_default_params)) {
            params.type(name);
            check(model.handle.shared(m -> handle.shared(a -> Lorica.lorica_merge(m, a, path, params))));
        }
    }

    /** Grows whenever the adapter changes: what was computed with another value is out of date. */
    public long changes() {
        return changes;
    }

    /** A call during which nobody else uses the adapter, and after which it is another one. */
    <R> R changing(Function<lorica_adapter, R> call) {
        return handle.exclusive(adapter -> {
            changes++;
            return call.apply(adapter);
        });
    }

    @Override
    public void close() {
        handle.close();
    }
}
