package dev.lorica.jinja;

import dev.lorica.jinja.JinjaTemplate.Span;
import dev.lorica.jinja.Lexer.Kind;
import dev.lorica.jinja.Lexer.Token;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Set;

/** Makes statements and expressions of tokens. Precedence is that of Jinja2's parser. */
final class Parser {
    private static final int MAX_DEPTH = 200;

    private static final Set<String> WORDS = Set.of("and", "or", "not", "in", "is", "if", "else");

    private final List<Token> tokens;
    private int at;
    private int depth;
    /** The deepest that was reached since it was set. */
    private int deepest;

    Parser(List<Token> tokens) {
        this.tokens = tokens;
    }

    Statement template() {
        Statement body = statements(Set.of());
        if (next().kind() != Kind.END) {
            throw unexpected();
        }
        return body;
    }

    // ---- statements ----

    /** Up to a block that begins with one of {@code ends}, which is left at its name, or to the end of the template. */
    private Statement statements(Set<String> ends) {
        enter();
        List<Statement> list = new ArrayList<>();
        while (true) {
            Token token = next();
            switch (token.kind()) {
                case TEXT -> {
                    at++;
                    list.add((scope, out) -> scope.run.append(out, token.text()));
                }
                case OUTPUT_BEGIN -> {
                    at++;
                    Expression value = expressions();
                    expect(Kind.OUTPUT_END);
                    list.add(located(
                            token, (scope, out) -> scope.run.append(out, Values.text(scope.run, value.value(scope)))));
                }
                case BLOCK_BEGIN -> {
                    if (ends.contains(tokens.get(at + 1).text())) {
                        at++;
                        depth--;
                        return sequence(list);
                    }
                    at++;
                    list.add(located(token, statement()));
                }
                default -> {
                    if (!ends.isEmpty()) {
                        throw new JinjaException("{% "
                                        + String.join(
                                                " %} or {% ",
                                                ends.stream().sorted().toList()) + " %} is missing")
                                .at(token.line());
                    }
                    depth--;
                    return sequence(list);
                }
            }
        }
    }

    private static Statement sequence(List<Statement> list) {
        Statement[] all = list.toArray(Statement[]::new);
        return (scope, out) -> {
            for (Statement statement : all) {
                statement.run(scope, out);
            }
        };
    }

    private static Statement located(Token token, Statement statement) {
        return (scope, out) -> {
            scope.run.step();
            try {
                statement.run(scope, out);
            } catch (JinjaException e) {
                throw e.at(token.line());
            }
        };
    }

    private Statement statement() {
        Token name = expect(Kind.NAME);
        return switch (name.text()) {
            case "for" -> forLoop();
            case "if" -> condition();
            case "set" -> set();
            case "macro" -> macro();
            case "call" -> callBlock();
            case "filter" -> filterBlock();
            case "with" -> with();
            case "generation" -> generation();
            case "break" -> jump(Loop.Jump.BREAK);
            case "continue" -> jump(Loop.Jump.CONTINUE);
            default ->
                throw new JinjaException("there is no {% " + name.text() + " %} in a chat template").at(name.line());
        };
    }

    private Statement jump(Loop.Jump jump) {
        expect(Kind.BLOCK_END);
        return (scope, out) -> {
            throw jump;
        };
    }

    private Statement body(String... ends) {
        expect(Kind.BLOCK_END);
        return statements(Set.of(ends));
    }

    private void end(String name) {
        if (!next().text().equals(name)) {
            throw unexpected();
        }
        at++;
        expect(Kind.BLOCK_END);
    }

    private Statement forLoop() {
        List<String> targets = targets();
        expectWord("in");
        Expression items = tupleOr(this::orExpression);
        Expression filter = takeWord("if") ? expression() : null;
        if (next().is(Kind.NAME, "recursive")) {
            throw new JinjaException("recursive loops are not supported").at(next().line());
        }
        Statement body = body("endfor", "else");
        Statement otherwise = null;
        if (takeWord("else")) {
            otherwise = body("endfor");
        }
        end("endfor");
        return new Loop(targets, items, filter, body, otherwise);
    }

