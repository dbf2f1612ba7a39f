package dev.lorica.adapter;

import dev.lorica.Model;
import dev.lorica.exceptions.InvalidArgumentException;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.regex.Pattern;
import java.util.regex.PatternSyntaxException;

/**
 * Which layers a {@link LoraConfig} means, as the native library takes it: names, with a rank and an alpha of their own where a
 * pattern gives them one. What would have no effect is an error.
 */
final class TargetModules {
    private TargetModules() {}

    static String of(LoraConfig config, Model model) {
        boolean plain = config.rankPattern().isEmpty()
                && config.alphaPattern().isEmpty()
                && config.layersToTransform().isEmpty()
                && config.excludeModules().isEmpty()
                && config.targetModules().stream().noneMatch(TargetModules::isPattern);
        if (plain) {
            return String.join(",", config.targetModules());
        }
        int layers = model.info().layers();
        for (int layer : config.layersToTransform()) {
            if (layer < 0 || layer >= layers) {
                throw new InvalidArgumentException(
                        "layers to transform names layer " + layer + "; this model has layers 0 to " + (layers - 1));
            }
        }
        List<LinearLayer> all = LinearLayer.of(model);
        Map<LinearLayer, String> suffixes = new LinkedHashMap<>();
        List<String> unknown = new ArrayList<>();
        for (String target : config.targetModules()) {
            int colon = isPattern(target) ? -1 : target.indexOf(':');
            String name = colon < 0 ? target : target.substring(0, colon);
            List<LinearLayer> meant = layersOf(name, config.layersToTransform(), all);
            meant.forEach(layer -> suffixes.put(layer, colon < 0 ? "" : target.substring(colon)));
            if (meant.isEmpty()) {
                unknown.add(target);
            }
        }
        exclude(config.excludeModules(), suffixes);
        Map<LinearLayer, Integer> ranks = matches("rank pattern", config.rankPattern(), suffixes.keySet());
        Map<LinearLayer, Double> alphas = matches("alpha pattern", config.alphaPattern(), suffixes.keySet());
        List<String> names = new ArrayList<>();
        suffixes.forEach((layer, given) -> {
            // A pattern says more than a target module's own numbers.
            String[] own = given.split(":");
            Object rank = ranks.containsKey(layer) ? ranks.get(layer) : own.length > 1 ? own[1] : config.rank();
            Object alpha = alphas.containsKey(layer) ? alphas.get(layer) : own.length > 2 ? own[2] : config.alpha();
            names.add(layer.gguf() + ":" + rank + ":" + alpha);
        });
        // The native library knows how to say what names there are.
        names.addAll(unknown);
        return String.join(",", names);
    }

    /** Names as they are; regular expressions as the full names of the layers that they fit. */
    static String named(List<String> targets, Model model) {
        List<LinearLayer> all = LinearLayer.of(model);
        List<String> names = new ArrayList<>();
        for (String target : targets) {
            if (isPattern(target)) {
                layersOf(target, List.of(), all).forEach(layer -> names.add(layer.gguf()));
            } else {
                names.add(target);
            }
        }
        return String.join(",", names);
    }

    /** Each name by itself, of those too that stand together with commas between them. */
    static List<String> split(List<String> targets) {
        List<String> names = new ArrayList<>();
        for (String target : targets) {
            boolean several = target.matches("[\\w.:-]+(\\s*,\\s*[\\w.:-]+)+");
            names.addAll(several ? List.of(target.split("\\s*,\\s*")) : List.of(target));
        }
        return List.copyOf(names);
    }

    /** Whether it is a regular expression, as no name has such signs. */
    private static boolean isPattern(String target) {
        return !target.matches("[\\w.:-]*");
    }

    private static boolean fits(Pattern pattern, LinearLayer layer) {
        return pattern.matcher(layer.peft()).matches()
                || pattern.matcher(layer.gguf()).matches();
    }

    private static void exclude(List<String> excluded, Map<LinearLayer, String> layers) {
        for (String name : excluded) {
            Pattern pattern = isPattern(name) ? whole("exclude modules", name) : null;
            boolean any = layers.keySet()
                    .removeIf(layer -> pattern != null
                            ? fits(pattern, layer)
                            : layer.gguf().equals(name)
                                    || layer.isNamed(name)
                                    || PeftConfig.isNamed(layer.peft(), name));
            if (!any) {
                throw new InvalidArgumentException(
                        "exclude modules \"" + name + "\" fits none of the modules that would be adapted");
            }
        }
        if (!excluded.isEmpty() && layers.isEmpty()) {
            throw new InvalidArgumentException("exclude modules leaves nothing to adapt");
        }
    }

    /** The head is in no layer, of which some may have been chosen. */
    private static boolean isChosen(LinearLayer layer, List<Integer> transformed) {
        return transformed.isEmpty() || layer.isHead() || transformed.contains(layer.index());
    }

    /** The layers that {@code name} stands for; a full name stands for itself, whatever layers are to be transformed. */
    private static List<LinearLayer> layersOf(String name, List<Integer> transformed, List<LinearLayer> all) {
        List<LinearLayer> meant = new ArrayList<>();
        if (isPattern(name)) {
            Pattern pattern = whole("target modules", name);
            all.stream()
                    .filter(layer -> fits(pattern, layer))
                    .filter(layer -> isChosen(layer, transformed))
                    .forEach(meant::add);
            if (meant.isEmpty()) {
                throw new InvalidArgumentException(
                        "target modules \"" + name + "\" fits no layer's whole name, such as "
                                + all.get(0).peft() + " or " + all.get(0).gguf());
            }
            return meant;
        }
        for (LinearLayer layer : all) {
            boolean full =
                    name.equals(layer.gguf()) || name.equals(layer.gguf() + ".weight") || name.equals(layer.peft());
            boolean everywhere =
                    switch (name) {
                        case LoraConfig.ALL_LINEAR -> !layer.isHead();
                        case LoraConfig.DEFAULT_MODULES -> layer.isDefault();
                        default -> layer.isNamed(name);
                    };
            if (full || everywhere && isChosen(layer, transformed)) {
                meant.add(layer);
            }
        }
        return meant;
    }

    /** For each layer the value of the first pattern that fits one of its names, from its end or from a dot on, as in PEFT. */
    private static <T> Map<LinearLayer, T> matches(String what, Map<String, T> patterns, Iterable<LinearLayer> layers) {
        Map<LinearLayer, T> found = new LinkedHashMap<>();
        patterns.forEach((text, value) -> {
            Pattern pattern = compile(what, text);
            boolean any = false;
            for (LinearLayer layer : layers) {
                if (fits(pattern, layer)) {
                    found.putIfAbsent(layer, value);
                    any = true;
                }
            }
            if (!any) {
                throw new InvalidArgumentException(
                        what + " \"" + text + "\" fits none of the modules that are adapted; a name such as "
                                + "v_proj, layers.0.self_attn.v_proj or blk.0.attn_v is meant, or a regular expression for such names");
            }
        });
        return found;
    }

    /** From the end of a name, or from a dot on. */
    private static Pattern compile(String what, String text) {
        whole(what, text);
        return Pattern.compile("(.*\\.)?(" + text + ")");
    }

    private static Pattern whole(String what, String text) {
        try {
            return Pattern.compile(text);
        } catch (PatternSyntaxException e) {
            throw new InvalidArgumentException(
                    what + " \"" + text + "\" is no regular expression: " + e.getDescription());
        }
    }
}
