package dev.lorica.jinja;

import dev.lorica.jinja.JinjaTemplate.Span;
import java.time.LocalDate;
import java.util.List;

/**
 * One rendering, and what it may still cost. A template comes from a stranger, so whatever it makes the interpreter do is counted
 * here before it is done: steps for time, bytes for memory, levels for the stack.
 */
final class Run {
    /** Characters of one text, the rendering itself among them. */
    static final int MAX_LENGTH = 64 << 20;

    static final int MAX_ELEMENTS = 1_000_000;

    /** Far above what any template for a conversation of a thousand turns needs, and reached in about a second. */
    private static final long MAX_STEPS = 20_000_000;

    /** Of all values that are made, whether or not they are still held. */
    private static final long MAX_BYTES = 256L << 20;

    /** Values inside values and calls inside calls; some hundred bytes of stack each. */
    private static final int MAX_DEPTH = 1000;

    /** Characters that are moved in one step: they go as a block. */
    private static final int MOVED = 64;

    /** Characters that are looked at in one step, one by one. */
    private static final int WALKED = 4;

    final LocalDate date;
    StringBuilder main;
    List<Span> generations;
    private long steps;
    private long bytes;
    private int depth;

    Run(LocalDate date) {
        this.date = date;
    }

    void step() {
        if (++steps > MAX_STEPS) {
            throw tooManySteps();
        }
    }

    void steps(long count) {
        steps += count;
        if (steps > MAX_STEPS) {
            throw tooManySteps();
        }
    }

    private static JinjaException tooManySteps() {
        return new JinjaException("the template takes too many steps");
    }

    /** Memory for something that is about to be made. */
    void bytes(long count) {
        bytes += count;
        if (bytes > MAX_BYTES) {
            throw new JinjaException("the template takes more than " + (MAX_BYTES >> 20) + " MiB of memory");
        }
    }

    /** So many characters are about to be looked at one by one. */
    void walk(long characters) {
        steps(1 + characters / WALKED);
    }

    /** A text of so many characters is about to be made of others. */
    void make(long characters) {
        checkLength(characters);
        steps(1 + characters / MOVED);
        bytes(2 * characters + 48);
    }

    /** The text, made and accounted for; for texts not much longer than what they were made of. */
    String made(String text) {
        make(text.length());
        return text;
    }

    /** A list of so many elements is about to be made. */
    void elements(long count) {
        checkElements(count);
        steps(1 + count / WALKED);
        bytes(64 + 16 * count);
    }

    static void checkElements(long count) {
        if (count > MAX_ELEMENTS) {
            throw new JinjaException("a list of more than " + MAX_ELEMENTS + " elements");
        }
    }

    static void checkLength(long length) {
        if (length > MAX_LENGTH) {
            throw new JinjaException("the template produces more than " + (MAX_LENGTH >> 20) + " million characters");
        }
    }

    void append(StringBuilder out, String text) {
        checkLength((long) out.length() + text.length());
        steps(1 + text.length() / MOVED);
        bytes(2L * text.length());
        out.append(text);
    }

    void append(StringBuilder out, char c) {
        checkLength(out.length() + 1L);
        bytes(2);
        out.append(c);
    }

    /** Goes so many levels down; {@link #leave} comes up again. */
    void enter(int levels) {
        step();
        depth += levels;
        if (depth > MAX_DEPTH) {
            throw new JinjaException("nested too deeply");
        }
    }

    void leave(int levels) {
        depth -= levels;
    }
}
