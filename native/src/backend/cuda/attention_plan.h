// The segments of a packed batch as the tiles that attention kernels work on. Every layer attends with the same
// segments, though perhaps under another mask, so that a plan is made and copied to the device once per batch.
#pragma once

#include "backend/cuda/kernels.h"

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

// More queries than that are no decoding.
constexpr int64_t decode_max_total = 64;

}  // namespace lorica::cuda
