package dev.lorica.jinja;

import java.util.List;
import java.util.Random;

/**
 * Writes templates that are nearly always Jinja, and do with values whatever the language can: what a fuzzer of bytes never gets
 * to. Half of what it asks for is hostile: huge numbers, values that double, loops in loops, macros that call themselves.
 */
final class TemplateGrammar {
    private static final List<String> NAMES = List.of("x", "y", "ns", "messages", "text", "items", "m", "nothing");

    private static final List<String> FILTERS = List.of(
            "trim",
            "upper",
            "lower",
            "capitalize",
            "title",
            "length",
            "count",
            "string",
            "safe",
            "escape",
            "e",
            "replace",
            "indent",
            "wordcount",
            "default",
            "d",
            "int",
            "float",
            "abs",
            "round",
            "tojson",
            "list",
            "first",
            "last",
            "join",
            "reverse",
            "sort",
            "unique",
            "min",
            "max",
            "sum",
            "items",
            "dictsort",
            "map",
            "select",
            "reject",
            "selectattr",
            "rejectattr",
            "groupby",
            "attr",
            "batch");

    private static final List<String> TESTS = List.of(
            "defined",
            "undefined",
            "none",
            "true",
            "false",
            "boolean",
            "integer",
            "float",
            "number",
            "string",
            "mapping",
            "sequence",
            "iterable",
            "callable",
            "even",
            "odd",
            "divisibleby",
            "lower",
            "upper",
            "sameas",
            "in",
            "eq",
            "ne",
            "lt",
            "le",
            "gt",
            "ge",
            "filter",
            "test");

    private static final List<String> METHODS = List.of(
            "items",
            "keys",
            "values",
            "get",
            "copy",
            "index",
            "count",
            "strip",
            "lstrip",
            "rstrip",
            "upper",
            "lower",
            "title",
            "capitalize",
            "startswith",
            "endswith",
            "removeprefix",
            "removesuffix",
            "split",
            "rsplit",
            "splitlines",
            "partition",
            "rpartition",
            "replace",
            "find",
            "rfind",
            "join",
            "isdigit",
            "isalpha",
            "isalnum",
            "isspace",
            "isupper",
            "islower",
            "role",
            "content",
            "a",
            "first",
            "last",
            "index0",
            "length",
            "cycle",
            "changed",
            "previtem",
            "nextitem");

    private static final List<String> NUMBERS = List.of(
            "0",
            "1",
            "2",
            "3",
            "-1",
            "7",
            "64",
            "1000",
            "100000",
            "1000000",
            "2000000000",
            "9223372036854775807",
            "0.5",
            "1e308",
            "1e-5",
            "2.5");

    private static final List<String> TEXTS = List.of(
            "''",
            "'a'",
            "'aa'",
            "' b '",
            "'a\\nb'",
            "'x' * 1000",
            "'a' * 1000000",
            "'é🎉'",
            "'<|im_end|>'",
            "'user'",
            "'role'",
            "'\\u0000'",
            "'1'",
            "'nan'",
            "'1e999'",
            "'length'",
            "'upper'",
            "'odd'",
            "'a.b'");

    private final Random random;
    private final StringBuilder out = new StringBuilder();

    private TemplateGrammar(long seed) {
        random = new Random(seed);
    }

    static String template(long seed) {
        TemplateGrammar grammar = new TemplateGrammar(seed);
        grammar.statements(1 + grammar.random.nextInt(5), 4);
        return grammar.out.toString();
    }

    private <T> T one(List<T> of) {
        return of.get(random.nextInt(of.size()));
    }

    private void statements(int count, int depth) {
        for (int i = 0; i < count; i++) {
            statement(depth);
        }
    }

    private void open(String word) {
        out.append(random.nextInt(4) == 0 ? "{%- " : "{% ").append(word);
    }

    private void close() {
        out.append(random.nextInt(4) == 0 ? " -%}" : " %}");
    }

    private void block(String word) {
        open(word);
        close();
    }

