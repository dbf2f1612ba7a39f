package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.data.Labels;
import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.MismatchException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.files.AtomicFile;
import dev.lorica.hub.Hub;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import dev.lorica.internal.NativeAdapter;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.stream.Collectors;
import java.util.stream.IntStream;

/**
 * An adapter: what is trained, by one {@link Method} or another. Made by {@link #create} or {@link #load}.
 *
 * <p>It is saved as a folder with {@value #FILE_NAME}, which llama.cpp loads with {@code --lora}, and
 * {@value AdapterMetadata#FILE_NAME}, which says how it was trained; {@link #exportPeft} writes the files of Hugging Face PEFT.
 */
public final class Adapter implements AutoCloseable {
    /** Name of the weights in an adapter's folder. */
    public static final String FILE_NAME = "adapter.gguf";
    /** Names of PEFT's files in an adapter's folder. */
    public static final String PEFT_FILE_NAME = PeftFolder.WEIGHTS;

    /** The file of an adapter's folder by which PEFT knows its own: {@value}. */
    public static final String PEFT_CONFIG_NAME = PeftFolder.CONFIG;
    /** What stands in for {@link #PEFT_FILE_NAME} of bottlenecks, which PEFT has not: AdapterHub's. */
    public static final String ADAPTERHUB_FILE_NAME = AdapterHubFolder.WEIGHTS;

    /** Beside PEFT's files, of an adapter with tokens of its own: {@code {"<tool>": 32000}}, as tokenizers of transformers have it. */
    public static final String ADDED_TOKENS_FILE_NAME = AddedTokens.FILE_NAME;

    /**
     * One of the trainable matrices.
     *
     * @param name    {@code blk.0.attn_q.weight.lora_a}
     * @param rows    of A the rank, of B and of DoRA's magnitudes what comes out
     * @param columns of A what goes in, of B the rank, of magnitudes 1
     * @param alpha   of its pair: B A is scaled by alpha / rank, or by alpha / √rank for rsLoRA
     */
    public record Tensor(String name, long rows, long columns, double alpha) {
        /** {@return whether it is an A, which keeps the plain learning rate under LoRA+} */
        public boolean isA() {
            return name.endsWith(".lora_a");
        }

        /** {@return whether it is a part of the classifier: {@code cls.output.weight}} */
        public boolean isOfClassifier() {
            return name.startsWith("cls.");
        }

        /**
         * {@return whether it stands in place of a tensor of the model: of full fine-tuning, BitFit and modules to save} Those of a
         * classifier do not.
         */
        public boolean isWhole() {
            return !isOfClassifier() && !isOfEncoder() && (name.endsWith(".weight") || name.endsWith(".bias"));
        }

        /** {@return whether it is a vector, a bias or a norm, which is trained as it is and which weight decay leaves alone} */
        public boolean isVector() {
            return isOfClassifier() || isOfEncoder() ? name.endsWith(".bias") : isWhole() && columns == 1;
        }

        /** {@return whether it is a part of the network that makes a prompt: {@code prompt_encoder.mlp_head.0.weight}} */
        public boolean isOfEncoder() {
            return name.startsWith("prompt_encoder.");
        }
    }

    private final Model model;
    private final NativeAdapter engine;
    private volatile AdapterMetadata metadata;
    private volatile Place place;

    static {
        Inner.ADAPTER.of(Adapter.class, adapter -> adapter.engine);
    }

    private Adapter(Model model, NativeAdapter engine, AdapterMetadata metadata) {
        this.model = model;
        this.engine = engine;
        this.metadata = metadata;
    }

    /**
     * A new adapter, which changes nothing until it is trained.
     *
     * @param model  the base
     * @param config the method and its settings
     * @return the adapter, which the caller closes before the model
     * @throws InvalidArgumentException if a module that is named is not in the model, or the method cannot be applied to it
     */
    public static Adapter create(Model model, AdapterConfig config) {
        return create(model, config, null);
    }

