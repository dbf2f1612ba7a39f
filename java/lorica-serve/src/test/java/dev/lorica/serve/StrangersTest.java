package dev.lorica.serve;

import static org.assertj.core.api.Assertions.assertThat;

import java.io.IOException;
import java.io.InputStream;
import java.lang.management.ManagementFactory;
import java.net.Socket;
import java.net.SocketException;
import java.net.http.HttpRequest;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.util.ArrayList;
import java.util.List;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.Callable;
import java.util.concurrent.ExecutorService;
import java.util.concurrent.Executors;
import java.util.concurrent.Future;
import java.util.concurrent.atomic.AtomicLong;
import java.util.stream.Stream;
import org.junit.jupiter.api.AfterAll;
import org.junit.jupiter.api.BeforeAll;
import org.junit.jupiter.api.Test;
import org.junit.jupiter.api.Timeout;
import org.junit.jupiter.api.condition.EnabledOnOs;
import org.junit.jupiter.api.condition.OS;

/** Clients that are many, slow, broken, gone or not to be trusted. */
@Timeout(900)
class StrangersTest {
    private static final String COMPLETIONS = "/v1/completions";
    private static TestServer served;

    @BeforeAll
    static void start() {
        served = new TestServer(ServeConfig.builder()
                .modelName("austen")
                .apiKey(TestServer.KEY)
                .allowedOrigins(List.of("https://friend.example"))
                .maxBody(20_000)
                .texts(4));
    }

    @AfterAll
    static void stop() {
        served.close();
    }

    private static HttpRequest.Builder withKey(String path) {
        return served.request(path).header("Authorization", "Bearer " + TestServer.KEY);
    }

    private static HttpRequest completion(String json) {
        return withKey(COMPLETIONS)
                .header("Content-Type", "application/json")
                .POST(HttpRequest.BodyPublishers.ofString(json.replace('\'', '"')))
                .build();
    }

