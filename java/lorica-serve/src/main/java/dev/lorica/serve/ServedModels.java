package dev.lorica.serve;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.adapter.ScaledAdapter;
import dev.lorica.generate.GenerationService;
import java.util.ArrayList;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.function.Function;

/** The base and its adapters by name. What is unloaded goes when the last request with it has ended. */
final class ServedModels {
    private static final int MOST = 1024;

    private final Model model;
    /** {@code null}: the model writes no texts. */
    private final GenerationService service;

    /** Scales that are kept beside 1: of each, what a text has in common with the one before it is not processed again. */
    private static final int MOST_SCALES = 8;

    /** An adapter times a number, which is another set of adapters to whoever generates. */
    private record Scaled(Served served, double scale) {}

    private final Served base;
    private final Map<String, Served> all = new LinkedHashMap<>();
    /** How many requests use each, that which was used last at the end. */
    private final Map<Scaled, Integer> scales = new LinkedHashMap<>();

    ServedModels(Model model, GenerationService service, String baseName) {
        this.model = model;
        this.service = service;
        base = new Served(baseName, model, null, baseName, false);
        all.put(baseName, base);
    }

    Served base() {
        return base;
    }

    synchronized List<Served> list() {
        return new ArrayList<>(all.values());
    }

    synchronized boolean has(String name) {
        return all.containsKey(name);
    }

    void add(String name, Adapter adapter, String root, boolean owned) {
        adapter.requireModel(model);
        Served served = new Served(name, model, adapter, root, owned);
        synchronized (this) {
            if (all.containsKey(name)) {
                throw ApiException.field("lora_name", "there is a model called " + name + " already");
            }
            if (all.size() > MOST) {
                throw ApiException.wrong("there are " + MOST + " adapters already");
            }
            all.put(name, served);
        }
    }

    void remove(String name) {
        Served served;
        synchronized (this) {
            served = all.get(name);
            if (served == null || served == base) {
                throw ApiException.of(
                        404, "invalid_request_error", "model_not_found", "there is no adapter called " + name);
            }
            all.remove(name);
        }
        leave(served);
    }

    /**
     * Does something with a model, which stays until that is done.
     *
     * @param name {@code null}: the base
     */
    <R> R with(String name, Function<Served, R> work) {
        Served served;
        synchronized (this) {
            served = name == null ? base : all.get(name);
            if (served == null) {
                throw ApiException.of(
                        404, "invalid_request_error", "model_not_found", "the model " + name + " does not exist");
            }
            served.use();
        }
        try {
            return work.apply(served);
        } finally {
            leave(served);
        }
    }

    /**
     * Does something with the adapter of a model, multiplied, as {@link #with} does it with the model. What is kept of a scale goes when
     * {@value #MOST_SCALES} others were used since.
     */
    <R> R scaled(Served served, double scale, Function<List<ScaledAdapter>, R> work) {
        List<ScaledAdapter> adapters = served.adapters(scale);
        if (adapters.isEmpty() || scale == 1) {
            return work.apply(adapters); // which stays as long as the model does
        }
        Scaled key = new Scaled(served, scale);
        synchronized (this) {
            Integer users = scales.remove(key);
            scales.put(key, users == null ? 1 : users + 1);
        }
        try {
            return work.apply(adapters);
        } finally {
            List<Scaled> old = new ArrayList<>();
            synchronized (this) {
                scales.computeIfPresent(key, (same, users) -> users - 1);
                int over = scales.size() - MOST_SCALES;
                scales.entrySet().stream()
                        .filter(one -> one.getValue() == 0)
                        .limit(Math.max(0, over))
                        .forEach(one -> old.add(one.getKey()));
                old.forEach(scales::remove);
            }
            old.forEach(this::forget);
        }
    }

    private void forget(Scaled scaled) {
        service.forget(scaled.served.adapters(scaled.scale));
    }

    private void leave(Served served) {
        boolean last;
        List<Scaled> own = new ArrayList<>();
        synchronized (this) {
            last = served.leave();
            if (last) {
                scales.keySet().stream().filter(one -> one.served == served).forEach(own::add);
                own.forEach(scales::remove);
            }
        }
        if (last) {
            if (service != null) {
                own.forEach(this::forget);
                service.forget(served.adapters());
            }
            served.close();
        }
    }

    void close() {
        for (Served served : list()) {
            served.close();
        }
    }
}
