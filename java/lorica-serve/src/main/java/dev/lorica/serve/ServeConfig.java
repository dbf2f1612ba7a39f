package dev.lorica.serve;

import dev.lorica.exceptions.InvalidArgumentException;
import java.nio.file.Path;
import java.time.Duration;
import java.util.List;
import java.util.Objects;

/**
 * How a model is served.
 *
 * @param host           address that is listened on
 * @param port           0: one that is free
 * @param apiKey         what a request has to bring as {@code Authorization: Bearer KEY}; {@code null}: nothing, which is for loopback
 *                       addresses alone
 * @param modelName      what the base is called; {@code null}: as its file, without {@code .gguf}
 * @param texts          that are generated at once
 * @param positions      of each, prompt included; no more than the model has
 * @param waiting        texts that may wait; what comes then is refused with 429
 * @param dataFolder     below which adapters may be loaded while it runs; {@code null}: none may
 * @param allowedOrigins pages of other sites that may call it, as {@code https://example.org}
 * @param allowedHosts   names besides those of this machine that requests may have in {@code Host}, where it listens on a loopback
 *                       address: those of a proxy before it
 * @param maxBody        bytes of a request
 * @param timeLimit      of a request, from its arrival to its answer
 */
public record ServeConfig(
        String host,
        int port,
        String apiKey,
        String modelName,
        int texts,
        int positions,
        int waiting,
        Path dataFolder,
        List<String> allowedOrigins,
        List<String> allowedHosts,
        int maxBody,
        Duration timeLimit) {

    /**
     * Checks the components.
     *
     * @throws InvalidArgumentException naming the one that is wrong
     */
    public ServeConfig {
        check(host != null && !host.isBlank(), "host", host, "an address or a name");
        check(port >= 0 && port <= 65535, "port", port, "from 0 (any that is free) to 65535");
        check(apiKey == null || !apiKey.isBlank(), "apiKey", "blank", "a secret of some length");
        check(modelName == null || Served.isName(modelName), "modelName", modelName, Served.NAMES);
        check(texts >= 1 && texts <= 4096, "texts", texts, "from 1 to 4096");
        check(positions >= 2, "positions", positions, "at least 2");
        check(waiting >= 0, "waiting", waiting, "at least 0");
        check(maxBody >= 1024, "maxBody", maxBody, "at least 1024 bytes");
        check(
                timeLimit != null && timeLimit.toSeconds() >= 1 && timeLimit.toDays() <= 365,
                "timeLimit",
                timeLimit,
                "from a second to a year");
        allowedOrigins = all(allowedOrigins, "allowedOrigins");
        allowedHosts = all(allowedHosts, "allowedHosts");
    }

    private static List<String> all(List<String> values, String name) {
        check(values != null && values.stream().noneMatch(Objects::isNull), name, values, "a list without nulls");
        return List.copyOf(values);
    }

    private static void check(boolean good, String name, Object value, String meant) {
        if (!good) {
            throw new InvalidArgumentException(name + " is " + value + "; it must be " + meant);
        }
    }

    /** {@return a builder that begins with the settings that {@code lorica serve} has by itself} */
    public static Builder builder() {
        return new Builder();
    }

    /** Every setter's meaning is that of the record's component of the same name. */
    public static final class Builder {
        private String host = "127.0.0.1";
        private int port = 8080;
        private String apiKey;
        private String modelName;
        private int texts = 8;
        private int positions = 4096;
        private int waiting = 256;
        private Path dataFolder;
        private List<String> allowedOrigins = List.of();
        private List<String> allowedHosts = List.of();
        private int maxBody = 4 << 20;
        private Duration timeLimit = Duration.ofMinutes(10);

        private Builder() {}

        /**
         * Sets {@link ServeConfig#host()}.
         *
         * @param value as {@link ServeConfig#host()} says
         * @return this builder
         */
        public Builder host(String value) {
            host = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#port()}.
         *
         * @param value as {@link ServeConfig#port()} says
         * @return this builder
         */
        public Builder port(int value) {
            port = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#apiKey()}.
         *
         * @param value as {@link ServeConfig#apiKey()} says
         * @return this builder
         */
        public Builder apiKey(String value) {
            apiKey = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#modelName()}.
         *
         * @param value as {@link ServeConfig#modelName()} says
         * @return this builder
         */
        public Builder modelName(String value) {
            modelName = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#texts()}.
         *
         * @param value as {@link ServeConfig#texts()} says
         * @return this builder
         */
        public Builder texts(int value) {
            texts = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#positions()}.
         *
         * @param value as {@link ServeConfig#positions()} says
         * @return this builder
         */
        public Builder positions(int value) {
            positions = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#waiting()}.
         *
         * @param value as {@link ServeConfig#waiting()} says
         * @return this builder
         */
        public Builder waiting(int value) {
            waiting = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#dataFolder()}.
         *
         * @param value as {@link ServeConfig#dataFolder()} says
         * @return this builder
         */
        public Builder dataFolder(Path value) {
            dataFolder = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#allowedOrigins()}.
         *
         * @param value as {@link ServeConfig#allowedOrigins()} says
         * @return this builder
         */
        public Builder allowedOrigins(List<String> value) {
            allowedOrigins = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#allowedHosts()}.
         *
         * @param value as {@link ServeConfig#allowedHosts()} says
         * @return this builder
         */
        public Builder allowedHosts(List<String> value) {
            allowedHosts = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#maxBody()}.
         *
         * @param value as {@link ServeConfig#maxBody()} says
         * @return this builder
         */
        public Builder maxBody(int value) {
            maxBody = value;
            return this;
        }

        /**
         * Sets {@link ServeConfig#timeLimit()}.
         *
         * @param value as {@link ServeConfig#timeLimit()} says
         * @return this builder
         */
        public Builder timeLimit(Duration value) {
            timeLimit = value;
            return this;
        }

        /**
         * {@return the settings}
         *
         * @throws InvalidArgumentException naming the one that is wrong
         */
        public ServeConfig build() {
            return new ServeConfig(
                    host,
                    port,
                    apiKey,
                    modelName,
                    texts,
                    positions,
                    waiting,
                    dataFolder,
                    allowedOrigins,
                    allowedHosts,
                    maxBody,
                    timeLimit);
        }
    }
}
