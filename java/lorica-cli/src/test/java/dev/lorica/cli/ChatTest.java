package dev.lorica.cli;

import static org.assertj.core.api.Assertions.assertThat;
import static org.junit.jupiter.api.Assumptions.assumeTrue;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.data.Dataset;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.nio.file.attribute.PosixFilePermissions;
import java.util.List;
import java.util.Map;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.io.TempDir;

/** A conversation, at a terminal and without one. */
class ChatTest {
    /** As xterm sends them to a program that has asked for its application mode. */
    private static final String LEFT = "\u001bOD";

    private static final String UP = "\u001bOA";
    private static final String BACKSPACE = "\u007f";
    private static final String CTRL_A = "\u0001";
    private static final String CTRL_C = "\u0003";
    private static final String CTRL_D = "\u0004";
    private static final String CTRL_R = "\u0012";

    @TempDir
    static Path folder;

    private static Path adapter;

    @BeforeAll
    static void train() throws IOException {
        Path data = Files.writeString(
                folder.resolve("data.json"), "[{\"question\": \"Who?\", \"answer\": \"He is a clergyman.\"}]");
        adapter = Program.adapter(folder.resolve("adapter"), data, "--chat-template=chatml");
    }

    private static PseudoTerminal chat(String... more) throws IOException {
        assumeTrue(PseudoTerminal.isThere(), "script of util-linux is not there, so nothing is typed at a terminal");
        return new PseudoTerminal(
                Map.of("XDG_STATE_HOME", folder.resolve("state").toString()),
                Program.with(new String[] {"chat", "-m", Program.model(), "--chat-template", "chatml"}, more));
    }

    /** The questions and answers of the one conversation in a file. */
    private static List<String> saved(Path file) throws IOException {
        List<String> lines = Files.readAllLines(file);
        JsonNode last = new ObjectMapper().readTree(lines.get(lines.size() - 1));
        return last.get("messages").findValuesAsText("content");
    }

    @Test
    void linesAreEditedAndComeBackInTheNextConversation() throws Exception {
        Path first = folder.resolve("edited.jsonl");
        try (PseudoTerminal terminal = chat("-n", "4")) {
            terminal.until("> ");
            terminal.enter("Who iz" + BACKSPACE + "s it, the man" + LEFT.repeat(3) + "old " + CTRL_A + "So: ");
            terminal.until("tok/s");
            terminal.until("> ");
            terminal.type("this is given up");
            terminal.until("this is given up");
            terminal.type(CTRL_C);
            terminal.until("> ");
            terminal.enter(UP);
            terminal.until("tok/s");
            terminal.enter("/sav\t" + first); // Tab completes, and sets a space
            terminal.until("added to " + first);
            terminal.until("> "); // before it the terminal itself would take Ctrl-D
            terminal.type(CTRL_D);
            assertThat(terminal.exitCode()).isZero();
        }
        String question = "So: Who is it, the old man";
        assertThat(saved(first)).hasSize(4).contains(question, org.assertj.core.api.Assertions.atIndex(0));
        assertThat(saved(first).get(2)).as("by the arrow key").isEqualTo(question);

        Path history = folder.resolve("state/lorica/chat_history");
        assertThat(history).content().contains(question).doesNotContain("given up");
        assertThat(PosixFilePermissions.toString(Files.getPosixFilePermissions(history)))
                .isEqualTo("rw-------");

        Path second = folder.resolve("again.jsonl");
        try (PseudoTerminal terminal = chat("-n", "4")) {
            terminal.until("> ");
            terminal.type(CTRL_R + "the old");
            terminal.until("So: Who is it");
            terminal.enter("");
            terminal.until("tok/s");
            terminal.enter("/save " + second);
            terminal.until("added to " + second);
            terminal.enter("/quit");
            assertThat(terminal.exitCode()).isZero();
        }
        assertThat(saved(second)).hasSize(2).startsWith(question);
    }

    @Test
    void ctrlCStopsAnAnswerAndTheConversationGoesOn() throws Exception {
        Path file = folder.resolve("stopped.jsonl");
        int tries = 0;
        while (!stopsAnAnswer(file)) {
            assertThat(++tries).as("answers that ended by themselves").isLessThan(20);
        }
        assertThat(saved(file))
                .hasSize(4)
                .element(1)
                .asString()
                .as("as far as it came")
                .isNotBlank();
    }

    /** False where the answer was complete before it could be stopped: it takes less than half a second. */
    private static boolean stopsAnAnswer(Path file) throws Exception {
        try (PseudoTerminal terminal = chat("-n", "100000")) {
            terminal.until("> ");
            terminal.enter("Tell me a long story.");
            terminal.until("Tell me a long story.");
            terminal.until("\n"); // of the line; what comes then is the answer
            terminal.until(" ");
            terminal.type(CTRL_C);
            terminal.until("tok/s");
            if (!terminal.until("ended by Ctrl-C", "context is full", "> ").endsWith("Ctrl-C")) {
                return false;
            }
            terminal.enter("/set max-tokens 3");
            terminal.until("max-tokens 3");
            terminal.enter("And then?");
            assertThat(terminal.until("tok/s")).containsPattern("[1-3] tokens? in");
            terminal.enter("/save " + file);
            terminal.until("added to");
            terminal.until("> ");
            terminal.type(CTRL_D);
            assertThat(terminal.exitCode()).isZero();
            return true;
        }
    }

