package dev.lorica.cli;

import dev.lorica.Tokenizer;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.files.AtomicFile;
import java.io.IOException;
import java.nio.charset.CharacterCodingException;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;

/**
 * Tokens of a file, one a line.
 *
 * @param added those that the vocabulary of a model has not
 * @param known the others
 * @param first the id of the first that is added
 */
record AddedTokens(List<String> added, List<String> known, int first) {
    /**
     * @param option that names the file
     * @throws LoricaException if none of them is new
     */
    static AddedTokens read(String option, Path file, Path model) {
        List<String> added;
        try {
            added = new ArrayList<>(Files.readAllLines(file).stream()
                    .map(line -> line.replace("\uFEFF", "").strip()) // which editors of Windows put before a text
                    .filter(token -> !token.isEmpty())
                    .distinct()
                    .toList());
        } catch (NoSuchFileException e) {
            throw new FileAccessException(option + " " + file + " does not exist", e);
        } catch (CharacterCodingException e) {
            throw new FileFormatException(option + " " + file + " is not valid UTF-8", e);
        } catch (IOException e) {
            throw new FileAccessException(option + " " + file + " cannot be read: " + AtomicFile.reason(e), e);
        }
        List<String> known = new ArrayList<>();
        int first;
        try (Tokenizer tokenizer = Tokenizer.load(model)) {
            first = tokenizer.info().vocabSize();
            added.stream().filter(token -> isKnown(tokenizer, token)).forEach(known::add);
        }
        added.removeAll(known);
        if (added.isEmpty()) {
            throw new LoricaException(option + " " + file + " has no token that is not in the vocabulary already"
                    + (known.isEmpty() ? "" : ": " + String.join(", ", known)));
        }
        return new AddedTokens(List.copyOf(added), List.copyOf(known), first);
    }

    /** Says which of them were there. */
    void noteKnown(Terminal terminal) {
        if (!known.isEmpty()) {
            terminal.err().println("note: in the vocabulary already: " + String.join(", ", known));
        }
    }

    /** Whether it is one token already, or the name of one that texts do not give. */
    private static boolean isKnown(Tokenizer tokenizer, String token) {
        int[] ids = tokenizer.encode(token, false, true);
        if (ids.length == 1 && tokenizer.decode(ids, true).equals(token)) {
            return true;
        }
        for (int id = 0; id < tokenizer.info().vocabSize(); id++) {
            if (tokenizer.tokenText(id).equals(token)) {
                return true;
            }
        }
        return false;
    }
}
