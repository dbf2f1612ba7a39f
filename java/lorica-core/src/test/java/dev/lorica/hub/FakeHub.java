package dev.lorica.hub;

import com.fasterxml.jackson.databind.ObjectMapper;
import com.sun.net.httpserver.HttpExchange;
import com.sun.net.httpserver.HttpServer;
import java.io.IOException;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.InetAddress;
import java.net.InetSocketAddress;
import java.net.URI;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.ArrayDeque;
import java.util.ArrayList;
import java.util.Collections;
import java.util.HexFormat;
import java.util.LinkedHashMap;
import java.util.List;
import java.util.Map;
import java.util.Queue;
import java.util.TreeMap;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;

/**
 * A hub on this machine with one repository, {@code test/repo}, and a second server where its large files lie. It answers like Hugging
 * Face's as long as nobody tells it otherwise.
 */
final class FakeHub implements AutoCloseable {
    static final String COMMIT = "0123456789abcdef0123456789abcdef01234567";

    /** A request as it came. */
    record Request(String host, String method, String path, String range, String authorization) {}

    /** Answers one request in its own way. */
    interface Trick {
        void answer(HttpExchange exchange) throws IOException;
    }

    final Map<String, byte[]> files = new TreeMap<>();
    final List<Request> requests = Collections.synchronizedList(new ArrayList<>());
    /** Of metadata, when they are not to be those of the files. */
    volatile String commit = COMMIT;

    volatile String etag;
    volatile Long size;
    volatile List<String> listing;
    /** What the hub has made of a data set; {@code null}: nothing. */
    volatile List<String> converted;
    /** Whether the repository is a data set. */
    volatile boolean dataSet;

    /** Bodies of requests that had one, by their paths. */
    final Map<String, String> bodies = Collections.synchronizedMap(new TreeMap<>());
    /** Large files that were sent, by their checksums. */
    final Map<String, byte[]> stored = Collections.synchronizedMap(new TreeMap<>());
    /** Whether there is the repository already that somebody wants to make. */
    volatile boolean exists;

    volatile boolean largeFilesElsewhere;
    /** Pause before each piece of a body. */
    volatile long slowness;

    private final Queue<Trick> listingTricks = new ArrayDeque<>();
    private final Queue<Trick> metadataTricks = new ArrayDeque<>();
    private final Queue<Trick> fileTricks = new ArrayDeque<>();
    private final ExecutorService threads = Executors.newCachedThreadPool();
    private final HttpServer hub;
    private final HttpServer storage;

    FakeHub() {
        hub = serve(this::hub);
        storage = serve(this::storage);
    }