    private List<String> targets() {
        List<String> names = new ArrayList<>();
        boolean parentheses = take("(");
        do {
            names.add(expect(Kind.NAME).text());
        } while (take(",") && next().kind() == Kind.NAME && !isWord("in"));
        if (parentheses) {
            expect(")");
        }
        return names;
    }

    private record Branch(Expression condition, Statement then) {}

    private Statement condition() {
        List<Branch> branches = new ArrayList<>();
        do {
            Expression condition = tupleOr(this::expression);
            branches.add(new Branch(condition, body("elif", "else", "endif")));
        } while (takeWord("elif"));
        Statement otherwise = takeWord("else") ? body("endif") : (scope, out) -> {};
        end("endif");
        return (scope, out) -> {
            for (Branch branch : branches) {
                if (Values.isTrue(branch.condition.value(scope))) {
                    branch.then.run(scope, out);
                    return;
                }
            }
            otherwise.run(scope, out);
        };
    }

    private Statement set() {
        Token first = next();
        if (tokens.get(at + 1).is(Kind.OPERATOR, ".")) {
            String object = expect(Kind.NAME).text();
            expect(".");
            String field = expect(Kind.NAME).text();
            Expression value = assigned();
            return (scope, out) -> {
                if (!(scope.get(object) instanceof Namespace namespace)) {
                    throw new JinjaException("only a namespace can be changed, not " + object);
                }
                namespace.set(field, value.value(scope));
            };
        }
        List<String> names = targets();
        if (next().is(Kind.OPERATOR, "=")) {
            Expression value = assigned();
            return (scope, out) -> Values.unpack(names, value.value(scope), scope);
        }
        if (names.size() > 1) {
            throw unexpected();
        }
        Step filter = filters();
        Statement body = body("endset");
        end("endset");
        return (scope, out) -> scope.set(first.text(), filter.apply(scope, capture(body, scope.inner())));
    }

    private Expression assigned() {
        expect("=");
        Expression value = expressions();
        expect(Kind.BLOCK_END);
        return value;
    }

    private static String capture(Statement body, Scope scope) {
        StringBuilder text = new StringBuilder();
        body.run(scope, text);
        return text.toString();
    }

    private record Parameter(String name, Expression defaultValue) {}

    private List<Parameter> parameters() {
        List<Parameter> parameters = new ArrayList<>();
        expect("(");
        while (!take(")")) {
            String name = expect(Kind.NAME).text();
            parameters.add(new Parameter(name, take("=") ? expression() : null));
            if (!next().is(Kind.OPERATOR, ")")) {
                expect(",");
            }
        }
        return parameters;
    }

    /** A macro or what is inside a call, as it stands in the source. */
    private record Definition(
            String name,
            List<Parameter> parameters,
            Statement body,
            int levels,
            boolean takesMore,
            boolean takesNamed) {}

    /** Up to {@code {% end %}}; a body that looks at varargs or kwargs is given what it has no parameter for. */
    private Definition definition(String name, List<Parameter> parameters, String end) {
        int before = deepest;
        int first = at;
        deepest = depth;
        Statement body = body(end);
        end(end);
        int levels = deepest - depth;
        deepest = Math.max(before, deepest);
        return new Definition(name, parameters, body, levels, mentions(first, "varargs"), mentions(first, "kwargs"));
    }

    private boolean mentions(int first, String name) {
        for (int i = first; i < at; i++) {
            if (tokens.get(i).is(Kind.NAME, name)) {
                return true;
            }
        }
        return false;
    }

    private Statement macro() {
        String name = expect(Kind.NAME).text();
        Definition macro = definition(name, parameters(), "endmacro");
        return (scope, out) -> scope.set(name, callable(macro, scope));
    }

