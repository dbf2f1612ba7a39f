#include "common/log.h"

#include <algorithm>
#include <mutex>
#include <shared_mutex>

namespace lorica {

namespace {

// Held shared while the callback runs: when lorica_log_set returns, the callback before is not running and will not
// again, and its user data may be freed.
std::shared_mutex mutex;
lorica_log_callback current_callback = nullptr;
void * current_user_data = nullptr;

}  // namespace

void set_log_callback(lorica_log_callback callback, void * user_data) {
    std::unique_lock lock(mutex);
    current_callback = callback;
    current_user_data = user_data;
}

bool log_enabled() {
    std::shared_lock lock(mutex);
    return current_callback != nullptr;
}

void write_log(lorica_log_level level, std::string message) {
    std::replace_if(message.begin(), message.end(), [](char c) { return c == '\n' || c == '\r'; }, ' ');
    std::shared_lock lock(mutex);
    if (current_callback != nullptr) {
        current_callback(level, message.c_str(), current_user_data);
    }
}

}  // namespace lorica
