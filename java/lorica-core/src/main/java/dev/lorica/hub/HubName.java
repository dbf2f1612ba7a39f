package dev.lorica.hub;

import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.nio.file.Path;
import java.util.regex.Matcher;
import java.util.regex.Pattern;

/**
 * What {@code hf:OWNER/REPO[@REVISION][:FILE]} names: a model or an adapter, or where data are meant a data set.
 *
 * @param owner      the person or organization, {@code meta-llama}
 * @param repository the repository's name without its owner, {@code Llama-3.2-1B}
 * @param revision   a branch, a tag or a commit; {@code main} when none is given
 * @param file       a file or folder in the repository, or a type such as {@code Q4_K_M}, or a part of a data set such as {@code train};
 *                   {@code null} when none is given
 * @param data       whether it is a data set, which the hub keeps apart
 */
public record HubName(String owner, String repository, String revision, String file, boolean data) {
    private static final String PREFIX = "hf:";
    private static final String PART = "[A-Za-z0-9](?:[A-Za-z0-9._-]{0,94}[A-Za-z0-9_])?";
    private static final Pattern FORM = Pattern.compile("hf:(" + PART + ")/(" + PART + ")(?:@([^:@]+))?(?::(.+))?");
    private static final Pattern REVISION = Pattern.compile("[A-Za-z0-9_][A-Za-z0-9._/-]{0,254}");
    private static final Pattern COMMIT = Pattern.compile("[0-9a-f]{40}");

    /**
     * A model or an adapter.
     *
     * @param owner      as {@link #owner()}
     * @param repository as {@link #repository()}
     * @param revision   as {@link #revision()}
     * @param file       as {@link #file()}
     */
    public HubName(String owner, String repository, String revision, String file) {
        this(owner, repository, revision, file, false);
    }

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException if the revision or the file cannot be one, or leads out of the repository
     */
    public HubName {
        Arguments.given(owner, "owner");
        Arguments.given(repository, "repository");
        Arguments.given(revision, "revision");
        if (!isSafe(revision) || !REVISION.matcher(revision).matches()) {
            throw new InvalidArgumentException(
                    "\"" + revision + "\" cannot be a revision: a branch, a tag or a commit is meant");
        }
        if (file != null && !isSafe(file)) {
            throw new InvalidArgumentException("\"" + file + "\" cannot be a file of a repository");
        }
    }

    /**
     * {@return whether a text names something on the hub rather than a file of this machine}
     *
     * @param text what a person typed
     */
    public static boolean is(String text) {
        Arguments.given(text, "text");
        return text.startsWith(PREFIX);
    }

    /**
     * Reads {@code hf:OWNER/REPO[@REVISION][:FILE]}.
     *
     * @param text the name
     * @return what it names; the revision is {@code main} if it has none
     * @throws InvalidArgumentException if it is not of that form
     */
    public static HubName parse(String text) {
        Arguments.given(text, "text");
        Matcher matcher = FORM.matcher(text);
        if (!matcher.matches() || text.contains("..")) {
            throw new InvalidArgumentException("\"" + text + "\" is not of the form hf:OWNER/REPO[@REVISION][:FILE]");
        }
        return new HubName(
                matcher.group(1),
                matcher.group(2),
                matcher.group(3) == null ? "main" : matcher.group(3),
                matcher.group(4));
    }

    static HubName parse(Path path) {
        return parse(path.toString());
    }

    /** {@return {@code OWNER/REPO}} */
    public String id() {
        return owner + "/" + repository;
    }

    /** As the name of a data set. */
    HubName ofData() {
        return new HubName(owner, repository, revision, file, true);
    }

    /** Where on the hub's site it is. */
    String place() {
        return data ? "datasets/" + id() : id();
    }

    /** Whether the revision can never mean anything else. */
    boolean isCommit() {
        return isCommit(revision);
    }

    static boolean isCommit(String text) {
        return text != null && COMMIT.matcher(text).matches();
    }

    HubName at(String newRevision) {
        return new HubName(owner, repository, newRevision, file, data);
    }

    HubName with(String newFile) {
        return new HubName(owner, repository, revision, newFile, data);
    }

    /** A path that stays where it is resolved: relative, without {@code ..}, and a plain name on every system. */
    static boolean isSafe(String path) {
        if (path.isEmpty() || path.length() > 1024 || path.indexOf('\\') >= 0 || path.indexOf(':') >= 0) {
            return false;
        }
        if (path.chars().anyMatch(c -> c < ' ' || c == 127)) {
            return false;
        }
        for (String part : path.split("/", -1)) {
            if (part.isEmpty() || part.equals(".") || part.equals("..")) {
                return false;
            }
        }
        return true;
    }

    /** Without the file. */
    String inWords() {
        return PREFIX + id() + (revision.equals("main") ? "" : "@" + revision);
    }

    @Override
    public String toString() {
        return inWords() + (file == null ? "" : ":" + file);
    }
}
