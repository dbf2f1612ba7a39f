package dev.lorica.hub;

import com.fasterxml.jackson.core.JacksonException;
import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.json.JsonMapper;
import dev.lorica.exceptions.HubException;
import dev.lorica.internal.NativeDevices;
import java.io.CharConversionException;
import java.io.IOException;
import java.io.InputStream;
import java.net.URI;
import java.net.URLEncoder;
import java.net.http.HttpClient;
import java.net.http.HttpRequest;
import java.net.http.HttpRequest.BodyPublishers;
import java.net.http.HttpResponse;
import java.nio.charset.StandardCharsets;
import java.nio.file.Files;
import java.nio.file.Path;
import java.time.Duration;
import java.time.Instant;
import java.time.ZonedDateTime;
import java.time.format.DateTimeFormatter;
import java.time.format.DateTimeParseException;
import java.util.ArrayList;
import java.util.Arrays;
import java.util.List;
import java.util.Map;
import java.util.Optional;
import java.util.Set;
import java.util.stream.Collectors;

/** Requests to a hub: redirects, repetitions, refusals in words. */
final class HubClient {
    /** Pauses between repetitions; tests do not wait. */
    interface Pause {
        void of(Duration time) throws InterruptedException;
    }

    /** What a revision of a repository holds. */
    record Listing(String commit, List<String> files) {}

    /** What the hub says of a file before it sends it. */
    record Metadata(String commit, String etag, long size) {}

    private static final int MOST_REDIRECTS = 8;
    private static final int MOST_ATTEMPTS = 6;
    private static final int MOST_LISTING_BYTES = 32 << 20;
    private static final int SLOWEST_BYTES_PER_SECOND = 32 << 10;
    private static final Duration LONGEST_PAUSE = Duration.ofMinutes(5);
    private static final Set<Integer> REDIRECTS = Set.of(301, 302, 303, 307, 308);
    private static final Set<Integer> TRANSIENT = Set.of(408, 429, 500, 502, 503, 504);
    private static final JsonMapper JSON = new JsonMapper();

    private final HubConfig config;
    private final HubListener listener;
    private final Pause pause;
    private final HttpClient http;

    HubClient(HubConfig config, HubListener listener, Pause pause) {
        this.config = config;
        this.listener = listener;
        this.pause = pause;
        this.http = HttpClient.newBuilder()
                .version(HttpClient.Version.HTTP_1_1)
                .followRedirects(HttpClient.Redirect.NEVER)
                .connectTimeout(config.timeout())
                .build();
    }

    /** What goes with a request; it may go several times. */
    private record Body(HttpRequest.BodyPublisher bytes, long size) {
        static final Body NONE = new Body(BodyPublishers.noBody(), 0);
    }

    // ---- what is asked

    Listing list(HubName name) throws IOException {
        URI uri = address("/api/" + (name.data() ? "datasets/" : "models/") + name.id() + "/revision/"
                + encoded(name.revision()));
        try (Answer answer = request(name, "GET", uri, Map.of(), false)) {
            byte[] body = answer.body().readNBytes(MOST_LISTING_BYTES + 1);
            if (body.length > MOST_LISTING_BYTES) {
                throw new HubException(name.inWords() + ": the list of its files is too long");
            }
            JsonNode json = JSON.readTree(body);
            String commit = json.path("sha").asText("");
            if (!HubName.isCommit(commit) || !json.path("siblings").isArray()) {
                throw new HubException(
                        config.endpoint() + " does not answer like a hub: no commit and no files of " + name.inWords());
            }
            List<String> files = new ArrayList<>();
            for (JsonNode file : json.path("siblings")) {
                String path = file.path("rfilename").asText("");
                if (HubName.isSafe(path)) {
                    files.add(path);
                }
            }
            return new Listing(commit, files);
        } catch (JacksonException | CharConversionException e) {
            throw new HubException(config.endpoint() + " does not answer like a hub: the list of files is not JSON", e);
        }
    }

    Metadata metadata(HubName name, String file) throws IOException {
        try (Answer answer = request(name.with(file), "HEAD", fileAddress(name, file), Map.of(), true)) {
            String etag = header(answer, "X-Linked-Etag")
                    .or(() -> header(answer, "ETag"))
                    .orElse("");
            etag = etag.replaceFirst("^W/", "").replaceAll("^\"|\"$", "");
            String commit = header(answer, "X-Repo-Commit").orElse("");
            long size = header(answer, "X-Linked-Size")
                    .or(() -> header(answer, "Content-Length"))
                    .map(HubClient::size)
                    .orElse(-1L);
            // The entity tag becomes a file name.
            if (!HubName.isCommit(commit) || !etag.matches("[A-Za-z0-9_-]{1,128}") || size < 0) {
                throw new HubException(config.endpoint() + " does not answer like a hub: it tells no "
                        + (HubName.isCommit(commit) ? size < 0 ? "size" : "checksum" : "commit") + " of "
                        + name.inWords() + ":" + file);
            }
            if (name.isCommit() && !commit.equals(name.revision())) {
                throw new HubException(
                        config.endpoint() + " answers with commit " + commit + " when asked for " + name.inWords());
            }
            return new Metadata(commit, etag, size);
        }
    }