    private static Callable callable(Definition macro, Scope defined) {
        // It holds the scope that it was defined in.
        defined.run.bytes(512);
        return arguments -> {
            Scope scope = defined.inner();
            bind(macro, arguments, scope);
            scope.run.enter(1 + macro.levels);
            try {
                return capture(macro.body, scope);
            } finally {
                scope.run.leave(1 + macro.levels);
            }
        };
    }

    private static void bind(Definition macro, Arguments arguments, Scope scope) {
        List<Object> values = arguments.values();
        int known = Math.min(values.size(), macro.parameters.size());
        if (values.size() > known && !macro.takesMore) {
            throw new JinjaException(macro.name + " takes at most " + known + " arguments");
        }
        Map<String, Object> more = new LinkedHashMap<>(arguments.named());
        for (int i = 0; i < macro.parameters.size(); i++) {
            Parameter parameter = macro.parameters.get(i);
            Object value = new Undefined(parameter.name);
            boolean named = more.containsKey(parameter.name);
            if (i < known) {
                if (named) {
                    throw new JinjaException(macro.name + " is given " + parameter.name + " twice");
                }
                value = values.get(i);
            } else if (named) {
                value = more.remove(parameter.name);
            } else if (parameter.defaultValue != null) {
                value = parameter.defaultValue.value(scope);
            }
            scope.set(parameter.name, value);
        }
        if (more.containsKey("caller")) {
            scope.set("caller", more.remove("caller"));
        }
        if (!more.isEmpty() && !macro.takesNamed) {
            throw new JinjaException(
                    macro.name + " has no parameter " + more.keySet().iterator().next());
        }
        if (macro.takesMore) {
            scope.set("varargs", new Tuple(new ArrayList<>(values.subList(known, values.size()))));
        }
        if (macro.takesNamed) {
            scope.set("kwargs", more);
        }
    }

    private Statement callBlock() {
        List<Parameter> parameters = next().is(Kind.OPERATOR, "(") ? parameters() : List.of();
        Expression callee = primary();
        List<Step> steps = new ArrayList<>();
        while (!next().is(Kind.OPERATOR, "(")) {
            steps.add(postfixOnce());
        }
        List<Argument> arguments = arguments();
        Definition caller = definition("caller", parameters, "endcall");
        return (scope, out) -> {
            Object called = all(steps, scope, callee.value(scope));
            Arguments given = evaluate(arguments, scope, "call");
            given.named().put("caller", callable(caller, scope));
            scope.run.append(out, Values.text(scope.run, call(called, given)));
        };
    }

    private Statement filterBlock() {
        Step filter = filter(expect(Kind.NAME)).then(filters());
        Statement body = body("endfilter");
        end("endfilter");
        return (scope, out) -> {
            Object filtered = filter.apply(scope, capture(body, scope.inner()));
            scope.run.append(out, Values.text(scope.run, filtered));
        };
    }

    private Statement with() {
        List<String> names = new ArrayList<>();
        List<Expression> values = new ArrayList<>();
        while (next().kind() == Kind.NAME) {
            names.add(expect(Kind.NAME).text());
            expect("=");
            values.add(expression());
            take(",");
        }
        Statement body = body("endwith");
        end("endwith");
        return (scope, out) -> {
            Scope inner = scope.inner();
            for (int i = 0; i < names.size(); i++) {
                inner.set(names.get(i), values.get(i).value(scope));
            }
            body.run(inner, out);
        };
    }

    private Statement generation() {
        Statement body = body("endgeneration");
        end("endgeneration");
        return (scope, out) -> {
            int begin = out.length();
            body.run(scope.inner(), out);
            if (out == scope.run.main) {
                scope.run.generations.add(new Span(begin, out.length()));
            }
        };
    }

    // ---- expressions ----

    /** One, or a tuple. */
    private Expression expressions() {
        return tupleOr(this::expression);
    }

    private interface Rule {
        Expression parse();
    }

