#include "model/arch/architectures.h"

#include "common/error.h"

namespace lorica {

namespace {

struct Known {
    const char * name;
    Architecture (*describe)(const Reader & file);
};

#define LORICA_ENTRY(function, name) {name, function},
constexpr Known known[] = {LORICA_ARCHITECTURES(LORICA_ENTRY)};
#undef LORICA_ENTRY

}  // namespace

std::string architecture_names() {
    std::string names;
    for (const Known & one : known) names += (names.empty() ? "" : ", ") + std::string(one.name);
    return names;
}

Architecture describe(const GgufFile & file) {
    const Reader reader(file);
    for (const Known & one : known) {
        if (reader.architecture() == one.name) return one.describe(reader);
    }
    fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": architecture '", reader.architecture(), "' is not supported (",
         architecture_names(), std::size(known) == 1 ? " is)" : " are)");
}

}  // namespace lorica
