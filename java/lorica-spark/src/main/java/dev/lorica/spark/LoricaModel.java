package dev.lorica.spark;

import dev.lorica.Precision;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.generate.GenerationConfig;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.util.Map;
import java.util.TreeMap;
import java.util.UUID;
import org.apache.hadoop.fs.FileStatus;
import org.apache.hadoop.fs.FileSystem;
import org.apache.hadoop.fs.Path;
import org.apache.spark.ml.Model;
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
import org.apache.spark.sql.Row;
import org.apache.spark.sql.types.DataTypes;
import org.apache.spark.sql.types.StructType;

/**
 * An adapter that {@link LoricaFineTuner} has trained, as a transformer of Spark ML: adds a column with answers. It is saved with its
 * adapter, to any path that Hadoop knows; the base model stays where executors find it ({@link SparkModel}).
 *
 * @serial exclude
 */
public final class LoricaModel extends Model<LoricaModel> implements MLWritable {
    private static final long serialVersionUID = 1L;
    private static final String ADAPTER = "adapter";

    private final String uid;
    private final Param<String> model;
    private final Param<String> fingerprint;
    private final Param<String> device;
    private final Param<String> precision;
    private final IntParam threads;
    private final Param<String> promptField;
    private final Param<String> predictionCol;
    private final IntParam maxNewTokens;
    private final DoubleParam temperature;
    private final LongParam seed;
    private AdapterFiles adapter;

    /**
     * For Spark, which sets the rest.
     *
     * @param uid by which Spark tells the stages of a pipeline apart
     */
    public LoricaModel(String uid) {
        this.uid = uid;
        model = new Param<>(this, "model", "the base: a path that is the same on each machine, or hf:owner/repo");
        fingerprint = new Param<>(this, "fingerprint", "of the base");
        device = new Param<>(this, "device", "where executors compute: auto, cpu, cuda");
        precision = new Param<>(this, "precision", "auto, bf16 or f32");
        threads = new IntParam(this, "threads", "of a task; 0: spark.task.cpus");
        promptField = new Param<>(this, "promptField", "column with what is asked");
        predictionCol = new Param<>(this, "predictionCol", "new column with the answers");
        maxNewTokens = new IntParam(this, "maxNewTokens", "the most tokens of an answer");
        temperature = new DoubleParam(this, "temperature", "0: always the likeliest token");
        seed = new LongParam(this, "seed", "of what is drawn");
        setDefault(device, "auto");
        setDefault(precision, "AUTO");
        setDefault(threads, 0);
        setDefault(promptField, "prompt");
        setDefault(predictionCol, "prediction");
        setDefault(maxNewTokens, GenerationConfig.defaults().maxNewTokens());
        setDefault(temperature, 0.0);
        setDefault(seed, 42L);
    }

