package dev.lorica.hub;

import dev.lorica.exceptions.FileAccessException;
import dev.lorica.exceptions.InvalidArgumentException;
import dev.lorica.internal.Arguments;
import java.io.IOException;
import java.net.URI;
import java.nio.file.Files;
import java.nio.file.NoSuchFileException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.Locale;
import java.util.Map;
import java.util.Set;

/**
 * How to reach a hub, and where its files are kept.
 *
 * @param endpoint the hub, {@code https://huggingface.co}
 * @param cache    the folder of {@code models--OWNER--REPO}; shared with Hugging Face's own programs
 * @param token    of an account, {@code null} when there is none; sent to the endpoint and to nobody else
 * @param offline  whether only the cache is used
 * @param timeout  the longest silence of the other side
 */
public record HubConfig(URI endpoint, Path cache, String token, boolean offline, Duration timeout) {
    private static final Set<String> TRUE = Set.of("1", "ON", "YES", "TRUE");
    private static final int DEFAULT_TIMEOUT = 30;

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException if the endpoint is no address of a hub, or the token no token
     */
    public HubConfig {
        Arguments.given(endpoint, "endpoint");
        Arguments.given(cache, "cache");
        Arguments.given(timeout, "timeout");
        if (endpoint.getHost() == null || !Set.of("http", "https").contains(String.valueOf(endpoint.getScheme()))) {
            throw new InvalidArgumentException(
                    "\"" + endpoint + "\" is not the address of a hub; https://huggingface.co is one");
        }
        if (token != null && !token.chars().allMatch(c -> c > ' ' && c < 127)) {
            throw new InvalidArgumentException("the hub's token has characters in it that no token has");
        }
    }

    /**
     * {@return what the environment says, in the variables of Hugging Face's own programs: {@code HF_HOME}, {@code HF_HUB_CACHE},
     * {@code HF_TOKEN} (or the file {@code HF_HOME/token}), {@code HF_ENDPOINT}, {@code HF_HUB_OFFLINE},
     * {@code HF_HUB_DOWNLOAD_TIMEOUT}}
     */
    public static HubConfig fromEnvironment() {
        return from(System.getenv(), Path.of(System.getProperty("user.home")));
    }

    static HubConfig from(Map<String, String> environment, Path userHome) {
        Path caches = path(environment, "XDG_CACHE_HOME", userHome, userHome.resolve(".cache"));
        Path home = path(environment, "HF_HOME", userHome, caches.resolve("huggingface"));
        Path cache = path(environment, "HUGGINGFACE_HUB_CACHE", userHome, home.resolve("hub"));
        cache = path(environment, "HF_HUB_CACHE", userHome, cache);
        String endpoint = environment.getOrDefault("HF_ENDPOINT", "").strip().replaceAll("/+$", "");
        return new HubConfig(
                address(endpoint.isEmpty() ? "https://huggingface.co" : endpoint),
                cache,
                token(environment, path(environment, "HF_TOKEN_PATH", userHome, home.resolve("token"))),
                isTrue(environment, "HF_HUB_OFFLINE") || isTrue(environment, "TRANSFORMERS_OFFLINE"),
                Duration.ofSeconds(seconds(environment.get("HF_HUB_DOWNLOAD_TIMEOUT"))));
    }

    private static URI address(String text) {
        try {
            return URI.create(text);
        } catch (IllegalArgumentException e) {
            throw new InvalidArgumentException(
                    "HF_ENDPOINT is \"" + text + "\", which is no address; https://huggingface.co is one");
        }
    }

    private static long seconds(String text) {
        try {
            return text == null || text.isBlank() ? DEFAULT_TIMEOUT : Math.max(1, Long.parseLong(text.strip()));
        } catch (NumberFormatException e) {
            throw new InvalidArgumentException(
                    "HF_HUB_DOWNLOAD_TIMEOUT is \"" + text + "\"; a number of seconds is meant");
        }
    }

    private static String token(Map<String, String> environment, Path file) {
        if (isTrue(environment, "HF_HUB_DISABLE_IMPLICIT_TOKEN")) {
            return null;
        }
        for (String name : new String[] {"HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"}) {
            String token = environment.getOrDefault(name, "").strip();
            if (!token.isEmpty()) {
                return token;
            }
        }
        try {
            String token = Files.readString(file).strip();
            return token.isEmpty() ? null : token;
        } catch (NoSuchFileException e) {
            return null;
        } catch (IOException e) {
            throw new FileAccessException(
                    file + ", where the hub's token is kept, cannot be read: " + e.getMessage(), e);
        }
    }

    private static Path path(Map<String, String> environment, String name, Path userHome, Path otherwise) {
        String text = environment.getOrDefault(name, "");
        if (text.isEmpty()) {
            return otherwise;
        }
        return text.startsWith("~/") ? userHome.resolve(text.substring(2)) : Path.of(text);
    }

    private static boolean isTrue(Map<String, String> environment, String name) {
        return TRUE.contains(environment.getOrDefault(name, "").toUpperCase(Locale.ROOT));
    }

    /** Without the token. */
    @Override
    public String toString() {
        return "HubConfig[" + endpoint + ", cache " + cache + (offline ? ", offline" : "") + "]";
    }
}
