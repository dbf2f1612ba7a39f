package dev.lorica.serve;

import com.sun.net.httpserver.HttpExchange;
import dev.lorica.Model;
import dev.lorica.adapter.Adapter;
import dev.lorica.exceptions.BusyException;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.FileFormatException;
import dev.lorica.exceptions.InternalErrorException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.exceptions.LoricaException;
import dev.lorica.exceptions.MemoryException;
import dev.lorica.exceptions.NonFiniteException;
import dev.lorica.exceptions.UnsupportedException;
import dev.lorica.generate.GenerationService;
import dev.lorica.serve.runs.RunProgram;
import java.io.UncheckedIOException;
import java.net.URI;
import java.nio.charset.StandardCharsets;
import java.nio.file.Path;
import java.time.Instant;
import java.util.Map;
import java.util.Set;
import java.util.concurrent.Future;
import java.util.concurrent.ScheduledThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import org.slf4j.Logger;
import org.slf4j.LoggerFactory;

/**
 * A model and its adapters behind OpenAI's HTTP interface: chats, completions, embeddings, and what goes with them. Sends nothing to
 * anybody but those who ask.
 *
 * <pre>{@code
 * try (Model model = Model.load(Path.of("llama.gguf"));
 *         Adapter austen = Adapter.load(model, Path.of("austen"));
 *         LoricaServer server = new LoricaServer(model, ServeConfig.builder().port(8080).build())) {
 *     server.add("austen", austen);
 *     server.start();
 *     …
 * }
 * }</pre>
 *
 * The address may be taken before the model is loaded, see {@link ServerAddress}.
 */
public final class LoricaServer implements AutoCloseable {
    private static final Logger LOG = LoggerFactory.getLogger(LoricaServer.class);
    private static final String MODEL = "/v1/models/";
    private static final byte[] OK = "{\"status\":\"ok\"}".getBytes(StandardCharsets.UTF_8);

    /** What there is, and how it is asked for. */
    private static final Map<String, String> METHODS = Map.ofEntries(
            Map.entry("/health", "GET"),
            Map.entry("/metrics", "GET"),
            Map.entry("/v1/models", "GET"),
            Map.entry("/v1/chat/completions", "POST"),
            Map.entry("/v1/completions", "POST"),
            Map.entry("/v1/embeddings", "POST"),
            Map.entry("/v1/load_lora_adapter", "POST"),
            Map.entry("/v1/unload_lora_adapter", "POST"),
            Map.entry("/tokenize", "POST"),
            Map.entry("/detokenize", "POST"));

    private static final Set<String> OF_TEXTS = Set.of("/v1/chat/completions", "/v1/completions");

    private final ServeConfig config;
    /** {@code null}: the model writes no texts. */
    private final GenerationService service;

    private final String whyNoTexts;
    private final ServedModels models;
    private final Guard guard;
    private final Metrics metrics = new Metrics();
    private final Connections connections = new Connections();
    private final ChatEndpoint chat;
    private final CompletionEndpoint completions;
    private final OtherEndpoints others;
    /** {@code null}: nothing is tuned. */
    private TuningEndpoint tuning;

    private final ServerAddress address;
    private final Model model;
    private StudioEndpoints studio;
    private final ScheduledThreadPoolExecutor timer;

    /**
     * Takes the address, where all are told that the model is being loaded until {@link #start}. Memory for texts is taken when the
     * first of them comes.
     *
     * @param model  the base, which stays the caller's
     * @param config address, key and limits
     * @throws InvalidArgumentException if others than this machine could reach it and there is no API key
     * @throws FileAccessException      if the address cannot be listened on
     */
    public LoricaServer(Model model, ServeConfig config) {
        this(model, listen(model, config));
    }

    private static ServerAddress listen(Model model, ServeConfig config) {
        if (model == null) {
            throw new InvalidArgumentException("model is null");
        }
        return ServerAddress.listen(config);
    }

