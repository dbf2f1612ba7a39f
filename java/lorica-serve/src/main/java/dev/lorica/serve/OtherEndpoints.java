package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.BooleanNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.data.DataRecord;
import dev.lorica.exceptions.LoricaException;
import java.io.IOException;
import java.nio.ByteBuffer;
import java.nio.ByteOrder;
import java.nio.charset.StandardCharsets;
import java.nio.file.InvalidPathException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.Base64;
import java.util.List;

/** What is neither chats nor completions. */
final class OtherEndpoints {
    private static final int MOST_INPUTS = 2048;
    /** Inputs that are embedded before it is asked whether anybody still waits. */
    private static final int AT_ONCE = 64;

    private final Model model;
    private final ServedModels models;
    private final Path dataFolder;
    private final int positions;
    private final long created;

    /** @param positions of a text */
    OtherEndpoints(Model model, ServedModels models, Path dataFolder, int positions, long created) {
        this.model = model;
        this.models = models;
        this.dataFolder = dataFolder;
        this.positions = positions;
        this.created = created;
    }

    /** {@code /v1/models}. */
    void list(Call call) {
        ObjectNode answer = Json.object().put("object", "list");
        ArrayNode data = answer.putArray("data");
        models.list().forEach(served -> data.add(describe(served)));
        call.answer(200, answer);
    }

    /** {@code /v1/models/NAME}. */
    void describe(Call call, String name) {
        models.with(name, served -> {
            call.answer(200, describe(served));
            return null;
        });
    }

    private ObjectNode describe(Served served) {
        return Json.object()
                .put("id", served.name())
                .put("object", "model")
                .put("created", created)
                .put("owned_by", "lorica")
                .put("root", served.root())
                .put("parent", served.isAdapter() ? models.base().name() : null)
                .put("max_model_len", positions);
    }

    /** {@code /v1/embeddings}. */
    void embed(Call call) {
        Fields fields = call.json();
        models.with(fields.text("model"), served -> {
            List<String> inputs = inputs(fields);
            String format = fields.text("encoding_format");
            boolean base64 = "base64".equals(format);
            if (format != null && !base64 && !format.equals("float")) {
                throw ApiException.field("encoding_format", "encoding_format is float or base64");
            }
            fields.ignore("user");
            fields.end();
            long tokens = 0;
            for (String input : inputs) {
                int own = model.tokenizer().encode(input, true, false).length;
                if (own > model.info().contextLength()) {
                    throw ApiException.field(
                            "input",
                            "context_length_exceeded",
                            "an input has " + own + " tokens, more than the "
                                    + model.info().contextLength() + " of the model's context");
                }
                tokens += own;
            }
            List<float[]> vectors = new ArrayList<>();
            for (int i = 0; i < inputs.size(); i += AT_ONCE) {
                call.requireClient();
                vectors.addAll(served.embed(inputs.subList(i, Math.min(inputs.size(), i + AT_ONCE))));
            }
            ObjectNode answer = Json.object().put("object", "list");
            ArrayNode data = answer.putArray("data");
            for (int i = 0; i < vectors.size(); i++) {
                ObjectNode one = data.addObject().put("object", "embedding").put("index", i);
                if (base64) {
                    one.put("embedding", base64(vectors.get(i)));
                } else {
                    ArrayNode numbers = one.putArray("embedding");
                    for (float number : vectors.get(i)) {
                        numbers.add(number);
                    }
                }
            }
            answer.put("model", served.name());
            answer.putObject("usage").put("prompt_tokens", tokens).put("total_tokens", tokens);
            call.answer(200, answer);
            return null;
        });
    }

    private static String base64(float[] vector) {
        ByteBuffer bytes = ByteBuffer.allocate(Float.BYTES * vector.length).order(ByteOrder.LITTLE_ENDIAN);
        for (float number : vector) {
            bytes.putFloat(number);
        }
        return Base64.getEncoder().encodeToString(bytes.array());
    }

