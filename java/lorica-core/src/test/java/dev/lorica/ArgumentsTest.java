package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.AdapterConfig;
import dev.lorica.adapter.AdapterMetadata;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.adapter.PTuningConfig;
import dev.lorica.adapter.PrefixTuningConfig;
import dev.lorica.adapter.PromptTuningConfig;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.Batch;
import dev.lorica.data.BatchShape;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataConfig;
import dev.lorica.data.DataFields;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.Example;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.FieldNames;
import dev.lorica.data.Labels;
import dev.lorica.data.Lengths;
import dev.lorica.data.Message;
import dev.lorica.data.Packer;
import dev.lorica.data.PromptTemplate;
import dev.lorica.data.RecordKind;
import dev.lorica.data.TeacherLogProbs;
import dev.lorica.data.TextEncoder;
import dev.lorica.data.TextTemplate;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.eval.ClassMetrics;
import dev.lorica.eval.Embedder;
import dev.lorica.eval.Evaluator;
import dev.lorica.eval.Loss;
import dev.lorica.eval.RewardModel;
import dev.lorica.eval.TextClassifier;
import dev.lorica.eval.TokenScorer;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import dev.lorica.files.GgufFile;
import dev.lorica.files.SafetensorsFile;
import dev.lorica.files.SafetensorsWriter;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.GenerationConfig;
import dev.lorica.generate.GenerationService;
import dev.lorica.generate.Generator;
import dev.lorica.generate.Sampler;
import dev.lorica.generate.StreamedText;
import dev.lorica.grammar.JsonSchema;
import dev.lorica.grammar.TokenMask;
import dev.lorica.hub.Hub;
import dev.lorica.hub.HubConfig;
import dev.lorica.hub.HubListener;
import dev.lorica.hub.HubName;
import dev.lorica.log.JsonlLog;
import dev.lorica.log.TensorBoardLog;
import dev.lorica.train.GradientTree;
import dev.lorica.train.GradientWorker;
import dev.lorica.train.GradientWorkers;
import dev.lorica.train.GrpoConfig;
import dev.lorica.train.LearningRate;
import dev.lorica.train.Objective;
import dev.lorica.train.ObjectiveResult;
import dev.lorica.train.RewardFunction;
import dev.lorica.train.ScoredBatch;
import dev.lorica.train.ScoredSequence;
import dev.lorica.train.StepTrainer;
import dev.lorica.train.Teacher;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainerListener;
import dev.lorica.train.TrainingConfig;
import java.io.IOException;
import java.lang.reflect.Executable;
import java.lang.reflect.InvocationTargetException;
import java.lang.reflect.Method;
import java.lang.reflect.Modifier;
import java.lang.reflect.Parameter;
import java.lang.reflect.Proxy;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.Collections;
import java.util.Comparator;
import java.util.HashMap;
import java.util.Iterator;
import java.util.List;
import java.util.Locale;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.function.BooleanSupplier;
import java.util.function.Supplier;
import java.util.function.ToDoubleFunction;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** Every public method and constructor, with everything that nobody should give it. */
class ArgumentsTest {
    /** What says itself that it may be null: {@code Class.method.parameter}, or a parameter of a record in all its constructors. */
    private static final Set<String> MAY_BE_NULL = Set.of(
            "Adapter.create.labels",
            "HuggingFaceModel.check.labels",
            "Adapter.exportPeft.baseModel",
            "Adapter.save.baseModel",
            "AdapterMetadata.method",
            "AdapterMetadata.lora",
            "AdapterMetadata.ia3",
            "AdapterMetadata.full",
            "AdapterMetadata.promptTuning",
            "AdapterMetadata.bottleneck",
            "AdapterMetadata.encodedPrompt",
            "AdapterMetadata.prefixTuning",
            "AdapterMetadata.template",
            "AdapterMetadata.special",
            "AdapterMetadata.training",
            "AdapterMetadata.result",
            "AdapterMetadata.trained.template",
            "AdapterMetadata.trained.special",
            "AdapterMetadata.trained.training",
            "AdapterMetadata.trained.result",
            "Batch.notes",
            "BottleneckConfig.nonLinearity",
            "Batch.with.notes",
            "ChatTemplate.system",
            "ChatTemplate.withSystem.system",
            "Conversation.tools",
            "DataConfig.template",
            "DataConfig.withTemplate.template",
            "DataFields.prompt",
            "DataFields.input",
            "DataFields.response",
            "DataFields.system",
            "DataFields.messages",
            "DataFields.history",
            "DataFields.rejected",
            "DataFields.label",
            "DataFields.weight",
            "DataRecord.prompt",
            "DataRecord.rejected",
            "DataRecord.value",
            "DataRecord.conversation",
            "Dataset.load.promptField",
            "Dataset.load.responseField",
            "Dataset.loadText.textField",
            "Embedder.adapter",
            "Evaluator.adapter",
            "Example.weights",
            "ExampleEncoder.template",
            "FieldNames.prompt",
            "FieldNames.input",
            "FieldNames.response",
            "FieldNames.system",
            "FieldNames.messages",
            "FieldNames.text",
            "FieldNames.label",
            "FieldNames.textPair",
            "FieldNames.weight",
            "FieldNames.withWeight.field",
            "FieldNames.classes.text",
            "FieldNames.classes.label",
            "FieldNames.classes.textPair",
            "FieldNames.of.prompt",
            "FieldNames.of.response",
            "Generator.adapter",
            "HubConfig.token",
            "HubName.file",
            "ModelFiles.merge.type",
            "Request.mask",
            "Notes.values",
            "Notes.reference",
            "Notes.prompt",
            "Notes.old",
            "Notes.asked",
            "Notes.weights",
            "Notes.candidates",
            "Notes.withReference.logProbs",
            "Notes.withOld.logProbs",
            "Notes.withWeights.weights",
            "Notes.withCandidates.candidates",
            "Teacher.adapter",
            "TextClassifier.adapter",
            "TextClassifier.classify.seconds",
            "TextEncoder.encode.second",
            "Trainer.checkpoints.folder",
            "Trainer.resume.checkpoint",
            "Trainer.plan.evalData",
            "Trainer.train.evalData",
            "Trainer.workers.workers");

