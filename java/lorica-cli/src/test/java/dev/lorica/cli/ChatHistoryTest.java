package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Tokenizer;
import dev.lorica.cli.ChatHistory.Turn;
import dev.lorica.data.ChatTemplate;
import dev.lorica.data.Message;
import dev.lorica.data.PromptTemplate;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;

class ChatHistoryTest {
    private static Tokenizer tokenizer;

    private final List<String> notes = new ArrayList<>();

    @BeforeAll
    static void load() {
        tokenizer = Tokenizer.load(Path.of(Program.model()));
    }

    @AfterAll
    static void close() {
        tokenizer.close();
    }

    @Test
    void allThatWasSaidIsAskedWith() {
        ChatHistory history = history(ChatTemplate.named("chatml").orElseThrow(), "S", 1000);
        history.add(new Turn("A?", "B."));

        String asked = asked(history, "C?");
        assertThat(asked).containsSubsequence("S", "A?", "B.", "C?", "assistant");
        assertThat(history.all().messages())
                .containsExactly(Message.system("S"), Message.user("A?"), Message.assistant("B."));
        assertThat(notes).isEmpty();
    }

    @Test
    void theOldestTurnsGoWhenTheContextIsFullAndThatIsSaidOnce() {
        ChatHistory history = history(ChatTemplate.named("chatml").orElseThrow(), "S", 200);
        String asked = "";
        for (int i = 0; i < 10; i++) {
            String question = "Question " + i + ": " + "who is it? ".repeat(5);
            asked = asked(history, question);
            history.add(new Turn(question, "He is a clergyman."));
        }

        assertThat(asked).contains("S", "Question 9").doesNotContain("Question 0", "Question 5");
        assertThat(notes).singleElement().asString().contains("the oldest turns are left out");
        assertThat(history.all().messages()).hasSize(21);

        for (int i = 0; i < 9; i++) {
            history.undo();
        }
        assertThat(asked(history, "Again?")).contains("Question 0", "Again?").doesNotContain("Question 1");
    }

    @Test
    void withATemplateForSingleQuestionsEachIsAskedByItselfAndThatIsSaidOnce() {
        ChatHistory history = history(PromptTemplate.INSTRUCTION, null, 1000);
        history.add(new Turn("A?", "B."));

        assertThat(asked(history, "C?")).contains("C?").doesNotContain("A?", "B.");
        assertThat(notes).singleElement().asString().contains("each is asked by itself");
    }

    @Test
    void anotherSystemPromptAndTemplateHoldFromTheNextQuestionOn() {
        ChatHistory history = history(ChatTemplate.named("chatml").orElseThrow(), "S", 1000);
        history.add(new Turn("A?", "B."));

        history.system("Other");
        history.use(ChatTemplate.named("zephyr").orElseThrow());
        assertThat(asked(history, "C?"))
                .contains("<|user|>", "Other", "A?", "B.", "C?")
                .doesNotContain("im_start", "S\n");
        history.system(null);
        history.clear();
        assertThat(asked(history, "C?")).doesNotContain("Other", "A?");
    }

    @Test
    void aConversationWithAnAdapterThatIsTrainedTheDefaultWayGoesOn() {
        Program chat =
                Program.runWithInput("Who is Mr. Collins?\nWhose cousin?\n", "chat", "-m", Program.model(), "-n", "4");

        chat.succeeds();
        assertThat(chat.out().lines().filter(line -> !line.isBlank()).count()).isGreaterThanOrEqualTo(1);
        assertThat(chat.err()).containsOnlyOnce("each is asked by itself");
    }

    private ChatHistory history(PromptTemplate template, String system, int context) {
        return new ChatHistory(template, system, null, tokenizer, context, notes::add);
    }

    private static String asked(ChatHistory history, String question) {
        return tokenizer.decode(history.with(question, 50).orElseThrow());
    }
}
