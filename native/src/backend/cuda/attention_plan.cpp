#include "backend/cuda/attention_plan.h"

#include "backend/cuda/launch.h"

#include <algorithm>
#include <cstring>

namespace lorica::cuda {

namespace {

// A tile of each kind per token at most, and queries on their own.
int64_t capacity_for(const WorkspaceShape & shape, bool with_rows_of_128) {
    const int64_t keys = shape.training ? std::max(shape.max_tokens, shape.max_kv_rows) : 0;
    return (with_rows_of_128 ? 2 : 1) * shape.max_tokens + keys + decode_max_total;
}

// Tiles of queries, or of keys. Those with the most work under a causal mask come first, so that no long one is left
// for the end: late queries see many keys, early keys are seen by many queries.
void append_tiles(std::vector<AttentionTile> & tiles, std::span<const Segment> segments, bool of_keys, int32_t rows) {
    const auto first = static_cast<std::ptrdiff_t>(tiles.size());
    for (const Segment & segment : segments) {
        const int32_t length = of_keys ? segment.kv_len : segment.q_len;
        for (int32_t begin = 0; begin < length; begin += rows)
            tiles.push_back({segment, begin, std::min(rows, length - begin)});
    }
    std::stable_sort(tiles.begin() + first, tiles.end(), [&](const AttentionTile & a, const AttentionTile & b) {
        auto work = [&](const AttentionTile & t) {
            return of_keys ? t.segment.kv_len - t.begin : t.begin + t.segment.kv_len - t.segment.q_len;
        };
        return work(a) > work(b);
    });
}

}  // namespace

size_t AttentionPlan::workspace_bytes(const WorkspaceShape & shape, bool with_rows_of_128) {
    return static_cast<size_t>(capacity_for(shape, with_rows_of_128)) * sizeof(AttentionTile);
}

AttentionPlan::~AttentionPlan() {
    cudaFree(device_);
    cudaFreeHost(host_);
    if (copied_) cudaEventDestroy(copied_);
}

void AttentionPlan::reserve(const WorkspaceShape & shape) {
    const int64_t capacity = capacity_for(shape, with_rows_of_128_);
    valid_ &= training_ || !shape.training;
    training_ |= shape.training;
    if (capacity <= capacity_) return;
    cudaFree(device_);
    cudaFreeHost(host_);
    device_ = host_ = nullptr;
    capacity_ = 0;
    valid_ = false;
    const size_t n_bytes = workspace_bytes(shape, with_rows_of_128_);
    device_ = static_cast<decltype(device_)>(allocate(n_bytes, "attention"));
    check(cudaHostAlloc(reinterpret_cast<void **>(&host_), n_bytes, cudaHostAllocDefault),
          "pinned memory for attention");
    if (!copied_) check(cudaEventCreateWithFlags(&copied_, cudaEventDisableTiming), "cudaEventCreate");
    capacity_ = capacity;
}

void AttentionPlan::update(std::span<const Segment> segments, cudaStream_t stream) {
    if (is_of(segments)) return;
    valid_ = false;
    segments_.assign(segments.begin(), segments.end());
    std::vector<AttentionTile> tiles;
    append_tiles(tiles, segments, false, 64);
    n_64_ = static_cast<int64_t>(tiles.size());
    if (with_rows_of_128_) append_tiles(tiles, segments, false, 128);
    n_128_ = static_cast<int64_t>(tiles.size()) - n_64_;
    if (training_) append_tiles(tiles, segments, true, 64);
    n_keys_ = static_cast<int64_t>(tiles.size()) - n_64_ - n_128_;
    const bool cached = std::ranges::any_of(segments, [](const Segment & s) { return s.kv_len != s.q_len; });

    int32_t longest = 0, most_queries = 0;
    int64_t total = 0;
    for (const Segment & segment : segments) {
        longest = std::max(longest, segment.kv_len);
        most_queries = std::max(most_queries, segment.q_len);
        total += segment.q_len;
    }
    n_queries_ = most_queries <= decode_max_queries && total <= decode_max_total ? total : 0;
    n_parts_ = decode_parts(longest);
    shape_ = {n_parts_};
    for (const Segment & segment : segments) {
        const int32_t n_keys = cached && n_queries_ ? -1 : segment.kv_len;
        shape_.insert(shape_.end(), {segment.q_begin, segment.q_len, segment.kv_begin, n_keys});
    }
    if (n_queries_) {
        for (const Segment & segment : segments) {
            for (int32_t i = 0; i < segment.q_len; ++i) tiles.push_back({segment, i, 1});
        }
    }
    if (static_cast<int64_t>(tiles.size()) > capacity_) {
        fail(LORICA_ERROR_INTERNAL, "attention over more tokens than reserve() was told of");
    }
    check(cudaEventSynchronize(copied_), "attention plan");
    std::memcpy(static_cast<void *>(host_), tiles.data(), tiles.size() * sizeof(AttentionTile));
    check(cudaMemcpyAsync(device_, host_, tiles.size() * sizeof(AttentionTile), cudaMemcpyHostToDevice, stream),
          "attention plan");
    check(cudaEventRecord(copied_, stream), "attention plan");
    valid_ = true;
}

void AttentionPlans::reserve(const WorkspaceShape & shape) {
    for (AttentionPlan & plan : plans_) plan.reserve(shape);
}

const AttentionPlan & AttentionPlans::of(std::span<const Segment> segments, cudaStream_t stream) {
    for (const AttentionPlan & plan : plans_) {
        if (plan.is_of(segments)) return plan;
    }
    next_ = (next_ + 1) % n_plans;
    plans_[next_].update(segments, stream);
    return plans_[next_];
}

std::vector<int32_t> AttentionPlans::prepare(std::span<const Segment> lists, cudaStream_t stream) {
    std::vector<int32_t> shape;
    for (AttentionPlan & plan : plans_) {
        if (lists.empty()) break;
        const auto next =
            std::find_if(lists.begin() + 1, lists.end(), [](const Segment & segment) { return segment.q_begin == 0; });
        const auto list = lists.first(static_cast<size_t>(next - lists.begin()));
        lists = lists.subspan(list.size());
        // Of equal lists, of() finds the first one's plan.
        const bool is_known = &plan != plans_.data() && plans_.front().is_of(list);
        if (!is_known) plan.update(list, stream);
        shape.push_back(is_known);
        shape.insert(shape.end(), plan.shape().begin(), plan.shape().end());
    }
    if (!lists.empty()) fail(LORICA_ERROR_INTERNAL, "a pass over more lists of segments than there are plans");
    return shape;
}

}  // namespace lorica::cuda
