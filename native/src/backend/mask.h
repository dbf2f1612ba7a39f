// Who attends to whom: the one place that knows, for the host and for kernels.
#pragma once

#include <cstdint>
#include <limits>

namespace lorica {

// Queries [q_begin, q_begin + q_len) attend to keys [kv_begin, kv_begin + kv_len) with the ends aligned: query i has
// the place of key i + kv_len - q_len. In training q and kv ranges are equal; with a KV cache, or behind a prefix, kv
// is longer.
struct Segment {
    int32_t q_begin, q_len, kv_begin, kv_len;

    bool operator==(const Segment &) const = default;
};

// A query at place p sees key k iff p - k <= back and k - p <= ahead, both at least 0: every query sees its own place.
// Causal with a window of w: back = w - 1; both ways: ahead = all; a symmetric window: back = ahead.
struct MaskSpec {
    static constexpr int32_t all = std::numeric_limits<int32_t>::max();

    int32_t back = all, ahead = 0;

    struct Range {
        int32_t first, end;
    };
    // The keys, counted from kv_begin, that a query sees; neither end ever falls from one query to the next.
    constexpr Range visible(const Segment & segment, int32_t query) const {
        const int32_t place = query + segment.kv_len - segment.q_len;
        return {place > back ? place - back : 0,
                ahead < segment.kv_len - 1 - place ? place + ahead + 1 : segment.kv_len};
    }
    // The queries, counted from q_begin, that see a key; may be none.
    constexpr Range seeing(const Segment & segment, int32_t key) const {
        const int32_t query = key - (segment.kv_len - segment.q_len);  // at the key's place
        const int32_t first = query > ahead ? query - ahead : 0;
        const int32_t end = back < segment.q_len - 1 - query ? query + back + 1 : segment.q_len;
        return {first, end > first ? end : first};
    }

    bool operator==(const MaskSpec &) const = default;
};

}  // namespace lorica
