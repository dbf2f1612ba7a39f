package dev.lorica.serve;

import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpHandler;
import com.sun.net.httpserver.HttpServer;
import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import java.io.IOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.UnknownHostException;
import java.nio.charset.StandardCharsets;
import java.util.Map;
import java.util.concurrent.SynchronousQueue;
import java.util.concurrent.ThreadPoolExecutor;
import java.util.concurrent.TimeUnit;
import java.util.concurrent.atomic.AtomicInteger;

/**
 * Where a server is reached, taken before there is a model: loading one may take long, and whoever waits for it wants to know that it
 * is coming. Until {@link LoricaServer#start}, {@code /health} is answered with status 503 and {@code {"status":"loading model"}}, and
 * all else with status 503 too.
 *
 * <pre>{@code
 * try (ServerAddress address = ServerAddress.listen(ServeConfig.builder().port(8080).build());
 *         Model model = Model.load(Path.of("llama.gguf"));
 *         LoricaServer server = new LoricaServer(model, address)) {
 *     server.start();
 *     …
 * }
 * }</pre>
 *
 * The JDK's server reads limits of its own from system properties, once in a process. Where they are not set, making the first address
 * sets them: a minute for the head of a request ({@code sun.net.httpserver.maxReqTime}), 64 KiB and 100 lines for it, 512 connections,
 * and that small pieces are sent at once ({@code sun.net.httpserver.nodelay}).
 */
public final class ServerAddress implements AutoCloseable {
    private static final int MOST_CONNECTIONS = 512;
    private static final byte[] LOADING = "{\"status\":\"loading model\"}".getBytes(StandardCharsets.UTF_8);
    private static final byte[] NOT_YET =
            ("{\"error\":{\"message\":\"the model is being loaded\",\"type\":\"server_error\","
                            + "\"param\":null,\"code\":\"loading_model\"}}")
                    .getBytes(StandardCharsets.UTF_8);

    static {
        Map.of(
                        "sun.net.httpserver.nodelay", "true",
                        "sun.net.httpserver.maxReqTime", "60",
                        "sun.net.httpserver.maxReqHeaders", "100",
                        "sun.net.httpserver.maxReqHeaderSize", "65536",
                        "jdk.httpserver.maxConnections", String.valueOf(MOST_CONNECTIONS))
                .forEach((name, value) -> {
                    if (System.getProperty(name) == null) {
                        System.setProperty(name, value);
                    }
                });
    }

    private final ServeConfig config;
    private final InetAddress host;
    private final HttpServer http;
    private final ThreadPoolExecutor threads;
    private volatile HttpHandler handler = ServerAddress::answerNotYet;
    private boolean stopped;

    private ServerAddress(ServeConfig config, InetAddress host) {
        this.config = config;
        this.host = host;
        InetSocketAddress address = new InetSocketAddress(host, config.port());
        try {
            http = HttpServer.create(address, 128);
        } catch (IOException e) {
            throw new FileAccessException(
                    "cannot listen on " + address.getHostString() + ":" + address.getPort() + ": " + e.getMessage(), e);
        }
        AtomicInteger number = new AtomicInteger();
        threads = new ThreadPoolExecutor(0, MOST_CONNECTIONS, 10, TimeUnit.SECONDS, new SynchronousQueue<>(), work -> {
            Thread thread = new Thread(work, "lorica-http-" + number.incrementAndGet());
            thread.setDaemon(true);
            return thread;
        });
        http.setExecutor(threads);
        http.createContext("/", exchange -> handler.handle(exchange));
        http.start();
    }

    /**
     * Takes the address that the configuration names, and answers there from now on.
     *
     * @param config of the server
     * @return the address, to be closed by the server or by whoever makes none
     * @throws InvalidArgumentException if others than this machine could reach it and there is no API key
     * @throws FileAccessException      if the address cannot be listened on
     */
    public static ServerAddress listen(ServeConfig config) {
        if (config == null) {
            throw new InvalidArgumentException("config is null");
        }
        InetAddress host;
        try {
            host = InetAddress.getByName(config.host());
        } catch (UnknownHostException e) {
            throw new InvalidArgumentException("there is no address for the host " + config.host());
        }
        if (!host.isLoopbackAddress() && config.apiKey() == null) {
            throw new InvalidArgumentException("who listens on " + config.host()
                    + " needs an API key: whoever reaches this machine could use the model");
        }
        return new ServerAddress(config, host);
    }

    /** {@return the address without a path: {@code http://127.0.0.1:8080}} */
    public URI uri() {
        InetSocketAddress bound = http.getAddress();
        String name = bound.getAddress().getHostAddress();
        return URI.create("http://" + (name.contains(":") ? "[" + name + "]" : name) + ":" + bound.getPort());
    }

    ServeConfig config() {
        return config;
    }

    InetAddress host() {
        return host;
    }

    /** From now on it answers. */
    void serve(HttpHandler server) {
        handler = server;
    }

    private static void answerNotYet(HttpExchange exchange) throws IOException {
        try (exchange) {
            byte[] body = "/health".equals(exchange.getRequestURI().getPath()) ? LOADING : NOT_YET;
            boolean head = exchange.getRequestMethod().equals("HEAD");
            exchange.getResponseHeaders().set("Content-Type", "application/json");
            exchange.getResponseHeaders().set("Retry-After", "1");
            exchange.sendResponseHeaders(503, head ? -1 : body.length);
            if (!head) {
                exchange.getResponseBody().write(body);
            }
        }
    }

    /** Takes no more requests, and ends the connections of those that run. */
    synchronized void stop() {
        if (!stopped) {
            stopped = true;
            http.stop(0);
        }
    }

    /** The same, and waits for the threads that answer. A server closes its address. */
    @Override
    public void close() {
        stop();
        threads.shutdownNow();
        boolean interrupted = false;
        for (boolean ended = false; !ended; ) {
            try {
                ended = threads.awaitTermination(1, TimeUnit.SECONDS);
            } catch (InterruptedException e) {
                interrupted = true;
            }
        }
        if (interrupted) {
            Thread.currentThread().interrupt();
        }
    }
}
