package dev.lorica.spark;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.Precision;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.LoraConfig;
import dev.lorica.data.DataConfig;
import dev.lorica.data.FieldNames;
import dev.lorica.data.Overflow;
import dev.lorica.data.TokenizedDataset;
import dev.lorica.train.SchedulerType;
import dev.lorica.train.Trainer;
import dev.lorica.train.TrainingConfig;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.Locale;
import java.util.UUID;
import org.apache.spark.api.java.JavaSparkContext;
import org.apache.spark.ml.Estimator;
import org.apache.spark.ml.param.BooleanParam;
import org.apache.spark.ml.param.DoubleParam;
import org.apache.spark.ml.param.IntParam;
import org.apache.spark.ml.param.LongParam;
import org.apache.spark.ml.param.Param;
import org.apache.spark.ml.param.ParamMap;
import org.apache.spark.ml.util.DefaultParamsReader;
import org.apache.spark.ml.util.DefaultParamsWriter;
import org.apache.spark.ml.util.MLReader;
import org.apache.spark.ml.util.MLWritable;
import org.apache.spark.ml.util.MLWriter;
import org.apache.spark.sql.Dataset;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/**
 * Fine-tunes a LoRA on the rows of a data frame, as an estimator of Spark ML. Names are those of the options of {@code lorica train}.
 *
 * <pre>{@code
 * LoricaModel austen = new LoricaFineTuner()
 *         .setModel("/models/llama.gguf").setPromptField("question").setResponseField("answer")
 *         .setEpochs(3).setGradientAccumulationSteps(16)
 *         .fit(spark.read().parquet("questions"));
 * austen.write().overwrite().save("hdfs:///adapters/austen");
 * }</pre>
 *
 * Rows are gathered on the driver, as JSON of their columns, and found in it as in a file of data: columns that have the usual names
 * need not be named, and conversations are arrays of structs. Their order is that of the data frame, and the result depends on it.
 *
 * @serial exclude
 */
public final class LoricaFineTuner extends Estimator<LoricaModel> implements MLWritable {
    private static final long serialVersionUID = 1L;

    private final String uid;
    private final Param<String> model;
    private final Param<String> device;
    private final Param<String> precision;
    private final IntParam threads;
    private final Param<String> promptField;
    private final Param<String> responseField;
    private final Param<String> inputField;
    private final Param<String> systemField;
    private final Param<String> messagesField;
    private final Param<String> textField;
    private final Param<String> predictionCol;
    private final IntParam maxLength;
    private final BooleanParam trainOnPrompt;
    private final IntParam loraR;
    private final DoubleParam loraAlpha;
    private final DoubleParam loraDropout;
    private final Param<String> targetModules;
    private final DoubleParam epochs;
    private final IntParam maxSteps;
    private final IntParam batchSize;
    private final IntParam gradientAccumulationSteps;
    private final DoubleParam learningRate;
    private final Param<String> lrSchedulerType;
    private final DoubleParam warmupRatio;
    private final DoubleParam weightDecay;
    private final DoubleParam maxGradNorm;
    private final LongParam seed;

    /** With the defaults of {@link TrainingConfig} and {@link LoraConfig}, and a name of its own. */
    public LoricaFineTuner() {
        this("lorica_" + UUID.randomUUID().toString().substring(0, 12));
    }

