// The segments of a packed batch as the tiles that attention kernels work on. Every layer attends with the same
// segments, so that a plan is made and copied to the device once per batch.
#pragma once

#include "backend/cuda/kernels.h"

#include <span>
#include <vector>

namespace lorica::cuda {

class AttentionPlan {
public:
    static size_t workspace_bytes(int64_t max_tokens);

    AttentionPlan() = default;
    ~AttentionPlan();
    AttentionPlan(const AttentionPlan &) = delete;
    AttentionPlan & operator=(const AttentionPlan &) = delete;

    void reserve(int64_t max_tokens);
    // Does nothing when the segments are those of the last call.
    void update(std::span<const Segment> segments, cudaStream_t stream);

    AttentionTiles forward() const { return {device_, n_forward_}; }
    AttentionTiles backward_q() const { return {device_, n_forward_}; }
    // None when there are older keys in a cache, which have no backward pass.
    AttentionTiles backward_kv() const { return {device_ + n_forward_, n_kv_}; }
    // One query each; none when decoding does not pay. Their keys are to be shared out to n_parts() blocks.
    AttentionTiles queries() const { return {device_ + n_forward_ + n_kv_, n_queries_}; }
    int32_t n_parts() const { return n_parts_; }
    // What launches depend on: equal when all that differs is in the tiles, which are in device memory.
    std::span<const int32_t> shape() const { return shape_; }

private:
    std::vector<Segment> segments_;
    int64_t capacity_ = 0, n_forward_ = 0, n_kv_ = 0, n_queries_ = 0;
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
