// The segments of a packed batch as the tiles that attention kernels work on. Layers attend with the same segments,
// though perhaps under another mask, or those whose caches are shorter with others, so that a plan is made and copied
// to the device once per batch and list of segments.
#pragma once

#include "backend/cuda/kernels.h"

#include <algorithm>
#include <array>
#include <span>
#include <vector>

namespace lorica::cuda {

class AttentionPlan {
public:
    // with_rows_of_128: the kernels of this device take as many queries at a time.
    static size_t workspace_bytes(const WorkspaceShape & shape, bool with_rows_of_128);

    explicit AttentionPlan(bool with_rows_of_128) : with_rows_of_128_(with_rows_of_128) {}
    ~AttentionPlan();
    AttentionPlan(const AttentionPlan &) = delete;
    AttentionPlan & operator=(const AttentionPlan &) = delete;

    void reserve(const WorkspaceShape & shape);
    // Does nothing when the segments are those of the last call.
    void update(std::span<const Segment> segments, cudaStream_t stream);

    // Queries, 64 or 128 at a time.
    AttentionTiles rows_of_64() const { return {device_, n_64_}; }
    AttentionTiles rows_of_128() const { return {device_ + n_64_, n_128_}; }
    bool has_rows_of_128() const { return with_rows_of_128_; }
    // Keys; none without training.
    AttentionTiles keys_of_64() const { return {device_ + n_64_ + n_128_, n_keys_}; }
    // One query each; none when decoding does not pay. Their keys are to be shared out to n_parts() blocks.
    AttentionTiles queries() const { return {device_ + n_64_ + n_128_ + n_keys_, n_queries_}; }
    int32_t n_parts() const { return n_parts_; }
    bool is_of(std::span<const Segment> segments) const { return valid_ && std::ranges::equal(segments, segments_); }
    // What launches depend on: equal when all that differs is in the tiles, which are in device memory.
    std::span<const int32_t> shape() const { return shape_; }

private:
    const bool with_rows_of_128_;
    bool training_ = false;
    std::vector<Segment> segments_;
    int64_t capacity_ = 0, n_64_ = 0, n_128_ = 0, n_keys_ = 0, n_queries_ = 0;
    int32_t n_parts_ = 0;
    std::vector<int32_t> shape_;
    AttentionTile * device_ = nullptr;
    AttentionTile * host_ = nullptr;  // pinned
    cudaEvent_t copied_ = nullptr;
    bool valid_ = false;
};

// The plans of one pass, which may attend to as many lists of segments.
class AttentionPlans {
public:
    static size_t workspace_bytes(const WorkspaceShape & shape, bool with_rows_of_128) {
        return n_plans * AttentionPlan::workspace_bytes(shape, with_rows_of_128);
    }

    explicit AttentionPlans(bool with_rows_of_128)
        : plans_{AttentionPlan(with_rows_of_128), AttentionPlan(with_rows_of_128)} {}

    void reserve(const WorkspaceShape & shape);
    const AttentionPlan & of(std::span<const Segment> segments, cudaStream_t stream);
    // Makes the plans of a pass that is recorded or played, each where it is in every such pass. Of several lists the
    // next begins where a segment's queries begin at 0 again. Returns what launches depend on.
    std::vector<int32_t> prepare(std::span<const Segment> lists, cudaStream_t stream);

private:
    static constexpr size_t n_plans = 2;
    std::array<AttentionPlan, n_plans> plans_;
    size_t next_ = 0;  // to be made anew
};

// More queries than that are no decoding.
constexpr int64_t decode_max_total = 64;

}  // namespace lorica::cuda