    private Expression tupleOr(Rule rule) {
        Expression first = rule.parse();
        if (!next().is(Kind.OPERATOR, ",")) {
            return first;
        }
        List<Expression> elements = new ArrayList<>(List.of(first));
        while (take(",")) {
            if (next().kind() == Kind.BLOCK_END || next().kind() == Kind.OUTPUT_END || next().is(Kind.OPERATOR, ")")) {
                break;
            }
            elements.add(rule.parse());
        }
        return tuple(elements);
    }

    private static Expression list(List<Expression> elements) {
        return scope -> {
            scope.run.elements(elements.size());
            List<Object> values = new ArrayList<>(elements.size());
            for (Expression element : elements) {
                values.add(element.value(scope));
            }
            return values;
        };
    }

    private static Expression tuple(List<Expression> elements) {
        Expression list = list(elements);
        return scope -> new Tuple(Values.iterate(scope.run, list.value(scope)));
    }

    private Expression expression() {
        enter();
        Expression value = orExpression();
        int chain = 0;
        while (takeWord("if")) {
            chain++;
            enter();
            Expression then = value;
            Expression condition = orExpression();
            Expression otherwise =
                    takeWord("else") ? expression() : scope -> new Undefined("the value of an if without else");
            value = scope -> (Values.isTrue(condition.value(scope)) ? then : otherwise).value(scope);
        }
        depth -= chain + 1;
        return value;
    }

    private Expression orExpression() {
        return chain(this::andExpression, "or", true);
    }

    private Expression andExpression() {
        return chain(this::notExpression, "and", false);
    }

    /** The first value that is as true as {@code decides} says, else the last. */
    private Expression chain(Rule rule, String word, boolean decides) {
        Expression first = rule.parse();
        if (!isWord(word)) {
            return first;
        }
        List<Expression> operands = new ArrayList<>(List.of(first));
        while (takeWord(word)) {
            operands.add(rule.parse());
        }
        return scope -> {
            Object value = null;
            for (Expression operand : operands) {
                value = operand.value(scope);
                if (Values.isTrue(value) == decides) {
                    return value;
                }
            }
            return value;
        };
    }

    private Expression notExpression() {
        if (takeWord("not")) {
            enter();
            Expression value = notExpression();
            depth--;
            return scope -> !Values.isTrue(value.value(scope));
        }
        return comparison();
    }

    private interface Comparison {
        boolean holds(Run run, Object a, Object b);
    }

    private Comparison comparisonSign() {
        Token token = next();
        if (token.kind() == Kind.OPERATOR) {
            Comparison comparison =
                    switch (token.text()) {
                        case "==" -> Values::equal;
                        case "!=" -> (run, a, b) -> !Values.equal(run, a, b);
                        case "<" -> (run, a, b) -> Values.compare(run, a, b) < 0;
                        case "<=" -> (run, a, b) -> Values.compare(run, a, b) <= 0;
                        case ">" -> (run, a, b) -> Values.compare(run, a, b) > 0;
                        case ">=" -> (run, a, b) -> Values.compare(run, a, b) >= 0;
                        default -> null;
                    };
            at += comparison == null ? 0 : 1;
            return comparison;
        }
        if (takeWord("in")) {
            return (run, a, b) -> Values.contains(run, b, a);
        }
        if (isWord("not") && tokens.get(at + 1).is(Kind.NAME, "in")) {
            at += 2;
            return (run, a, b) -> !Values.contains(run, b, a);
        }
        return null;
    }

    /** Chained as in Python: {@code a < b < c}. */
    private Expression comparison() {
        Expression first = sum();
        List<Comparison> signs = new ArrayList<>();
        List<Expression> operands = new ArrayList<>(List.of(first));
        for (Comparison sign = comparisonSign(); sign != null; sign = comparisonSign()) {
            signs.add(sign);
            operands.add(sum());
        }
        if (signs.isEmpty()) {
            return first;
        }
        return scope -> {
            Object left = first.value(scope);
            for (int i = 0; i < signs.size(); i++) {
                Object right = operands.get(i + 1).value(scope);
                if (!signs.get(i).holds(scope.run, left, right)) {
                    return false;
                }
                left = right;
            }
            return true;
        };
    }

