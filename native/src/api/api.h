// What every file of src/api uses: exceptions of the core become a status and the message of lorica_last_error().
#pragma once

#include <lorica/lorica.h>

#include "common/error.h"

#include <algorithm>
#include <cstddef>
#include <cstring>
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

// ---- structs that grow at their end: each begins with its size as the caller knows it

// Refuses what cannot be a size: the caller has not set it.
inline size_t checked_struct_size(size_t size, const char * name) {
    constexpr size_t smallest = 2 * sizeof(size_t), largest = size_t{1} << 16;
    if (size < smallest || size > largest) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, name, ".struct_size is ", size, "; set it to sizeof before the call");
    }
    return size;
}

// What the caller gives, and what it does not know from `result`, which holds the defaults.
template <typename Struct> void read_struct(const Struct * given, const char * name, Struct & result) {
    require(given, name);
    const size_t size = checked_struct_size(given->struct_size, name);
    const auto * bytes = reinterpret_cast<const unsigned char *>(given);
    if (size > sizeof(Struct) &&
        std::any_of(bytes + sizeof(Struct), bytes + size, [](auto byte) { return byte != 0; })) {
        fail(LORICA_ERROR_UNSUPPORTED, name, " has values that this version of the library, ", lorica_version(),
             ", does not know");
    }
    std::memcpy(static_cast<void *>(&result), given, std::min(size, sizeof(Struct)));
    result.struct_size = sizeof(Struct);
}

// Gives the caller as much as it knows, and zeros where it knows more.
template <typename Struct> void write_struct(const Struct & values, const char * name, Struct * out) {
    require(out, name);
    const size_t size = checked_struct_size(out->struct_size, name);
    auto * bytes = reinterpret_cast<unsigned char *>(out);
    std::memcpy(bytes, &values, std::min(size, sizeof(Struct)));
    if (size > sizeof(Struct)) std::fill(bytes + sizeof(Struct), bytes + size, static_cast<unsigned char>(0));
    out->struct_size = size;
}

}  // namespace lorica::api
