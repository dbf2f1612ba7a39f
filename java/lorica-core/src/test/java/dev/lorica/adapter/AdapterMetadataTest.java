package dev.lorica.adapter;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import com.fasterxml.jackson.databind.node.ObjectNode;
import dev.lorica.data.PromptTemplate;
import dev.lorica.eval.Evaluation;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.internal.json.Json;
import dev.lorica.train.Recomputation;
import dev.lorica.train.SchedulerType;
import dev.lorica.train.TrainingConfig;
import dev.lorica.train.TrainingResult;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AdapterMetadataTest {
    private static final AdapterMetadata METADATA = new AdapterMetadata(
            "0.1.0",
            new AdapterMetadata.BaseModel("austen-7m", "austen-7m-q4_0.gguf", "llama", "Q4_0", "0123456789abcdef"),
            Method.LORA,
            LoraConfig.builder()
                    .rank(8)
                    .alpha(12.5)
                    .init(LoraConfig.Init.GAUSSIAN)
                    .targetModules("q_proj", "v_proj")
                    .build(),
            null,
            null,
            null,
            null,
            null,
            null,
            PromptTemplate.INSTRUCTION,
            new AdapterMetadata.SpecialTokens(1, 2),
            Json.toMap(TrainingConfig.builder()
                    .schedulerType(SchedulerType.COSINE)
                    .recomputation(Recomputation.ON)
                    .seed(7)
                    .build()),
            Json.toMap(new TrainingResult(
                    10, 2.5, 1.25, 1000, 400, 3.5, true, false, 5, new Evaluation(1.5, 30, 80, 4, 0.1))));

    @TempDir
    Path folder;

    @Test
    void comesBackAsItWasWritten() {
        METADATA.write(folder, Map.of());

        assertThat(AdapterMetadata.read(folder)).isEqualTo(METADATA);
    }

    @Test
    void isWrittenForPeopleToRead() throws Exception {
        METADATA.write(folder, Map.of());

        assertThat(Files.readString(folder.resolve("lorica_adapter.json")))
                .contains("\"fingerprint\" : \"0123456789abcdef\"")
                .contains("\"target_modules\" : [ \"q_proj\", \"v_proj\" ]")
                .contains("\"scheduler_type\" : \"cosine\"")
                .contains("\"gradient_accumulation_steps\" : 1");
        assertThat(folder).isDirectoryNotContaining("glob:**.tmp");
    }

    @Test
    void fieldsOfLaterVersionsAreIgnored() throws Exception {
        METADATA.write(folder, Map.of());
        Path file = folder.resolve("lorica_adapter.json");
        Files.writeString(file, Files.readString(file).replaceFirst("\\{", "{ \"from_the_future\" : [1],"));

        assertThat(AdapterMetadata.read(folder)).isEqualTo(METADATA);
    }

    @Test
    void settingsThatAnEarlierVersionDidNotKnowHaveTheirDefaults() throws Exception {
        METADATA.write(folder, Map.of());
        Path file = folder.resolve("lorica_adapter.json");
        ObjectNode json = (ObjectNode) Json.MAPPER.readTree(file.toFile());
        ObjectNode training = (ObjectNode) json.get("training");
        for (String name : List.of(
                "eval_strategy", "save_strategy", "logging_steps", "optimizer", "loraplus_lr_ratio", "save_steps")) {
            assertThat(training.remove(name)).as(name).isNotNull();
        }
        ObjectNode lora = (ObjectNode) json.get("lora");
        lora.remove(List.of("rank_pattern", "alpha_pattern", "layers_to_transform", "use_dora"));
        Json.MAPPER.writeValue(file.toFile(), json);

        AdapterMetadata read = AdapterMetadata.read(folder);
        assertThat(read.lora()).isEqualTo(METADATA.lora());
        assertThat(TrainingConfig.of(read)).isEqualTo(TrainingConfig.of(METADATA));
    }

    @Test
    void whatALaterVersionTrainedWithDoesNotMakeAnAdapterUnreadable() throws Exception {
        METADATA.write(folder, Map.of());
        Path file = folder.resolve("lorica_adapter.json");
        ObjectNode json = (ObjectNode) Json.MAPPER.readTree(file.toFile());
        ((ObjectNode) json.get("training")).put("optimizer", "of the future");
        ((ObjectNode) json.get("lora")).put("rank", 0);
        json.set("result", Json.MAPPER.createArrayNode());
        Json.MAPPER.writeValue(file.toFile(), json);

        AdapterMetadata read = AdapterMetadata.read(folder);

        assertThat(read.baseModel()).isEqualTo(METADATA.baseModel());
        assertThat(read.template()).isEqualTo(METADATA.template());
        assertThat(TrainingConfig.of(read)).isNull();
        assertThat(read.lora()).isNull();
        assertThat(TrainingResult.of(read)).isNull();
    }

    @Test
    void aFolderWithoutOneHasNone() {
        assertThat(AdapterMetadata.read(folder)).isNull();
    }

    @Test
    void damageIsNamedInOneLine() throws Exception {
        Path file = folder.resolve("lorica_adapter.json");

        Files.writeString(file, "{ \"base_model\" : ");
        assertThatThrownBy(() -> AdapterMetadata.read(folder))
                .isInstanceOf(FileFormatException.class)
                .hasMessageStartingWith(file + " is damaged: ")
                .message()
                .doesNotContain("\n");

        Files.writeString(file, "{}");
        assertThatThrownBy(() -> AdapterMetadata.read(folder))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("which base model");
    }
}
