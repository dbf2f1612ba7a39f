package dev.lorica.data;

import java.util.Collections;
import java.util.List;
import java.util.Map;
import java.util.TreeMap;

/**
 * What became of a data set on its way to tokens. {@code records = examples + empty + dropped + unshown}, unless one record gives several
 * examples, as a text in windows does, or a conversation whose template is not stable.
 *
 * @param name            the file it came from, {@code ""} for records from elsewhere
 * @param format          {@code json}, {@code jsonl}, {@code csv}, {@code parquet}, {@code text} or {@code memory}
 * @param fields          the fields used
 * @param template        the template used
 * @param records         records read
 * @param withInput       records whose prompt came with an input
 * @param examples        examples left to train on
 * @param empty           records left out because there is nothing in them to learn
 * @param maxLength       the most tokens that an example may have
 * @param overLong        examples that have more
 * @param truncated       those of them that were cut to {@code maxLength}
 * @param dropped         those of them that were left out
 * @param longest         tokens of the longest example, before anything was cut or left out
 * @param longestLine     the line of the file on which it begins, 0 when it comes from no file
 * @param tokens          tokens of all examples
 * @param trainedTokens   those of them that are trained on
 * @param duplicates      examples with the very tokens of one before; −1: too many examples to tell
 * @param unstable        conversations of which every turn became an example, because the template writes a turn otherwise later
 * @param turnsWithoutEnd turns of the assistant that the template ends with no token of the vocabulary that ends a generation
 * @param unshown         conversations left out because the template cannot show them
 * @param firstUnshown    the first of them: file, line, turn and reason; {@code null}: there is none
 * @param emptyTurns      turns of the assistant that are not learned because the template shows nothing of what is in them
 * @param notShown        what conversations hold that the template does not show, by name, and how often
 * @param unusedFields    fields of the first record that nothing is made of
 * @param endsWithEos     whether examples end with EOS; only a vocabulary without one makes that false
 * @param lengths         how long the examples are, before anything was cut or left out
 * @param sample          the first example, decoded again from its tokens
 * @param pairs           of pairs: what was odd about some; {@code null}: the data are none
 * @param rejectedSample  of pairs: the worse side of the first; {@code sample} is the better one
 */
public record DataReport(
        String name,
        String format,
        DataFields fields,
        PromptTemplate template,
        long records,
        long withInput,
        int examples,
        long empty,
        int maxLength,
        long overLong,
        long truncated,
        long dropped,
        int longest,
        long longestLine,
        long tokens,
        long trainedTokens,
        long duplicates,
        long unstable,
        long turnsWithoutEnd,
        long unshown,
        String firstUnshown,
        long emptyTurns,
        Map<String, Long> notShown,
        List<String> unusedFields,
        boolean endsWithEos,
        Lengths lengths,
        List<Stretch> sample,
        PairReport pairs,
        List<Stretch> rejectedSample) {

    /**
     * Text of neighbouring tokens that are all trained on, or all not. Control tokens are spelled out.
     *
     * @param text    the text
     * @param trained whether the tokens are trained on
     */
    public record Stretch(String text, boolean trained) {}

    /** Copies the lists and the map. */
    public DataReport {
        sample = List.copyOf(sample);
        rejectedSample = List.copyOf(rejectedSample);
        notShown = Collections.unmodifiableMap(new TreeMap<>(notShown));
        unusedFields = List.copyOf(unusedFields);
    }

    /** Of a part of the examples. */
    DataReport ofPart(String name, int examples, long tokens, long trainedTokens) {
        return new DataReport(
                name,
                format,
                fields,
                template,
                records,
                withInput,
                examples,
                empty,
                maxLength,
                overLong,
                truncated,
                dropped,
                longest,
                longestLine,
                tokens,
                trainedTokens,
                duplicates,
                unstable,
                turnsWithoutEnd,
                unshown,
                firstUnshown,
                emptyTurns,
                notShown,
                unusedFields,
                endsWithEos,
                lengths,
                sample,
                pairs,
                rejectedSample);
    }
}
