// What every file of src/api uses: exceptions of the core become a status and the message of lorica_last_error().
#pragma once

#include "common/error.h"

#include <utility>

namespace lorica::api {

// Call inside a catch block: notes the message of the current exception for this thread and gives its status.
lorica_status record_current_exception() noexcept;

// Runs the body of a C function. `body` writes to the caller's outputs only as its last act.
//
//     lorica_status lorica_gguf_open(const char * path, lorica_gguf ** out) {
//         return guarded([&] {
//             require(path, "path");
//             ...
//         });
//     }
template <typename Body> lorica_status guarded(Body && body) noexcept {
    try {
        std::forward<Body>(body)();
        return LORICA_OK;
    } catch (...) {
        return record_current_exception();
    }
}

// Refuses NULL for the parameter called `name`.
inline void require(const void * pointer, const char * name) {
    if (pointer == nullptr) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, name, " must not be NULL");
    }
}

}  // namespace lorica::api
