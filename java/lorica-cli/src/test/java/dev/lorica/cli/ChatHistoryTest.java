package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;

import dev.lorica.Tokenizer;
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

        history.ask("A?");
        history.answered("B.");

        assertThat(history.ask("C?").messages())
                .containsExactly(Message.system("S"), Message.user("A?"), Message.assistant("B."), Message.user("C?"));
        assertThat(notes).isEmpty();
    }

    @Test
    void theOldestTurnsGoWhenTheContextIsFullAndThatIsSaidOnce() {
        ChatHistory history = history(ChatTemplate.named("chatml").orElseThrow(), "S", 200);
        List<Message> asked = List.of();
        for (int i = 0; i < 10; i++) {
            asked = history.ask("Question " + i + ": " + "who is it? ".repeat(5))
                    .messages();
            history.answered("He is a clergyman.");
        }

        assertThat(asked).hasSizeBetween(2, 19).startsWith(Message.system("S"));
        assertThat(asked.get(1).content()).startsWith("Question ").doesNotStartWith("Question 0");
        assertThat(asked.get(asked.size() - 1).content()).startsWith("Question 9");
        assertThat(notes).singleElement().asString().contains("the oldest turns are left out");
    }

    @Test
    void withATemplateForSingleQuestionsEachIsAskedByItselfAndThatIsSaidOnce() {
        ChatHistory history = history(PromptTemplate.INSTRUCTION, null, 1000);

        history.ask("A?");
        history.answered("B.");

        assertThat(history.ask("C?").messages()).containsExactly(Message.user("C?"));
        assertThat(notes).singleElement().asString().contains("each is asked by itself");
    }

    @Test
    void aConversationWithAnAdapterThatIsTrainedTheDefaultWayGoesOn() {
        Program chat = Program.runWithInput(
                "Who is Mr. Collins?\nWhose cousin?\n", "generate", "-m", Program.model(), "--chat", "-n", "4");

        chat.succeeds();
        assertThat(chat.out().lines().filter(line -> !line.isBlank()).count()).isGreaterThanOrEqualTo(1);
        assertThat(chat.err()).containsOnlyOnce("each is asked by itself");
    }

    private ChatHistory history(PromptTemplate template, String system, int context) {
        return new ChatHistory(template, system, null, tokenizer, context, 50, notes::add);
    }
}