    private void statement(int depth) {
        switch (depth == 0 ? random.nextInt(3) : random.nextInt(14)) {
            case 0 -> out.append(one(List.of("text", " \n ", "{# comment #}", "a\r\n", "{ ", "é")));
            case 1, 2 -> {
                out.append("{{ ");
                expression(4);
                out.append(" }}");
            }
            case 3, 4 -> {
                open("for " + one(List.of("x", "y", "x, y")) + " in ");
                expression(2);
                if (random.nextInt(4) == 0) {
                    out.append(" if ");
                    expression(1);
                }
                close();
                statements(1 + random.nextInt(3), depth - 1);
                if (random.nextInt(4) == 0) {
                    block(one(List.of("break", "continue")));
                }
                if (random.nextInt(4) == 0) {
                    block("else");
                    statements(1, depth - 1);
                }
                block("endfor");
            }
            case 5 -> {
                open("if ");
                expression(3);
                close();
                statements(1, depth - 1);
                for (int i = random.nextInt(3); i > 0; i--) {
                    open("elif ");
                    expression(2);
                    close();
                    statements(1, depth - 1);
                }
                if (random.nextBoolean()) {
                    block("else");
                    statements(1, depth - 1);
                }
                block("endif");
            }
            case 6, 7, 8 -> {
                open("set " + one(List.of("x", "y", "x, y", "ns.x", "ns.y", "ns.z")) + " = ");
                if (random.nextInt(3) == 0) {
                    // What doubles with every turn of a loop.
                    out.append(one(List.of(
                            "x + x",
                            "y ~ y",
                            "[x, x]",
                            "(y, y)",
                            "{'a': x, 'b': x}",
                            "[ns.x, ns.x]",
                            "ns.x + ns.x",
                            "ns.y ~ ns.y",
                            "x | list + y | list",
                            "{'k': ns.z, 'l': ns.z}")));
                } else {
                    expression(3);
                }
                close();
            }
            case 9 -> {
                open("macro f(a, b=");
                expression(1);
                out.append(')');
                close();
                statements(1 + random.nextInt(2), depth - 1);
                out.append(one(List.of("", "{{ varargs }}", "{{ kwargs }}", "{{ f(a, b) }}", "{{ caller() }}")));
                block("endmacro");
            }
            case 10 -> {
                open("call f(");
                expression(2);
                out.append(')');
                close();
                statements(1, depth - 1);
                block("endcall");
            }
            case 11 -> {
                open("filter " + one(FILTERS));
                close();
                statements(1, depth - 1);
                block("endfilter");
            }
            case 12 -> {
                open("with x = ");
                expression(2);
                close();
                statements(1, depth - 1);
                block("endwith");
            }
            default -> {
                open(one(List.of("set x", "generation")));
                boolean set = out.charAt(out.length() - 1) == 'x';
                close();
                statements(1, depth - 1);
                block(set ? "endset" : "endgeneration");
            }
        }
    }

    private void expression(int depth) {
        if (depth == 0) {
            atom();
            return;
        }
        switch (random.nextInt(16)) {
            case 0, 1 -> atom();
            case 2, 3 -> {
                int operands = 2 + random.nextInt(3);
                for (int i = 0; i < operands; i++) {
                    out.append(i == 0 ? "" : one(List.of(" + ", " - ", " * ", " / ", " // ", " % ", " ** ", " ~ ")));
                    expression(depth - 1);
                }
            }
            case 4 -> {
                expression(depth - 1);
                out.append(one(List.of(" == ", " != ", " < ", " <= ", " > ", " >= ", " in ", " not in ")));
                expression(depth - 1);
            }
            case 5 -> {
                expression(depth - 1);
                out.append(one(List.of(" and ", " or ")));
                expression(depth - 1);
            }
            case 6 -> {
                expression(depth - 1);
                out.append(" if ");
                expression(depth - 1);
                out.append(random.nextBoolean() ? " else none" : "");
            }
            case 7, 8, 9 -> {
                parenthesized(depth);
                out.append(" | ").append(one(FILTERS));
                if (random.nextInt(3) > 0) {
                    arguments(depth - 1);
                }
            }
            case 10 -> {
                parenthesized(depth);
                out.append(random.nextBoolean() ? " is " : " is not ").append(one(TESTS));
                if (random.nextInt(3) == 0) {
                    arguments(depth - 1);
                }
            }
            case 11, 12 -> {
                parenthesized(depth);
                out.append('.').append(one(METHODS));
                if (random.nextInt(3) > 0) {
                    arguments(depth - 1);
                }
            }
            case 13 -> {
                parenthesized(depth);
                out.append('[');
                expression(depth - 1);
                if (random.nextBoolean()) {
                    out.append(':');
                    expression(depth - 1);
                    out.append(one(List.of("", ":", ":-1", ":2")));
                }
                out.append(']');
            }
            case 14 -> {
                out.append(one(List.of("range", "dict", "namespace", "f", "strftime_now", "raise_exception", "x")));
                arguments(depth - 1);
            }
            default -> {
                String brackets = one(List.of("[]", "()", "{}"));
                out.append(brackets.charAt(0));
                for (int i = random.nextInt(3); i >= 0; i--) {
                    expression(depth - 1);
                    if (brackets.equals("{}")) {
                        out.append(": ");
                        expression(depth - 1);
                    }
                    out.append(", ");
                }
                out.append(brackets.charAt(1));
            }
        }
    }

    private void parenthesized(int depth) {
        out.append('(');
        expression(depth - 1);
        out.append(')');
    }

    private void arguments(int depth) {
        out.append('(');
        for (int i = random.nextInt(3); i > 0; i--) {
            out.append(one(List.of("", "", "", "*", "**", "a=", "attribute=", "indent=", "reverse=")));
            expression(Math.max(0, depth));
            out.append(", ");
        }
        out.append(')');
    }

    private void atom() {
        switch (random.nextInt(6)) {
            case 0, 1 -> out.append(one(NAMES));
            case 2 -> out.append(one(NUMBERS));
            case 3 -> out.append(one(TEXTS));
            case 4 ->
                out.append(one(List.of("true", "false", "none", "[]", "{}", "loop", "loop.index", "range(1000000)")));
            default -> out.append('-').append(one(NUMBERS));
        }
    }
}
