// Memory of the cpu device.
#pragma once

#include <cstddef>

namespace lorica::cpu {

constexpr size_t memory_alignment = 64;  // a cache line and a vector of AVX-512

// n_bytes, not cleared, to be freed with std::free; null when there is no memory. Large blocks lie on huge pages where
// the system grants them on request: a product reads rows that are pages apart, and a panel that fills half of the
// second-level cache should not meet itself in one part of it because its small pages are scattered.
void * allocate_memory(size_t n_bytes);

}  // namespace lorica::cpu
