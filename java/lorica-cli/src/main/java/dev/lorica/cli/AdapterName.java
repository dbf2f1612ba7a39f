package dev.lorica.cli;

import dev.lorica.Model;
import dev.lorica.ModelConfig;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.exceptions.LoricaException;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * An adapter as {@code --adapter} names it: {@code DIR|FILE}, or {@code DIR|FILE:SCALE}.
 *
 * @param scale multiplies its effect; 1 when none is given
 */
record AdapterName(Path path, double scale) {
    /** What {@code --adapter} says where several may be given. */
    static final String DESCRIPTION =
            "May be given several times, to apply their sum; each with a scale if you like: my-adapter:0.5.";

    private static final Pattern WITH_SCALE = Pattern.compile("(.+):([-+]?(?:\\d+\\.?\\d*|\\.\\d+)(?:[eE][-+]?\\d+)?)");

    static AdapterName of(String text) {
        Matcher matcher = WITH_SCALE.matcher(text);
        // A file that is really called that comes first.
        Path whole = FileName.of(text);
        return !matcher.matches() || Files.exists(whole)
                ? new AdapterName(whole, 1)
                : new AdapterName(Path.of(matcher.group(1)), Double.parseDouble(matcher.group(2)));
    }

    /** The files and folders of the adapters, on this machine. */
    static List<Path> paths(Terminal terminal, List<String> names) {
        return names.stream()
                .map(name -> HubFiles.adapter(terminal, of(name).path))
                .toList();
    }

    /** The model, with the tokens that these adapters have added to its vocabulary. */
    static Model base(Terminal terminal, Path name, ModelConfig config, List<String> names) {
        return baseOf(terminal, name, config, paths(terminal, names));
    }

    /** @param adapters files and folders; none of them is {@code null} */
    static Model baseOf(Terminal terminal, Path name, ModelConfig config, List<Path> adapters) {
        Path model = HubFiles.model(terminal, name);
        return Model.load(model, config.withAddedTokens(addedTokens(model, adapters)));
    }

    /** @throws LoricaException if two of them have added other tokens: one vocabulary has no room for both */
    static List<String> addedTokens(Path model, List<Path> adapters) {
        List<String> tokens = List.of();
        Path owner = null;
        for (Path adapter : adapters) {
            List<String> own = Adapter.addedTokens(adapter, model);
            if (!own.isEmpty() && owner != null && !own.equals(tokens)) {
                throw new LoricaException("the adapters " + owner + " and " + adapter
                        + " have added other tokens to the vocabulary; take one of them");
            }
            if (!own.isEmpty()) {
                tokens = own;
                owner = adapter;
            }
        }
        return tokens;
    }

    /** The one adapter, or the sum of several; {@code null} when there are no names. */
    static Adapter load(Terminal terminal, Model base, List<String> names) {
        List<AdapterName> wanted = names.stream().map(AdapterName::of).toList();
        if (wanted.isEmpty()) {
            return null;
        }
        if (wanted.size() == 1 && wanted.get(0).scale == 1) {
            return Adapter.load(base, HubFiles.adapter(terminal, wanted.get(0).path));
        }
        List<ScaledAdapter> parts = loadEach(terminal, base, names);
        try {
            return Adapter.stack(base, parts);
        } finally {
            close(parts);
        }
    }

    /** Each of them by itself; when one cannot be loaded none is. */
    static List<ScaledAdapter> loadEach(Terminal terminal, Model base, List<String> names) {
        List<ScaledAdapter> parts = new ArrayList<>();
        try {
            for (AdapterName name : names.stream().map(AdapterName::of).toList()) {
                parts.add(new ScaledAdapter(Adapter.load(base, HubFiles.adapter(terminal, name.path)), name.scale));
            }
            return parts;
        } catch (RuntimeException e) {
            close(parts);
            throw e;
        }
    }

    static void close(List<ScaledAdapter> adapters) {
        adapters.forEach(one -> one.adapter().close());
    }
}
