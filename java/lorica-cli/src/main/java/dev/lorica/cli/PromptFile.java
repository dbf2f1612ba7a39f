package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.data.DataRecord;
import dev.lorica.data.Dataset;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.FieldNames;
import dev.lorica.data.RecordKind;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.files.AtomicFile;
import dev.lorica.generate.BatchGenerator;
import dev.lorica.generate.BatchGenerator.Request;
import dev.lorica.generate.GenerationResult;
import dev.lorica.generate.GenerationResult.FinishReason;
import java.io.IOException;
import java.io.RandomAccessFile;
import java.nio.ByteBuffer;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayList;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.concurrent.atomic.AtomicBoolean;

/**
 * Answers to all questions of a file, in a file. They are made and written in blocks: what a text is depends, in the last bits of
 * its logits, on those that are made beside it, and so a run that goes on at the beginning of a block ends in the same file.
 */
final class PromptFile {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** Of a block, for each text at once: enough that few places are empty at its end. */
    private static final int ROUNDS = 4;

    private final Path prompts;
    private final Path output;
    private final SamplingOptions sampling;
    private final int batchSize;
    private final Terminal terminal;

    private record Question(int[] ids, String asked) {}

    /** What the answers depend on beside the question and its place: the model, the adapter, how is drawn. */
    private String maker = "";

    PromptFile(Path prompts, Path output, SamplingOptions sampling, int batchSize, Terminal terminal) {
        if (batchSize < 1 || batchSize > 4096) {
            throw new InvalidArgumentException("--batch-size is " + batchSize + "; it is 1 to 4096");
        }
        this.prompts = prompts;
        this.output = output;
        this.sampling = sampling;
        this.batchSize = batchSize;
        this.terminal = terminal;
    }

    @SuppressWarnings("try") // what is open is the handling of Ctrl-C, which nobody calls
    int answer(Model model, Adapter adapter, ExampleEncoder encoder, String system) {
        List<Question> questions = questions(encoder, system);
        int each = sampling.returnSequences;
        if ((long) questions.size() * each > Integer.MAX_VALUE) {
            throw new InvalidArgumentException("--num-return-sequences is " + each + ", of "
                    + Format.count(questions.size(), "question") + ": more answers than a file has room for");
        }
        int total = questions.size() * each;
        maker = model.info().fingerprint() + "\n" + (adapter == null ? "" : checksum(adapter)) + "\n"
                + sampling.config(0, 0);
        int positions = 1;
        for (Question question : questions) {
            long needed = question.ids.length
                    + (long) sampling.config(0, question.ids.length).maxNewTokens();
            positions = (int) Math.min(model.info().contextLength(), Math.max(positions, needed));
        }
        int block = ROUNDS * batchSize;
        long begun = System.nanoTime();
        long tokens = 0;
        AtomicBoolean stop = new AtomicBoolean();
        CountLine count = new CountLine(terminal, "answers");
        int done;
        try (RandomAccessFile file = new RandomAccessFile(output.toFile(), "rw")) {
            done = resume(file, questions, block, total);
            if (done > 0) {
                terminal.err().println("goes on after " + Format.count(done) + " of " + Format.count(total, "answer"));
            }
            try (Interrupt interrupt = new Interrupt(() -> stop.set(true));
                    BatchGenerator generator = new BatchGenerator(
                            model,
                            adapter == null ? List.of() : List.of(new ScaledAdapter(adapter, 1)),
                            Math.min(batchSize, total),
                            positions)) {
                while (done < total && !stop.get()) {
                    int begin = done;
                    List<Request> requests = new ArrayList<>();
                    for (int i = begin; i < Math.min(begin + block, total); i++) {
                        int[] ids = questions.get(i / each).ids;
                        requests.add(new Request(ids, sampling.config(sampling.seed + i, ids.length)));
                    }
                    GenerationResult[] results = new GenerationResult[requests.size()];
                    int[] ended = {0};
                    generator.generate(
                            requests.iterator(),
                            (number, result) -> {
                                results[number] = result;
                                count.show(begin + ++ended[0], total);
                            },
                            stop::get);
                    if (stop.get() && !complete(results)) {
                        break;
                    }
                    StringBuilder lines = new StringBuilder();
                    for (int i = 0; i < results.length; i++) {
                        lines.append(line(begin + i, questions.get((begin + i) / each), results[i]))
                                .append('\n');
                        tokens += results[i].generatedTokens();
                    }
                    file.write(lines.toString().getBytes(StandardCharsets.UTF_8));
                    file.getFD().sync();
                    done += results.length;
                }
            } finally {
                count.end();
            }
        } catch (IOException e) {
            throw new FileAccessException(output + " cannot be written: " + AtomicFile.reason(e), e);
        }
        double seconds = (System.nanoTime() - begun) / 1e9;
        boolean stopped = done < total;
        if (terminal.json()) {
            Map<String, Object> json = new LinkedHashMap<>();
            json.put("status", stopped ? "interrupted" : "done");
            json.put("output", output.toString());
            json.put("answers", done);
            json.put("total", total);
            json.put("generated_tokens", tokens);
            json.put("seconds", seconds);
            json.put("tokens_per_second", tokens / seconds);
            terminal.printJson(json);
        } else {
            terminal.out()
                    .println((stopped ? "Stopped after " : "") + Format.count(done, "answer") + " in " + output + ", "
                            + Format.count(Math.round(tokens / seconds)) + " tok/s"
                            + (stopped ? "; the same command goes on" : ""));
        }
        return stopped ? ExitCode.INTERRUPTED : ExitCode.OK;
    }

