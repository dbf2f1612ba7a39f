package dev.lorica.serve;

import com.fasterxml.jackson.databind.JsonNode;
import com.sun.net.httpserver.Headers;
import com.sun.net.httpserver.HttpExchange;
import java.io.IOException;
import java.io.InputStream;
import java.io.OutputStream;
import java.io.UncheckedIOException;
import java.net.URLDecoder;
import java.nio.charset.StandardCharsets;
import java.util.ArrayList;
import java.util.List;
import java.util.Locale;
import java.util.Map;

/** One request, and its answer. That the client has gone is an {@link UncheckedIOException}. */
final class Call {
    private static final byte[] DATA = "data: ".getBytes(StandardCharsets.UTF_8);
    private static final byte[] END = "\n\n".getBytes(StandardCharsets.UTF_8);

    private final HttpExchange exchange;
    private final long deadline;
    private final int maxBody;
    private final Connections connections;
    /** Whether the connection was in the list once, and so is missed when it is not. */
    private boolean listed;

    private OutputStream events;
    private int status;

    Call(HttpExchange exchange, ServeConfig config, Connections connections) {
        this.exchange = exchange;
        this.connections = connections;
        deadline = System.nanoTime() + config.timeLimit().toNanos();
        maxBody = config.maxBody();
    }

    String method() {
        return exchange.getRequestMethod();
    }

    /** As it was sent: nothing is decoded, and nothing taken out of it. */
    String path() {
        return exchange.getRequestURI().getRawPath();
    }

    /** What stands behind the path: names and values, decoded, in their order. */
    List<Map.Entry<String, String>> query() {
        List<Map.Entry<String, String>> all = new ArrayList<>();
        String query = exchange.getRequestURI().getRawQuery();
        for (String one : query == null ? new String[0] : query.split("&")) {
            String[] parts = one.split("=", 2);
            try {
                all.add(Map.entry(
                        URLDecoder.decode(parts[0], StandardCharsets.UTF_8),
                        parts.length == 1 ? "" : URLDecoder.decode(parts[1], StandardCharsets.UTF_8)));
            } catch (IllegalArgumentException e) {
                throw ApiException.wrong("what stands behind ? is not encoded as it should be");
            }
        }
        return all;
    }

    Headers headers() {
        return exchange.getRequestHeaders();
    }

    Headers answerHeaders() {
        return exchange.getResponseHeaders();
    }

    long millisecondsLeft() {
        return Math.max(0, (deadline - System.nanoTime()) / 1_000_000);
    }

    /** Once the request is read: whoever has gone since, without an answer, is an {@link UncheckedIOException}. */
    void requireClient() {
        boolean open = connections.isOpen(exchange.getLocalAddress(), exchange.getRemoteAddress());
        if (listed && !open) {
            throw new UncheckedIOException(new IOException("the client has gone"));
        }
        listed = open;
    }

    /** 0: nothing is answered yet. */
    int status() {
        return status;
    }

    boolean isStream() {
        return events != null;
    }

    Fields json() {
        String type = headers().getFirst("Content-Type");
        String media = type == null ? "" : type.split(";", 2)[0].strip().toLowerCase(Locale.ROOT);
        if (!media.equals("application/json")) {
            // also what a form of another site could send without asking
            throw ApiException.of(
                    415,
                    "invalid_request_error",
                    "unsupported_media_type",
                    "the Content-Type must be application/json");
        }
        return new Fields(Json.parse(body()));
    }

    private byte[] body() {
        String length = headers().getFirst("Content-Length");
        try {
            if (length != null && Long.parseLong(length.strip()) > maxBody) {
                throw tooLarge();
            }
            InputStream in = exchange.getRequestBody();
            byte[] body = in.readNBytes(maxBody);
            if (in.read() >= 0) {
                throw tooLarge();
            }
            requireClient();
            return body;
        } catch (NumberFormatException e) {
            throw ApiException.wrong("the Content-Length is no number");
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    private ApiException tooLarge() {
        return ApiException.of(
                413,
                "invalid_request_error",
                "request_too_large",
                "the body has more than the " + maxBody + " bytes that are taken");
    }

    void answer(int code, JsonNode json) {
        answer(code, "application/json", Json.bytes(json));
    }

    void answer(int code, String type, byte[] body) {
        status = code;
        answerHeaders().set("Content-Type", type);
        answerHeaders().set("X-Content-Type-Options", "nosniff");
        answerHeaders().set("Cache-Control", "no-store");
        try {
            boolean head = method().equals("HEAD");
            exchange.sendResponseHeaders(code, head || body.length == 0 ? -1 : body.length);
            if (!head && body.length > 0) {
                exchange.getResponseBody().write(body);
            }
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** An event of a stream, which begins with the first. */
    void event(JsonNode json) {
        send(DATA, Json.bytes(json), END);
    }

    /** An event with a place from which a client that comes back goes on. */
    void event(String id, JsonNode json) {
        send(("id: " + id + "\n").getBytes(StandardCharsets.UTF_8), DATA, Json.bytes(json), END);
    }

    void done() {
        send("data: [DONE]\n\n".getBytes(StandardCharsets.UTF_8));
        try {
            events.close();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }

    /** A comment, which clients skip; whether there still is one is known by it. */
    void stillThere() {
        send(": waiting\n\n".getBytes(StandardCharsets.UTF_8));
    }

    private void send(byte[]... parts) {
        try {
            if (events == null) {
                status = 200;
                answerHeaders().set("Content-Type", "text/event-stream; charset=utf-8");
                answerHeaders().set("Cache-Control", "no-store");
                answerHeaders().set("X-Content-Type-Options", "nosniff");
                exchange.sendResponseHeaders(200, 0);
                events = exchange.getResponseBody();
            }
            for (byte[] part : parts) {
                events.write(part);
            }
            events.flush();
        } catch (IOException e) {
            throw new UncheckedIOException(e);
        }
    }
}
