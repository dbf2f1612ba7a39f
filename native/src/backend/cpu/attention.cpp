#include "backend/cpu/attention.h"

#include <algorithm>
#include <vector>

#include "backend/cpu/attention_kernels.h"
#include "backend/cpu/cpu_features.h"
#include "backend/cpu/parallel.h"

namespace lorica::cpu {

namespace {

int64_t divide_up(int64_t a, int64_t b) { return (a + b - 1) / b; }

size_t scratch_bytes(int64_t head_dim, bool backward) {
    const int64_t d = round_up(head_dim, panel_lanes);
    const size_t forward = std::max(ForwardScratch(nullptr, d).n_bytes, DecodeScratch(nullptr, d).n_bytes);
    return backward ? std::max(forward, BackwardScratch(nullptr, d).n_bytes) : forward;
}

// A few queries over a cache: too few rows to fill panels, and one task per kv head would leave threads idle.
bool is_decoding(const Segment & segment, int64_t group) {
    return segment.q_len * group <= decode_max_rows && segment.kv_len >= 4 * segment.q_len;
}

// Configures and releases the tile registers of a thread.
class TileScope {
public:
    explicit TileScope(AttentionUnits units) : used_(units == AttentionUnits::amx) {
        if (used_) amx_configure_thread();
    }
    TileScope(const TileScope &) = delete;
    TileScope & operator=(const TileScope &) = delete;
    ~TileScope() {
        if (used_) amx_release_thread();
    }

private:
    bool used_;
};

// Calls run(segment, index, scratch) for 0 <= index < count(segment) of every segment. Threads take tasks in order as
// they become free; each walks along the list by itself, so nothing is stored per task.
template <typename Count, typename Run>
void run_tasks(std::span<const Segment> segments, AttentionUnits units, std::byte * workspace, size_t thread_bytes,
               int n_threads, const Count & count, const Run & run) {
    int64_t total = 0;
    for (const Segment & segment : segments) total += count(segment);
    const int team = static_cast<int>(std::clamp<int64_t>(total, 1, std::max(n_threads, 1)));
    TaskNumbers numbers(total, team);
    parallel(team, [&](int rank) {
        const TileScope tiles(units);
        std::byte * scratch = workspace + static_cast<size_t>(rank) * thread_bytes;
        size_t at = 0;
        int64_t before = 0;  // tasks of earlier segments
        numbers.take(rank, [&](int64_t task) {
            while (task >= before + count(segments[at])) before += count(segments[at++]);
            run(segments[at], task - before, scratch);
        });
    });
}

AttentionUnits usable(AttentionUnits wanted, Dtype type) {
    if (type != Dtype::bf16 || !attention_multiplies_pairs()) return AttentionUnits::fma;
    if (wanted == AttentionUnits::amx && !has_amx_bf16()) return AttentionUnits::dot_bf16;
    return wanted;
}

// Floats for the parts of segments that are decoded together: at least one of them has room.
int64_t decode_floats(int64_t n_head_kv, int64_t group, int64_t n_tokens, int64_t longest, int64_t head_dim) {
    const int64_t rows = std::min<int64_t>(decode_max_rows, n_tokens * group);
    return n_head_kv * divide_up(longest, decode_keys) * rows * decode_part_floats(head_dim);
}

// A segment whose keys are seen in parts.
struct Decoded {
    int64_t first_part, n_parts, at;  // its parts lie behind so many floats, those of each kv head together
};

// As many segments as there is room for at a time: parts of the keys that each sees in parallel, then a merge in the
// order of the keys.
void decode(const AttentionOperands & x, std::span<const Segment> segments, std::byte * workspace, size_t thread_bytes,
            int n_threads) {
    const int64_t n_head_kv = x.shape.n_head_kv, row_floats = x.group() * decode_part_floats(x.shape.head_dim);
    const PartTask task = attention_decode_task();
    const MergeTask merge = attention_decode_merge_task();
    auto * parts = reinterpret_cast<float *>(workspace + static_cast<size_t>(n_threads) * thread_bytes);
    int64_t longest = 0;
    for (const Segment & segment : segments) longest = std::max<int64_t>(longest, segment.kv_len);
    const int64_t room = decode_floats(n_head_kv, x.group(), x.q.rows, longest, x.shape.head_dim);

    std::vector<Decoded> decoded;
    while (!segments.empty()) {
        decoded.clear();
        int64_t used = 0;
        for (const Segment & segment : segments) {
            const int64_t first_part = x.shape.mask.visible(segment, 0).first / decode_keys;
            const int64_t n_parts = divide_up(segment.kv_len, decode_keys) - first_part;
            const int64_t floats = n_head_kv * n_parts * segment.q_len * row_floats;
            if (used + floats > room) break;
            decoded.push_back({first_part, n_parts, used});
            used += floats;
        }
        const auto now = segments.first(decoded.size());
        segments = segments.subspan(decoded.size());
        const auto of = [&](const Segment & segment) { return decoded[static_cast<size_t>(&segment - now.data())]; };
        run_tasks(
            now, AttentionUnits::fma, workspace, thread_bytes, n_threads,
            [&](const Segment & segment) { return n_head_kv * of(segment).n_parts; },
            [&](const Segment & segment, int64_t index, void * scratch) {
                const Decoded & d = of(segment);
                const int64_t first = (d.first_part + index % d.n_parts) * decode_keys;
                task(x, {segment, index / d.n_parts, first, std::min(decode_keys, segment.kv_len - first)}, scratch,
                     parts + d.at + index * segment.q_len * row_floats);
            });
        for (const Segment & segment : now) {
            const Decoded & d = of(segment);
            const int64_t part_stride = segment.q_len * row_floats;
            for (int64_t head = 0; head < n_head_kv; ++head) {
                merge(x, {segment, head, 0, segment.kv_len}, parts + d.at + head * d.n_parts * part_stride, d.n_parts,
                      part_stride);
            }
        }
    }
}

}  // namespace

size_t attention_workspace_bytes(const WorkspaceShape & shape, int n_threads, Dtype) {
    if (shape.n_head_kv == 0) return 0;
    const int64_t parts = decode_floats(shape.n_head_kv, shape.n_head / shape.n_head_kv, shape.max_tokens,
                                        shape.max_sequence_length, shape.head_dim);
    return static_cast<size_t>(std::max(n_threads, 1)) * scratch_bytes(shape.head_dim, shape.training) +
           static_cast<size_t>(parts) * sizeof(float);
}

void attention(Matrix q, Matrix k, Matrix v, std::span<const Segment> segments, const AttentionShape & shape, Matrix o,
               Matrix lse, void * workspace, int n_threads, AttentionUnits units) {
    const AttentionOperands x = {q, k, v, o, lse, {}, {}, {}, {}, shape, usable(units, q.type)};
    const RowsTask task = attention_forward_task();
    const size_t thread_bytes = scratch_bytes(shape.head_dim, false);
    auto * scratch = static_cast<std::byte *>(workspace);
    n_threads = std::max(n_threads, 1);

    run_tasks(
        segments, x.units, scratch, thread_bytes, n_threads,
        [&](const Segment & segment) -> int64_t {
            if (is_decoding(segment, x.group())) return 0;
            return shape.n_head_kv * divide_up(segment.q_len * x.group(), block_rows);
        },
        [&](const Segment & segment, int64_t index, void * own) {
            const int64_t n_rows = segment.q_len * x.group(), n_blocks = divide_up(n_rows, block_rows);
            // The last rows see the most keys: they come first, so that the end is balanced.
            const int64_t first = (n_blocks - 1 - index % n_blocks) * block_rows;
            task(x, {segment, index / n_blocks, first, std::min(block_rows, n_rows - first)}, own);
        });
    std::vector<Segment> few;
    for (const Segment & segment : segments) {
        if (segment.q_len > 0 && is_decoding(segment, x.group())) few.push_back(segment);
    }
    if (!few.empty()) decode(x, few, scratch, thread_bytes, n_threads);
}

void attention_backward(Matrix q, Matrix k, Matrix v, Matrix o, Matrix lse, Matrix d_o,
                        std::span<const Segment> segments, const AttentionShape & shape, Matrix dq, Matrix dk,
                        Matrix dv, void * workspace, int n_threads, AttentionUnits units) {
    const AttentionOperands x = {q, k, v, o, lse, d_o, dq, dk, dv, shape, usable(units, q.type)};
    const RowsTask of_keys = attention_backward_keys_task(), of_queries = attention_backward_queries_task();
    // A task for each chunk of keys; long segments have also one for each block of rows.
    const auto n_chunks = [](const Segment & segment) { return divide_up(segment.kv_len, chunk_keys); };
    const auto n_blocks = [&](const Segment & segment) {
        return segment.kv_len <= chunk_keys ? 0 : divide_up(segment.q_len * x.group(), block_rows);
    };
    run_tasks(
        segments, x.units, static_cast<std::byte *>(workspace), scratch_bytes(shape.head_dim, true), n_threads,
        [&](const Segment & segment) { return shape.n_head_kv * (n_chunks(segment) + n_blocks(segment)); },
        [&](const Segment & segment, int64_t index, void * own) {
            const int64_t head = index % shape.n_head_kv, i = index / shape.n_head_kv;
            if (i < n_chunks(segment)) {
                const int64_t first = i * chunk_keys;
                of_keys(x, {segment, head, first, std::min(chunk_keys, segment.kv_len - first)}, own);
            } else {
                const int64_t first = (n_blocks(segment) - 1 - (i - n_chunks(segment))) * block_rows;
                const int64_t n_rows = segment.q_len * x.group();
                of_queries(x, {segment, head, first, std::min(block_rows, n_rows - first)}, own);
            }
        });
}

}  // namespace lorica::cpu
