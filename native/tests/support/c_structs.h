// Structs of lorica.h as callers make them: with their size, and filled with defaults.
#pragma once

#include <lorica/lorica.h>

#include <stdexcept>

namespace lorica::test {

template <typename Struct> Struct defaults(lorica_status (*fill)(Struct *)) {
    Struct result{sizeof(Struct)};
    if (fill(&result) != LORICA_OK) throw std::runtime_error(lorica_last_error());
    return result;
}

}  // namespace lorica::test