    /**
     * As the other constructor makes it, under a name that is given.
     *
     * @param uid by which Spark tells the stages of a pipeline apart
     */
    public LoricaFineTuner(String uid) {
        this.uid = uid;
        TrainingConfig defaults = TrainingConfig.defaults();
        LoraConfig lora = LoraConfig.defaults();
        model = new Param<>(this, "model", "the base: a path that is the same on each machine, or hf:owner/repo");
        device = new Param<>(this, "device", "where executors compute: auto, cpu, cuda");
        precision = new Param<>(this, "precision", "auto, bf16 or f32");
        threads = new IntParam(this, "threads", "of a task; 0: spark.task.cpus");
        promptField = new Param<>(this, "promptField", "column with the prompt");
        responseField = new Param<>(this, "responseField", "column with the response");
        inputField = new Param<>(this, "inputField", "column with what the prompt is to be applied to");
        systemField = new Param<>(this, "systemField", "column with the system prompt");
        messagesField = new Param<>(this, "messagesField", "column with conversations");
        textField = new Param<>(this, "textField", "column with plain texts");
        predictionCol = new Param<>(this, "predictionCol", "column in which the model is to answer");
        maxLength = new IntParam(this, "maxLength", "the most tokens of an example; longer ones are left out");
        trainOnPrompt = new BooleanParam(this, "trainOnPrompt", "whether prompts are learned too");
        loraR = new IntParam(this, "loraR", "rank");
        loraAlpha = new DoubleParam(this, "loraAlpha", "the adapter is scaled by alpha / rank");
        loraDropout = new DoubleParam(this, "loraDropout", "probability of dropout in front of A");
        targetModules = new Param<>(this, "targetModules", "names with commas between, or all-linear");
        epochs = new DoubleParam(this, "epochs", "passes over the data");
        maxSteps = new IntParam(this, "maxSteps", "optimizer steps; -1: as many as epochs say");
        batchSize = new IntParam(this, "batchSize", "examples of a micro-batch");
        gradientAccumulationSteps = new IntParam(
                this, "gradientAccumulationSteps", "micro-batches of a step, which are shared out among executors");
        learningRate = new DoubleParam(this, "learningRate", "its peak");
        lrSchedulerType = new Param<>(this, "lrSchedulerType", "linear, cosine, constant, ...");
        warmupRatio = new DoubleParam(this, "warmupRatio", "share of the steps in which the rate rises");
        weightDecay = new DoubleParam(this, "weightDecay", "decoupled");
        maxGradNorm = new DoubleParam(this, "maxGradNorm", "gradients are clipped to this norm; 0: never");
        seed = new LongParam(this, "seed", "of the order, of dropout and of A");
        setDefault(device, "auto");
        setDefault(precision, "auto");
        setDefault(threads, 0);
        setDefault(predictionCol, "prediction");
        setDefault(maxLength, defaults.maxLength());
        setDefault(trainOnPrompt, false);
        setDefault(loraR, lora.rank());
        setDefault(loraAlpha, lora.alpha());
        setDefault(loraDropout, lora.dropout());
        setDefault(targetModules, "");
        setDefault(epochs, defaults.epochs());
        setDefault(maxSteps, defaults.maxSteps());
        setDefault(batchSize, defaults.batchSize());
        setDefault(gradientAccumulationSteps, defaults.gradientAccumulationSteps());
        setDefault(learningRate, defaults.learningRate());
        setDefault(lrSchedulerType, defaults.schedulerType().name().toLowerCase(Locale.ROOT));
        setDefault(warmupRatio, defaults.warmupRatio());
        setDefault(weightDecay, defaults.weightDecay());
        setDefault(maxGradNorm, defaults.maxGradNorm());
        setDefault(seed, defaults.seed());
    }

    @Override
    public String uid() {
        return uid;
    }

    /**
     * The parameter {@code model}: the base: a path that is the same on each machine, or hf:owner/repo.
     *
     * @return the parameter
     */
    public Param<String> model() {
        return model;
    }

    /**
     * Sets {@code model}: the base: a path that is the same on each machine, or hf:owner/repo.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setModel(String value) {
        return (LoricaFineTuner) set(model, value);
    }

    /**
     * The parameter {@code device}: where executors compute: auto, cpu, cuda.
     *
     * @return the parameter
     */
    public Param<String> device() {
        return device;
    }

    /**
     * Sets {@code device}: where executors compute: auto, cpu, cuda.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setDevice(String value) {
        return (LoricaFineTuner) set(device, value);
    }

    /**
     * The parameter {@code precision}: auto, bf16 or f32.
     *
     * @return the parameter
     */
    public Param<String> precision() {
        return precision;
    }

    /**
     * Sets {@code precision}: auto, bf16 or f32.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setPrecision(String value) {
        return (LoricaFineTuner) set(precision, value);
    }

    /**
     * The parameter {@code threads}: of a task; 0: spark.task.cpus.
     *
     * @return the parameter
     */
    public IntParam threads() {
        return threads;
    }

