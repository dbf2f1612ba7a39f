// Work that is done again and again as CUDA graphs: recorded when its shape comes for the second time, played
// afterwards.
#pragma once

#include <cuda_runtime.h>

#include <cstdint>
#include <functional>
#include <list>
#include <span>
#include <vector>

namespace lorica::cuda {

class GraphCache {
public:
    GraphCache() = default;
    ~GraphCache();
    GraphCache(const GraphCache &) = delete;
    GraphCache & operator=(const GraphCache &) = delete;

    // Does the work on `stream` one way or another; its shape is the key and the numbers. While recording() work() must
    // launch into recording_stream(), where no other thread's launches get into the record. False: recording failed,
    // nothing was done, and it is not worth trying again.
    bool run(cudaStream_t stream, std::span<const int32_t> numbers, uint64_t key, const std::function<void()> & work);
    // The memory that recorded work uses is about to move.
    void clear();

    bool recording() const { return recording_; }
    cudaStream_t recording_stream() const { return recording_stream_; }

private:
    struct Shape {
        uint64_t key;
        std::vector<int32_t> numbers;
        cudaGraphExec_t graph = nullptr;  // null: seen once
    };
    cudaGraphExec_t record(const std::function<void()> & work);

    static constexpr size_t max_shapes = 64, max_graphs = 4;
    std::list<Shape> shapes_;  // the last used first
    cudaStream_t recording_stream_ = nullptr;
    bool recording_ = false;
};

}  // namespace lorica::cuda
