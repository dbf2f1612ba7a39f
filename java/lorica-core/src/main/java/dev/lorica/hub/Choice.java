package dev.lorica.hub;

import dev.lorica.exceptions.HubException;
import java.util.List;
import java.util.Locale;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import java.util.stream.Collectors;
import java.util.stream.IntStream;
import java.util.stream.Stream;

/** The rule which file of a repository is meant. */
final class Choice {
    private static final String USUAL_TYPE = "Q4_K_M";
    private static final int MOST_SHOWN = 40;
    /** A file of a model in several files, as llama.cpp names them: its number, from 1, and of how many. */
    private static final Pattern PART = Pattern.compile("-(?<number>\\d{5})-of-(?<count>\\d{5})\\.gguf$");

    private Choice() {}

    /**
     * The GGUF file that a name means: the file of that name; the one of that type; without either the only one there is, or else the one
     * of type Q4_K_M, which is what people take first. Of a model in several files the first.
     */
    static String gguf(HubName name, List<String> files) {
        if (name.file() != null && files.contains(name.file())) {
            if (!isFirst(name.file())) {
                throw new HubException(
                        name.inWords() + ":" + name.file() + " is one of several files of a model; name the first, "
                                + PART.matcher(name.file()).replaceFirst("-00001-of-${count}.gguf"));
            }
            return name.file();
        }
        // Projectors of pictures are no models.
        List<String> all = files.stream()
                .filter(file -> file.toLowerCase(Locale.ROOT).endsWith(".gguf"))
                .filter(file -> !baseName(file).startsWith("mmproj"))
                .filter(Choice::isFirst)
                .sorted()
                .toList();
        if (all.isEmpty()) {
            throw new HubException(name.inWords() + " holds no GGUF file" + instead(name, files));
        }
        String type = name.file() != null ? name.file() : USUAL_TYPE;
        List<String> ofType = all.stream().filter(file -> isOfType(file, type)).toList();
        if (name.file() == null && all.size() == 1) {
            return all.get(0);
        }
        if (ofType.size() == 1) {
            return ofType.get(0);
        }
        String example = name.inWords() + ":" + (ofType.isEmpty() ? all : ofType).get(0);
        if (name.file() != null && ofType.isEmpty()) {
            throw new HubException(name.inWords() + " holds no file \"" + name.file()
                    + "\" and no GGUF file of such a type; it holds " + listed(all));
        }
        throw new HubException(name.inWords() + " holds " + (ofType.isEmpty() ? all : ofType).size() + " GGUF files"
                + (ofType.isEmpty() ? "" : " of type " + type) + "; name one of them, as in " + example + ": "
                + listed(ofType.isEmpty() ? all : ofType));
    }

    /** All files of the model whose first is given: that file alone, for most. */
    static List<String> parts(String first) {
        Matcher part = PART.matcher(first);
        if (!part.find()) {
            return List.of(first);
        }
        return IntStream.rangeClosed(1, Integer.parseInt(part.group("count")))
                .mapToObj(number -> part.replaceFirst(String.format(Locale.ROOT, "-%05d-of-${count}.gguf", number)))
                .toList();
    }

    private static boolean isFirst(String file) {
        Matcher part = PART.matcher(file);
        return !part.find() || Integer.parseInt(part.group("number")) == 1;
    }

    private static boolean isOfType(String file, String type) {
        return Pattern.compile("(?i)(?:^|[-._])" + Pattern.quote(type) + "(?:[-.]|$)")
                .matcher(baseName(file))
                .find();
    }

    private static String baseName(String file) {
        return file.substring(file.lastIndexOf('/') + 1);
    }

    private static String instead(HubName name, List<String> files) {
        if (files.contains("adapter_config.json")) {
            return ", but an adapter, which a model is given beside its own name: " + name.inWords();
        }
        if (files.contains("config.json") && files.stream().anyMatch(file -> file.endsWith(".safetensors"))) {
            return ", but a model in safetensors: lorica convert " + name.inWords() + " model.gguf makes one of it";
        }
        return files.isEmpty() ? "" : "; it holds " + listed(files);
    }

    static String listed(List<String> files) {
        Stream<String> shown = files.stream().limit(MOST_SHOWN);
        return shown.collect(Collectors.joining(", ")) + (files.size() > MOST_SHOWN ? ", …" : "");
    }
}
