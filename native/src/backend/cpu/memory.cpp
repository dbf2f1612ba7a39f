#include "backend/cpu/memory.h"

#include <cstdlib>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lorica::cpu {

namespace {

constexpr size_t huge_page = size_t{2} << 20;

constexpr size_t round_up(size_t n, size_t to) { return (n + to - 1) / to * to; }

}  // namespace

void * allocate_memory(size_t n_bytes) {
    const bool large = n_bytes >= 2 * huge_page;
    const size_t alignment = large ? huge_page : memory_alignment;
    const size_t rounded = round_up(n_bytes > 0 ? n_bytes : 1, memory_alignment);
    // Not rounded to huge pages: the rest of the last one would count as used.
    void * memory = nullptr;
    if (posix_memalign(&memory, alignment, rounded) != 0) return nullptr;
#if defined(__linux__)
    // A wish: where it is not granted, small pages do as well.
    if (large) madvise(memory, rounded / huge_page * huge_page, MADV_HUGEPAGE);
#endif
    return memory;
}

}  // namespace lorica::cpu