    /** The file from byte {@code from} on, if the other side is willing. */
    Answer file(HubName name, String file, long from) throws IOException {
        Map<String, String> range = from > 0 ? Map.of("Range", "bytes=" + from + "-") : Map.of();
        return request(name.with(file), "GET", fileAddress(name, file), range, false);
    }

    /** Asks with something to say, and gives the answer's JSON. */
    JsonNode post(HubName name, URI uri, Map<String, String> headers, byte[] body) throws IOException {
        try (Answer answer =
                request(name, "POST", uri, headers, false, new Body(BodyPublishers.ofByteArray(body), body.length))) {
            byte[] text = answer.body().readNBytes(MOST_LISTING_BYTES);
            return text.length == 0 ? JSON.createObjectNode() : JSON.readTree(text);
        } catch (JacksonException | CharConversionException e) {
            throw new HubException(uri.getHost() + " does not answer like a hub: what it says is not JSON", e);
        }
    }

    /** Sends a file to where the hub wants it. */
    void put(HubName name, URI uri, Map<String, String> headers, Path file) throws IOException {
        request(name, "PUT", uri, headers, false, new Body(BodyPublishers.ofFile(file), Files.size(file)))
                .close();
    }

    private URI fileAddress(HubName name, String file) {
        String path = Arrays.stream(file.split("/")).map(HubClient::encoded).collect(Collectors.joining("/"));
        return address("/" + name.place() + "/resolve/" + encoded(name.revision()) + "/" + path);
    }

    URI address(String path) {
        return URI.create(config.endpoint() + path);
    }

    static String encoded(String text) {
        return URLEncoder.encode(text, StandardCharsets.UTF_8).replace("+", "%20");
    }

    private static long size(String text) {
        try {
            return Long.parseLong(text);
        } catch (NumberFormatException e) {
            return -1;
        }
    }

    // ---- how it is asked

    /** An answer whose body is read by the caller. */
    record Answer(HttpResponse<InputStream> response) implements AutoCloseable {
        int status() {
            return response.statusCode();
        }

        InputStream body() {
            return response.body();
        }

        @Override
        public void close() {
            try {
                response.body().close();
            } catch (IOException e) {
                // Nobody wants the rest.
            }
        }
    }

    static Optional<String> header(Answer answer, String name) {
        return answer.response().headers().firstValue(name);
    }

    /**
     * Sends a request until there is an answer that is neither a redirect nor a passing trouble.
     *
     * @param facts whether only the hub's own headers are wanted: a redirect to where the bytes lie is then the answer
     * @throws HubException for an answer that says no
     * @throws IOException  when there is no answer
     */
    private Answer request(HubName name, String method, URI uri, Map<String, String> headers, boolean facts)
            throws IOException {
        return request(name, method, uri, headers, facts, Body.NONE);
    }

    private Answer request(
            HubName name, String method, URI uri, Map<String, String> headers, boolean facts, Body content)
            throws IOException {
        for (int attempt = 1; ; attempt++) {
            Duration wait = Duration.ofSeconds(1L << (attempt - 1));
            try {
                Answer answer = follow(method, uri, headers, facts, content);
                if (answer.status() < 400 || answer.status() == 416 || answer.status() == 409) {
                    return answer;
                }
                answer.close();
                Duration asked = retryAfter(answer).orElse(wait);
                if (!TRANSIENT.contains(answer.status())
                        || attempt == MOST_ATTEMPTS
                        || asked.compareTo(LONGEST_PAUSE) > 0) {
                    throw refusal(name, uri, answer, asked, content != Body.NONE);
                }
                listener.note(
                        uri.getHost() + (answer.status() == 429 ? " asks for a pause" : " answers " + answer.status())
                                + "; goes on in " + asked.toSeconds() + " s");
                wait = asked;
            } catch (IOException e) {
                if (attempt >= MOST_ATTEMPTS / 2) {
                    throw e;
                }
            }
            pause(wait);
        }
    }

    void pause(Duration time) throws IOException {
        try {
            pause.of(time);
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new HubException("interrupted", e);
        }
    }