    /**
     * Serves the model at an address that was taken before.
     *
     * @param model   is served; whoever loaded it closes it, after the server
     * @param address of this server, which closes it
     */
    public LoricaServer(Model model, ServerAddress address) {
        if (model == null || address == null) {
            throw new InvalidArgumentException((model == null ? "model" : "address") + " is null");
        }
        this.address = address;
        this.config = address.config();
        this.model = model;
        String file = model.file().getFileName().toString().replaceAll("(?i)\\.gguf$", "");
        String name = config.modelName() != null ? config.modelName() : Served.isName(file) ? file : "model";
        guard = new Guard(config, address.host());
        timer = new ScheduledThreadPoolExecutor(1, work -> {
            Thread thread = new Thread(work, "lorica-http-timer");
            thread.setDaemon(true);
            return thread;
        });
        timer.setRemoveOnCancelPolicy(true);
        GenerationService made = null;
        String reason = null;
        try {
            made = new GenerationService(
                    model, new GenerationService.Config(config.texts(), config.positions(), config.waiting()));
        } catch (UnsupportedException e) {
            reason = e.getMessage(); // an encoder, which has embeddings
        } catch (RuntimeException e) {
            address.close();
            throw e;
        }
        service = made;
        whyNoTexts = reason;
        models = new ServedModels(model, service, name);
        int positions = service == null ? model.info().contextLength() : service.positions();
        ResponseFormats formats = new ResponseFormats(model);
        chat = new ChatEndpoint(model, service, models, formats);
        completions = new CompletionEndpoint(model, service, models, formats);
        others = new OtherEndpoints(
                model, models, config.dataFolder(), positions, Instant.now().getEpochSecond());
    }

    /**
     * Serves an adapter too. It stays the caller's, who closes it after this server.
     *
     * @param name    by which requests ask for it
     * @param adapter the adapter
     */
    public void add(String name, Adapter adapter) {
        if (name == null || adapter == null) {
            throw new InvalidArgumentException((name == null ? "name" : "adapter") + " is null");
        }
        if (!Served.isName(name)) {
            throw new InvalidArgumentException("an adapter is called " + name + "; it must be " + Served.NAMES);
        }
        if (models.has(name)) {
            throw new InvalidArgumentException("there is a model called " + name + " already");
        }
        models.add(name, adapter, name, false);
    }

    /**
     * Offers tuning at {@code /v1/tuning}: whoever may ask trains adapters of this model, in a loop of his own. Before {@link #start}.
     *
     * @param model  the model, which stays the caller's
     * @param folder below which they are saved
     */
    public void tuning(Model model, Path folder) {
        if (model == null || folder == null) {
            throw new InvalidArgumentException((model == null ? "model" : "folder") + " is null");
        }
        if (service == null) {
            throw new InvalidArgumentException("nothing is tuned over HTTP of a model that writes no texts");
        }
        tuning = new TuningEndpoint(model, service, completions, folder);
    }

    /**
     * Shows the studio at {@code /}, a page for chats and, where there are runs, for training. Before {@link #start}.
     *
     * @param program that trains, and shows what it would learn
     * @param output  below which runs write; {@code null}: nothing is trained from the page. {@link ServeConfig#dataFolder} is what they
     *                read.
     */
    public void studio(RunProgram program, Path output) {
        if (program == null) {
            throw new InvalidArgumentException("program is null");
        }
        if (output != null && config.dataFolder() == null) {
            throw new InvalidArgumentException("runs that write to " + output + " need a data folder to read from");
        }
        studio = new StudioEndpoints(model, models, program, config.dataFolder(), output);
    }

    /** From now on requests are answered. */
    public void start() {
        address.serve(this::handle);
    }

    /** {@return where it is reached, without a path: {@code http://127.0.0.1:8080}} */
    public URI uri() {
        return address.uri();
    }

    /** {@return what the base is called} */
    public String modelName() {
        return models.base().name();
    }

    /** Interrupts a thread that has taken too long, unless it is done; a blocked write ends so. */
    private static final class Watched {
        private Thread thread = Thread.currentThread();

        synchronized void interrupt() {
            if (thread != null) {
                thread.interrupt();
            }
        }

        synchronized void done() {
            thread = null;
            Thread.interrupted(); // what came too late is not for the next request
        }
    }

    private void handle(HttpExchange exchange) {
        long begin = System.nanoTime();
        // Once it is asked for, closing reads what is left of it, and the connection may be used again.
        exchange.getRequestBody();
        Call call = new Call(exchange, config, connections);
        Watched watched = new Watched();
        Future<?> limit = timer.schedule(watched::interrupt, config.timeLimit().toSeconds() + 5, TimeUnit.SECONDS);
        metrics.began();
        int status = 499;
        try {
            answer(call);
            status = call.status();
        } catch (UncheckedIOException e) {
            LOG.debug("a client has gone", e);
        } finally {
            watched.done();
            limit.cancel(false);
            metrics.ended(label(call.path()), status, System.nanoTime() - begin);
            exchange.close();
        }
    }

    private static String label(String path) {
        if (path != null && path.startsWith(TuningEndpoint.PATH)) {
            return TuningEndpoint.PATH;
        }
        return METHODS.containsKey(path) ? path : path != null && path.startsWith(MODEL) ? MODEL : "other";
    }