    private HttpServer serve(Trick handler) {
        try {
            HttpServer server = HttpServer.create(new InetSocketAddress(InetAddress.getLoopbackAddress(), 0), 0);
            server.setExecutor(threads);
            server.createContext("/", exchange -> {
                try (exchange) {
                    handler.answer(exchange);
                }
            });
            server.start();
            return server;
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    URI address() {
        return address(hub);
    }

    URI storageAddress() {
        return address(storage);
    }

    private static URI address(HttpServer server) {
        return URI.create("http://localhost:" + server.getAddress().getPort());
    }

    void stop() {
        hub.stop(0);
        storage.stop(0);
    }

    @Override
    public void close() {
        stop();
        threads.shutdownNow();
    }

    FakeHub with(String path, byte[] contents) {
        files.put(path, contents);
        return this;
    }

    FakeHub with(String path) {
        return with(path, path.getBytes(StandardCharsets.UTF_8));
    }

    // ---- tricks; each is used up by one request

    void nextListing(Trick trick) {
        listingTricks.add(trick);
    }

    void nextMetadata(Trick trick) {
        metadataTricks.add(trick);
    }

    void nextFile(Trick trick) {
        fileTricks.add(trick);
    }

    static Trick status(int status, String... headers) {
        return exchange -> {
            for (int i = 0; i < headers.length; i += 2) {
                exchange.getResponseHeaders().add(headers[i], headers[i + 1]);
            }
            exchange.sendResponseHeaders(status, -1);
        };
    }

    /** From now on all is as it should be. */
    void behave() {
        fileTricks.clear();
    }

    /** As it should be, but the connection ends after some bytes. */
    Trick cutAfter(int bytes) {
        return exchange -> send(exchange, bytes);
    }

    long count(String method, String pathEnd) {
        synchronized (requests) {
            return requests.stream()
                    .filter(request ->
                            request.method().equals(method) && request.path().endsWith(pathEnd))
                    .count();
        }
    }

    // ----

    private void hub(HttpExchange exchange) throws IOException {
        note("hub", exchange);
        String path = exchange.getRequestURI().getPath();
        if (exchange.getRequestMethod().equals("POST")) {
            take(exchange, path);
            return;
        }
        if (path.startsWith(dataSet ? "/api/datasets/" : "/api/models/")) {
            path = "/api/" + path.split("/", 4)[3];
        } else if (dataSet == path.startsWith("/datasets/")) {
            path = dataSet ? path.substring("/datasets".length()) : path;
        } else {
            status(404, "X-Error-Code", "RepoNotFound").answer(exchange);
            return;
        }
        if (path.startsWith("/api/test/repo/revision/")) {
            Trick trick = listingTricks.poll();
            boolean asksForConverted = path.endsWith("/refs/convert/parquet");
            if (trick != null) {
                trick.answer(exchange);
            } else if (asksForConverted && converted == null) {
                status(404, "X-Error-Code", "RevisionNotFound").answer(exchange);
            } else {
                list(exchange, asksForConverted ? converted : listing);
            }
            return;
        }
        String file = file(path);
        if (!path.startsWith("/test/repo/resolve/") || !files.containsKey(file)) {
            status(404, "X-Error-Code", path.startsWith("/test/repo/") ? "EntryNotFound" : "RepoNotFound")
                    .answer(exchange);
            return;
        }
        boolean head = exchange.getRequestMethod().equals("HEAD");
        Trick trick = (head ? metadataTricks : fileTricks).poll();
        if (trick != null) {
            trick.answer(exchange);
            return;
        }
        boolean large = isLarge(file);
        exchange.getResponseHeaders().add("X-Repo-Commit", commit);
        exchange.getResponseHeaders()
                .add(large ? "X-Linked-Etag" : "ETag", '"' + (etag != null ? etag : etag(file)) + '"');
        if (large || size != null) {
            exchange.getResponseHeaders()
                    .add("X-Linked-Size", Long.toString(size != null ? size : files.get(file).length));
        }
        if (large && largeFilesElsewhere) {
            exchange.getResponseHeaders().add("Location", storageAddress() + path + "?signed");
            exchange.sendResponseHeaders(302, -1);
        } else if (head) {
            exchange.getResponseHeaders().add("Content-Length", Integer.toString(files.get(file).length));
            exchange.sendResponseHeaders(200, -1);
        } else {
            send(exchange, Integer.MAX_VALUE);
        }
    }

    /** What somebody sends; it is all there when the commit has come. */
    private void take(HttpExchange exchange, String path) throws IOException {
        byte[] body = exchange.getRequestBody().readAllBytes();
        bodies.put(path, new String(body, StandardCharsets.UTF_8));
        ObjectMapper json = new ObjectMapper();
        switch (path) {
            case "/api/repos/create" -> {
                Trick trick = listingTricks.poll();
                (trick != null ? trick : status(exists ? 409 : 200)).answer(exchange);
            }
            case "/api/models/test/repo/preupload/main" -> {
                List<Map<String, Object>> modes = new ArrayList<>();
                json.readTree(body)
                        .path("files")
                        .forEach(file -> modes.add(Map.of(
                                "path",
                                file.path("path").asText(),
                                "uploadMode",
                                isLarge(file.path("path").asText()) ? "lfs" : "regular")));
                answer(exchange, Map.of("files", modes));
            }
            case "/test/repo.git/info/lfs/objects/batch" -> {
                List<Map<String, Object>> objects = new ArrayList<>();
                json.readTree(body).path("objects").forEach(object -> {
                    String oid = object.path("oid").asText();
                    Map<String, Object> one = new LinkedHashMap<>(
                            Map.of("oid", oid, "size", object.path("size").asLong()));
                    if (!stored.containsKey(oid)) {
                        one.put(
                                "actions",
                                Map.of(
                                        "upload",
                                        Map.of(
                                                "href",
                                                storageAddress() + "/put/" + oid,
                                                "header",
                                                Map.of("X-Sign", "s")),
                                        "verify",
                                        Map.of("href", address() + "/verify/" + oid)));
                    }
                    objects.add(one);
                });
                answer(exchange, Map.of("objects", objects));
            }
            case "/api/models/test/repo/commit/main" ->
                answer(exchange, Map.of("success", true, "commitUrl", address() + "/test/repo/commit/" + COMMIT));
            default -> status(path.startsWith("/verify/") ? 200 : 404).answer(exchange);
        }
    }

    private static void answer(HttpExchange exchange, Object json) throws IOException {
        byte[] bytes = new ObjectMapper().writeValueAsBytes(json);
        exchange.sendResponseHeaders(200, bytes.length);
        exchange.getResponseBody().write(bytes);
    }

    private void storage(HttpExchange exchange) throws IOException {
        note("storage", exchange);
        if (exchange.getRequestMethod().equals("PUT")) {
            String oid = exchange.getRequestURI().getPath().substring("/put/".length());
            Trick trick = fileTricks.poll();
            if (trick != null) {
                exchange.getRequestBody().readAllBytes();
                trick.answer(exchange);
                return;
            }
            stored.put(oid, exchange.getRequestBody().readAllBytes());
            status(200).answer(exchange);
            return;
        }
        send(exchange, Integer.MAX_VALUE);
    }

    private void note(String host, HttpExchange exchange) {
        requests.add(new Request(
                host,
                exchange.getRequestMethod(),
                exchange.getRequestURI().getPath(),
                exchange.getRequestHeaders().getFirst("Range"),
                exchange.getRequestHeaders().getFirst("Authorization")));
    }

    private void list(HttpExchange exchange, List<String> given) throws IOException {
        List<String> names = given != null ? given : List.copyOf(files.keySet());
        byte[] json = new ObjectMapper()
                .writeValueAsBytes(Map.of(
                        "sha",
                        commit,
                        "siblings",
                        names.stream().map(name -> Map.of("rfilename", name)).toList()));
        exchange.sendResponseHeaders(200, json.length);
        exchange.getResponseBody().write(json);
    }

    /** The file of the request from where it asks, but at most so many bytes of it. */
    private void send(HttpExchange exchange, int most) throws IOException {
        byte[] contents = files.get(file(exchange.getRequestURI().getPath()));
        String range = exchange.getRequestHeaders().getFirst("Range");
        int from = range == null ? 0 : Integer.parseInt(range.replaceAll("bytes=(\\d+)-", "$1"));
        if (from >= contents.length && from > 0) {
            exchange.sendResponseHeaders(416, -1);
            return;
        }
        if (from > 0) {
            exchange.getResponseHeaders()
                    .add("Content-Range", "bytes " + from + "-" + (contents.length - 1) + "/" + contents.length);
        }
        exchange.sendResponseHeaders(from > 0 ? 206 : 200, contents.length == 0 ? -1 : contents.length - from);
        OutputStream body = exchange.getResponseBody();
        int end = (int) Math.min(contents.length, (long) from + most);
        for (int at = from; at < end; at += 64 << 10) {
            pause();
            body.write(contents, at, Math.min(64 << 10, end - at));
            body.flush();
        }
    }

    private void pause() {
        try {
            Thread.sleep(slowness);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
        }
    }

    private static String file(String whole) {
        String path = whole.startsWith("/datasets/") ? whole.substring("/datasets".length()) : whole;
        String[] parts = path.split("/", 6);
        return parts.length < 6 ? "" : URLDecoder.decode(parts[5], StandardCharsets.UTF_8);
    }

    static boolean isLarge(String file) {
        return file.endsWith(".gguf") || file.endsWith(".safetensors");
    }

    String etag(String file) {
        return etag(file, files.get(file));
    }

    static String etag(String file, byte[] contents) {
        return isLarge(file)
                ? hash("SHA-256", contents)
                : hash("SHA-1", ("blob " + contents.length + "\0").getBytes(StandardCharsets.US_ASCII), contents);
    }

    private static String hash(String algorithm, byte[]... parts) {
        try {
            MessageDigest digest = MessageDigest.getInstance(algorithm);
            for (byte[] part : parts) {
                digest.update(part);
            }
            return HexFormat.of().formatHex(digest.digest());
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException(e);
        }
    }
}