    @Test
    void everyCommandDoesWhatItSays() throws Exception {
        Path file = folder.resolve("commands.jsonl");
        try (PseudoTerminal terminal = chat("--temperature", "1", "--top-k", "0", "-n", "6")) {
            terminal.until("> ");
            terminal.enter("/help");
            assertThat(terminal.until("Ctrl-C stops an answer"))
                    .contains("/adapter", "/compare", "/set", "/system", "/retry", "/undo", "/clear", "/save", "/quit");
            terminal.enter("/adapter");
            terminal.until("no adapter: the base alone");
            terminal.enter("/compare Who?");
            terminal.until("error: there is nothing to compare the base with");
            terminal.enter("/adapter " + adapter + ":2");
            terminal.until("from now on with " + adapter + ":2");
            terminal.enter("/system Be brief.");
            terminal.until("the system prompt is another from now on");
            terminal.enter("/system");
            terminal.until("Be brief.\n");
            terminal.enter("/set temperature 0.3");
            terminal.until("temperature 0.3\n");
            terminal.enter("/set temperature warm");
            terminal.until("'--temperature' 'warm' is not a number");
            terminal.enter("/set top_p 7");
            terminal.until("error: ");
            terminal.enter("/set");
            assertThat(terminal.until("  seed ")).contains("temperature 0.3", "top-p 0.95", "max-tokens 6");
            terminal.enter("/compare Who is it?");
            assertThat(terminal.until("; tuned: ")).contains(" │ " + adapter + ":2", "─┼─");
            terminal.until("tok/s");
            terminal.enter("/set temperature 2");
            terminal.until("temperature 2");
            terminal.enter("/save " + file);
            terminal.until("added to");
            terminal.enter("/retry");
            terminal.until("tok/s");
            terminal.enter("/save " + file);
            terminal.until("added to");
            terminal.enter("Dropped?");
            terminal.until("tok/s");
            terminal.enter("/undo");
            terminal.until("taken back: Dropped?");
            terminal.enter("/save " + file);
            terminal.until("added to");
            terminal.enter("/retri");
            terminal.until("there is no /retri; did you mean /retry?");
            terminal.enter("/clear");
            terminal.until("a new conversation begins");
            terminal.enter("/undo");
            terminal.until("nothing was asked yet");
            terminal.enter("/adapter none");
            terminal.until("the base alone from now on");
            terminal.enter("/adapter " + folder.resolve("nothing"));
            terminal.until("does not exist");
            terminal.enter("//etc is what?");
            terminal.until("tok/s");
            terminal.enter("/quit");
            assertThat(terminal.exitCode()).isZero();
        }
        List<String> lines = Files.readAllLines(file);
        assertThat(lines).hasSize(3);
        assertThat(lines.get(1)).as("another answer").isNotEqualTo(lines.get(0));
        assertThat(lines.get(2)).as("taken back").isEqualTo(lines.get(1));
        assertThat(saved(file)).hasSize(3).startsWith("Be brief.", "Who is it?");
        assertThat(Dataset.load(file).size()).as("train reads it").isEqualTo(3);
    }

    @Test
    void aFullContextLetsTheOldestTurnsGo() throws Exception {
        try (PseudoTerminal terminal = chat("-n", "4", "--temperature", "0")) {
            terminal.until("> ");
            String question = "It is a truth universally acknowledged that a single man ".repeat(9);
            for (int i = 0; i < 3; i++) {
                terminal.enter(question);
                terminal.until("tok/s");
            }
            terminal.enter(question + "!");
            terminal.until("note: the conversation is longer"); // in two lines, at this width
            terminal.until("tok/s");
            terminal.enter("Who?");
            terminal.until("tok/s");
            terminal.until("> ");
            terminal.type(CTRL_D);
            assertThat(terminal.exitCode()).isZero();
        }
    }

    @Test
    void withoutATerminalEveryLineIsAQuestionOrACommandAndAFailureIsTheExitCode() {
        String[] command = {
            "chat", "-m", Program.model(), "-a", adapter.toString(), "-n", "4", "--temperature", "0", "--json"
        };
        Program chat = Program.runWithInput("Who?\n\n/compare\n/set max-tokens 1\nWho?\n", command)
                .succeeds();
        List<JsonNode> objects = chat.out().lines().map(ChatTest::json).toList();
        assertThat(objects).hasSize(3);
        assertThat(objects.get(1).get("tuned").get("text"))
                .isEqualTo(objects.get(0).get("text"));
        assertThat(objects.get(1).get("base").get("generated_tokens").asInt()).isPositive();
        assertThat(objects.get(2).get("generated_tokens").asInt()).isEqualTo(1);

        Program failing = Program.runWithInput("/undo\nWho?\n", command);
        assertThat(failing.exitCode()).isEqualTo(ExitCode.FAILED);
        assertThat(failing.err()).contains("error: nothing was asked yet");
        assertThat(failing.out()).as("it went on").contains("generated_tokens");
        Program.run(Program.with(command, "--n", "2")).failsWith(ExitCode.FAILED, "--n is not for a conversation");
    }

    private static JsonNode json(String line) {
        try {
            return new ObjectMapper().readTree(line);
        } catch (IOException e) {
            throw new AssertionError(line, e);
        }
    }

    @Test
    void anEncoderIsRefusedBeforeAQuestionIsAsked() throws Exception {
        String model = Program.encoder(folder);
        Program.run("chat", "--model=" + model).failsWith(ExitCode.FAILED, "architecture 'bert' is an encoder");
    }
}
