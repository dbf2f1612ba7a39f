package dev.lorica.serve;

import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
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

    private final Served base;
    private final Map<String, Served> all = new LinkedHashMap<>();

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

    private void leave(Served served) {
        boolean last;
        synchronized (this) {
            last = served.leave();
        }
        if (last) {
            if (service != null) {
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
