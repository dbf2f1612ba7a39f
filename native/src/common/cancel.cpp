#include "common/cancel.h"

#include <utility>

#include "common/error.h"

namespace lorica {

namespace {

thread_local const std::atomic<bool> * current_flag = nullptr;

}  // namespace

CancelScope::CancelScope(const std::atomic<bool> & flag) : before_(std::exchange(current_flag, &flag)) {}

CancelScope::~CancelScope() { current_flag = before_; }

void check_cancelled() {
    if (current_flag && current_flag->load(std::memory_order_relaxed)) fail(LORICA_ERROR_CANCELLED, "cancelled");
}

}  // namespace lorica