    /** What is answered to these bytes. */
    private static String raw(String request) throws IOException {
        try (Socket socket = socket()) {
            socket.getOutputStream().write(request.getBytes(StandardCharsets.UTF_8));
            socket.getOutputStream().flush();
            return new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8);
        } catch (SocketException e) {
            return "closed: " + e.getMessage();
        }
    }

    private static Socket socket() throws IOException {
        Socket socket = new Socket("127.0.0.1", served.server.uri().getPort());
        socket.setSoTimeout((int) TestServer.PATIENCE.toMillis());
        return socket;
    }

    private static String models(String headers) throws IOException {
        return raw("GET /v1/models HTTP/1.1\r\nConnection: close\r\n" + headers + "\r\n");
    }

    @Test
    void onlyTheKeyOpens() throws Exception {
        assertThat(served.get("/health").status()).as("says nothing to anybody").isEqualTo(200);
        for (String path : List.of("/v1/models", "/metrics", "/nowhere")) {
            assertThat(served.get(path).status()).as(path).isEqualTo(401);
        }
        for (String wrong : List.of(
                "Bearer wrong",
                "Bearer " + TestServer.KEY + "x",
                "Bearer",
                "Bearer ",
                "Basic " + TestServer.KEY,
                TestServer.KEY)) {
            TestServer.Answer answer = served.send(
                    served.request("/v1/models").header("Authorization", wrong).build());
            assertThat(answer.status()).as(wrong).isEqualTo(401);
            assertThat(answer.error().path("code").asText()).isEqualTo("invalid_api_key");
        }
        assertThat(served.send(withKey("/v1/models").build()).status()).isEqualTo(200);
    }

    @Test
    void pagesOfOtherSitesAreRefused() throws Exception {
        String key = "Authorization: Bearer " + TestServer.KEY + "\r\n";
        int port = served.server.uri().getPort();
        String own = "Host: 127.0.0.1:" + port + "\r\n";
        assertThat(models(own + key)).startsWith("HTTP/1.1 200");
        assertThat(models("Host: localhost\r\n" + key)).startsWith("HTTP/1.1 200");
        assertThat(models("Host: evil.example\r\n" + key))
                .startsWith("HTTP/1.1 403")
                .contains("host_not_allowed");
        assertThat(models("Host: 127.0.0.1.evil.example:" + port + "\r\n" + key))
                .startsWith("HTTP/1.1 403");
        assertThat(models(own + own + key)).startsWith("HTTP/1.1 400");
        assertThat(models(key)).startsWith("HTTP/1.1 400");
        assertThat(models(own + key + "Origin: http://127.0.0.1:" + port + "\r\n"))
                .startsWith("HTTP/1.1 200");
        for (String origin :
                List.of("http://evil.example", "null", "http://127.0.0.1:1", "https://friend.example.org")) {
            assertThat(models(own + key + "Origin: " + origin + "\r\n"))
                    .as(origin)
                    .startsWith("HTTP/1.1 403")
                    .doesNotContainIgnoringCase("Access-Control-Allow-Origin");
        }
        assertThat(models(own + key + "Origin: https://friend.example\r\n"))
                .startsWith("HTTP/1.1 200")
                .containsIgnoringCase("Access-Control-Allow-Origin: https://friend.example");
        String preflight = "OPTIONS /v1/completions HTTP/1.1\r\nConnection: close\r\n" + own;
        assertThat(raw(preflight + "Origin: https://friend.example\r\n\r\n")).startsWith("HTTP/1.1 204");
        assertThat(raw(preflight + "Origin: https://evil.example\r\n\r\n")).startsWith("HTTP/1.1 403");
        TestServer.Answer form = served.send(withKey(COMPLETIONS)
                .header("Content-Type", "text/plain")
                .POST(HttpRequest.BodyPublishers.ofString("{\"prompt\": \"x\"}"))
                .build());
        assertThat(form.status()).isEqualTo(415);
    }

    @Test
    void oversizedAndBrokenRequestsEndAlone() throws Exception {
        String large = "{'prompt': '" + "x".repeat(30_000) + "'}";
        assertThat(served.send(completion(large)).status()).isEqualTo(413);
        String head =
                "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nConnection: close\r\n"
                        + "Authorization: Bearer " + TestServer.KEY + "\r\n";
        StringBuilder chunks = new StringBuilder(head + "Transfer-Encoding: chunked\r\n\r\n");
        for (int i = 0; i < 30; i++) {
            chunks.append("3e8\r\n").append("x".repeat(1000)).append("\r\n");
        }
        assertThat(raw(chunks + "0\r\n\r\n")).startsWith("HTTP/1.1 413");
        assertThat(raw("NONSENSE\r\n\r\n"))
                .satisfiesAnyOf(answer -> assertThat(answer).startsWith("HTTP/1.1 400"), answer -> assertThat(answer)
                        .isEmpty());
        assertThat(raw(head + "Content-Length: many\r\n\r\n"))
                .satisfiesAnyOf(answer -> assertThat(answer).startsWith("HTTP/1.1 400"), answer -> assertThat(answer)
                        .isEmpty());
        assertThat(raw("GET /" + "x".repeat(100_000) + " HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
                .doesNotContain(" 200 ");
        assertThat(raw("GET /v1/../../etc/passwd HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n"))
                .startsWith("HTTP/1.1 401");
        assertThat(served.get("/health").status()).isEqualTo(200);
    }

    private static final String LONG =
            "{\"model\": \"%s\", \"prompt\": \"It is a truth\", \"max_tokens\": 200, \"stream\": true, \"logit_bias\": {\"%d\": -100}}";

    /** Reads a little of a stream, and goes. */
    private static String vanish(String model, int pieces) throws IOException {
        String body = String.format(LONG, model, served.model.tokenizer().info().eos());
        try (Socket socket = socket()) {
            String head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    + "Authorization: Bearer " + TestServer.KEY + "\r\nContent-Length: " + body.length() + "\r\n\r\n";
            socket.getOutputStream().write((head + body).getBytes(StandardCharsets.UTF_8));
            socket.getOutputStream().flush();
            InputStream in = socket.getInputStream();
            byte[] some = new byte[64];
            StringBuilder read = new StringBuilder();
            for (int i = 0; i < pieces; i++) {
                read.append(new String(some, 0, Math.max(0, in.read(some)), StandardCharsets.UTF_8));
            }
            return read.toString();
        }
    }

    private static long ownThreads() {
        return Thread.getAllStackTraces().keySet().stream()
                .filter(thread -> thread.getName().startsWith("lorica-http-"))
                .count();
    }

    private static String metric(String name) throws Exception {
        return served.send(withKey("/metrics").build())
                .body()
                .lines()
                .filter(line -> line.startsWith(name + " "))
                .findFirst()
                .orElse("");
    }

    /** 64 clients at once: what each saw, {@code good} where that is what it is to see. */
    private static List<String> storm() throws Exception {
        String[] models = {"austen", "one", "other"};
        List<Callable<String>> clients = new ArrayList<>();
        for (int i = 0; i < 64; i++) {
            String model = models[i % 3];
            int kind = i % 10;
            int number = i;
            clients.add(() -> switch (kind) {
                case 0, 1 -> {
                    String begun = vanish(model, 4);
                    yield begun.startsWith("HTTP/1.1 200") ? "good" : begun;
                }
                case 2 -> {
                    // says what it wants a byte at a time
                    String request =
                            "GET /v1/models HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\nAuthorization: Bearer "
                                    + TestServer.KEY + "\r\n\r\n";
                    try (Socket socket = socket()) {
                        for (byte one : request.getBytes(StandardCharsets.UTF_8)) {
                            socket.getOutputStream().write(one);
                            Thread.sleep(5);
                        }
                        yield new String(socket.getInputStream().readAllBytes(), StandardCharsets.UTF_8)
                                        .contains("200 OK")
                                ? "good"
                                : "bad";
                    }
                }
                case 5 -> {
                    int status = served.send(completion("{'prompt': '" + "x".repeat(30_000) + "'}"))
                            .status();
                    yield status == 413 ? "good" : "status " + status;
                }
                case 6 -> {
                    // is no JSON, or leaves before it has said what it announced
                    TestServer.Answer answer = served.send(completion("{'model': '" + model + "', "));
                    try (Socket socket = socket()) {
                        socket.getOutputStream()
                                .write(("POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: 100\r\n"
                                                + "Content-Type: application/json\r\nAuthorization: Bearer "
                                                + TestServer.KEY + "\r\n\r\n{")
                                        .getBytes(StandardCharsets.UTF_8));
                    }
                    yield answer.status() == 400 ? "good" : answer.body();
                }
                case 7 -> {
                    int status = served.send(withKey("/v1/..%2f..%2fetc/passwd").build())
                            .status();
                    yield status == 404 ? "good" : "status " + status;
                }
                case 3 -> {
                    int status = served.send(served.request("/v1/models")
                                    .header("Authorization", "Bearer no")
                                    .build())
                            .status();
                    yield status == 401 ? "good" : "status " + status;
                }
                default -> {
                    TestServer.Answer answer = served.send(completion("{'model': '" + model
                            + "', 'prompt': 'He was " + number % 5 + "', 'max_tokens': 8, 'temperature': 0"
                            + (kind == 4 ? ", 'stream': true" : "") + "}"));
                    yield answer.status() == 200 ? "good" : answer.body();
                }
            });
        }
        ExecutorService pool = Executors.newFixedThreadPool(64);
        List<String> seen = new ArrayList<>();
        try {
            for (Future<String> result : pool.invokeAll(clients)) {
                seen.add(result.get());
            }
        } finally {
            pool.shutdown();
        }
        awaitRest();
        return seen;
    }

    /** Nothing is computed, and no thread is at work on a request: one is still on its way where its answer has been read already. */
    private static void awaitRest() throws Exception {
        TestServer.await(() -> number("lorica_texts_running") == 0
                && number("lorica_texts_waiting") == 0
                && number("lorica_requests_active") == 1);
        TestServer.await(() -> Held.working().stream().noneMatch(name -> name.matches("lorica-http-\\d+")));
    }

    /** What a process holds that is not given back by itself. */
    private record Held(long heap, long other, long files, Set<String> threads) {
        static Held now() throws IOException {
            Runtime java = Runtime.getRuntime();
            List<byte[]> all =
                    new ArrayList<>(); // what Java has taken for its heap is used once, and so counts as used from then
            // on
            for (long left = java.freeMemory() - (16 << 20); left > 0; left -= 256 << 10) {
                all.add(new byte[256 << 10]);
            }
            all.clear();
            for (int i = 0; i < 3; i++) {
                System.gc();
            }
            long anonymous = 0;
            for (String line : Files.readAllLines(Path.of("/proc/self/status"))) {
                if (line.startsWith("RssAnon:")) {
                    anonymous = Long.parseLong(line.replaceAll("\\D", "")) << 10;
                }
            }
            try (Stream<Path> open = Files.list(Path.of("/proc/self/fd"))) {
                return new Held(
                        java.totalMemory() - java.freeMemory(),
                        anonymous - java.totalMemory(),
                        open.filter(StrangersTest::isSocket).count(),
                        working());
            }
        }

        /** Threads that are at work, or live without being those that wait for the next request or belong to Java. */
        private static Set<String> working() {
            Set<String> working = new TreeSet<>();
            Thread.getAllStackTraces().forEach((thread, stack) -> {
                boolean waits =
                        Stream.of(stack).anyMatch(frame -> frame.getMethodName().equals("getTask"));
                if (thread.getName().startsWith("lorica-") && !waits) {
                    working.add(thread.getName());
                }
            });
            return working;
        }
    }

    private static boolean isSocket(Path file) {
        try {
            return Files.readSymbolicLink(file).toString().startsWith("socket:");
        } catch (IOException e) {
            return false; // closed meanwhile
        }
    }

    @Test
    @EnabledOnOs(OS.LINUX)
    void sixtyFourAtOnceAreServedWhateverSomeOfThemDoAndLeaveNothingBehind() throws Exception {
        assertThat(storm()).as("what each is to see").containsOnly("good");
        Held before =
                Held.now(); // with what is kept of a first time: classes, caches, connections of the tests' client
        // Java gives memory back and takes it again as it likes, tens of MB of it. What is lost is lost in every storm,
        // and shows after many. Other collectors than G1, such as that of a machine of one processor, take more and
        // more for the heap the more often it is filled to be measured.
        boolean measured = ManagementFactory.getGarbageCollectorMXBeans().stream()
                .anyMatch(one -> one.getName().startsWith("G1"));
        Held after = before;
        int storms = 0;
        do {
            assertThat(storm()).containsOnly("good");
            after = Held.now();
            storms++;
        } while (storms < (measured ? 10 : 5)
                || measured && storms < 20 && after.other - before.other >= storms * 4L << 20);
        assertThat(metric("lorica_texts_running")).as("their places are free").isEqualTo("lorica_texts_running 0");
        assertThat(metric("lorica_texts_waiting")).isEqualTo("lorica_texts_waiting 0");
        AtomicLong active = new AtomicLong();
        TestServer.await(
                () -> { // the one before may not have ended yet
                    active.set(number("lorica_requests_active"));
                    return active.get() == 1;
                });
        assertThat(active).as("no request is on its way but this one").hasValue(1);
        assertThat(after.heap - before.heap).as("bytes of Java's own memory").isLessThan(8 << 20);
        if (measured) {
            assertThat((after.other - before.other) / storms)
                    .as("bytes of other memory lost in each of %d storms", storms)
                    .isLessThan(4 << 20);
        }
        assertThat(after.files - before.files).as("connections").isLessThan(64);
        assertThat(after.threads).as("threads at work").isEqualTo(before.threads);
        assertThat(served.send(completion("{'prompt': 'x', 'max_tokens': 2}")).status())
                .isEqualTo(200);
    }

    /** The server sees who has gone where the system lists its connections. */
    @Test
    @EnabledOnOs(OS.LINUX)
    void whoeverLeavesWithoutAnAnswerIsNotComputedFor() throws Exception {
        long before = number("lorica_generated_tokens_total");
        int texts = 128;
        String body = "{\"prompt\": \"It is a truth\", \"max_tokens\": 200, \"n\": " + texts + ", \"logit_bias\": {\""
                + served.model.tokenizer().info().eos() + "\": -100}}";
        try (Socket socket = socket()) {
            String head = "POST /v1/completions HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\n"
                    + "Authorization: Bearer " + TestServer.KEY + "\r\nContent-Length: " + body.length() + "\r\n\r\n";
            socket.getOutputStream().write((head + body).getBytes(StandardCharsets.UTF_8));
            socket.getOutputStream().flush();
            TestServer.await(() -> number("lorica_texts_waiting") > 0);
        }
        TestServer.await(() -> number("lorica_texts_waiting") == 0 && number("lorica_texts_running") == 0);
        assertThat(number("lorica_texts_running")).isZero();
        assertThat(number("lorica_generated_tokens_total") - before).isLessThan(texts * 200L * 3 / 4);
        String gone = "lorica_request_seconds_count{path=\"/v1/completions\",status=\"499\"}";
        TestServer.await(() -> !metric(gone).isEmpty());
        assertThat(metric(gone)).isNotEmpty();
    }

    private static long number(String metric) throws Exception {
        return Long.parseLong(metric(metric).substring(metric.length() + 1));
    }

    @Test
    void whatIsTooMuchIsRefusedAndClosingLeavesNoThread() throws Exception {
        long before = ownThreads();
        try (TestServer small = new TestServer(ServeConfig.builder().texts(1).waiting(1))) {
            TestServer.Answer busy = small.post(COMPLETIONS, "{'prompt': 'x', 'n': 3}");
            assertThat(busy.status()).isEqualTo(429);
            assertThat(busy.error().path("code").asText()).isEqualTo("busy");
            assertThat(busy.response().headers().firstValue("Retry-After")).isPresent();
            assertThat(small.post(COMPLETIONS, "{'prompt': 'x', 'n': 2, 'max_tokens': 2}")
                            .status())
                    .isEqualTo(200);
        }
        assertThat(Thread.getAllStackTraces().keySet().stream()
                        .filter(thread -> thread.getName().equals("lorica-generation"))
                        .count())
                .as("that of the server of all tests")
                .isEqualTo(1);
        assertThat(ownThreads()).isLessThanOrEqualTo(before + 1);
    }
}
