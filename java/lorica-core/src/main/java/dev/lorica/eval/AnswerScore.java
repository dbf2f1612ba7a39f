package dev.lorica.eval;

import dev.lorica.internal.Arguments;
import java.util.Arrays;
import java.util.HashMap;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/**
 * Compares an answer with the one expected, as SQuAD does (Rajpurkar et al. 2016): in lower case, without punctuation, without
 * the articles a, an and the, word by word.
 */
public final class AnswerScore {
    private AnswerScore() {}

    /**
     * {@return whether both are the same words in the same order}
     *
     * @param answer   what came
     * @param expected what was to come
     */
    public static boolean exactMatch(String answer, String expected) {
        Arguments.given(answer, "answer");
        Arguments.given(expected, "expected");
        return words(answer).equals(words(expected));
    }

    /**
     * {@return the harmonic mean of the share of the answer's words that were expected and the share of the expected words that came, 0 to
     * 1}
     *
     * @param answer   what came
     * @param expected what was to come
     */
    public static double f1(String answer, String expected) {
        Arguments.given(answer, "answer");
        Arguments.given(expected, "expected");
        List<String> given = words(answer);
        List<String> wanted = words(expected);
        if (given.isEmpty() || wanted.isEmpty()) {
            return given.equals(wanted) ? 1 : 0;
        }
        Map<String, Integer> left = new HashMap<>();
        wanted.forEach(word -> left.merge(word, 1, Integer::sum));
        int common = 0;
        for (String word : given) {
            if (left.getOrDefault(word, 0) > 0) {
                left.merge(word, -1, Integer::sum);
                common++;
            }
        }
        return 2.0 * common / (given.size() + wanted.size());
    }

    static List<String> words(String text) {
        String plain = text.toLowerCase(Locale.ROOT).replaceAll("[\\p{Punct}‘’“”–—…]", "");
        return Arrays.stream(plain.split("\\s+"))
                .filter(word -> !word.isEmpty() && !List.of("a", "an", "the").contains(word))
                .toList();
    }
}
