#include "backend/cuda/graph_cache.h"

#include "backend/cuda/launch.h"
#include "common/error.h"

#include <algorithm>

namespace lorica::cuda {

GraphCache::~GraphCache() {
    clear();
    if (recording_stream_) cudaStreamDestroy(recording_stream_);
}

void GraphCache::clear() {
    for (const Shape & shape : shapes_) {
        if (shape.graph) cudaGraphExecDestroy(shape.graph);
    }
    shapes_.clear();
}

cudaGraphExec_t GraphCache::record(const std::function<void()> & work) {
    if (!recording_stream_ && cudaStreamCreateWithFlags(&recording_stream_, cudaStreamNonBlocking) != cudaSuccess) {
        recording_stream_ = nullptr;
        return nullptr;
    }
    if (cudaStreamBeginCapture(recording_stream_, cudaStreamCaptureModeThreadLocal) != cudaSuccess) return nullptr;
    recording_ = true;
    bool good = true;
    try {
        work();
    } catch (...) {
        good = false;  // if it was no fault of recording, it comes again without
    }
    recording_ = false;
    cudaGraph_t recorded = nullptr;
    good &= cudaStreamEndCapture(recording_stream_, &recorded) == cudaSuccess && recorded;
    cudaGraphExec_t graph = nullptr;
    if (good && cudaGraphInstantiate(&graph, recorded, 0) != cudaSuccess) graph = nullptr;
    if (recorded) cudaGraphDestroy(recorded);
    return graph;
}

bool GraphCache::run(cudaStream_t stream, std::span<const int32_t> numbers, uint64_t key,
                     const std::function<void()> & work) {
    const auto found = std::find_if(shapes_.begin(), shapes_.end(), [&](const Shape & shape) {
        return shape.key == key && std::ranges::equal(shape.numbers, numbers);
    });
    if (found == shapes_.end()) {
        work();
        shapes_.push_front({key, {numbers.begin(), numbers.end()}});
        if (shapes_.size() > max_shapes) {
            if (shapes_.back().graph) cudaGraphExecDestroy(shapes_.back().graph);
            shapes_.pop_back();
        }
        return true;
    }
    shapes_.splice(shapes_.begin(), shapes_, found);
    Shape & shape = shapes_.front();
    if (!shape.graph) {
        size_t n_graphs = 0;
        for (Shape & other : shapes_) {
            if (!other.graph || ++n_graphs < max_graphs) continue;
            check(cudaStreamSynchronize(stream), "a kernel failed");  // it may still be played
            cudaGraphExecDestroy(other.graph);
            other.graph = nullptr;
        }
        shape.graph = record(work);
        // The first launch puts it on the device, and may find no memory for it there.
        if (shape.graph && cudaGraphLaunch(shape.graph, stream) == cudaSuccess) return true;
        cudaGetLastError();
        if (shape.graph) cudaGraphExecDestroy(shape.graph);
        shape.graph = nullptr;
        return false;
    }
    check(cudaGraphLaunch(shape.graph, stream), "a recorded step");
    return true;
}

}  // namespace lorica::cuda
