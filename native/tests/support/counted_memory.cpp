#include "support/counted_memory.h"

#include <atomic>
#include <cstdlib>
#include <new>

namespace {

std::atomic<int64_t> live = 0, most = 0;

void * counted(size_t n) {
    constexpr size_t header = 16;
    auto * memory = n > SIZE_MAX - header ? nullptr : static_cast<char *>(std::malloc(n + header));
    if (!memory) throw std::bad_alloc();
    *reinterpret_cast<size_t *>(memory) = n;
    const int64_t now = live += static_cast<int64_t>(n);
    int64_t before = most;
    while (now > before && !most.compare_exchange_weak(before, now)) {
    }
    return memory + header;
}

void uncounted(void * memory) {
    if (!memory) return;
    auto * begin = static_cast<char *>(memory) - 16;
    live -= static_cast<int64_t>(*reinterpret_cast<size_t *>(begin));
    std::free(begin);
}

}  // namespace

void * operator new(size_t n) { return counted(n); }
void * operator new[](size_t n) { return counted(n); }
void operator delete(void * memory) noexcept { uncounted(memory); }
void operator delete[](void * memory) noexcept { uncounted(memory); }
void operator delete(void * memory, size_t) noexcept { uncounted(memory); }
void operator delete[](void * memory, size_t) noexcept { uncounted(memory); }

namespace lorica::test {

int64_t live_bytes() { return live; }
int64_t most_bytes() { return most; }
void reset_most_bytes() { most = live.load(); }

}  // namespace lorica::test
