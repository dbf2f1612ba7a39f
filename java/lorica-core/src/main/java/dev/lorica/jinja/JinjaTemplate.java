package dev.lorica.jinja;

import java.time.LocalDate;
import java.util.ArrayList;
import java.util.List;
import java.util.Map;
import java.util.Objects;

/**
 * A template, compiled. It renders as Jinja2 does in transformers: {@code trim_blocks} and {@code lstrip_blocks} are on,
 * {@code break} and {@code continue} are there, and so are {@code raise_exception}, {@code strftime_now}, a {@code tojson} that
 * escapes nothing, and <code>{% generation %}</code>.
 *
 * <pre>{@code
 * JinjaTemplate template = JinjaTemplate.compile("{% for m in messages %}{{ m.content }}{% endfor %}");
 * String text = template.render(Map.of("messages", List.of(Map.of("content", "Hello"))), date).text();
 * }</pre>
 *
 * Values are {@link String}, {@link Boolean}, {@link Number}, {@link List}, {@link Map} with text keys, and {@code null} for
 * None. The noncharacters U+FDD0 to U+FDEF, which no text has, are written as they are wherever others would be escaped: who
 * renders may mark a place with one. Immutable; any number of threads may use one at the same time.
 */
public final class JinjaTemplate {
    /** Characters of a source; the longest that models carry have some ten thousand. */
    private static final int MAX_SOURCE = 1 << 20;

    private final Statement body;

    private JinjaTemplate(Statement body) {
        this.body = body;
    }

    /**
     * What a template made of its variables.
     *
     * @param generations where in the text the blocks marked <code>{% generation %}</code> are, in order
     */
    public record Rendering(String text, List<Span> generations) {
        public Rendering {
            generations = List.copyOf(generations);
        }
    }

    /** The characters from {@code begin} up to but not including {@code end}. */
    public record Span(int begin, int end) {}

    static boolean isMark(int c) {
        return c >= 0xfdd0 && c <= 0xfdef;
    }

    /** @throws JinjaException if that is not a template; the message has the line */
    public static JinjaTemplate compile(String source) {
        if (source.length() > MAX_SOURCE) {
            throw new JinjaException("a template of " + source.length() + " characters; the most is " + MAX_SOURCE);
        }
        return new JinjaTemplate(new Parser(new Lexer(Objects.requireNonNull(source, "source")).tokens()).template());
    }

    /**
     * @param date what {@code strftime_now} formats: given, so that the same input gives the same text on any day
     * @throws JinjaException if the template refuses its input, fails on it or exceeds a limit
     */
    public Rendering render(Map<String, Object> variables, LocalDate date) {
        Run run = new Run(date);
        Scope scope = new Scope(run, Functions.global(run));
        variables.forEach(scope::set);
        StringBuilder out = new StringBuilder();
        run.main = out;
        List<Span> spans = new ArrayList<>();
        run.generations = spans;
        try {
            body.run(scope, out);
        } catch (StackOverflowError e) {
            // The stack of this thread is smaller than what the levels of a rendering may take.
            throw new JinjaException("nested too deeply");
        } catch (Loop.Jump e) {
            throw new JinjaException("break or continue outside of a loop");
        }
        return new Rendering(out.toString(), spans);
    }
}
