package dev.lorica.jinja;

import dev.lorica.exceptions.LoricaException;

/** A template that is not Jinja, that does what it may not, or that refuses its input. The message is one line. */
public final class JinjaException extends LoricaException {
    private static final long serialVersionUID = 1L;

    /** Characters of a template's own words that are shown. */
    private static final int MOST_SHOWN = 1000;

    private final boolean raised;

    JinjaException(String message) {
        this(message, false);
    }

    private JinjaException(String message, boolean raised) {
        super(oneLine(message));
        this.raised = raised;
    }

    /** What {@code raise_exception} of a template throws: the message is the template's own. */
    static JinjaException raised(String message) {
        return new JinjaException(message, true);
    }

    private static String oneLine(String message) {
        return Texts.brief(message, MOST_SHOWN).strip().replaceAll("\\s*[\\r\\n]\\s*", " ");
    }

    /** Whether the template itself refused its input, by {@code raise_exception}. */
    public boolean isRaised() {
        return raised;
    }

    /** With the line of the template, unless the message has one or is the template's own. */
    JinjaException at(int line) {
        return raised || getMessage().startsWith("line ")
                ? this
                : new JinjaException("line " + line + ": " + getMessage());
    }
}
