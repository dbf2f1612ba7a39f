// A small model of every architecture and of its variants, for the tests that hold for all of them.
#pragma once

#include <ostream>
#include <string>
#include <vector>

#include "support/test_model.h"

namespace lorica::test {

struct Family {
    std::string name;
    TestModel shape;
};

// Windows are of 6 tokens; layers of every kind are there.
std::vector<Family> families();
// Those that predict no tokens.
std::vector<Family> encoders();

inline void PrintTo(const Family & family, std::ostream * out) { *out << family.name; }

}  // namespace lorica::test
