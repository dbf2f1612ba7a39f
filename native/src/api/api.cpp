#include "api/api.h"

#include "common/log.h"
#include "common/machine.h"
#include "common/thread_pool.h"

#include <algorithm>
#include <cstring>
#include <new>
#include <string_view>

namespace {

// A fixed buffer, so that noting "out of memory" needs none. Longer messages lose their end.
thread_local char last_error[4096] = "";

void note(std::string_view message) {
    size_t n = std::min(message.size(), sizeof(last_error) - 1);
    while (n > 0 && n < message.size() && (message[n] & 0xc0) == 0x80) {
        --n;  // not inside a UTF-8 character
    }
    std::memcpy(last_error, message.data(), n);
    last_error[n] = '\0';
    // Line breaks, and whatever else the text of a file could do to a terminal.
    std::replace_if(last_error, last_error + n, [](unsigned char c) { return c < 0x20 || c == 0x7f; }, ' ');
}

}  // namespace

namespace lorica::api {

lorica_status record_current_exception() noexcept {
    try {
        throw;
    } catch (const Error & error) {
        note(error.what());
        return error.status();
    } catch (const std::bad_alloc &) {
        note("out of memory: an allocation failed");
        return LORICA_ERROR_OUT_OF_MEMORY;
    } catch (const std::exception & error) {
        note(error.what());
        return LORICA_ERROR_INTERNAL;
    } catch (...) {
        note("an exception of unknown type");
        return LORICA_ERROR_INTERNAL;
    }
}

}  // namespace lorica::api

const char * lorica_version(void) { return LORICA_VERSION; }

const char * lorica_last_error(void) { return last_error; }

void lorica_set_thread_limit(int32_t n_threads) { lorica::ThreadPool::instance().set_limit(n_threads); }

void lorica_set_reserved_memory(int64_t n_bytes) { lorica::set_reserved_memory(n_bytes); }

void lorica_log_set(lorica_log_callback callback, void * user_data) { lorica::set_log_callback(callback, user_data); }