    /** Records that the library makes, to be read. */
    private static final Set<String> RESULTS = Set.of(
            "AdapterInfo",
            "AnswerEvaluation",
            "BaseModel",
            "Classification",
            "CudaInfo",
            "DataReport",
            "DeviceInfo",
            "Evaluation",
            "GenerationResult",
            "Likely",
            "Load",
            "Gpu",
            "MemoryPlan",
            "ModelInfo",
            "PairReport",
            "Piece",
            "Resumption",
            "Split",
            "Step",
            "Stretch",
            "Sums",
            "Tensor",
            "TextEvaluation",
            "TokenLogProbs",
            "TokenizerInfo",
            "TrainingPlan",
            "TrainingProgress",
            "TrainingResult");

    private static final List<Object> NUMBERS = List.of(
            0,
            -1,
            Integer.MAX_VALUE,
            Integer.MIN_VALUE,
            0L,
            -1L,
            Long.MAX_VALUE,
            Long.MIN_VALUE,
            0.0,
            -1.0,
            1e308,
            -1e308,
            Double.NaN,
            Double.POSITIVE_INFINITY);

    @TempDir
    private static Path folder;

    private static final Map<Class<?>, Supplier<Object>> GOOD = new HashMap<>();
    private static final List<AutoCloseable> OPEN = new ArrayList<>();

    private static Model model;
    private static Adapter adapter;
    private static TokenizedDataset examples;

    private static <T extends AutoCloseable> T open(T resource) {
        OPEN.add(resource);
        return resource;
    }

    private static Adapter judge() {
        return open(Adapter.create(model, LoraConfig.builder().rank(2).build(), Labels.reward()));
    }

    private static <T> void good(Class<T> type, Supplier<Object> value) {
        GOOD.put(type, value);
    }