    private Expression sum() {
        return binary(this::concatenation, "+", "-");
    }

    private Expression concatenation() {
        Expression first = product();
        if (!isOperator("~")) {
            return first;
        }
        List<Expression> parts = new ArrayList<>(List.of(first));
        while (take("~")) {
            parts.add(product());
        }
        return scope -> {
            StringBuilder text = new StringBuilder();
            for (Expression part : parts) {
                scope.run.append(text, Values.text(scope.run, part.value(scope)));
            }
            return text.toString();
        };
    }

    private Expression product() {
        return binary(this::power, "*", "/", "//", "%");
    }

    private Expression power() {
        return binary(() -> unary(true), "**");
    }

    /** Operands with one of these signs between them, from left to right. */
    private Expression binary(Rule rule, String... signs) {
        Expression first = rule.parse();
        List<String> between = new ArrayList<>();
        List<Expression> operands = new ArrayList<>();
        while (next().kind() == Kind.OPERATOR && Arrays.asList(signs).contains(next().text())) {
            between.add(tokens.get(at++).text());
            operands.add(rule.parse());
        }
        if (between.isEmpty()) {
            return first;
        }
        return scope -> {
            Object value = first.value(scope);
            for (int i = 0; i < between.size(); i++) {
                Object operand = operands.get(i).value(scope);
                value = Values.arithmetic(scope.run, between.get(i), value, operand);
            }
            return value;
        };
    }

    private Expression unary(boolean withFilters) {
        enter();
        Expression base;
        if (take("-")) {
            Expression operand = unary(false);
            base = scope -> Values.arithmetic(scope.run, "-", 0L, operand.value(scope));
        } else if (take("+")) {
            base = unary(false);
        } else {
            base = primary();
        }
        List<Step> steps = new ArrayList<>();
        while (isOperator(".") || isOperator("[") || isOperator("(")) {
            steps.add(postfixOnce());
        }
        while (withFilters) {
            if (take("|")) {
                steps.add(filter(expect(Kind.NAME)));
            } else if (takeWord("is")) {
                steps.add(test());
            } else if (isOperator("(")) {
                steps.add(postfixOnce());
            } else {
                break;
            }
        }
        depth--;
        return steps.isEmpty() ? base : scope -> all(steps, scope, base.value(scope));
    }

    /** What is done to a value: an attribute or element is taken, it is called, filtered or tested. */
    private interface Step {
        Object apply(Scope scope, Object value);

        default Step then(Step next) {
            return (scope, value) -> next.apply(scope, apply(scope, value));
        }
    }

    private static Object all(List<Step> steps, Scope scope, Object first) {
        Object value = first;
        for (Step step : steps) {
            value = step.apply(scope, value);
        }
        return value;
    }

    private Expression primary() {
        Token token = next();
        at++;
        switch (token.kind()) {
            case STRING -> {
                StringBuilder text = new StringBuilder(token.text());
                while (next().kind() == Kind.STRING) {
                    text.append(tokens.get(at++).text());
                }
                return constant(text.toString());
            }
            case INTEGER -> {
                return constant(Values.integer(token.text()));
            }
            case FLOAT -> {
                return constant(Double.valueOf(token.text()));
            }
            case NAME -> {
                return name(token);
            }
            case OPERATOR -> {
                switch (token.text()) {
                    case "(" -> {
                        if (take(")")) {
                            return tuple(List.of());
                        }
                        Expression value = expressions();
                        expect(")");
                        return value;
                    }
                    case "[" -> {
                        return list(elements("]"));
                    }
                    case "{" -> {
                        return dictionary();
                    }
                    default -> {}
                }
            }
            default -> {}
        }
        at--;
        throw unexpected();
    }

