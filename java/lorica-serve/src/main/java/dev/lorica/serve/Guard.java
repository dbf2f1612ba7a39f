package dev.lorica.serve;

import com.sun.net.httpserver.Headers;
import java.net.InetAddress;
import java.nio.charset.StandardCharsets;
import java.security.MessageDigest;
import java.security.NoSuchAlgorithmException;
import java.util.HashSet;
import java.util.List;
import java.util.Locale;
import java.util.Set;

/**
 * Who may ask. A page of another site that is open in a browser on this machine reaches a loopback address as well as anybody here,
 * with its own name in {@code Origin}, or with a name in {@code Host} that it has let point here.
 */
final class Guard {
    private static final String BEARER = "Bearer ";

    private final byte[] key;
    private final Set<String> hosts = new HashSet<>();
    private final boolean anyHost;
    private final List<String> origins;

    Guard(ServeConfig config, InetAddress address) {
        key = config.apiKey() == null ? null : digest(config.apiKey());
        // From elsewhere it is reached by names that are not known here, and by nobody without the key.
        anyHost = !address.isLoopbackAddress();
        origins = config.allowedOrigins();
        hosts.addAll(List.of("localhost", "127.0.0.1", "[::1]"));
        hosts.add(config.host().toLowerCase(Locale.ROOT));
        hosts.add(address.getHostAddress());
        config.allowedHosts().forEach(host -> hosts.add(host.toLowerCase(Locale.ROOT)));
    }

    void checkHost(Headers headers) {
        List<String> given = headers.getOrDefault("Host", List.of());
        if (given.size() != 1) {
            throw ApiException.wrong("a request has one Host header");
        }
        if (!anyHost && !hosts.contains(withoutPort(given.get(0)).toLowerCase(Locale.ROOT))) {
            throw ApiException.of(
                    403, "permission_error", "host_not_allowed", "this server is not called by the name in Host");
        }
    }

    /** The origin that is to be told that it may read the answer; {@code null}: none needs to be. */
    String checkOrigin(Headers headers) {
        String origin = headers.getFirst("Origin");
        if (origin == null) {
            return null;
        }
        String host = headers.getFirst("Host");
        boolean own = origin.equalsIgnoreCase("http://" + host) || origin.equalsIgnoreCase("https://" + host);
        if (!own && !origins.contains(origin)) {
            throw ApiException.of(
                    403, "permission_error", "origin_not_allowed", "pages of this Origin may not use this server");
        }
        return own ? null : origin;
    }

    /** In a time that says nothing of how much of a key was right. */
    void checkKey(Headers headers) {
        if (key == null) {
            return;
        }
        String given = headers.getFirst("Authorization");
        boolean bearer = given != null && given.regionMatches(true, 0, BEARER, 0, BEARER.length());
        byte[] own = digest(bearer ? given.substring(BEARER.length()).strip() : "");
        if (!MessageDigest.isEqual(own, key) || !bearer) {
            throw ApiException.of(
                    401,
                    "invalid_request_error",
                    "invalid_api_key",
                    given == null ? "an API key is needed, as Authorization: Bearer KEY" : "the API key is wrong");
        }
    }

    private static byte[] digest(String text) {
        try {
            return MessageDigest.getInstance("SHA-256").digest(text.getBytes(StandardCharsets.UTF_8));
        } catch (NoSuchAlgorithmException e) {
            throw new IllegalStateException("every Java has SHA-256", e);
        }
    }

    private static String withoutPort(String host) {
        int end = host.startsWith("[") ? host.indexOf(']') + 1 : host.indexOf(':');
        return end > 0 ? host.substring(0, end) : host;
    }
}