    private static List<String> inputs(Fields fields) {
        JsonNode given = fields.take("input");
        if (given == null) {
            throw fields.missing("input");
        }
        List<String> inputs = new ArrayList<>();
        for (JsonNode one : given.isTextual() ? Json.array().add(given) : given) {
            if (!one.isTextual() || one.asText().isEmpty() || inputs.size() == MOST_INPUTS) {
                throw fields.wrong("input", one, "a string, or up to " + MOST_INPUTS + " of them, none empty");
            }
            inputs.add(one.asText());
        }
        if (inputs.isEmpty()) {
            throw fields.wrong("input", given, "a string, or a list of strings");
        }
        return inputs;
    }

    /** {@code /tokenize}, as vLLM has it. */
    void tokenize(Call call) {
        Fields fields = call.json();
        models.with(fields.text("model"), served -> {
            boolean chat = fields.names().contains("messages");
            boolean addSpecial = fields.flag("add_special_tokens", true);
            int[] ids;
            if (chat) {
                fields.only("add_generation_prompt", "the answer is to begin", BooleanNode.TRUE);
                ids = served.encoder().prompt(DataRecord.conversation(Messages.of(fields)));
            } else {
                ids = model.tokenizer().encode(fields.requiredText("prompt"), addSpecial, true);
            }
            boolean strings = fields.flag("return_token_strs", false);
            fields.end();
            ObjectNode answer = Json.object().put("count", ids.length).put("max_model_len", positions);
            ArrayNode tokens = answer.putArray("tokens");
            ArrayNode names = strings ? answer.putArray("token_strs") : null;
            for (int id : ids) {
                tokens.add(id);
                if (names != null) {
                    names.add(model.tokenizer().tokenText(id));
                }
            }
            call.answer(200, answer);
            return null;
        });
    }

    /** {@code /detokenize}, as vLLM has it. */
    void detokenize(Call call) {
        Fields fields = call.json();
        models.with(fields.text("model"), served -> {
            JsonNode given = fields.take("tokens");
            if (given == null) {
                throw fields.missing("tokens");
            }
            int[] ids = given.isArray() && given.isEmpty() ? new int[0] : Ids.of(fields, "tokens", given, model);
            fields.end();
            String text = ids.length == 0 ? "" : model.tokenizer().decode(ids, true);
            call.answer(200, Json.object().put("prompt", text));
            return null;
        });
    }

    /** {@code /v1/load_lora_adapter}, as vLLM has it. */
    void load(Call call) {
        Fields fields = call.json();
        String name = fields.requiredText("lora_name");
        String path = fields.requiredText("lora_path");
        fields.end();
        if (!Served.isName(name)) {
            throw ApiException.field("lora_name", "lora_name must be " + Served.NAMES);
        }
        if (models.has(name)) {
            throw ApiException.field("lora_name", "there is a model called " + name + " already");
        }
        Path folder = inDataFolder(path);
        Adapter adapter;
        try {
            adapter = Adapter.load(model, folder);
        } catch (LoricaException e) {
            throw ApiException.field("lora_path", e.getMessage());
        }
        try {
            models.add(name, adapter, path, true);
        } catch (RuntimeException e) {
            adapter.close();
            throw e;
        }
        call.answer(200, "text/plain; charset=utf-8", success(name, "added"));
    }

    /** {@code /v1/unload_lora_adapter}, as vLLM has it. */
    void unload(Call call) {
        Fields fields = call.json();
        String name = fields.requiredText("lora_name");
        fields.ignore("lora_int_id");
        fields.end();
        models.remove(name);
        call.answer(200, "text/plain; charset=utf-8", success(name, "removed"));
    }

    private static byte[] success(String name, String done) {
        return ("Success: LoRA adapter '" + name + "' " + done + " successfully.").getBytes(StandardCharsets.UTF_8);
    }

    /** Whatever dots and links are in it, what it leads to lies in the folder; of what lies elsewhere, nothing is said. */
    private Path inDataFolder(String path) {
        if (dataFolder == null) {
            throw ApiException.of(
                    403,
                    "permission_error",
                    "no_data_folder",
                    "adapters cannot be loaded while it runs: it was started without a data folder");
        }
        try {
            Path folder = dataFolder.toRealPath();
            Path real = folder.resolve(path).toRealPath();
            if (real.startsWith(folder)) {
                return real;
            }
        } catch (InvalidPathException | IOException e) {
            // the same answer as for what is there
        }
        throw ApiException.of(
                403, "permission_error", "not_in_data_folder", "lora_path is nothing that lies in the data folder");
    }
}