    private Answer follow(String method, URI first, Map<String, String> headers, boolean facts, Body content)
            throws IOException {
        URI uri = first;
        boolean atHome = true;
        for (int hop = 0; hop <= MOST_REDIRECTS; hop++) {
            // Once another host has had its say, even an address of the hub is not one that we chose.
            atHome = atHome && sameOrigin(uri, config.endpoint());
            HttpRequest.Builder request = HttpRequest.newBuilder(uri)
                    .timeout(config.timeout().plusSeconds(content.size / SLOWEST_BYTES_PER_SECOND))
                    .method(method, content.bytes)
                    .header("User-Agent", "lorica/" + NativeDevices.version())
                    // Sizes and ranges are those of the file, not of its compression.
                    .header("Accept-Encoding", "identity");
            headers.forEach(request::header);
            if (atHome && config.token() != null) {
                request.header("Authorization", "Bearer " + config.token());
            }
            Answer answer = send(request.build());
            String location = header(answer, "Location").orElse(null);
            if (!REDIRECTS.contains(answer.status()) || location == null) {
                return answer;
            }
            URI next = resolve(uri, location);
            if (facts && !sameOrigin(next, uri)) {
                return answer;
            }
            answer.close();
            uri = next;
        }
        throw new HubException(first.getHost() + " sends from one address to the next without end");
    }

    private Answer send(HttpRequest request) throws IOException {
        try {
            return new Answer(http.send(request, HttpResponse.BodyHandlers.ofInputStream()));
        } catch (InterruptedException e) {
            Thread.currentThread().interrupt();
            throw new HubException("interrupted", e);
        }
    }

    private static URI resolve(URI from, String location) {
        URI next;
        try {
            next = from.resolve(location);
        } catch (IllegalArgumentException e) {
            throw new HubException(from.getHost() + " sends to something that is no address", e);
        }
        boolean plain = "http".equals(next.getScheme());
        if (next.getHost() == null || !plain && !"https".equals(next.getScheme())) {
            throw new HubException(from.getHost() + " sends to something that is no address");
        }
        if (plain && "https".equals(from.getScheme())) {
            throw new HubException(from.getHost() + " sends to an address without encryption, " + next.getHost());
        }
        return next;
    }

    private static boolean sameOrigin(URI a, URI b) {
        return a.getScheme().equalsIgnoreCase(b.getScheme())
                && a.getHost().equalsIgnoreCase(b.getHost())
                && port(a) == port(b);
    }

    private static int port(URI uri) {
        return uri.getPort() >= 0 ? uri.getPort() : "https".equals(uri.getScheme()) ? 443 : 80;
    }

    private static Optional<Duration> retryAfter(Answer answer) {
        return header(answer, "Retry-After").flatMap(text -> {
            try {
                return Optional.of(Duration.ofSeconds(Math.max(0, Long.parseLong(text.strip()))));
            } catch (NumberFormatException notSeconds) {
                try {
                    Instant until = ZonedDateTime.parse(text.strip(), DateTimeFormatter.RFC_1123_DATE_TIME)
                            .toInstant();
                    Duration left = Duration.between(Instant.now(), until);
                    return Optional.of(left.isNegative() ? Duration.ZERO : left);
                } catch (DateTimeParseException e) {
                    return Optional.empty();
                }
            }
        });
    }

    private HubException refusal(HubName name, URI uri, Answer answer, Duration asked, boolean writes) {
        String what = name.toString();
        String code = header(answer, "X-Error-Code").orElse("");
        String access = config.token() == null
                ? "set HF_TOKEN to the token of an account that may " + (writes ? "write" : "read") + " it"
                : "the account of the token in use may not " + (writes ? "write" : "read") + " it";
        if (code.equals("GatedRepo")) {
            return new HubException(what + " is gated: ask for access at " + config.endpoint() + "/" + name.place()
                    + "; then " + access);
        }
        return new HubException(
                switch (answer.status()) {
                    case 401 -> name.inWords() + " does not exist, or it is private: " + access;
                    case 403 -> "access to " + what + " is refused: " + access;
                    case 404 ->
                        switch (code) {
                            case "RevisionNotFound" ->
                                name.inWords() + " does not exist: there is no revision \"" + name.revision() + "\"";
                            case "RepoNotFound" -> name.inWords() + " does not exist";
                            default -> what + " does not exist";
                        };
                    case 429 ->
                        uri.getHost() + " asks for a pause of " + asked.toSeconds() + " s; try again then"
                                + (config.token() == null ? ", or set HF_TOKEN, which allows more" : "");
                    default ->
                        uri.getHost() + " answers " + answer.status() + " to the request for " + what
                                + header(answer, "X-Error-Message")
                                        .map(reason -> ": " + reason)
                                        .orElse("");
                });
    }
}