    LoricaModel(String uid, SparkModel base, AdapterFiles adapter) {
        this(uid);
        this.adapter = adapter;
        set(model, base.name());
        set(fingerprint, base.fingerprint());
        set(device, base.device());
        set(precision, base.precision().name());
        set(threads, base.threads());
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
     * The parameter {@code fingerprint}: that of the base, by which executors know that theirs is the same.
     *
     * @return the parameter
     */
    public Param<String> fingerprint() {
        return fingerprint;
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
     * The parameter {@code precision}: auto, bf16 or f32.
     *
     * @return the parameter
     */
    public Param<String> precision() {
        return precision;
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
     * The parameter {@code promptField}: column with what is asked.
     *
     * @return the parameter
     */
    public Param<String> promptField() {
        return promptField;
    }

    /**
     * The parameter {@code predictionCol}: new column with the answers.
     *
     * @return the parameter
     */
    public Param<String> predictionCol() {
        return predictionCol;
    }

    /**
     * The parameter {@code maxNewTokens}: the most tokens of an answer.
     *
     * @return the parameter
     */
    public IntParam maxNewTokens() {
        return maxNewTokens;
    }

    /**
     * The parameter {@code temperature}: 0: always the likeliest token.
     *
     * @return the parameter
     */
    public DoubleParam temperature() {
        return temperature;
    }

    /**
     * The parameter {@code seed}: of what is drawn.
     *
     * @return the parameter
     */
    public LongParam seed() {
        return seed;
    }

    /**
     * Sets {@code model}: the base: a path that is the same on each machine, or hf:owner/repo.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setModel(String value) {
        return (LoricaModel) set(model, value);
    }

    /**
     * Sets {@code promptField}: column with what is asked.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setPromptField(String value) {
        return (LoricaModel) set(promptField, value);
    }

    /**
     * Sets {@code predictionCol}: new column with the answers.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setPredictionCol(String value) {
        return (LoricaModel) set(predictionCol, value);
    }

    /**
     * Sets {@code maxNewTokens}: the most tokens of an answer.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setMaxNewTokens(int value) {
        return (LoricaModel) set(maxNewTokens, value);
    }

    /**
     * Sets {@code temperature}: 0: always the likeliest token.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setTemperature(double value) {
        return (LoricaModel) set(temperature, value);
    }

    /**
     * Sets {@code seed}: of what is drawn.
     *
     * @param value the new value
     * @return this
     */
    public LoricaModel setSeed(long value) {
        return (LoricaModel) set(seed, value);
    }

    /**
     * For {@link SparkInference#classify}, {@link SparkInference#embed} and the others.
     *
     * @return the base and the adapter as they are now
     */
    public SparkInference inference() {
        SparkModel base = new SparkModel(
                $(model), $(fingerprint), $(device), Precision.valueOf($(precision)), (Integer) $(threads), true);
        return new SparkInference(base, adapter, null);
    }

    /**
     * Puts the adapter into a folder of this machine, as {@link dev.lorica.adapter.Adapter#save} does.
     *
     * @param folder which is made where it is not there
     */
    public void saveAdapter(java.nio.file.Path folder) {
        try {
            java.nio.file.Files.createDirectories(folder);
        } catch (IOException e) {
            throw new FileAccessException(folder + " cannot be made: " + e, e);
        }
        adapter.write(folder);
    }

    @Override
    public Dataset<Row> transform(Dataset<?> rows) {
        GenerationConfig config = GenerationConfig.builder()
                .maxNewTokens((Integer) $(maxNewTokens))
                .temperature((Double) $(temperature))
                .seed((Long) $(seed))
                .build();
        return inference().generate(rows.toDF(), $(promptField), $(predictionCol), config);
    }

    @Override
    public StructType transformSchema(StructType schema) {
        return schema.add($(predictionCol), DataTypes.StringType, true);
    }

    @Override
    public LoricaModel copy(ParamMap extra) {
        LoricaModel copy = new LoricaModel(uid);
        copy.adapter = adapter;
        return copyValues(copy, extra).setParent(parent());
    }

    @Override
    public MLWriter write() {
        return new MLWriter() {
            @Override
            public void saveImpl(String path) {
                DefaultParamsWriter.saveMetadata(LoricaModel.this, path, sparkSession());
                Path folder = new Path(path, ADAPTER);
                try {
                    FileSystem files = folder.getFileSystem(sc().hadoopConfiguration());
                    for (Map.Entry<String, byte[]> file : adapter.files().entrySet()) {
                        try (OutputStream out = files.create(new Path(folder, file.getKey()))) {
                            out.write(file.getValue());
                        }
                    }
                } catch (IOException e) {
                    throw new FileAccessException("the adapter cannot be written to " + folder + ": " + e, e);
                }
            }
        };
    }

    /**
     * Reads what {@link #write} has written.
     *
     * @return Spark's reader for it
     */
    public static MLReader<LoricaModel> read() {
        return new MLReader<>() {
            @Override
            public LoricaModel load(String path) {
                DefaultParamsReader.Metadata metadata =
                        DefaultParamsReader.loadMetadata(path, sparkSession(), LoricaModel.class.getName());
                LoricaModel loaded = new LoricaModel(metadata.uid());
                metadata.getAndSetParams(loaded, metadata.getAndSetParams$default$2());
                Path folder = new Path(path, ADAPTER);
                Map<String, byte[]> contents = new TreeMap<>();
                try {
                    FileSystem files = folder.getFileSystem(sc().hadoopConfiguration());
                    for (FileStatus file : files.listStatus(folder)) {
                        try (InputStream in = files.open(file.getPath())) {
                            contents.put(file.getPath().getName(), in.readAllBytes());
                        }
                    }
                } catch (IOException e) {
                    throw new FileAccessException("the adapter cannot be read from " + folder + ": " + e, e);
                }
                loaded.adapter = new AdapterFiles(UUID.randomUUID().toString(), contents);
                return loaded;
            }
        };
    }

    /**
     * Reads what {@link #write} has written.
     *
     * @param path a folder, as Spark names it
     * @return it, with its adapter
     */
    public static LoricaModel load(String path) {
        return read().load(path);
    }
}
