package dev.lorica.cli;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.data.Conversation;
import dev.lorica.data.DataRecord;
import dev.lorica.data.ExampleEncoder;
import dev.lorica.data.Message;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.Arrays;
import java.util.List;
import java.util.Map;

/** What the assistant may call, as {@code --tools} says. */
final class Tools {
    private Tools() {}

    /** A JSON list of objects. */
    static List<?> read(Path file) {
        Misnamed.check(file, Misnamed.What.DATA);
        try {
            Object tools = new ObjectMapper().readValue(Files.readAllBytes(file), Object.class);
            if (!(tools instanceof List<?> list)
                    || list.isEmpty()
                    || !list.stream().allMatch(Map.class::isInstance)) {
                throw new FileFormatException("--tools " + file + " is not a JSON list of tools, each an object");
            }
            return list;
        } catch (JacksonException e) {
            throw new FileFormatException(
                    "--tools " + file + " is not JSON: "
                            + e.getOriginalMessage().lines().findFirst().orElse(""),
                    e);
        } catch (NoSuchFileException e) {
            throw new FileAccessException("--tools " + file + " does not exist", e);
        } catch (IOException e) {
            throw new FileAccessException("--tools " + file + " cannot be read: " + AtomicFile.reason(e), e);
        }
    }

    /** Whether the template says anything of them. */
    static boolean areShown(ExampleEncoder encoder, Object tools) {
        List<Message> question = List.of(Message.user("?"));
        return !Arrays.equals(
                encoder.prompt(DataRecord.conversation(new Conversation(question, tools))),
                encoder.prompt(DataRecord.conversation(new Conversation(question, null))));
    }
}
