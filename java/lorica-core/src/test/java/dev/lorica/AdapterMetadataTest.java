package dev.lorica;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatThrownBy;

import dev.lorica.data.PromptTemplate;
import dev.lorica.exceptions.FileFormatException;
import java.nio.file.Files;
import java.nio.file.Path;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

class AdapterMetadataTest {
    private static final AdapterMetadata METADATA = new AdapterMetadata(
            "0.1.0",
            new AdapterMetadata.BaseModel("austen-7m", "austen-7m-q4_0.gguf", "llama", "Q4_0", "0123456789abcdef"),
            LoraConfig.builder().rank(8).alpha(12.5).init(LoraConfig.Init.GAUSSIAN).targetModules("q_proj", "v_proj").build(),
            PromptTemplate.INSTRUCTION,
            new AdapterMetadata.SpecialTokens(1, 2),
            TrainingConfig.builder().schedulerType(SchedulerType.COSINE).checkpointing(Checkpointing.ON).seed(7).build(),
            new TrainingResult(10, 2.5, 1.25, 1000, 400, 3.5, true, false, 5, new Evaluation(1.5, 30, 80, 4, 0.1)));

    @TempDir
    Path folder;

    @Test
    void comesBackAsItWasWritten() {
        METADATA.write(folder);

        assertThat(AdapterMetadata.read(folder)).isEqualTo(METADATA);
    }

    @Test
    void isWrittenForPeopleToRead() throws Exception {
        METADATA.write(folder);

        assertThat(Files.readString(folder.resolve("lorica_adapter.json")))
                .contains("\"fingerprint\" : \"0123456789abcdef\"")
                .contains("\"target_modules\" : [ \"q_proj\", \"v_proj\" ]")
                .contains("\"scheduler_type\" : \"cosine\"")
                .contains("\"gradient_accumulation_steps\" : 1");
        assertThat(folder).isDirectoryNotContaining("glob:**.tmp");
    }

    @Test
    void fieldsOfLaterVersionsAreIgnored() throws Exception {
        METADATA.write(folder);
        Path file = folder.resolve("lorica_adapter.json");
        Files.writeString(file, Files.readString(file).replaceFirst("\\{", "{ \"from_the_future\" : [1],"));

        assertThat(AdapterMetadata.read(folder)).isEqualTo(METADATA);
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

        Files.writeString(file, "{ \"lora\" : { \"rank\" : 0, \"target_modules\" : [] , \"init\" : \"default\"} }");
        assertThatThrownBy(() -> AdapterMetadata.read(folder))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("rank is 0");

        Files.writeString(file, "{}");
        assertThatThrownBy(() -> AdapterMetadata.read(folder))
                .isInstanceOf(FileFormatException.class)
                .hasMessageContaining("which base model");
    }
}
