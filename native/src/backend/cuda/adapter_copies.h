// A and B of adapters as operands of products, in the format act: made when parameters have changed, for all layers at
// once, and not at each use. Those of layers with one input are stacked, so that x is read once for all of them.
#pragma once

#include "backend/cuda/kernels.h"

#include <map>
#include <span>
#include <vector>

namespace lorica::cuda {

// Of the layers of one call.
struct Adapters {
    Matrix a;                     // [sum of ranks, in], each part from a row of its own on
    std::vector<Matrix> a_of, b;  // of each layer; empty: it has none. b with its scale in it
    std::vector<int64_t> first;   // row of a, column of u and v, where layer i begins
    bool stacked = true;          // one product serves all
    std::vector<Conversion> conversions;
};

class AdapterCopies {
public:
    // The parameters and their scales that copies are of.
    struct Source {
        const void *a, *b;
        int64_t rank;
        double scale;
        auto operator<=>(const Source &) const = default;
    };
    using Key = std::vector<Source>;

    static size_t n_bytes(const WorkspaceShape & shape, Dtype act);
    // Forgets all copies, and has room for those of such a shape.
    void reserve(const WorkspaceShape & shape, Dtype act);
    // Null: there are none.
    const Adapters * find(const Key & key) const;
    // Memory for copies, a multiple of 16 bytes; null: there is no room.
    void * take(size_t n_bytes);
    const Adapters & keep(const Key & key, Adapters adapters);
    // Makes all copies again.
    void refresh(const Context & context) const;

private:
    Workspace memory_;
    std::byte * begin_ = nullptr;
    size_t size_ = 0, used_ = 0;
    std::map<Key, Adapters> kept_;
};

}  // namespace lorica::cuda
