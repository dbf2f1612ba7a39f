package dev.lorica.data;

import com.fasterxml.jackson.core.JsonProcessingException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import dev.lorica.Model;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import dev.lorica.internal.Inner;
import java.io.Serializable;
import java.util.ArrayList;
import java.util.Comparator;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;
import java.util.TreeSet;

/**
 * What a classifier is to say of a text: one of several classes, several of them at once, or a number.
 *
 * @param problem which of these
 * @param names   of the classes, in the order of the outputs; none where numbers are meant
 */
public record Labels(Problem problem, List<String> names) implements Serializable {
    private static final ObjectMapper JSON = new ObjectMapper();

    /** So many labels of one text go into the number that stands for them. */
    private static final int MOST_AT_ONCE = 24;

    /** By transformers' names, in lower case. */
    public enum Problem {
        /** One class of several: cross-entropy. */
        SINGLE_LABEL_CLASSIFICATION,
        /** Any of several labels at once: binary cross-entropy of each. */
        MULTI_LABEL_CLASSIFICATION,
        /** A number: the square of the difference. */
        REGRESSION;

        /**
         * {@return the kind of labels of this name, as transformers has it in {@code problem_type}}
         *
         * @param name the name, {@code single_label_classification}
         * @throws InvalidArgumentException naming those that there are
         */
        public static Problem of(String name) {
            for (Problem problem : values()) {
                if (problem.toString().equals(Arguments.given(name, "name"))) {
                    return problem;
                }
            }
            throw new InvalidArgumentException("\"" + name + "\" is no problem of a classifier; there are "
                    + "single_label_classification, multi_label_classification and regression");
        }

        @Override
        public String toString() {
            return name().toLowerCase(Locale.ROOT);
        }
    }

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public Labels {
        Arguments.given(problem, "problem");
        names = Arguments.all(names, "names");
        if (problem != Problem.REGRESSION && names.size() < (problem == Problem.MULTI_LABEL_CLASSIFICATION ? 1 : 2)) {
            throw new InvalidArgumentException("a classifier needs at least two classes"
                    + (names.isEmpty() ? "" : "; there is only \"" + names.get(0) + "\""));
        }
        if (problem == Problem.MULTI_LABEL_CLASSIFICATION && names.size() > MOST_AT_ONCE) {
            throw new InvalidArgumentException(
                    names.size() + " labels at once are too many; up to " + MOST_AT_ONCE + " are supported");
        }
        if (new HashSet<>(names).size() < names.size()) {
            throw new InvalidArgumentException("a label is named twice among " + Dataset.quoted(names));
        }
    }

    /**
     * Those of a classifier that knows what its outputs are called.
     *
     * @param outputs of the classifier; 0: there is none
     * @param problem transformers' problem_type; {@code ""}: it does not say
     * @param names   of the outputs; none: they have no names
     * @return {@code null} where there is no classifier
     */
    public static Labels of(int outputs, String problem, List<String> names) {
        Arguments.given(problem, "problem");
        Arguments.all(names, "names");
        if (outputs < 1) {
            return null;
        }
        Problem known = !problem.isEmpty()
                ? Problem.of(problem)
                : outputs == 1 ? Problem.REGRESSION : Problem.SINGLE_LABEL_CLASSIFICATION;
        if (known == Problem.REGRESSION) {
            return new Labels(known, List.of());
        }
        List<String> called = new ArrayList<>(names);
        for (int i = called.size(); i < outputs; i++) {
            called.add("LABEL_" + i);
        }
        return new Labels(known, called);
    }

    /** {@return of a reward model: one number, the more the better} */
    public static Labels reward() {
        return new Labels(Problem.REGRESSION, List.of());
    }

    /**
     * {@return those of the classifier in a model's file; {@code null} where there is none}
     *
     * @param model the model
     */
    public static Labels of(Model model) {
        return Inner.MODEL
                .of(Arguments.given(model, "model"))
                .classifier((isEncoder, outputs, type, problem, names) -> of(outputs, problem, names));
    }

    /** {@return numbers that the classifier gives for a text} */
    public int outputs() {
        return problem == Problem.REGRESSION ? 1 : names.size();
    }