    @BeforeAll
    static void makeWhatIsGood() throws IOException, InterruptedException {
        Path data = folder.resolve("data.jsonl");
        Files.writeString(data, "{\"prompt\": \"Who?\", \"response\": \"He.\"}\n".repeat(3));
        Path safetensors = folder.resolve("a.safetensors");
        new SafetensorsWriter().add("a", List.of(2L), () -> new float[2]).write(safetensors);
        model = open(Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.BF16, 1)));
        adapter = open(Adapter.create(model, LoraConfig.builder().rank(2).build()));
        Dataset dataset = Dataset.load(data);
        examples = TokenizedDataset.of(dataset, model.tokenizer(), DataConfig.ofMaxLength(64));
        TrainingConfig config = TrainingConfig.defaults();
        Labels twoClasses = new Labels(Labels.Problem.SINGLE_LABEL_CLASSIFICATION, List.of("a", "b"));
        good(Model.class, () -> model);
        good(Adapter.class, () -> adapter);
        good(Tokenizer.class, model::tokenizer);
        good(Detokenizer.class, () -> open(model.tokenizer().detokenizer(false)));
        good(Dataset.class, () -> dataset);
        good(TokenizedDataset.class, () -> examples);
        good(Packer.Batches.class, () -> Packer.inOrder(examples, 2));
        good(Lengths.class, () -> examples.report().lengths());
        good(ExampleEncoder.class, () -> new ExampleEncoder(model.tokenizer(), PromptTemplate.PLAIN, false));
        good(Evaluator.class, () -> new Evaluator(model, adapter));
        good(Generator.class, () -> open(new Generator(model)));
        good(RewardModel.class, () -> open(new RewardModel(model, judge(), PromptTemplate.PLAIN)));
        good(BatchGenerator.class, () -> open(new BatchGenerator(model, List.of(), 2, 16)));
        good(
                BatchGenerator.Request.class,
                () -> new BatchGenerator.Request(new int[] {1}, GenerationConfig.defaults()));
        good(BatchGenerator.Listener.class, () -> (BatchGenerator.Listener) (number, result) -> {});
        good(GenerationService.Config.class, () -> new GenerationService.Config(1, 16, 1));
        GenerationService service = open(new GenerationService(model, new GenerationService.Config(1, 16, 1)));
        good(GenerationService.class, () -> service);
        StreamedText over =
                service.submit(new BatchGenerator.Request(new int[] {1}, GenerationConfig.greedy()), List.of());
        over.cancel();
        over.result();
        good(StreamedText.class, () -> over);
        TokenMask.Vocabulary vocabulary = new TokenMask.Vocabulary(
                model.tokenizer(), model.tokenizer().info().vocabSize());
        good(TokenMask.Vocabulary.class, () -> vocabulary);
        good(TokenMask.class, () -> JsonSchema.anyObject(vocabulary));
        good(TokenMask.Text.class, () -> JsonSchema.anyObject(vocabulary).text());
        good(
                StepTrainer.class,
                () -> open(new StepTrainer(
                        open(Adapter.create(model, LoraConfig.builder().rank(2).build())),
                        config,
                        Objective.sft(),
                        new BatchShape(64, 1, 64))));
        good(TokenScorer.class, () -> new TokenScorer(model, List.of()));
        good(Iterator.class, Collections::emptyIterator);
        good(Trainer.class, () -> new Trainer(model, adapter, config));
        new Trainer(model, adapter, config, Objective.of("seen", RecordKind.ANSWERS, true, (batch, result) -> {
                    good(ScoredBatch.class, () -> batch);
                    good(ScoredSequence.class, () -> batch.sequences().get(0));
                    good(ObjectiveResult.class, () -> result);
                    result.loss(1);
                }))
                .evaluate(examples);
        good(Objective.class, Objective::sft);
        good(GrpoConfig.class, GrpoConfig::defaults);
        good(GrpoConfig.Builder.class, GrpoConfig::builder);
        good(RewardFunction.class, () -> RewardFunction.of("x", completion -> 0));
        good(
                RewardFunction.Completion.class,
                () -> new RewardFunction.Completion(DataRecord.of("Who?", "He."), "Who?", "She.", 2, true));
        good(ToDoubleFunction.class, () -> (ToDoubleFunction<?>) completion -> 0);
        good(Labels.class, () -> twoClasses);
        good(ClassMetrics.class, () -> new ClassMetrics(twoClasses));
        good(TextEncoder.class, () -> new TextEncoder(model.tokenizer(), 64));
        good(Embedder.class, () -> open(new Embedder(model)));
        good(
                TextClassifier.class,
                () -> open(new TextClassifier(
                        model,
                        open(Adapter.create(model, LoraConfig.builder().rank(2).build(), twoClasses)))));
        good(Teacher.class, () -> new Teacher(model, null, 4, 1));
        TeacherLogProbs said = open(new Teacher(model, null, 4, 1).logProbs(examples, folder.resolve("teacher")));
        good(TeacherLogProbs.class, () -> said);
        good(LearningRate.class, () -> new LearningRate(config, 10));
        good(GgufFile.class, () -> open(GgufFile.open(TestModels.austen())));
        good(SafetensorsFile.class, () -> open(SafetensorsFile.open(safetensors)));
        good(SafetensorsFile.Tensor.class, () -> new SafetensorsFile.Tensor("a", "F32", List.of(2L), 0, 8));
        good(SafetensorsWriter.class, SafetensorsWriter::new);
        good(JsonlLog.class, () -> open(new JsonlLog(folder.resolve("log.jsonl"), problem -> {})));
        good(TensorBoardLog.class, () -> open(new TensorBoardLog(folder.resolve("board"), problem -> {})));
        HubConfig offline = new HubConfig(
                URI.create("http://127.0.0.1:9"), folder.resolve("hub"), null, true, Duration.ofSeconds(1));
        HubListener quiet = new HubListener() {};
        good(HubConfig.class, () -> offline);
        good(HubListener.class, () -> quiet);
        good(Hub.class, () -> new Hub(offline, quiet));
        good(HubName.class, () -> HubName.parse("hf:owner/model"));
        good(AdapterMetadata.class, adapter::metadata);
        good(ScaledAdapter.class, () -> new ScaledAdapter(adapter, 1));
        good(Message.class, () -> Message.user("Who?"));
        good(Conversation.class, () -> Conversation.of(Message.user("Who?")));
        good(DataRecord.class, () -> DataRecord.of("Who?", "He."));
        good(DataFields.class, () -> DataFields.of("a", "b"));
        good(FieldNames.class, () -> FieldNames.NONE);
        good(DataConfig.class, () -> DataConfig.ofMaxLength(64));
        good(PromptTemplate.class, () -> PromptTemplate.INSTRUCTION);
        good(Batch.class, () -> Batch.of(new int[] {1, 2}, new int[] {2, Batch.IGNORE}, 2));
        good(BatchShape.class, () -> new BatchShape(2, 1, 2));
        good(GradientTree.Node.class, () -> new GradientTree.Node(0, 1));
        good(
                GradientWorker.class,
                () -> open(new GradientWorker(
                        open(Adapter.create(model, LoraConfig.builder().rank(2).build())),
                        TrainingConfig.defaults(),
                        Objective.sft(),
                        new BatchShape(2, 1, 2))));
        good(Example.class, () -> new Example(new int[] {1, 2}, new boolean[] {false, true}));
        good(Loss.class, () -> new Loss(1, 1));
        good(AtomicFile.Writer.class, () -> (AtomicFile.Writer) out -> {});
        good(TrainerListener.class, () -> new TrainerListener() {});
        good(TrainingConfig.class, () -> config);
        good(TrainingConfig.Builder.class, TrainingConfig::builder);
        good(AdapterConfig.class, LoraConfig::defaults);
        good(LoraConfig.class, LoraConfig::defaults);
        good(PromptTuningConfig.class, () -> PromptTuningConfig.of(4));
        good(PTuningConfig.class, () -> PTuningConfig.of(4));
        good(PrefixTuningConfig.class, () -> PrefixTuningConfig.of(4));
        good(LoraConfig.Builder.class, LoraConfig::builder);
        good(GenerationConfig.class, GenerationConfig::defaults);
        good(GenerationConfig.Builder.class, GenerationConfig::builder);
        good(ModelConfig.class, () -> new ModelConfig("cpu", Precision.BF16, 1));
        good(Path.class, () -> folder.resolve("new"));
        good(String.class, () -> "x");
        good(URI.class, () -> URI.create("http://127.0.0.1:9"));
        good(Duration.class, () -> Duration.ofSeconds(1));
        good(BooleanSupplier.class, () -> (BooleanSupplier) () -> false);
        good(TextTemplate.class, () -> PromptTemplate.INSTRUCTION);
        good(Throwable.class, () -> new IOException("x"));
        good(IOException.class, () -> new IOException("x"));
        good(Sampler.class, () -> new Sampler(GenerationConfig.defaults()));
        good(int.class, () -> 1);
        good(long.class, () -> 1L);
        good(double.class, () -> 0.5);
        good(float.class, () -> 0.5f);
        good(Float.class, () -> 0.5f);
        good(Double.class, () -> 0.5);
        good(boolean.class, () -> false);
        good(int[].class, () -> new int[] {1});
        good(boolean[].class, () -> new boolean[] {true});
        good(float[].class, () -> new float[1]);
        good(byte[].class, () -> new byte[1]);
        good(List.class, List::of);
        good(Collection.class, List::of);
        good(Iterable.class, List::of);
        good(Set.class, Set::of);
        good(Map.class, Map::of);
        good(Object.class, () -> "x");
    }

    @AfterAll
    static void close() throws Exception {
        for (int i = OPEN.size() - 1; i >= 0; i--) {
            OPEN.get(i).close();
        }
    }

    @Test
    void nullIsAnInvalidArgumentAndNamed() throws Exception {
        List<String> wrong = new ArrayList<>();
        int tried = 0;
        for (Executable call : calls()) {
            Parameter[] parameters = call.getParameters();
            for (int i = 0; i < parameters.length; i++) {
                if (parameters[i].getType().isPrimitive() || mayBeNull(call, parameters[i])) {
                    continue;
                }
                tried++;
                Throwable thrown = thrown(call, i, null);
                if (!(thrown instanceof InvalidArgumentException) || !names(thrown, call, parameters[i])) {
                    wrong.add(describe(call, parameters[i], "null", thrown));
                }
            }
        }
        assertThat(String.join("\n", wrong)).isEmpty();
        assertThat(tried).isGreaterThan(200);
    }

    @Test
    void numbersAreTakenOrAreInvalidArguments() throws Exception {
        List<String> wrong = new ArrayList<>();
        int tried = 0;
        for (Executable call : calls()) {
            Parameter[] parameters = call.getParameters();
            for (int i = 0; i < parameters.length; i++) {
                for (Object number : NUMBERS) {
                    if (!fits(parameters[i].getType(), number)) {
                        continue;
                    }
                    tried++;
                    Throwable thrown = thrown(call, i, number);
                    if (thrown != null && !(thrown instanceof LoricaException)) {
                        wrong.add(describe(call, parameters[i], String.valueOf(number), thrown));
                    }
                }
            }
        }
        assertThat(String.join("\n", wrong)).isEmpty();
        assertThat(tried).isGreaterThan(400);
    }

    @Test
    void listsAndArraysWithNullsInThemAreInvalidArguments() throws Exception {
        List<String> wrong = new ArrayList<>();
        for (Executable call : calls()) {
            Parameter[] parameters = call.getParameters();
            for (int i = 0; i < parameters.length; i++) {
                Object holey = holey(parameters[i].getType());
                if (holey == null || mayBeNull(call, parameters[i])) {
                    continue;
                }
                Throwable thrown = thrown(call, i, holey);
                if (!(thrown instanceof InvalidArgumentException)) {
                    wrong.add(describe(call, parameters[i], "[null]", thrown));
                }
            }
        }
        assertThat(String.join("\n", wrong)).isEmpty();
    }

    @Test
    void whatIsTooMuchIsSaidBeforeAnythingIsComputed() {
        TrainingConfig huge = TrainingConfig.builder()
                .batchSize(1 << 30)
                .gradientAccumulationSteps(Integer.MAX_VALUE)
                .evalBatchSize(Integer.MAX_VALUE)
                .maxSteps(1)
                .build();
        try (Adapter fresh = Adapter.create(model, LoraConfig.builder().rank(2).build())) {
            whatIsTooMuchIsSaid(huge, new Trainer(model, fresh, huge));
        }
    }

    private static void whatIsTooMuchIsSaid(TrainingConfig huge, Trainer trainer) {
        assertThat(trainer.plan(examples, examples).microBatchesPerEpoch()).isEqualTo(1);
        assertThat(trainer.train(examples, examples).steps()).isEqualTo(1);
        assertThatThrownBy(() -> trainer.memoryPlan(1 << 30, 4))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("too many for one batch");
        assertThat(trainer.largestBatchSize(Integer.MAX_VALUE)).isZero();
        assertThatThrownBy(() -> new Trainer(
                                model,
                                adapter,
                                huge.toBuilder().maxSteps(-1).epochs(1e300).build())
                        .plan(examples, null))
                .isInstanceOf(InvalidArgumentException.class)
                .hasMessageContaining("too many");
    }

    @Test
    void aModelThatIsClosedUnderAGeneratorIsNamed() {
        Model closing = Model.load(TestModels.austen(), new ModelConfig("cpu", Precision.BF16, 1));
        try (Generator generator = new Generator(closing)) {
            GenerationConfig config =
                    GenerationConfig.builder().maxNewTokens(50).temperature(0).build();
            var pieces = generator.generate("It is a truth", config).iterator();
            pieces.next();
            closing.close();

            assertThatThrownBy(() -> pieces.forEachRemaining(piece -> {}))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the model is closed");
            assertThatThrownBy(() -> generator.ask("Who?", config))
                    .isInstanceOf(IllegalStateException.class)
                    .hasMessage("the model is closed");
        }
    }

    /** Public and of an exported package; not what a listener or another's class is asked for. */
    private static List<Executable> calls() throws Exception {
        Path classes = Path.of(
                Model.class.getProtectionDomain().getCodeSource().getLocation().toURI());
        List<Executable> calls = new ArrayList<>();
        try (Stream<Path> files = Files.walk(classes)) {
            for (Path file : files.filter(file -> file.toString().endsWith(".class"))
                    .filter(file -> !file.endsWith("module-info.class") && !file.endsWith("package-info.class"))
                    .toList()) {
                String name = classes.relativize(file)
                        .toString()
                        .replace(".class", "")
                        .replace('/', '.');
                if (name.matches("dev\\.lorica\\.(internal|jinja)\\..*")) {
                    continue;
                }
                Class<?> type = Class.forName(name, false, ArgumentsTest.class.getClassLoader());
                boolean isOpen = isPublic(type) && !Throwable.class.isAssignableFrom(type);
                boolean isAsked =
                        type.isInterface() && Stream.of(type.getMethods()).noneMatch(Method::isDefault)
                                || TrainerListener.class.isAssignableFrom(type)
                                || HubListener.class.isAssignableFrom(type)
                                || GradientWorkers.class.isAssignableFrom(type)
                                || GradientWorkers.Watch.class.isAssignableFrom(type);
                if (!isOpen || RESULTS.contains(type.getSimpleName())) {
                    continue;
                }
                for (var constructor : type.getConstructors()) {
                    calls.add(constructor);
                }
                for (Method method : type.getDeclaredMethods()) {
                    boolean ofObject = method.getName().equals("equals");
                    boolean ofEnum = type.isEnum() && method.getName().equals("valueOf");
                    boolean own = Modifier.isStatic(method.getModifiers()) || !isAsked;
                    if (Modifier.isPublic(method.getModifiers())
                            && !method.isSynthetic()
                            && !ofObject
                            && !ofEnum
                            && own
                            && !Modifier.isAbstract(method.getModifiers())) {
                        calls.add(method);
                    }
                }
            }
        }
        calls.sort(Comparator.comparing(Executable::toString));
        return calls;
    }

    private static boolean isPublic(Class<?> type) {
        return Modifier.isPublic(type.getModifiers())
                && (type.getDeclaringClass() == null || isPublic(type.getDeclaringClass()));
    }

    private static boolean mayBeNull(Executable call, Parameter parameter) {
        String type = call.getDeclaringClass().getSimpleName();
        return MAY_BE_NULL.contains(
                type + (call instanceof Method ? "." + call.getName() : "") + "." + parameter.getName());
    }

    /** A builder says so when it builds. */
    private static boolean isSetter(Executable call) {
        return call.getDeclaringClass().getSimpleName().equals("Builder") && call.getParameterCount() == 1;
    }

    private static boolean names(Throwable thrown, Executable call, Parameter parameter) {
        String name = isSetter(call) ? call.getName() : parameter.getName();
        return plain(thrown.getMessage()).contains(plain(name));
    }

    private static String plain(String text) {
        return text.toLowerCase(Locale.ROOT).replaceAll("[^a-z0-9]", "");
    }

    private static String describe(Executable call, Parameter parameter, String value, Throwable thrown) {
        return call.getDeclaringClass().getSimpleName() + "." + call.getName() + "(" + parameter.getName() + " = "
                + value + "): " + thrown;
    }

    private static boolean fits(Class<?> type, Object number) {
        return type == int.class && number instanceof Integer
                || type == long.class && number instanceof Long
                || type == double.class && number instanceof Double;
    }

    private static Object holey(Class<?> type) {
        List<Object> list = new ArrayList<>();
        list.add(null);
        if (type == List.class || type == Iterable.class || type == Collection.class) {
            return list;
        }
        return type.isArray() && !type.getComponentType().isPrimitive()
                ? java.lang.reflect.Array.newInstance(type.getComponentType(), 1)
                : null;
    }

    private static Object[] arguments(Executable call) {
        return Stream.of(call.getParameterTypes()).map(ArgumentsTest::value).toArray();
    }

    private static Object value(Class<?> type) {
        Supplier<Object> value = GOOD.get(type);
        if (value != null) {
            return value.get();
        }
        if (type.isEnum()) {
            return type.getEnumConstants()[0];
        }
        if (type.isArray()) {
            return java.lang.reflect.Array.newInstance(type.getComponentType(), 0);
        }
        if (type.isInterface()) {
            return Proxy.newProxyInstance(
                    type.getClassLoader(), new Class<?>[] {type}, (proxy, method, arguments) -> null);
        }
        if (type.isRecord()) {
            try {
                Executable constructor = type.getConstructors()[0];
                return type.getConstructors()[0].newInstance(arguments(constructor));
            } catch (ReflectiveOperationException e) {
                throw new AssertionError("cannot make " + type, e);
            }
        }
        throw new AssertionError("no " + type + " to try with");
    }

    /** What the call ends with that is given this at one place and what is good elsewhere; {@code null} when it returns. */
    private static Throwable thrown(Executable call, int place, Object given) throws Exception {
        try {
            Object[] arguments = arguments(call);
            arguments[place] = given;
            if (call instanceof Method method) {
                Object target = Modifier.isStatic(method.getModifiers()) ? null : value(method.getDeclaringClass());
                Object result = method.invoke(target, arguments);
                if (isSetter(call)) {
                    result.getClass().getMethod("build").invoke(result);
                }
                if (result instanceof AutoCloseable resource && GOOD.get(resource.getClass()) == null) {
                    resource.close();
                }
            } else {
                Object made = ((java.lang.reflect.Constructor<?>) call).newInstance(arguments);
                if (made instanceof AutoCloseable resource) {
                    resource.close();
                }
            }
            return null;
        } catch (InvocationTargetException e) {
            return e.getCause();
        } catch (AssertionError e) {
            return e;
        }
    }

    @Test
    void whatMayBeNullIsThere() throws Exception {
        Set<String> known = new TreeSet<>();
        for (Executable call : calls()) {
            for (Parameter parameter : call.getParameters()) {
                String type = call.getDeclaringClass().getSimpleName();
                known.add(type + (call instanceof Method ? "." + call.getName() : "") + "." + parameter.getName());
            }
        }
        assertThat(known).containsAll(MAY_BE_NULL);
    }
}