    private static boolean complete(GenerationResult[] results) {
        for (GenerationResult result : results) {
            if (result == null || result.finishReason() == FinishReason.CANCELLED) {
                return false;
            }
        }
        return true;
    }

    private List<Question> questions(ExampleEncoder encoder, String system) {
        List<Question> questions = new ArrayList<>();
        for (DataRecord given : Dataset.load(prompts, FieldNames.NONE, RecordKind.PROMPTS)) {
            DataRecord record = system == null || !given.system().isEmpty()
                    ? given
                    : new DataRecord(system, given.prompt(), given.input(), "", given.conversation(), given.line());
            questions.add(new Question(encoder.prompt(record), Questions.inWords(record)));
        }
        return questions;
    }

    private String line(int number, Question question, GenerationResult result) throws IOException {
        Map<String, Object> line = new LinkedHashMap<>();
        line.put("number", number / sampling.returnSequences);
        line.put("sample", number % sampling.returnSequences);
        line.put("prompt", question.asked);
        line.put("text", result.text());
        line.put("finish_reason", Choices.name(result.finishReason()));
        line.put("prompt_tokens", result.promptTokens());
        line.put("generated_tokens", result.generatedTokens());
        line.put("made_with", madeWith(question));
        return JSON.writeValueAsString(line);
    }

    /** Goes to the end of the last block that is whole. Returns how many answers that is. */
    private int resume(RandomAccessFile file, List<Question> questions, int block, int total) throws IOException {
        byte[] bytes = Files.readAllBytes(output);
        int lines = 0;
        long end = 0;
        int begin = 0;
        for (int i = 0; i < bytes.length && lines < total; i++) {
            if (bytes[i] != '\n') {
                continue;
            }
            requireOurs(bytes, begin, i, lines, questions);
            lines++;
            begin = i + 1;
            if (lines % block == 0 || lines == total) {
                end = begin;
            }
        }
        if (lines == 0 && bytes.length > 0 || lines == total && begin < bytes.length) {
            throw notOurs();
        }
        file.setLength(end);
        file.seek(end);
        return lines == total ? total : lines / block * block;
    }

    private void requireOurs(byte[] bytes, int from, int to, int number, List<Question> questions) throws IOException {
        try {
            JsonNode line = JSON.readTree(bytes, from, to - from);
            int each = sampling.returnSequences;
            Question question = questions.get(number / each);
            if (line.path("number").asInt(-1) == number / each
                    && line.path("sample").asInt(-1) == number % each
                    && line.path("prompt").asText("").equals(question.asked)) {
                if (line.path("made_with").asText("").equals(madeWith(question))) {
                    return;
                }
                throw new InvalidArgumentException("--output " + output + " is there already, and holds answers that"
                        + " another model, adapter or template gave, or other settings; choose another file");
            }
        } catch (JacksonException e) {
            throw notOurs();
        }
        throw notOurs();
    }

    /** A few letters that are others where an answer to the question would be another. */
    private String madeWith(Question question) {
        MessageDigest digest = sha256();
        digest.update(maker.getBytes(StandardCharsets.UTF_8));
        ByteBuffer ids = ByteBuffer.allocate(question.ids.length * Integer.BYTES);
        ids.asIntBuffer().put(question.ids);
        digest.update(ids.array());
        return HexFormat.of().formatHex(digest.digest(), 0, 4);
    }

    private static String checksum(Adapter adapter) {
        MessageDigest digest = sha256();
        for (int i = 0; i < adapter.tensors().size(); i++) {
            float[] values = adapter.values(i);
            ByteBuffer bytes = ByteBuffer.allocate(values.length * Float.BYTES);
            bytes.asFloatBuffer().put(values);
            digest.update(adapter.tensors().get(i).toString().getBytes(StandardCharsets.UTF_8)); // its scale too
            digest.update(bytes.array());
        }
        return HexFormat.of().formatHex(digest.digest());
    }

    private static MessageDigest sha256() {
        try {
            return MessageDigest.getInstance("SHA-256");
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    private InvalidArgumentException notOurs() {
        return new InvalidArgumentException("--output " + output + " is there already, and does not hold answers to "
                + prompts + "; choose another file");
    }
}
