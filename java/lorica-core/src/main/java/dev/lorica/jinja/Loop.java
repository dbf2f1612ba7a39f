package dev.lorica.jinja;

import java.util.ArrayList;
import java.util.List;

/** {@code {% for … in … if … %}}, and the variable {@code loop} in it. */
final class Loop implements Statement {

    /** How {@code break} and {@code continue} leave the body. */
    @SuppressWarnings("serial")
    static final class Jump extends RuntimeException {
        static final Jump BREAK = new Jump();
        static final Jump CONTINUE = new Jump();

        private Jump() {
            super(null, null, false, false);
        }
    }

    /** The variable {@code loop}. */
    static final class State {
        private final List<Object> items;
        private int index;
        private List<Object> lastSeen;

        private State(List<Object> items) {
            this.items = items;
        }

        Object attribute(String name) {
            long length = items.size();
            return switch (name) {
                case "index" -> index + 1L;
                case "index0" -> (long) index;
                case "revindex" -> length - index;
                case "revindex0" -> length - index - 1;
                case "first" -> index == 0;
                case "last" -> index == length - 1;
                case "length" -> length;
                case "depth" -> 1L;
                case "depth0" -> 0L;
                case "previtem" -> index > 0 ? items.get(index - 1) : new Undefined("loop.previtem");
                case "nextitem" -> index + 1 < length ? items.get(index + 1) : new Undefined("loop.nextitem");
                case "cycle" ->
                    (Callable) arguments -> {
                        List<Object> values = arguments.values();
                        if (values.isEmpty()) {
                            throw new JinjaException("loop.cycle needs arguments");
                        }
                        return values.get(index % values.size());
                    };
                case "changed" -> (Callable) this::changed;
                default -> new Undefined("loop." + name);
            };
        }

        private Object changed(Arguments arguments) {
            boolean changed = lastSeen == null || !Values.equal(arguments.run(), arguments.values(), lastSeen);
            lastSeen = arguments.values();
            return changed;
        }
    }

    private final List<String> targets;
    private final Expression items;
    private final Expression filter;
    private final Statement body;
    private final Statement otherwise;

    /**
     * @param filter    {@code null}: every item
     * @param otherwise what is done when there are no items, {@code null}: nothing
     */
    Loop(List<String> targets, Expression items, Expression filter, Statement body, Statement otherwise) {
        this.targets = targets;
        this.items = items;
        this.filter = filter;
        this.body = body;
        this.otherwise = otherwise;
    }

    @Override
    public void run(Scope scope, StringBuilder out) {
        List<Object> all = Values.iterate(scope.run, items.value(scope));
        if (filter != null) {
            scope.run.elements(all.size());
            List<Object> chosen = new ArrayList<>();
            for (Object item : all) {
                Scope inner = scope.inner();
                Values.unpack(targets, item, inner);
                if (Values.isTrue(filter.value(inner))) {
                    chosen.add(item);
                }
            }
            all = chosen;
        }
        if (all.isEmpty()) {
            if (otherwise != null) {
                otherwise.run(scope.inner(), out);
            }
            return;
        }
        State state = new State(all);
        for (; state.index < all.size(); state.index++) {
            scope.run.step();
            Scope inner = scope.inner();
            inner.set("loop", state);
            Values.unpack(targets, all.get(state.index), inner);
            try {
                body.run(inner, out);
            } catch (Jump jump) {
                if (jump == Jump.BREAK) {
                    return;
                }
            }
        }
    }
}