    /**
     * Sets {@code threads}: of a task; 0: spark.task.cpus.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setThreads(int value) {
        return (LoricaFineTuner) set(threads, value);
    }

    /**
     * The parameter {@code promptField}: column with the prompt.
     *
     * @return the parameter
     */
    public Param<String> promptField() {
        return promptField;
    }

    /**
     * Sets {@code promptField}: column with the prompt.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setPromptField(String value) {
        return (LoricaFineTuner) set(promptField, value);
    }

    /**
     * The parameter {@code responseField}: column with the response.
     *
     * @return the parameter
     */
    public Param<String> responseField() {
        return responseField;
    }

    /**
     * Sets {@code responseField}: column with the response.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setResponseField(String value) {
        return (LoricaFineTuner) set(responseField, value);
    }

    /**
     * The parameter {@code inputField}: column with what the prompt is to be applied to.
     *
     * @return the parameter
     */
    public Param<String> inputField() {
        return inputField;
    }

    /**
     * Sets {@code inputField}: column with what the prompt is to be applied to.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setInputField(String value) {
        return (LoricaFineTuner) set(inputField, value);
    }

    /**
     * The parameter {@code systemField}: column with the system prompt.
     *
     * @return the parameter
     */
    public Param<String> systemField() {
        return systemField;
    }

    /**
     * Sets {@code systemField}: column with the system prompt.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setSystemField(String value) {
        return (LoricaFineTuner) set(systemField, value);
    }

    /**
     * The parameter {@code messagesField}: column with conversations.
     *
     * @return the parameter
     */
    public Param<String> messagesField() {
        return messagesField;
    }

    /**
     * Sets {@code messagesField}: column with conversations.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setMessagesField(String value) {
        return (LoricaFineTuner) set(messagesField, value);
    }

    /**
     * The parameter {@code textField}: column with plain texts.
     *
     * @return the parameter
     */
    public Param<String> textField() {
        return textField;
    }

    /**
     * Sets {@code textField}: column with plain texts.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setTextField(String value) {
        return (LoricaFineTuner) set(textField, value);
    }

    /**
     * The parameter {@code predictionCol}: column in which the model is to answer.
     *
     * @return the parameter
     */
    public Param<String> predictionCol() {
        return predictionCol;
    }

    /**
     * Sets {@code predictionCol}: column in which the model is to answer.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setPredictionCol(String value) {
        return (LoricaFineTuner) set(predictionCol, value);
    }

    /**
     * The parameter {@code maxLength}: the most tokens of an example; longer ones are left out.
     *
     * @return the parameter
     */
    public IntParam maxLength() {
        return maxLength;
    }

    /**
     * Sets {@code maxLength}: the most tokens of an example; longer ones are left out.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setMaxLength(int value) {
        return (LoricaFineTuner) set(maxLength, value);
    }

    /**
     * The parameter {@code trainOnPrompt}: whether prompts are learned too.
     *
     * @return the parameter
     */
    public BooleanParam trainOnPrompt() {
        return trainOnPrompt;
    }

    /**
     * Sets {@code trainOnPrompt}: whether prompts are learned too.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setTrainOnPrompt(boolean value) {
        return (LoricaFineTuner) set(trainOnPrompt, value);
    }

    /**
     * The parameter {@code loraR}: rank.
     *
     * @return the parameter
     */
    public IntParam loraR() {
        return loraR;
    }

    /**
     * Sets {@code loraR}: rank.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setLoraR(int value) {
        return (LoricaFineTuner) set(loraR, value);
    }

    /**
     * The parameter {@code loraAlpha}: the adapter is scaled by alpha / rank.
     *
     * @return the parameter
     */
    public DoubleParam loraAlpha() {
        return loraAlpha;
    }

