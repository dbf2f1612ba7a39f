#include "run/layout.h"

#include <algorithm>
#include <numeric>

namespace lorica {

namespace {

size_t rounded(size_t n) { return (n + 63) / 64 * 64; }

// See Arena::operand.
int64_t operand_stride(Dtype type, int64_t cols) {
    const auto per_line = static_cast<int64_t>(64 / dtype_size(type));
    const bool even = cols >= 8 * per_line && cols % (2 * per_line) == 0;
    return even ? cols + per_line : cols;
}

std::byte * at(void * base, size_t offset) { return base ? static_cast<std::byte *>(base) + offset : nullptr; }

}  // namespace

void * Arena::bytes(size_t n) {
    void * memory = at(base_, position_);
    position_ += rounded(n);
    return memory;
}

Matrix Arena::matrix(Dtype type, int64_t rows, int64_t cols) {
    return {bytes(static_cast<size_t>(rows * cols) * dtype_size(type)), type, rows, cols, cols};
}

Matrix Arena::operand(Dtype type, int64_t rows, int64_t cols) {
    Matrix x = matrix(type, rows, operand_stride(type, cols));
    x.cols = cols;
    return x;
}

Layout::Layout(const BlockPlan & plan, Formats formats, int64_t max_tokens, int64_t max_rank)
    : plan_(plan), formats_(formats), max_tokens_(max_tokens), max_rank_(max_rank) {
    kept_.resize(plan.slots.size());
    for (size_t i = 0; i < plan.slots.size(); ++i) {
        const Slot & slot = plan.slots[i];
        if (slot.place != Slot::kept || slot.part_of != no_slot) continue;
        kept_[i] = kept_bytes_;
        kept_bytes_ += rounded(shape(slot).n_bytes());
    }
    forward_ = temporary_offsets(plan.forward);
    backward_ = temporary_offsets(plan.backward);
}

Matrix Layout::shape(const Slot & slot) const {
    const Dtype type = slot.format == Format::hidden ? formats_.hidden : formats_.act;
    const int64_t cols = slot.is_u ? max_rank_ : slot.cols;
    const int64_t stride = slot.format == Format::hidden ? cols : operand_stride(type, cols);
    return {nullptr, type, max_tokens_, cols, stride};
}

// The largest first, each as low as the others let it.
std::vector<size_t> Layout::temporary_offsets(const std::vector<Call> & calls) {
    struct Use {
        size_t first, last, slot, bytes;
    };
    std::vector<Use> uses;
    for (size_t c = 0; c < calls.size(); ++c) {
        calls[c].each_slot([&](SlotId id) {
            const auto root = static_cast<size_t>(plan_.root(id));
            if (plan_.slots[root].place != Slot::temporary) return;
            const auto known = std::find_if(uses.begin(), uses.end(), [&](const Use & u) { return u.slot == root; });
            if (known != uses.end()) {
                known->last = c;
            } else {
                uses.push_back({c, c, root, rounded(shape(plan_.slots[root]).n_bytes())});
            }
        });
    }
    std::stable_sort(uses.begin(), uses.end(), [](const Use & a, const Use & b) { return a.bytes > b.bytes; });
    std::vector<size_t> offsets(plan_.slots.size());
    for (size_t i = 0; i < uses.size(); ++i) {
        const Use & use = uses[i];
        size_t offset = 0;
        for (bool moved = true; moved;) {
            moved = false;
            for (size_t j = 0; j < i; ++j) {
                const Use & other = uses[j];
                const size_t begin = offsets[other.slot], end = begin + other.bytes;
                const bool together = use.first <= other.last && other.first <= use.last;
                if (!together || offset >= end || offset + use.bytes <= begin) continue;
                offset = end;
                moved = true;
            }
        }
        offsets[use.slot] = offset;
        temporary_bytes_ = std::max(temporary_bytes_, offset + use.bytes);
    }
    return offsets;
}

PlacedSlots Layout::place(void * kept, void * temporary) const {
    PlacedSlots placed;
    for (auto [slots, offsets] : {std::pair{&placed.forward, &forward_}, {&placed.backward, &backward_}}) {
        for (size_t i = 0; i < plan_.slots.size(); ++i) {
            const Slot & slot = plan_.slots[i];
            const auto root = static_cast<size_t>(plan_.root(static_cast<SlotId>(i)));
            Matrix x = shape(plan_.slots[root]);
            if (slot.place == Slot::kept) x.data = at(kept, kept_[root]);
            if (slot.place == Slot::temporary) x.data = at(temporary, (*offsets)[root]);
            if (slot.part_of != no_slot && x.data)
                x.data = at(x.data, static_cast<size_t>(slot.first_col) * dtype_size(x.type));
            if (slot.part_of != no_slot) x.cols = slot.cols;
            slots->push_back(x);
        }
    }
    return placed;
}

void PlacedSlots::place(const BlockPlan & plan, Slot::Place place, const Matrix & memory) {
    for (std::vector<Matrix> * slots : {&forward, &backward}) {
        for (size_t i = 0; i < plan.slots.size(); ++i) {
            const Slot & slot = plan.slots[i];
            if (slot.place != place) continue;
            Matrix x = memory;
            if (slot.part_of != no_slot) {
                x.data = at(x.data, static_cast<size_t>(slot.first_col) * dtype_size(x.type));
                x.cols = slot.cols;
            }
            (*slots)[i] = x;
        }
    }
}

}  // namespace lorica
