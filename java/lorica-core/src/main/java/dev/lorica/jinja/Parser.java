package dev.lorica.jinja;

import dev.lorica.jinja.JinjaTemplate.Span;
import dev.lorica.jinja.Lexer.Kind;
import dev.lorica.jinja.Lexer.Token;
import java.util.ArrayList;
import java.util.HashSet;
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
                    list.add((scope, out) -> Scope.append(out, token.text()));
                }
                case OUTPUT_BEGIN -> {
                    at++;
                    Expression value = expressions();
                    expect(Kind.OUTPUT_END);
                    list.add(located(token, (scope, out) -> Scope.append(out, Values.text(value.value(scope)))));
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

    private Statement condition() {
        Expression condition = tupleOr(this::expression);
        Statement then = body("elif", "else", "endif");
        Statement otherwise;
        if (takeWord("elif")) {
            otherwise = condition();
        } else if (takeWord("else")) {
            otherwise = body("endif");
            end("endif");
        } else {
            end("endif");
            otherwise = (scope, out) -> {};
        }
        return (scope, out) -> (Values.isTrue(condition.value(scope)) ? then : otherwise).run(scope, out);
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
        UnaryFilter filter = filters();
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

    private Statement macro() {
        String name = expect(Kind.NAME).text();
        List<Parameter> parameters = parameters();
        Statement body = body("endmacro");
        end("endmacro");
        return (scope, out) -> scope.set(name, callable(name, parameters, body, scope));
    }

    private static Callable callable(String name, List<Parameter> parameters, Statement body, Scope defined) {
        Set<String> known = new HashSet<>();
        parameters.forEach(parameter -> known.add(parameter.name));
        return (arguments, named) -> {
            defined.run.step();
            Scope scope = defined.inner();
            if (arguments.size() > parameters.size()) {
                throw new JinjaException(name + " takes at most " + parameters.size() + " arguments");
            }
            for (String given : named.keySet()) {
                if (!known.contains(given) && !given.equals("caller")) {
                    throw new JinjaException(name + " has no parameter " + given);
                }
            }
            for (int i = 0; i < parameters.size(); i++) {
                Parameter parameter = parameters.get(i);
                Object value = new Undefined(parameter.name);
                if (i < arguments.size()) {
                    value = arguments.get(i);
                } else if (named.containsKey(parameter.name)) {
                    value = named.get(parameter.name);
                } else if (parameter.defaultValue != null) {
                    value = parameter.defaultValue.value(scope);
                }
                scope.set(parameter.name, value);
            }
            if (named.containsKey("caller")) {
                scope.set("caller", named.get("caller"));
            }
            return capture(body, scope);
        };
    }

    private Statement callBlock() {
        List<Parameter> parameters = next().is(Kind.OPERATOR, "(") ? parameters() : List.of();
        Expression callee = primary();
        List<Argument> arguments = new ArrayList<>();
        while (!next().is(Kind.OPERATOR, "(")) {
            callee = postfixOnce(callee);
        }
        arguments.addAll(arguments());
        Statement body = body("endcall");
        end("endcall");
        Expression function = callee;
        return (scope, out) -> {
            List<Object> values = new ArrayList<>();
            Map<String, Object> named = new LinkedHashMap<>();
            evaluate(arguments, scope, values, named);
            named.put("caller", callable("caller", parameters, body, scope));
            Scope.append(out, Values.text(call(function.value(scope), values, named)));
        };
    }

    private Statement filterBlock() {
        UnaryFilter filter = filter(expect(Kind.NAME)).then(filters());
        Statement body = body("endfilter");
        end("endfilter");
        return (scope, out) -> Scope.append(out, Values.text(filter.apply(scope, capture(body, scope.inner()))));
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
            List<Object> values = new ArrayList<>(elements.size());
            for (Expression element : elements) {
                values.add(element.value(scope));
            }
            return values;
        };
    }

    private static Expression tuple(List<Expression> elements) {
        Expression list = list(elements);
        return scope -> new Tuple(Values.iterate(list.value(scope)));
    }

    private Expression expression() {
        enter();
        Expression value = orExpression();
        while (takeWord("if")) {
            Expression then = value;
            Expression condition = orExpression();
            Expression otherwise =
                    takeWord("else") ? expression() : scope -> new Undefined("the value of an if without else");
            value = scope -> (Values.isTrue(condition.value(scope)) ? then : otherwise).value(scope);
        }
        depth--;
        return value;
    }

    private Expression orExpression() {
        Expression left = andExpression();
        while (takeWord("or")) {
            Expression a = left;
            Expression b = andExpression();
            left = scope -> {
                Object value = a.value(scope);
                return Values.isTrue(value) ? value : b.value(scope);
            };
        }
        return left;
    }

    private Expression andExpression() {
        Expression left = notExpression();
        while (takeWord("and")) {
            Expression a = left;
            Expression b = notExpression();
            left = scope -> {
                Object value = a.value(scope);
                return Values.isTrue(value) ? b.value(scope) : value;
            };
        }
        return left;
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
        boolean holds(Object a, Object b);
    }

    private Comparison comparisonSign() {
        Token token = next();
        if (token.kind() == Kind.OPERATOR) {
            Comparison comparison =
                    switch (token.text()) {
                        case "==" -> Values::equal;
                        case "!=" -> (a, b) -> !Values.equal(a, b);
                        case "<" -> (a, b) -> Values.compare(a, b) < 0;
                        case "<=" -> (a, b) -> Values.compare(a, b) <= 0;
                        case ">" -> (a, b) -> Values.compare(a, b) > 0;
                        case ">=" -> (a, b) -> Values.compare(a, b) >= 0;
                        default -> null;
                    };
            at += comparison == null ? 0 : 1;
            return comparison;
        }
        if (takeWord("in")) {
            return (a, b) -> Values.contains(b, a);
        }
        if (isWord("not") && tokens.get(at + 1).is(Kind.NAME, "in")) {
            at += 2;
            return (a, b) -> !Values.contains(b, a);
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
                if (!signs.get(i).holds(left, right)) {
                    return false;
                }
                left = right;
            }
            return true;
        };
    }

    private Expression sum() {
        Expression left = concatenation();
        while (isOperator("+") || isOperator("-")) {
            String sign = tokens.get(at++).text();
            left = binary(sign, left, concatenation());
        }
        return left;
    }

    private Expression concatenation() {
        Expression left = product();
        while (take("~")) {
            Expression a = left;
            Expression b = product();
            left = scope -> Values.add(Values.text(a.value(scope)), Values.text(b.value(scope)));
        }
        return left;
    }

    private Expression product() {
        Expression left = power();
        while (isOperator("*") || isOperator("/") || isOperator("//") || isOperator("%")) {
            String sign = tokens.get(at++).text();
            left = binary(sign, left, power());
        }
        return left;
    }

    private Expression power() {
        Expression left = unary(true);
        while (take("**")) {
            left = binary("**", left, unary(true));
        }
        return left;
    }

    private static Expression binary(String sign, Expression a, Expression b) {
        return scope -> {
            scope.run.step();
            return Values.arithmetic(sign, a.value(scope), b.value(scope));
        };
    }

    private Expression unary(boolean withFilters) {
        enter();
        Expression value;
        if (take("-")) {
            Expression operand = unary(false);
            value = scope -> Values.arithmetic("-", 0L, operand.value(scope));
        } else if (take("+")) {
            value = unary(false);
        } else {
            value = primary();
        }
        while (isOperator(".") || isOperator("[") || isOperator("(")) {
            value = postfixOnce(value);
        }
        while (withFilters) {
            if (take("|")) {
                UnaryFilter filter = filter(expect(Kind.NAME));
                Expression operand = value;
                value = scope -> filter.apply(scope, operand.value(scope));
            } else if (takeWord("is")) {
                value = test(value);
            } else if (isOperator("(")) {
                value = postfixOnce(value);
            } else {
                break;
            }
        }
        depth--;
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
                String constant = text.toString();
                return scope -> constant;
            }
            case INTEGER -> {
                Object constant = Values.integer(token.text());
                return scope -> constant;
            }
            case FLOAT -> {
                Object constant = Double.valueOf(token.text());
                return scope -> constant;
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

    private Expression name(Token token) {
        String name = token.text();
        switch (name) {
            case "true", "True" -> {
                return scope -> true;
            }
            case "false", "False" -> {
                return scope -> false;
            }
            case "none", "None" -> {
                return scope -> null;
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
            Map<Object, Object> map = new LinkedHashMap<>();
            for (int i = 0; i < keys.size(); i++) {
                map.put(keys.get(i).value(scope), values.get(i).value(scope));
            }
            return map;
        };
    }

    private Expression postfixOnce(Expression object) {
        if (take(".")) {
            Token name = next();
            at++;
            if (name.kind() == Kind.INTEGER) {
                Object index = Values.integer(name.text());
                return scope -> Values.item(object.value(scope), index);
            }
            if (name.kind() != Kind.NAME) {
                at--;
                throw unexpected();
            }
            return scope -> Values.attribute(object.value(scope), name.text());
        }
        if (take("[")) {
            return subscript(object);
        }
        List<Argument> arguments = arguments();
        return scope -> {
            scope.run.step();
            Object function = object.value(scope);
            List<Object> values = new ArrayList<>(arguments.size());
            Map<String, Object> named = new LinkedHashMap<>();
            evaluate(arguments, scope, values, named);
            return call(function, values, named);
        };
    }

    private static Object call(Object function, List<Object> arguments, Map<String, Object> named) {
        if (function instanceof Callable callable) {
            return callable.call(arguments, named);
        }
        throw function instanceof Undefined undefined
                ? undefined.error()
                : new JinjaException(Values.repr(function) + " is no function");
    }

    private Expression subscript(Expression object) {
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
            return scope -> Values.slice(
                    object.value(scope),
                    slice[0] == null ? null : slice[0].value(scope),
                    slice[1] == null ? null : slice[1].value(scope),
                    slice[2] == null ? null : slice[2].value(scope));
        }
        if (slice[0] == null) {
            throw unexpected();
        }
        return scope -> Values.item(object.value(scope), slice[0].value(scope));
    }

    private record Argument(String name, Expression value) {}

    private List<Argument> arguments() {
        expect("(");
        List<Argument> arguments = new ArrayList<>();
        while (!take(")")) {
            String name = null;
            if (next().kind() == Kind.NAME && tokens.get(at + 1).is(Kind.OPERATOR, "=")) {
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

    private static void evaluate(
            List<Argument> arguments, Scope scope, List<Object> values, Map<String, Object> named) {
        for (Argument argument : arguments) {
            Object value = argument.value.value(scope);
            if (argument.name == null) {
                values.add(value);
            } else {
                named.put(argument.name, value);
            }
        }
    }

    private interface UnaryFilter {
        Object apply(Scope scope, Object value);

        default UnaryFilter then(UnaryFilter next) {
            return (scope, value) -> next.apply(scope, apply(scope, value));
        }
    }

    /** Filters behind each other, possibly none: {@code | a | b}. */
    private UnaryFilter filters() {
        UnaryFilter all = (scope, value) -> value;
        while (take("|")) {
            all = all.then(filter(expect(Kind.NAME)));
        }
        return all;
    }

    private UnaryFilter filter(Token name) {
        List<Argument> arguments = isOperator("(") ? arguments() : List.of();
        Filters.Filter filter = Filters.named(name.text());
        if (filter == null) {
            throw new JinjaException("there is no filter \"" + name.text() + "\"").at(name.line());
        }
        return (scope, value) -> {
            scope.run.step();
            List<Object> values = new ArrayList<>(arguments.size());
            Map<String, Object> named = new LinkedHashMap<>();
            evaluate(arguments, scope, values, named);
            return filter.apply(value, new Arguments(name.text(), values, named));
        };
    }

    private Expression test(Expression value) {
        boolean negated = takeWord("not");
        Token name = expect(Kind.NAME);
        List<Argument> arguments = List.of();
        if (isOperator("(")) {
            arguments = arguments();
        } else if (beginsArgument()) {
            Expression argument = primary();
            while (isOperator(".") || isOperator("[") || isOperator("(")) {
                argument = postfixOnce(argument);
            }
            arguments = List.of(new Argument(null, argument));
        }
        Tests.Test test = Tests.named(name.text());
        if (test == null) {
            throw new JinjaException("there is no test \"" + name.text() + "\"").at(name.line());
        }
        List<Argument> given = arguments;
        return scope -> {
            List<Object> values = new ArrayList<>(given.size());
            evaluate(given, scope, values, new LinkedHashMap<>());
            return test.holds(value.value(scope), new Arguments(name.text(), values, Map.of())) != negated;
        };
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
        if (++depth > MAX_DEPTH) {
            throw new JinjaException("nested too deeply").at(next().line());
        }
    }
}