    /**
     * Sets {@code loraAlpha}: the adapter is scaled by alpha / rank.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setLoraAlpha(double value) {
        return (LoricaFineTuner) set(loraAlpha, value);
    }

    /**
     * The parameter {@code loraDropout}: probability of dropout in front of A.
     *
     * @return the parameter
     */
    public DoubleParam loraDropout() {
        return loraDropout;
    }

    /**
     * Sets {@code loraDropout}: probability of dropout in front of A.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setLoraDropout(double value) {
        return (LoricaFineTuner) set(loraDropout, value);
    }

    /**
     * The parameter {@code targetModules}: names with commas between, or all-linear.
     *
     * @return the parameter
     */
    public Param<String> targetModules() {
        return targetModules;
    }

    /**
     * Sets {@code targetModules}: names with commas between, or all-linear.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setTargetModules(String value) {
        return (LoricaFineTuner) set(targetModules, value);
    }

    /**
     * The parameter {@code epochs}: passes over the data.
     *
     * @return the parameter
     */
    public DoubleParam epochs() {
        return epochs;
    }

    /**
     * Sets {@code epochs}: passes over the data.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setEpochs(double value) {
        return (LoricaFineTuner) set(epochs, value);
    }

    /**
     * The parameter {@code maxSteps}: optimizer steps; -1: as many as epochs say.
     *
     * @return the parameter
     */
    public IntParam maxSteps() {
        return maxSteps;
    }

    /**
     * Sets {@code maxSteps}: optimizer steps; -1: as many as epochs say.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setMaxSteps(int value) {
        return (LoricaFineTuner) set(maxSteps, value);
    }

    /**
     * The parameter {@code batchSize}: examples of a micro-batch.
     *
     * @return the parameter
     */
    public IntParam batchSize() {
        return batchSize;
    }

    /**
     * Sets {@code batchSize}: examples of a micro-batch.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setBatchSize(int value) {
        return (LoricaFineTuner) set(batchSize, value);
    }

    /**
     * The parameter {@code gradientAccumulationSteps}: micro-batches of a step, which are shared out among executors.
     *
     * @return the parameter
     */
    public IntParam gradientAccumulationSteps() {
        return gradientAccumulationSteps;
    }

    /**
     * Sets {@code gradientAccumulationSteps}: micro-batches of a step, which are shared out among executors.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setGradientAccumulationSteps(int value) {
        return (LoricaFineTuner) set(gradientAccumulationSteps, value);
    }

    /**
     * The parameter {@code learningRate}: its peak.
     *
     * @return the parameter
     */
    public DoubleParam learningRate() {
        return learningRate;
    }

    /**
     * Sets {@code learningRate}: its peak.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setLearningRate(double value) {
        return (LoricaFineTuner) set(learningRate, value);
    }

    /**
     * The parameter {@code lrSchedulerType}: linear, cosine, constant, ....
     *
     * @return the parameter
     */
    public Param<String> lrSchedulerType() {
        return lrSchedulerType;
    }

    /**
     * Sets {@code lrSchedulerType}: linear, cosine, constant, ....
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setLrSchedulerType(String value) {
        return (LoricaFineTuner) set(lrSchedulerType, value);
    }

    /**
     * The parameter {@code warmupRatio}: share of the steps in which the rate rises.
     *
     * @return the parameter
     */
    public DoubleParam warmupRatio() {
        return warmupRatio;
    }

    /**
     * Sets {@code warmupRatio}: share of the steps in which the rate rises.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setWarmupRatio(double value) {
        return (LoricaFineTuner) set(warmupRatio, value);
    }

    /**
     * The parameter {@code weightDecay}: decoupled.
     *
     * @return the parameter
     */
    public DoubleParam weightDecay() {
        return weightDecay;
    }

    /**
     * Sets {@code weightDecay}: decoupled.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setWeightDecay(double value) {
        return (LoricaFineTuner) set(weightDecay, value);
    }

    /**
     * The parameter {@code maxGradNorm}: gradients are clipped to this norm; 0: never.
     *
     * @return the parameter
     */
    public DoubleParam maxGradNorm() {
        return maxGradNorm;
    }