    private void answer(Call call) {
        try {
            guard.checkHost(call.headers());
            String origin = guard.checkOrigin(call.headers());
            if (origin != null) {
                call.answerHeaders().set("Access-Control-Allow-Origin", origin);
                call.answerHeaders().set("Vary", "Origin");
            }
            route(call, origin);
        } catch (ApiException e) {
            fail(call, e);
        } catch (LoricaException e) {
            fail(call, inWords(e));
        } catch (UncheckedIOException e) {
            throw e;
        } catch (RuntimeException e) {
            LOG.error("a request failed", e);
            fail(call, ApiException.of(500, "server_error", null, "the server has a defect; its log says where"));
        }
    }

    private static ApiException inWords(LoricaException e) {
        return inWords(e, e.getMessage());
    }

    /** @param message what is said of it */
    static ApiException inWords(LoricaException e, String message) {
        if (e instanceof BusyException) {
            return ApiException.of(429, "rate_limit_error", "busy", message);
        }
        if (e instanceof MemoryException) {
            return ApiException.of(503, "server_error", "out_of_memory", message);
        }
        boolean defect = e instanceof InternalErrorException
                || e instanceof NonFiniteException
                || e instanceof FileAccessException
                || e instanceof FileFormatException;
        return defect ? ApiException.of(500, "server_error", null, message) : ApiException.wrong(message);
    }

    private static void fail(Call call, ApiException e) {
        if (call.isStream()) {
            call.event(e.json());
            return;
        }
        if (call.status() == 0) {
            if (e.status() == 429) {
                call.answerHeaders().set("Retry-After", "1");
            }
            if (e.status() == 401) {
                call.answerHeaders().set("WWW-Authenticate", "Bearer");
            }
            call.answer(e.status(), e.json());
        }
    }

    private void route(Call call, String origin) {
        String path = call.path();
        if (studio != null && studio.answerPage(call)) {
            return; // the page itself is no secret, and asks for the key
        }
        boolean named = path != null && path.startsWith(MODEL) && path.length() > MODEL.length();
        String method = named ? "GET" : path == null ? null : METHODS.get(path);
        if (call.method().equals("OPTIONS") && origin != null) {
            call.answerHeaders().set("Access-Control-Allow-Methods", "GET, POST");
            call.answerHeaders().set("Access-Control-Allow-Headers", "Authorization, Content-Type");
            call.answer(204, "text/plain", new byte[0]);
            return;
        }
        if (!"/health".equals(path)) {
            guard.checkKey(call.headers());
        }
        if (tuning != null
                && path != null
                && path.startsWith(TuningEndpoint.PATH)
                && call.method().equals("POST")) {
            tuning.answer(call);
            return;
        }
        if (studio != null && studio.answer(call)) {
            return;
        }
        if (method == null) {
            throw ApiException.of(404, "invalid_request_error", "not_found", "there is nothing of this path");
        }
        if (!method.equals(call.method())
                && !(method.equals("GET") && call.method().equals("HEAD"))) {
            call.answerHeaders().set("Allow", method);
            throw ApiException.of(
                    405, "invalid_request_error", "method_not_allowed", "this is asked for with " + method);
        }
        if (service == null && OF_TEXTS.contains(path)) {
            throw ApiException.wrong(whyNoTexts);
        }
        if (named) {
            others.describe(call, URI.create(path).getPath().substring(MODEL.length()));
            return;
        }
        switch (path) {
            case "/health" -> call.answer(200, "application/json", OK); // sooner than the first JSON is written
            case "/metrics" ->
                call.answer(
                        200,
                        "text/plain; version=0.0.4; charset=utf-8",
                        metrics.text(service == null ? null : service.load()).getBytes(StandardCharsets.UTF_8));
            case "/v1/models" -> others.list(call);
            case "/v1/chat/completions" -> chat.answer(call);
            case "/v1/completions" -> completions.answer(call);
            case "/v1/embeddings" -> others.embed(call);
            case "/v1/load_lora_adapter" -> others.load(call);
            case "/v1/unload_lora_adapter" -> others.unload(call);
            case "/tokenize" -> others.tokenize(call);
            case "/detokenize" -> others.detokenize(call);
            default -> throw new IllegalStateException(path);
        }
    }

    /** Takes no more requests, ends those that run, and closes the adapters that were loaded while it ran. */
    @Override
    public void close() {
        if (studio != null) {
            studio.close();
        }
        address.stop();
        if (tuning != null) {
            tuning.close();
        }
        if (service != null) {
            service.close();
        }
        timer.shutdownNow();
        address.close();
        models.close();
    }
}
