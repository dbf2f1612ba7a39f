// The merging loop that SentencePiece-style and byte-level BPE share: of all neighbours that may merge, the pair of the
// lowest cost does, the leftmost of equals, until none is left (Sennrich et al. 2016, with a heap instead of rescans).
#pragma once

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <vector>

namespace lorica {

class MergeQueue {
public:
    struct Merge {
        double cost;
        int32_t value;  // of the merged symbol
    };

    void clear() { symbols_.clear(); }
    // `value` >= -1 tells the symbol's states apart: it changes whenever the symbol grows.
    void push(int32_t value) {
        const auto n = static_cast<int32_t>(symbols_.size());
        symbols_.push_back({value, n - 1, n + 1});
    }
    int32_t value(size_t i) const { return symbols_[i].value; }

    // find(left, right), positions of neighbours as pushed, gives their Merge or nullopt.
    template <typename Find> void run(Find find) {
        const auto n = static_cast<int32_t>(symbols_.size());
        heap_.clear();
        const auto consider = [&](int32_t left, int32_t right) {
            if (left < 0 || right >= n) {
                return false;
            }
            const std::optional<Merge> merge = find(static_cast<size_t>(left), static_cast<size_t>(right));
            if (merge) {
                heap_.push_back({merge->cost, left, right, merge->value, at(left).value, at(right).value});
            }
            return merge.has_value();
        };
        for (int32_t i = 1; i < n; ++i) {
            consider(i - 1, i);
        }
        std::ranges::make_heap(heap_, comes_later);
        while (!heap_.empty()) {
            std::ranges::pop_heap(heap_, comes_later);
            const Candidate best = heap_.back();
            heap_.pop_back();
            Symbol & left = at(best.left);
            Symbol & right = at(best.right);
            if (left.value != best.left_value || right.value != best.right_value) {
                continue;  // one of the two has merged since
            }
            left.value = best.value;
            left.next = right.next;
            right.value = gone;
            if (right.next < n) {
                at(right.next).previous = best.left;
            }
            if (consider(left.previous, best.left)) {
                std::ranges::push_heap(heap_, comes_later);
            }
            if (consider(best.left, left.next)) {
                std::ranges::push_heap(heap_, comes_later);
            }
        }
    }

    // Calls visit(position, value) for what is left.
    template <typename Visit> void for_each(Visit visit) const {
        for (size_t i = 0; i < symbols_.size(); i = static_cast<size_t>(symbols_[i].next)) {
            visit(i, symbols_[i].value);
        }
    }

private:
    static constexpr int32_t gone = -2;

    struct Symbol {
        int32_t value, previous, next;
    };
    struct Candidate {
        double cost;
        int32_t left, right, value, left_value, right_value;
    };

    static bool comes_later(const Candidate & a, const Candidate & b) {
        return a.cost > b.cost || (a.cost == b.cost && a.left > b.left);
    }

    Symbol & at(int32_t i) { return symbols_[static_cast<size_t>(i)]; }

    std::vector<Symbol> symbols_;
    std::vector<Candidate> heap_;
};

}  // namespace lorica
