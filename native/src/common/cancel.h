// Stopping a computation from another thread: the thread that computes looks at a flag before each operation.
#pragma once

#include <atomic>

namespace lorica {

// While it lives, what this thread computes ends with an exception (LORICA_ERROR_CANCELLED) soon after the flag becomes
// true: with the operation that runs then, which takes milliseconds. What must not stay half done is computed outside.
class CancelScope {
public:
    explicit CancelScope(const std::atomic<bool> & flag);
    ~CancelScope();
    CancelScope(const CancelScope &) = delete;
    CancelScope & operator=(const CancelScope &) = delete;

private:
    const std::atomic<bool> * before_;
};

// Errors: CANCELLED.
void check_cancelled();

}  // namespace lorica
