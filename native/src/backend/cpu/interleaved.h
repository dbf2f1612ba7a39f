// Quantized weights copied into the order in which decoding reads them: strips of rows side by side, so that a vector
// holds four elements of each of its rows and no sum runs across lanes. A copy has the integers and scales of its
// blocks, as many bytes as they; the scales of Q4_K and Q5_K are unpacked, which adds 3 %.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <unordered_map>

#include "backend/backend.h"
#include "backend/cpu/dot_input.h"

namespace lorica::cpu {

constexpr int64_t strip_rows = 32;

// Whether there is a kernel for such a weight.
bool can_interleave(const Weight & w);
// Of a copy: whole strips, those behind the last row with zeros.
int64_t interleaved_bytes(const Weight & w);
void interleave(const Weight & w, int n_threads, std::byte * out);

// out[t * stride + i] = row first + i of W times row t of x, for count rows of W; first is a multiple of strip_rows,
// and so is count unless it ends with W. x must have its integers. Up to strip_rows - 1 elements behind the last of
// each row of out are written too. A row of x gets the same sums beside any others.
void dot_interleaved(const Weight & w, const std::byte * interleaved, int64_t first, int64_t count, const DotInput & x,
                     float * out, int64_t stride);

// Copies of the weights of a model. Immutable, so that several threads may read them.
class InterleavedWeights final : public ArrangedWeights {
public:
    // What there is no kernel for is left out, and what occurs twice is copied once. Null: nothing is left, or there
    // is no memory, of which max_bytes may be taken.
    static std::shared_ptr<const InterleavedWeights> make(std::span<const Weight * const> weights, int64_t max_bytes,
                                                          int n_threads);

    // The copy of w, or null.
    const std::byte * find(const Weight & w) const;

private:
    struct Free {
        void operator()(std::byte * memory) const;
    };
    std::unique_ptr<std::byte[], Free> memory_;
    std::unordered_map<const std::byte *, const std::byte *> copies_;  // by where the blocks are
};

}  // namespace lorica::cpu
