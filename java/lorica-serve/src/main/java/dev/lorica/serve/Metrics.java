package dev.lorica.serve;

import dev.lorica.generate.GenerationService.Load;
import java.util.Map;
import java.util.TreeMap;

/** Counts for Prometheus, in its text format. */
final class Metrics {
    private record Key(String path, int status) implements Comparable<Key> {
        @Override
        public int compareTo(Key other) {
            int order = path.compareTo(other.path);
            return order != 0 ? order : Integer.compare(status, other.status);
        }
    }

    private final Map<Key, long[]> requests = new TreeMap<>();
    private long active;

    synchronized void began() {
        active++;
    }

    /**
     * @param path   one of those that there are
     * @param status 499: the client had gone
     */
    synchronized void ended(String path, int status, long nanoseconds) {
        active--;
        long[] sums = requests.computeIfAbsent(new Key(path, status), key -> new long[2]);
        sums[0]++;
        sums[1] += nanoseconds;
    }

    /** @param load {@code null}: the model writes no texts */
    synchronized String text(Load load) {
        StringBuilder text = new StringBuilder();
        describe(text, "lorica_requests_active", "gauge", "Requests being answered, this one included.");
        text.append("lorica_requests_active ").append(active).append('\n');
        describe(
                text,
                "lorica_request_seconds",
                "summary",
                "Time of requests by path and status; 499: the client had gone.");
        requests.forEach((key, sums) -> {
            String labels = "{path=\"" + key.path + "\",status=\"" + key.status + "\"} ";
            text.append("lorica_request_seconds_count")
                    .append(labels)
                    .append(sums[0])
                    .append('\n');
            text.append("lorica_request_seconds_sum")
                    .append(labels)
                    .append(sums[1] / 1e9)
                    .append('\n');
        });
        if (load != null) {
            value(text, "lorica_texts_running", "gauge", "Texts being generated.", load.running());
            value(text, "lorica_texts_waiting", "gauge", "Texts that wait for a place.", load.waiting());
            value(text, "lorica_prompt_tokens_total", "counter", "Tokens of prompts.", load.promptTokens());
            value(
                    text,
                    "lorica_prompt_tokens_reused_total",
                    "counter",
                    "Tokens of prompts that had been processed before.",
                    load.reusedTokens());
            value(text, "lorica_generated_tokens_total", "counter", "Tokens generated.", load.generatedTokens());
        }
        return text.toString();
    }

    private static void value(StringBuilder text, String name, String type, String help, long value) {
        describe(text, name, type, help);
        text.append(name).append(' ').append(value).append('\n');
    }

    private static void describe(StringBuilder text, String name, String type, String help) {
        text.append("# HELP ").append(name).append(' ').append(help).append('\n');
        text.append("# TYPE ").append(name).append(' ').append(type).append('\n');
    }
}
