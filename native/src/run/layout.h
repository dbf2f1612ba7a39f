// Where the slots of a plan lie in memory. Kept ones have memory of their own from the forward pass to the backward
// pass; temporary ones share, two of them overlapping where no call of the list comes between the first and the last
// use of both.
#pragma once

#include <vector>

#include "model/schedule.h"

namespace lorica {

// Lays matrices out one after another in one block of device memory. With base == nullptr it only counts.
class Arena {
public:
    explicit Arena(void * base = nullptr) : base_(static_cast<std::byte *>(base)) {}
    Matrix matrix(Dtype type, int64_t rows, int64_t cols);
    // With rows an odd number of cache lines apart: rows that are a multiple of 4 KiB apart fall on one set of the
    // first-level cache, and products that read a block of them run at a third of their speed.
    Matrix operand(Dtype type, int64_t rows, int64_t cols);
    void * bytes(size_t n);
    size_t n_bytes() const { return position_; }

private:
    std::byte * base_;
    size_t position_ = 0;
};

// The matrices of all slots, by list; those outside the plan's own memory are empty.
struct PlacedSlots {
    std::vector<Matrix> forward, backward;

    // In both, for a slot that lies elsewhere; also the parts of it.
    void place(const BlockPlan & plan, Slot::Place place, const Matrix & memory);
};

class Layout {
public:
    // max_rank: of an adapter's halves.
    Layout(const BlockPlan & plan, Formats formats, int64_t max_tokens, int64_t max_rank);

    size_t kept_bytes() const { return kept_bytes_; }
    size_t temporary_bytes() const { return temporary_bytes_; }
    PlacedSlots place(void * kept, void * temporary) const;

private:
    Matrix shape(const Slot & slot) const;
    std::vector<size_t> temporary_offsets(const std::vector<Call> & calls);

    const BlockPlan & plan_;
    Formats formats_;
    int64_t max_tokens_, max_rank_;
    size_t kept_bytes_ = 0, temporary_bytes_ = 0;
    std::vector<size_t> kept_, forward_, backward_;  // offsets by slot
};

}  // namespace lorica
