#include "support/counted_memory.h"

#include <malloc.h>

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> live = 0, most = 0;

void * counted(size_t n) noexcept {
    void * memory = std::malloc(n);
    if (!memory) return nullptr;
    const int64_t now = live += static_cast<int64_t>(malloc_usable_size(memory));
    int64_t before = most;
    while (now > before && !most.compare_exchange_weak(before, now)) {
    }
    return memory;
}

void * counted_or_throw(size_t n) {
    void * memory = counted(n);
    if (!memory) throw std::bad_alloc();
    return memory;
}

void uncounted(void * memory) noexcept {
    if (memory) live -= static_cast<int64_t>(malloc_usable_size(memory));
    std::free(memory);
}

}  // namespace

void * operator new(size_t n) { return counted_or_throw(n); }
void * operator new[](size_t n) { return counted_or_throw(n); }
void * operator new(size_t n, const std::nothrow_t &) noexcept { return counted(n); }
void * operator new[](size_t n, const std::nothrow_t &) noexcept { return counted(n); }
void operator delete(void * memory) noexcept { uncounted(memory); }
void operator delete[](void * memory) noexcept { uncounted(memory); }
void operator delete(void * memory, size_t) noexcept { uncounted(memory); }
void operator delete[](void * memory, size_t) noexcept { uncounted(memory); }
void operator delete(void * memory, const std::nothrow_t &) noexcept { uncounted(memory); }
void operator delete[](void * memory, const std::nothrow_t &) noexcept { uncounted(memory); }

namespace lorica::test {

int64_t live_bytes() { return live; }
int64_t most_bytes() { return most; }
void reset_most_bytes() { most = live.load(); }

}  // namespace lorica::test