    /**
     * {@return what the labels of data are: lists are several at once, whole numbers and words are classes, other numbers are what they
     * are} Classes are in the order of their numbers, or of the alphabet.
     *
     * @param data the data sets, of which all records have a label
     * @throws DataException where some are of one kind and some of another, or there is only one class
     */
    public static Labels of(List<Dataset> data) {
        Arguments.check(!Arguments.all(data, "data").isEmpty(), "data", "empty", "at least one set");
        Set<String> names = new TreeSet<>();
        boolean anyList = false;
        String fraction = null;
        String word = null;
        String single = null;
        for (Dataset set : data) {
            if (!set.fields().isClasses()) {
                throw new InvalidArgumentException(set.name() + " has no labels; load it as records of kind CLASSES");
            }
            try (Dataset.Records records = set.open()) {
                while (records.hasNext()) {
                    DataRecord record = records.next();
                    String label = record.response();
                    List<String> several = several(label);
                    if (several != null) {
                        anyList = true;
                        names.addAll(several);
                        continue;
                    }
                    names.add(label);
                    single = single == null ? record.where(set.name()) + ": the label is \"" + label + "\"" : single;
                    boolean isFraction = isNumber(label) && !isWhole(label);
                    fraction = fraction == null && isFraction ? record.where(set.name()) : fraction;
                    word = word == null && !isNumber(label) ? label : word;
                }
            }
        }
        String name = data.get(0).name();
        if (anyList && single != null) {
            throw new DataException(single + ", and others are lists of labels");
        }
        if (anyList) {
            return new Labels(Problem.MULTI_LABEL_CLASSIFICATION, List.copyOf(names));
        }
        if (fraction != null && word != null) {
            throw new DataException(fraction
                    + ": the label is a number with a fraction, where others are names such as \"" + word + "\"");
        }
        if (fraction != null) {
            return new Labels(Problem.REGRESSION, List.of());
        }
        if (names.size() < 2) {
            throw new DataException(name + ": every label is \""
                    + names.iterator().next() + "\"; a classifier needs at least two classes");
        }
        List<String> sorted = new ArrayList<>(names);
        if (word == null) {
            sorted.sort(Comparator.comparingLong(Long::parseLong));
        }
        return new Labels(Problem.SINGLE_LABEL_CLASSIFICATION, sorted);
    }

    /**
     * {@return the label of a record as one number: which class, the number itself, or a bit for each of several labels}
     *
     * @param record the record
     * @param file   for messages
     * @throws DataException for a label that is none of these
     */
    public float value(DataRecord record, String file) {
        Arguments.given(record, "record");
        Arguments.given(file, "file");
        String label = record.response();
        switch (problem) {
            case REGRESSION -> {
                if (!isNumber(label)) {
                    throw new DataException(record.where(file) + ": the label is \"" + label + "\"; a number is meant");
                }
                return Float.parseFloat(label);
            }
            case SINGLE_LABEL_CLASSIFICATION -> {
                return known(label, record, file);
            }
            default -> {
                List<String> several = several(label);
                int bits = 0;
                for (String one : several == null ? List.of(label) : several) {
                    bits |= 1 << known(one, record, file);
                }
                return bits;
            }
        }
    }

    private int known(String label, DataRecord record, String file) {
        int index = names.indexOf(label);
        if (index < 0) {
            throw new DataException(record.where(file) + ": the label \"" + label
                    + "\" was never seen in training; there are " + Dataset.quoted(names));
        }
        return index;
    }

    /**
     * {@return whether label {@code index} is among those of several that a number stands for}
     *
     * @param value what {@link #value} gave
     * @param index of the label, from 0
     */
    public static boolean has(double value, int index) {
        return ((int) value >> index & 1) == 1;
    }

    private static boolean isWhole(String text) {
        return text.matches("-?\\d{1,18}");
    }

    private static boolean isNumber(String text) {
        return text.matches("-?(\\d+\\.?\\d*|\\.\\d+)([eE][-+]?\\d+)?");
    }

    /** Those of a list; {@code null}: it is none. */
    private static List<String> several(String label) {
        if (!label.startsWith("[")) {
            return null;
        }
        try {
            List<String> names = new ArrayList<>();
            for (JsonNode one : JSON.readTree(label)) {
                names.add(one.asText());
            }
            return names;
        } catch (JsonProcessingException e) {
            return null;
        }
    }
}
