package dev.lorica.serve;

import com.fasterxml.jackson.databind.node.BooleanNode;

/**
 * Whether an answer is streamed, and how.
 *
 * @param usage whether a last event says how many tokens there were
 */
record StreamOptions(boolean stream, boolean usage) {
    static StreamOptions of(Fields fields) {
        boolean stream = fields.flag("stream", false);
        Fields options = fields.object("stream_options");
        if (options == null) {
            return new StreamOptions(stream, false);
        }
        if (!stream) {
            throw ApiException.field("stream_options", "stream_options is for streams, and stream is not true");
        }
        boolean usage = options.flag("include_usage", false);
        options.ignore("include_obfuscation"); // padding against those who listen in between
        options.only("continuous_usage_stats", "usage comes once, at the end", BooleanNode.FALSE);
        options.end();
        return new StreamOptions(true, usage);
    }
}
