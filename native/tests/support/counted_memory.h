// operator new and delete of a test program, counted: what is out, and the most that was out at any time.
#pragma once

#include <cstdint>

namespace lorica::test {

int64_t live_bytes();
// The most since the last reset_most_bytes().
int64_t most_bytes();
void reset_most_bytes();

}  // namespace lorica::test