    /**
     * A new adapter with a classifier beside it, which is trained whole and saved with it. It stands on the first token of an
     * encoder and on the last of a decoder, as transformers' models for sequence classification have it.
     *
     * @param model  the base
     * @param config the method and its settings
     * @param labels what it is to say; {@code null}: without a classifier
     * @return the adapter, which the caller closes before the model
     */
    public static Adapter create(Model model, AdapterConfig config, Labels labels) {
        Arguments.given(model, "model");
        Arguments.given(config, "config");
        Adapter adapter = make(model, config, labels);
        try {
            AddedTokens.requireLearned(adapter);
            return adapter;
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
    }

    private static Adapter make(Model model, AdapterConfig config, Labels labels) {
        NativeAdapter.Outputs outputs = labels == null
                ? NativeAdapter.Outputs.NONE
                : new NativeAdapter.Outputs(
                        labels.outputs(), labels.names(), labels.problem().toString());
        if (config instanceof LoraConfig lora) {
            return make(model, lora, outputs);
        }
        if (config instanceof PromptTuningConfig prompt) {
            NativeAdapter engine = NativeAdapter.create(
                    Inner.MODEL.of(model),
                    NativeAdapter.Prompt.tuning(prompt.numVirtualTokens(), prompt.ids(model), prompt.seed()),
                    outputs);
            return new Adapter(model, engine, AdapterMetadata.of(model, config));
        }
        if (config instanceof PrefixTuningConfig prefix) {
            NativeAdapter engine = NativeAdapter.create(
                    Inner.MODEL.of(model),
                    NativeAdapter.Prompt.prefix(prefix.numVirtualTokens(), prefix.seed()),
                    outputs);
            return new Adapter(model, engine, AdapterMetadata.of(model, config));
        }
        if (config instanceof BottleneckConfig bottleneck) {
            NativeAdapter engine = NativeAdapter.create(
                    Inner.MODEL.of(model),
                    new NativeAdapter.Bottleneck(
                            bottleneck.size(model.info().embedding()),
                            bottleneck.placement().code,
                            bottleneck.nonLinearity().toString(),
                            bottleneck.seed()),
                    outputs);
            return new Adapter(model, engine, AdapterMetadata.of(model, config));
        }
        if (config instanceof PTuningConfig prompt) {
            NativeAdapter engine = NativeAdapter.create(
                    Inner.MODEL.of(model),
                    NativeAdapter.Prompt.encoded(prompt.numVirtualTokens(), prompt.encoderHiddenSize(), prompt.seed()),
                    outputs);
            return new Adapter(model, engine, AdapterMetadata.of(model, config));
        }
        Ia3Config ia3 = config instanceof Ia3Config one ? one : Ia3Config.defaults();
        FullConfig full = config instanceof FullConfig one ? one : FullConfig.defaults();
        NativeAdapter engine = NativeAdapter.create(
                Inner.MODEL.of(model),
                new NativeAdapter.Other(
                        config.method().code,
                        TargetModules.named(ia3.targetModules(), model),
                        TargetModules.named(ia3.feedforwardModules(), model),
                        full.layersInWords(),
                        full.frozenInWords()),
                outputs);
        return new Adapter(model, engine, AdapterMetadata.of(model, config));
    }

    /**
     * A new LoRA, which changes nothing until it is trained.
     *
     * @param model  the base
     * @param config rank, alpha and modules
     * @return the adapter, which the caller closes before the model
     */
    public static Adapter create(Model model, LoraConfig config) {
        return create(model, config, (Labels) null);
    }

    private static Adapter make(Model model, LoraConfig config, NativeAdapter.Outputs outputs) {
        NativeAdapter engine = NativeAdapter.create(
                Inner.MODEL.of(model),
                new NativeAdapter.Params(
                        config.rank(),
                        config.alpha(),
                        config.dropout(),
                        config.useRslora(),
                        config.useDora(),
                        config.init().code,
                        config.pissaIterations(),
                        config.seed(),
                        TargetModules.of(config, model),
                        String.join(",", config.modulesToSave()),
                        config.bias().code,
                        config.invocation(model)),
                outputs);
        Adapter adapter = new Adapter(model, engine, AdapterMetadata.of(model, config));
        if (config.init() == LoraConfig.Init.ORTHOGONAL) {
            try {
                OrthogonalInit.fill(adapter, config.seed());
            } catch (RuntimeException e) {
                adapter.close();
                throw e;
            }
        }
        return adapter;
    }

    /**
     * An adapter that was saved.
     *
     * @param model the base, which must be the one that it was trained on in architecture and shapes
     * @param name  its folder, the folder of a PEFT or an mlx-lm adapter, a GGUF LoRA file of Lorica's or llama.cpp's, or the name of
     *              such on Hugging Face's hub
     * @return the adapter, which the caller closes before the model
     * @throws dev.lorica.exceptions.LoricaException if the files are damaged, or do not fit the model
     */
    public static Adapter load(Model model, Path name) {
        Arguments.given(model, "model");
        Arguments.given(name, "name");
        Path path = Hub.adapter(name);
        boolean folder = Files.isDirectory(path);
        if (!folder && path.endsWith(PeftFolder.WEIGHTS)) {
            return load(model, path.toAbsolutePath().getParent());
        }
        Path weights = folder ? path.resolve(FILE_NAME) : path;
        boolean ours = folder || weights.endsWith(FILE_NAME);
        Path home = ours ? weights.toAbsolutePath().getParent() : null;
        if (ours) {
            AdapterFolder.finish(home);
        }
        boolean gguf = folder && AdapterFolder.has(path, FILE_NAME);
        boolean mlx = folder && !gguf && MlxFolder.is(path);
        boolean peft = folder && !gguf && !mlx && PeftFolder.is(path);
        if (!peft && !mlx && !Files.exists(weights)) {
            throw new FileAccessException(
                    folder
                            ? path + " holds no " + FILE_NAME + ": it is not an adapter's folder"
                            : path + " does not exist");
        }
        AdapterMetadata metadata = ours ? AdapterMetadata.read(home) : null;
        AdapterMetadata.BaseModel base = AdapterMetadata.BaseModel.of(model);
        if (metadata != null && !base.fingerprint().equals(metadata.baseModel().fingerprint())) {
            throw new MismatchException(
                    path + " was trained on " + metadata.baseModel().inWords() + ", not on " + base.inWords()
                            + ": load it with the model that it was trained on");
        }
        if (ours) {
            AdapterFolder.verify(home);
        }
        Adapter adapter =
                peft ? PeftFolder.read(model, path) : mlx ? MlxFolder.read(model, path) : read(model, weights);
        adapter.metadata = metadata != null ? metadata : adapter.metadata;
        if (ours) {
            adapter.place = new Place(home.normalize(), adapter.engine.changes());
        }
        return adapter;
    }

    /**
     * {@return the tokens that an adapter has added to its base's vocabulary, in the order of their ids; none of most}
     * {@link Model#load(Path, dev.lorica.ModelConfig)} needs them: an adapter with such tokens fits no model without them.
     *
     * @param name  the adapter, as in {@link #load}
     * @param model the base, as in {@code Model.load}
     */
    public static List<String> addedTokens(Path name, Path model) {
        Arguments.given(name, "name");
        Arguments.given(model, "model");
        return AddedTokens.of(Hub.adapter(name), Hub.model(model));
    }

    private static Adapter read(Model model, Path weights) {
        NativeAdapter engine = NativeAdapter.load(Inner.MODEL.of(model), weights.toString());
        return new Adapter(model, engine, AdapterMetadata.of(model, null));
    }

    /**
     * The sum of adapters as one new adapter: each times its scale. It can be run, merged and saved as any other; later changes to
     * its parts are not seen. It answers in the template of the first of them that has one.
     *
     * @param model    the base of all of them
     * @param adapters the parts, at least one
     * @return the sum, which the caller closes before the model
     */
    public static Adapter stack(Model model, List<ScaledAdapter> adapters) {
        Arguments.given(model, "model");
        Arguments.given(adapters, "adapters");
        if (adapters.isEmpty()) {
            throw new InvalidArgumentException("there are no adapters to stack");
        }
        Arguments.all(adapters, "adapters").forEach(one -> one.adapter().requireModel(model));
        NativeAdapter engine = NativeAdapter.stack(
                Inner.MODEL.of(model),
                adapters.stream().map(one -> one.adapter().engine).toList(),
                adapters.stream().mapToDouble(ScaledAdapter::scale).toArray());
        AdapterMetadata metadata = AdapterMetadata.of(model, null);
        for (ScaledAdapter one : adapters) {
            if (metadata.template() == null && one.adapter().template() != null) {
                metadata = metadata.trained(
                        one.adapter().template(), one.adapter().metadata().special(), null, null);
            }
        }
        return new Adapter(model, engine, metadata);
    }

    /** {@return the base that it belongs to} */
    public Model model() {
        return model;
    }

    /** {@return how wide bottlenecks are, where they stand and what is between their layers; {@code null}: it is of another method} */
    public BottleneckConfig bottleneck() {
        NativeAdapter.Bottleneck found = engine.bottleneck();
        return found == null
                ? null
                : new BottleneckConfig(
                        BottleneckConfig.Placement.of(found.placement()),
                        Math.max(1, model.info().embedding() / found.size()),
                        found.size(),
                        BottleneckConfig.NonLinearity.valueOf(
                                found.nonLinearity().toUpperCase(Locale.ROOT)),
                        found.seed());
    }

    /** {@return its method, rank, modules and size} */
    public AdapterInfo info() {
        BottleneckConfig bottleneck = bottleneck();
        String words = bottleneck == null
                ? null
                : bottleneck.placement() + ", " + bottleneck.size() + " wide, " + bottleneck.nonLinearity();
        return engine.info(
                (rank, alpha, scale, dropout, rslora, dora, pairs, parameters, modules, base, method, virtual, half) ->
                        new AdapterInfo(
                                rank,
                                alpha,
                                scale,
                                dropout,
                                rslora,
                                dora,
                                pairs,
                                parameters,
                                modules,
                                base,
                                Method.of(method),
                                virtual,
                                half,
                                words,
                                Arrays.stream(engine.invocationTokens()).boxed().toList()));
    }

    /** {@return for messages, of an activated LoRA: {@code "<|im_start|>assistant" (tokens 1, 520, 9531)}; {@code ""} of all else} */
    public String invocation() {
        int[] tokens = engine.invocationTokens();
        return tokens.length == 0
                ? ""
                : "\"" + model.tokenizer().decode(tokens, true).replace("\n", "\\n") + "\" (tokens "
                        + Arrays.stream(tokens).mapToObj(Integer::toString).collect(Collectors.joining(", ")) + ")";
    }

    /**
     * {@return whether it is added to any token of a text} An activated LoRA is to those from its last invocation on, and to none where
     * there is none; all else to every token.
     *
     * @param tokens the text
     */
    public boolean isInvokedBy(int[] tokens) {
        Arguments.given(tokens, "tokens");
        int[] invocation = engine.invocationTokens();
        return IntStream.rangeClosed(0, tokens.length - invocation.length)
                .anyMatch(at -> Arrays.equals(tokens, at, at + invocation.length, invocation, 0, invocation.length));
    }

    /**
     * Refuses another model than the one that this adapter was loaded for.
     *
     * @param other the model that it is to be used with
     * @throws InvalidArgumentException if it belongs to another model
     */
    public void requireModel(Model other) {
        if (model != other) {
            throw new InvalidArgumentException(
                    "the adapter belongs to another model; make it with Adapter.create or Adapter.load and this model");
        }
    }

    /** {@return what its classifier says; {@code null} where it has none} */
    public Labels labels() {
        NativeAdapter.Outputs outputs = engine.outputs();
        return Labels.of(outputs.outputs(), outputs.problem(), outputs.labels());
    }

    /** {@return how it came to be, as far as is known} */
    public AdapterMetadata metadata() {
        return metadata;
    }

    /**
     * Says how it came to be; it is saved with that.
     *
     * @param by what it was made of, and how
     */
    public void describe(AdapterMetadata by) {
        Arguments.given(by, "by");
        metadata = by;
    }

    /** {@return what stood around the prompts that it was trained on, {@code null} when that is not known} */
    public PromptTemplate template() {
        return metadata.template();
    }

    /** Kinds of files with the weights in them. */
    public enum Format {
        /** {@value #FILE_NAME}, which llama.cpp loads. */
        GGUF(List.of(FILE_NAME)),
        /**
         * {@value #PEFT_FILE_NAME} and {@value #PEFT_CONFIG_NAME}, which PEFT loads; of bottlenecks {@value #ADAPTERHUB_FILE_NAME} and
         * {@value #PEFT_CONFIG_NAME}, which AdapterHub's {@code load_adapter(folder, use_safetensors=True)} does.
         */
        PEFT(List.of(PEFT_FILE_NAME, PEFT_CONFIG_NAME, ADAPTERHUB_FILE_NAME));

        private final List<String> files;

        Format(List<String> files) {
            this.files = files;
        }
    }

    /**
     * Saves it in {@code folder}, which is made when it does not exist, for llama.cpp. Files of another adapter that were saved
     * there are replaced, all together or not at all; those that {@link #exportPeft} wrote there of this very adapter stay.
     *
     * @param folder where its files go
     * @throws dev.lorica.exceptions.LoricaException if a number in it is not finite, or a file cannot be written
     */
    public void save(Path folder) {
        Arguments.given(folder, "folder");
        save(folder, Set.of(Format.GGUF), null, true);
    }

    /**
     * Saves it in {@code folder}, which is made when it does not exist, in these formats; an adapter that was there is replaced as a
     * whole or not at all.
     *
     * @param folder    where its files go
     * @param formats   which files: llama.cpp's, PEFT's, or both
     * @param baseModel as for {@link #exportPeft(Path, String)}
     */
    public void save(Path folder, Set<Format> formats, String baseModel) {
        Arguments.given(folder, "folder");
        Arguments.given(formats, "formats");
        save(folder, formats, baseModel, false);
        for (Format other : Format.values()) {
            // Of a stranger's making, and no longer what is in the folder.
            if (!formats.contains(other)) {
                other.files.forEach(name -> AtomicFile.deleteQuietly(folder.resolve(name)));
            }
        }
    }

    private void save(Path folder, Set<Format> formats, String baseModel, boolean besideOthers) {
        requireFinite();
        makeFolder(folder);
        long now = engine.changes();
        List<String> kept = besideOthers && isIn(folder, now)
                ? List.of(FILE_NAME, PEFT_FILE_NAME, PEFT_CONFIG_NAME, ADAPTERHUB_FILE_NAME, ADDED_TOKENS_FILE_NAME)
                : List.of();
        AdapterFolder.replace(folder, metadata, kept, staged -> {
            if (formats.contains(Format.GGUF)) {
                engine.save(staged.resolve(FILE_NAME).toString());
            }
            if (formats.contains(Format.PEFT)) {
                PeftFolder.write(this, staged, baseModel != null ? baseModel : PeftFolder.baseModelOf(model));
            }
        });
        place = new Place(folder.toAbsolutePath().normalize(), now);
    }

    /** Where it was last saved or loaded, and how often it had been changed then. */
    private record Place(Path folder, long changes) {}

    private boolean isIn(Path folder, long changes) {
        return new Place(folder.toAbsolutePath().normalize(), changes).equals(place);
    }

    /**
     * {@return whether an adapter is in the folder, in either format; what was broken off while it was saved is finished first}
     *
     * @param folder the folder
     */
    public static boolean isIn(Path folder) {
        Arguments.given(folder, "folder");
        AdapterFolder.finish(folder);
        return Files.exists(folder.resolve(FILE_NAME)) || PeftFolder.is(folder);
    }

    /**
     * Writes it into {@code folder} as Hugging Face PEFT loads it: {@code adapter_config.json} and
     * {@code adapter_model.safetensors}, with {@value AdapterMetadata#FILE_NAME} beside them. A folder may hold this and what
     * {@link #save} writes.
     *
     * @param folder    where the files go
     * @param baseModel what {@code base_model_name_or_path} is to say, a name on Hugging Face's hub or a path; {@code null}: the name
     *                  that the model's file gives
     */
    public void exportPeft(Path folder, String baseModel) {
        Arguments.given(folder, "folder");
        save(folder, Set.of(Format.PEFT), baseModel, true);
    }

    /**
     * {@link #exportPeft(Path, String)} with the base model's own name.
     *
     * @param folder where the files go
     */
    public void exportPeft(Path folder) {
        exportPeft(folder, null);
    }

    private static void makeFolder(Path folder) {
        try {
            Files.createDirectories(folder);
        } catch (IOException e) {
            throw new FileAccessException(
                    folder
                            + (Files.isRegularFile(folder)
                                    ? " is a file; a folder is meant"
                                    : " cannot be made: " + AtomicFile.reason(e)),
                    e);
        }
    }

    /**
     * Multiplies its effect: 1 is as trained, 0 is the base. Not saved.
     *
     * @param factor what {@code alpha / rank} is multiplied by
     */
    public void setScale(double factor) {
        engine.setScale(factor);
    }

    /**
     * {@return the trainable matrices in a fixed order, A and B of a pair next to each other, the magnitudes of a DoRA behind all pairs}
     */
    public List<Tensor> tensors() {
        return engine.tensors(Tensor::new);
    }

    /**
     * {@return false for one that leaves the base as it is, as before training: every B is zero, and all else is where it began}
     *
     * @throws NonFiniteException as {@link #requireFinite}
     */
    public boolean hasEffect() {
        return engine.hasEffect();
    }

    /**
     * Looks at every number of the adapter.
     *
     * @throws NonFiniteException if a matrix holds what is no finite number, as nothing of that is of any use; it is named
     */
    public void requireFinite() {
        engine.hasEffect();
    }

    /**
     * {@return a copy of the matrix at {@code index} of {@link #tensors}, [rows, columns]}
     *
     * @param index 0 to the size of {@link #tensors} − 1
     */
    public float[] values(int index) {
        float[] values = new float[size(index)];
        engine.get(index, values);
        return values;
    }

    /**
     * Replaces the matrix at {@code index} of {@link #tensors}, [rows, columns].
     *
     * @param index  0 to the size of {@link #tensors} − 1
     * @param values row after row, as many as the matrix has
     */
    public void setValues(int index, float[] values) {
        Arguments.given(values, "values");
        if (values.length != size(index)) {
            throw new InvalidArgumentException(
                    tensors().get(index).name() + " has " + size(index) + " values, not " + values.length);
        }
        engine.set(index, values);
    }

    @Override
    public void close() {
        engine.close();
    }

    private int size(int index) {
        List<Tensor> tensors = tensors();
        if (index < 0 || index >= tensors.size()) {
            throw new InvalidArgumentException("there is no matrix " + index + "; the adapter has " + tensors.size());
        }
        return Math.toIntExact(tensors.get(index).rows() * tensors.get(index).columns());
    }
}
