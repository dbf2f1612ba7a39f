#include "backend/cuda/adapter_copies.h"

#include <utility>

namespace lorica::cuda {

size_t AdapterCopies::n_bytes(const WorkspaceShape & shape, Dtype act) {
    return static_cast<size_t>(shape.adapter_elements) * dtype_size(act);
}

void AdapterCopies::reserve(const WorkspaceShape & shape, Dtype act) {
    kept_.clear();
    used_ = 0;
    size_ = n_bytes(shape, act);
    if (size_ == 0) return;
    memory_.reserve(size_);
    begin_ = memory_.begin();
}

const Adapters * AdapterCopies::find(const Key & key) const {
    const auto found = kept_.find(key);
    return found == kept_.end() ? nullptr : &found->second;
}

void * AdapterCopies::take(size_t n_bytes) {
    if (n_bytes > size_ - used_) return nullptr;
    std::byte * own = begin_ + used_;
    used_ += n_bytes;
    return own;
}

const Adapters & AdapterCopies::keep(const Key & key, Adapters adapters) { return kept_[key] = std::move(adapters); }

void AdapterCopies::refresh(const Context & context) const {
    std::vector<Conversion> all;
    for (const auto & [key, adapters] : kept_)
        all.insert(all.end(), adapters.conversions.begin(), adapters.conversions.end());
    convert(context, all);
}

}  // namespace lorica::cuda
