# Targets: GTest::gtest, GTest::gmock, GTest::gtest_main.
FetchContent_Declare(googletest
    GIT_REPOSITORY https://github.com/google/googletest.git
    GIT_TAG v1.16.0
    GIT_SHALLOW ON
    EXCLUDE_FROM_ALL SYSTEM
    FIND_PACKAGE_ARGS 1.12 NAMES GTest CONFIG)

block(SCOPE_FOR VARIABLES PROPAGATE GTest_FOUND GTest_VERSION)
    set(BUILD_SHARED_LIBS OFF)
    set(INSTALL_GTEST OFF)
    FetchContent_MakeAvailable(googletest)
endblock()