    private static Expression constant(Object value) {
        return scope -> {
            scope.run.step();
            return value;
        };
    }

    private Expression name(Token token) {
        String name = token.text();
        switch (name) {
            case "true", "True" -> {
                return constant(true);
            }
            case "false", "False" -> {
                return constant(false);
            }
            case "none", "None" -> {
                return constant(null);
            }
            default -> {
                if (WORDS.contains(name)) {
                    at--;
                    throw unexpected();
                }
                return scope -> scope.get(name);
            }
        }
    }

    private List<Expression> elements(String end) {
        List<Expression> elements = new ArrayList<>();
        while (!take(end)) {
            elements.add(expression());
            if (!isOperator(end)) {
                expect(",");
            }
        }
        return elements;
    }

    private Expression dictionary() {
        List<Expression> keys = new ArrayList<>();
        List<Expression> values = new ArrayList<>();
        while (!take("}")) {
            keys.add(expression());
            expect(":");
            values.add(expression());
            if (!isOperator("}")) {
                expect(",");
            }
        }
        return scope -> {
            scope.run.elements(4L * keys.size());
            Map<Object, Object> map = new LinkedHashMap<>();
            for (int i = 0; i < keys.size(); i++) {
                Object key = Values.key(scope.run, keys.get(i).value(scope));
                map.put(key, values.get(i).value(scope));
            }
            return map;
        };
    }

    private Step postfixOnce() {
        if (take(".")) {
            Token name = next();
            at++;
            if (name.kind() == Kind.INTEGER) {
                Object index = Values.integer(name.text());
                return (scope, object) -> Values.item(scope.run, object, index);
            }
            if (name.kind() != Kind.NAME) {
                at--;
                throw unexpected();
            }
            return (scope, object) -> Values.attribute(scope.run, object, name.text());
        }
        if (take("[")) {
            return subscript();
        }
        List<Argument> arguments = arguments();
        return (scope, function) -> call(function, evaluate(arguments, scope, "the call"));
    }

    private static Object call(Object function, Arguments arguments) {
        if (function instanceof Callable callable) {
            return callable.call(arguments);
        }
        throw function instanceof Undefined undefined
                ? undefined.error()
                : new JinjaException(Values.shown(arguments.run(), function) + " is no function");
    }

    private Step subscript() {
        Expression[] slice = new Expression[3];
        int part = 0;
        boolean colon = false;
        while (!take("]")) {
            if (take(":")) {
                colon = true;
                part++;
                if (part > 2) {
                    throw unexpected();
                }
            } else if (slice[part] == null) {
                slice[part] = expressions();
            } else {
                throw unexpected();
            }
        }
        if (colon) {
            return (scope, object) -> Values.slice(
                    scope.run,
                    object,
                    slice[0] == null ? null : slice[0].value(scope),
                    slice[1] == null ? null : slice[1].value(scope),
                    slice[2] == null ? null : slice[2].value(scope));
        }
        if (slice[0] == null) {
            throw unexpected();
        }
        return (scope, object) -> Values.item(scope.run, object, slice[0].value(scope));
    }

    /** @param name {@code null}: by its place; {@code *} and {@code **}: several, from a list or a dictionary */
    private record Argument(String name, Expression value) {}

    private List<Argument> arguments() {
        expect("(");
        List<Argument> arguments = new ArrayList<>();
        while (!take(")")) {
            String name = null;
            if (isOperator("*") || isOperator("**")) {
                name = tokens.get(at++).text();
            } else if (next().kind() == Kind.NAME && tokens.get(at + 1).is(Kind.OPERATOR, "=")) {
                name = expect(Kind.NAME).text();
                at++;
            }
            arguments.add(new Argument(name, expression()));
            if (!isOperator(")")) {
                expect(",");
            }
        }
        return arguments;
    }