    /**
     * Sets {@code maxGradNorm}: gradients are clipped to this norm; 0: never.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setMaxGradNorm(double value) {
        return (LoricaFineTuner) set(maxGradNorm, value);
    }

    /**
     * The parameter {@code seed}: of the order, of dropout and of A.
     *
     * @return the parameter
     */
    public LongParam seed() {
        return seed;
    }

    /**
     * Sets {@code seed}: of the order, of dropout and of A.
     *
     * @param value the new value
     * @return this
     */
    public LoricaFineTuner setSeed(long value) {
        return (LoricaFineTuner) set(seed, value);
    }

    @Override
    public LoricaModel fit(Dataset<?> rows) {
        ModelConfig config = new ModelConfig(
                $(device), Precision.valueOf($(precision).toUpperCase(Locale.ROOT)), (Integer) $(threads));
        Path name = Path.of($(model));
        try (Model base = Model.load(name, config)) {
            LoraConfig.Builder lora = LoraConfig.builder()
                    .rank((Integer) $(loraR))
                    .alpha((Double) $(loraAlpha))
                    .dropout((Double) $(loraDropout))
                    .seed((Long) $(seed));
            if (!$(targetModules).isEmpty()) {
                lora.targetModules(Arrays.asList($(targetModules).split(",")));
            }
            try (Adapter adapter = Adapter.create(base, lora.build())) {
                SparkModel known = SparkModel.of(name, base, config);
                JavaSparkContext spark =
                        JavaSparkContext.fromSparkContext(rows.sparkSession().sparkContext());
                new Trainer(base, adapter, trainingConfig())
                        .workers(new SparkWorkers(spark, known))
                        .train(examples(rows, base));
                LoricaModel tuned = new LoricaModel(uid, known, AdapterFiles.of(adapter))
                        .setPredictionCol($(predictionCol))
                        .setSeed((Long) $(seed))
                        .setParent(this);
                return isSet(messagesField)
                        ? tuned.setPromptField($(messagesField))
                        : isSet(promptField) ? tuned.setPromptField($(promptField)) : tuned;
            }
        }
    }

    private TrainingConfig trainingConfig() {
        return TrainingConfig.builder()
                .epochs((Double) $(epochs))
                .maxSteps((Integer) $(maxSteps))
                .batchSize((Integer) $(batchSize))
                .gradientAccumulationSteps((Integer) $(gradientAccumulationSteps))
                .learningRate((Double) $(learningRate))
                .schedulerType(SchedulerType.valueOf($(lrSchedulerType).toUpperCase(Locale.ROOT)))
                .warmupRatio((Double) $(warmupRatio))
                .weightDecay((Double) $(weightDecay))
                .maxGradNorm((Double) $(maxGradNorm))
                .maxLength((Integer) $(maxLength))
                .seed((Long) $(seed))
                .build();
    }

    private String named(Param<String> field) {
        return isSet(field) ? $(field) : null;
    }

    private TokenizedDataset examples(Dataset<?> rows, Model base) {
        FieldNames names = new FieldNames(
                named(promptField),
                named(inputField),
                named(responseField),
                named(systemField),
                named(messagesField),
                named(textField));
        return SparkData.with(
                rows,
                names,
                data -> TokenizedDataset.of(
                        data, base.tokenizer(), new DataConfig(null, (Integer) $(maxLength), Overflow.DROP, (Boolean)
                                $(trainOnPrompt))));
    }

    @Override
    public StructType transformSchema(StructType schema) {
        return schema.add($(predictionCol), DataTypes.StringType, true);
    }

    @Override
    public LoricaFineTuner copy(ParamMap extra) {
        return defaultCopy(extra);
    }

    @Override
    public MLWriter write() {
        return new DefaultParamsWriter(this);
    }

    /**
     * Reads what {@link #write} has written.
     *
     * @return Spark's reader for it
     */
    public static MLReader<LoricaFineTuner> read() {
        return new DefaultParamsReader<>();
    }

    /**
     * Reads what {@link #write} has written.
     *
     * @param path a folder, as Spark names it
     * @return it, with its parameters
     */
    public static LoricaFineTuner load(String path) {
        return read().load(path);
    }
}
