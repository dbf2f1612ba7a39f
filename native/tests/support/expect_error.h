// Asserting on the status and the message of a lorica::Error.
#pragma once

#include "common/error.h"

#include <gmock/gmock.h>

#include <functional>
#include <string>

namespace lorica::test {

inline void expect_error(lorica_status status, const testing::Matcher<std::string> & message,
                         const std::function<void()> & body) {
    try {
        body();
        ADD_FAILURE() << "no error where one was expected";
    } catch (const Error & error) {
        EXPECT_EQ(error.status(), status) << error.what();
        EXPECT_THAT(std::string(error.what()), message);
    }
}

}  // namespace lorica::test