    private static Arguments evaluate(List<Argument> arguments, Scope scope, String of) {
        Run run = scope.run;
        run.steps(4 + arguments.size());
        List<Object> values = new ArrayList<>(arguments.size());
        Map<String, Object> named = new LinkedHashMap<>();
        for (Argument argument : arguments) {
            Object value = argument.value.value(scope);
            if (argument.name == null) {
                values.add(value);
            } else if (argument.name.equals("*")) {
                List<Object> several = Values.iterate(run, value);
                run.elements((long) values.size() + several.size());
                values.addAll(several);
            } else if (argument.name.equals("**")) {
                if (!(value instanceof Map<?, ?> several)) {
                    throw new JinjaException(Values.shown(run, value) + " behind ** is no dictionary");
                }
                run.elements((long) named.size() + several.size());
                several.forEach((key, element) -> named.put(Values.text(run, key), element));
            } else {
                named.put(argument.name, value);
            }
        }
        return new Arguments(run, of, values, named);
    }

    /** Filters behind each other, possibly none: {@code | a | b}. */
    private Step filters() {
        List<Step> steps = new ArrayList<>();
        while (take("|")) {
            steps.add(filter(expect(Kind.NAME)));
        }
        return (scope, value) -> all(steps, scope, value);
    }

    private Step filter(Token name) {
        List<Argument> arguments = isOperator("(") ? arguments() : List.of();
        Filters.Filter filter = Filters.named(name.text());
        if (filter == null) {
            throw new JinjaException("there is no filter \"" + name.text() + "\"").at(name.line());
        }
        return (scope, value) -> filter.apply(value, evaluate(arguments, scope, name.text()));
    }

    private Step test() {
        boolean negated = takeWord("not");
        Token name = expect(Kind.NAME);
        List<Argument> arguments = List.of();
        if (isOperator("(")) {
            arguments = arguments();
        } else if (beginsArgument()) {
            Expression argument = primary();
            List<Step> steps = new ArrayList<>();
            while (isOperator(".") || isOperator("[") || isOperator("(")) {
                steps.add(postfixOnce());
            }
            arguments = List.of(new Argument(null, scope -> all(steps, scope, argument.value(scope))));
        }
        Tests.Test test = Tests.named(name.text());
        if (test == null) {
            throw new JinjaException("there is no test \"" + name.text() + "\"").at(name.line());
        }
        List<Argument> given = arguments;
        return (scope, value) -> test.holds(value, evaluate(given, scope, name.text())) != negated;
    }

    private boolean beginsArgument() {
        Token token = next();
        return switch (token.kind()) {
            case NAME -> !WORDS.contains(token.text());
            case STRING, INTEGER, FLOAT -> true;
            case OPERATOR -> token.text().equals("[") || token.text().equals("{");
            default -> false;
        };
    }

    // ---- tokens ----

    private Token next() {
        return tokens.get(at);
    }

    private boolean isOperator(String text) {
        return next().is(Kind.OPERATOR, text);
    }

    private boolean isWord(String text) {
        return next().is(Kind.NAME, text);
    }

    private boolean take(String operator) {
        boolean there = isOperator(operator);
        at += there ? 1 : 0;
        return there;
    }

    private boolean takeWord(String word) {
        boolean there = isWord(word);
        at += there ? 1 : 0;
        return there;
    }

    private void expect(String operator) {
        if (!take(operator)) {
            throw unexpected();
        }
    }

    private void expectWord(String word) {
        if (!takeWord(word)) {
            throw unexpected();
        }
    }

    private Token expect(Kind kind) {
        Token token = next();
        if (token.kind() != kind) {
            throw unexpected();
        }
        at++;
        return token;
    }

    private JinjaException unexpected() {
        Token token = next();
        return new JinjaException(
                        "unexpected " + (token.kind() == Kind.END ? token.text() : "\"" + token.text() + "\""))
                .at(token.line());
    }

    private void enter() {
        deepest = Math.max(deepest, ++depth);
        if (depth > MAX_DEPTH) {
            throw new JinjaException("nested too deeply").at(next().line());
        }
    }
}
