package dev.lorica.cli;

import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;
import picocli.CommandLine.ITypeConverter;
import picocli.CommandLine.TypeConversionException;

/**
 * Names of files and folders as options have them. The empty name, which a shell makes of a variable that is not set, would be the
 * folder that one is in, and of a URL a path would be left that nobody wrote.
 */
final class FileName implements ITypeConverter<Path> {
    private static final Pattern URL = Pattern.compile("[A-Za-z][A-Za-z0-9+.-]+://.*");
    private static final Pattern OF_THE_HUB =
            Pattern.compile("https?://(?:www\\.)?(?:huggingface\\.co|hf\\.co)/(?:datasets/)?([^/?#]+/[^/?#]+)"
                    + "(?:/(?:resolve|blob|raw)/([^/?#]+)/([^?#]+))?/?(?:[?#].*)?");

    @Override
    public Path convert(String text) {
        try {
            return of(text);
        } catch (InvalidArgumentException e) {
            throw new TypeConversionException(e.getMessage());
        }
    }

    /** @throws InvalidArgumentException if it can be no name of a file here */
    static Path of(String text) {
        if (text.isEmpty()) {
            throw new InvalidArgumentException("a name of a file or folder is missing: it is empty");
        }
        if (URL.matcher(text).matches()) {
            throw new InvalidArgumentException(text + " is a URL; files of this machine are meant, or " + onTheHub(text)
                    + " on Hugging Face's hub");
        }
        return Path.of(text);
    }

    /** What we call the file of a URL there; of others, the form that such names have. */
    private static String onTheHub(String url) {
        Matcher there = OF_THE_HUB.matcher(url);
        if (!there.matches()) {
            return "hf:OWNER/REPO";
        }
        String revision = there.group(2) == null || there.group(2).equals("main") ? "" : "@" + there.group(2);
        return "hf:" + there.group(1) + revision + (there.group(3) == null ? "" : ":" + there.group(3));
    }
}
