package dev.lorica.data;

import static org.assertj.core.api.Assertions.assertThat;
import static org.assertj.core.api.Assertions.assertThatExceptionOfType;

import dev.lorica.TokenizerInfo;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.List;
import org.junit.jupiter.api.Test;

class PromptTemplateTest {
    private static final TokenizerInfo VOCABULARY =
            new TokenizerInfo("gpt2", "", "{{ messages }}", 10, 0, 0, 0, 0, 0, false, false);

    @Test
    void putsTheInstructionFormatAroundAPrompt() {
        assertThat(PromptTemplate.INSTRUCTION.render("Who is Mr. Collins?"))
                .isEqualTo("### Instruction:\nWho is Mr. Collins?\n\n### Response:\n");
        assertThat(PromptTemplate.INSTRUCTION.render("Add.", "1 and 2"))
                .isEqualTo("### Instruction:\nAdd.\n\n### Input:\n1 and 2\n\n### Response:\n");
    }

    @Test
    void leavesBracesOfTheDataAlone() {
        assertThat(PromptTemplate.INSTRUCTION.render("Say {input} and {instruction}", "{instruction}"))
                .isEqualTo("### Instruction:\n"
                        + "Say {input} and {instruction}\n\n"
                        + "### Input:\n"
                        + "{instruction}\n\n"
                        + "### Response:\n");
    }

    @Test
    void marksOnlyTheResponseAsTrained() {
        assertThat(PromptTemplate.INSTRUCTION.segments(DataRecord.of("A", "B")))
                .containsExactly(
                        new Segment("### Instruction:\nA\n\n### Response:\n", false, false),
                        new Segment("B", true, false));
        assertThat(PromptTemplate.PLAIN.segments(DataRecord.text("C"))).containsExactly(new Segment("C", true, true));
    }

    @Test
    void wrapsNothingTwice() {
        Dataset wrapped = Dataset.of(List.of(DataRecord.of("### Instruction:\nA\n\n### Response:\n", "B")));
        Dataset mixed = Dataset.of(
                List.of(DataRecord.of("### Instruction:\nA\n\n### Response:\n", "B"), DataRecord.of("C", "D")));

        assertThat(PromptTemplate.forDataset(wrapped, VOCABULARY)).isEqualTo(PromptTemplate.PLAIN);
        assertThat(PromptTemplate.forDataset(mixed, VOCABULARY)).isEqualTo(PromptTemplate.INSTRUCTION);
        assertThat(PromptTemplate.forDataset(Dataset.of(List.of(DataRecord.text("A"))), VOCABULARY))
                .isEqualTo(PromptTemplate.PLAIN);
    }

    @Test
    void takesTheModelsOwnTemplateForConversations() {
        Dataset chat = Dataset.of(List.of(DataRecord.conversation(Message.user("A"), Message.assistant("B"))));
        TokenizerInfo without = new TokenizerInfo("gpt2", "", null, 10, 0, 0, 0, 0, 0, false, false);

        assertThat(PromptTemplate.forDataset(chat, VOCABULARY))
                .isEqualTo(new ChatTemplate("the model's", "{{ messages }}", ""));
        assertThatExceptionOfType(DataException.class)
                .isThrownBy(() -> PromptTemplate.forDataset(chat, without))
                .withMessageContaining("the model has no chat template; choose a chat template: chatml, gemma, ");
    }

    @Test
    void hasAPlaceForASystemPrompt() {
        DataRecord record = new DataRecord("Be brief.", "A", "", "B", null, 0);
        TextTemplate own = new TextTemplate("own", "<{system}|{instruction}>", "{instruction}{input}", false);

        assertThat(own.segments(record).get(0).text()).isEqualTo("<Be brief.|A>");
        assertThat(PromptTemplate.PLAIN.segments(record).get(0).text()).isEqualTo("Be brief.\n\nA");
    }

    @Test
    void refusesATemplateWithoutAPlaceForThePrompt() {
        assertThatExceptionOfType(InvalidArgumentException.class)
                .isThrownBy(() -> new TextTemplate("mine", "Answer: ", "{instruction}{input}", false))
                .withMessage("template \"mine\" has no {instruction} in it");
        assertThatExceptionOfType(InvalidArgumentException.class)
                .isThrownBy(() -> PromptTemplate.named("alpaca"))
                .withMessageContaining("instruction and plain");
    }
}
