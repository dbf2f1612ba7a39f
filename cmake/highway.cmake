# Google Highway: the SIMD kernels are written once and dispatched at run time. Target: hwy::hwy.
FetchContent_Declare(highway
    GIT_REPOSITORY https://github.com/google/highway.git
    GIT_TAG 1.2.0
    GIT_SHALLOW ON
    EXCLUDE_FROM_ALL
    FIND_PACKAGE_ARGS 1.2.0 NAMES hwy CONFIG)

block(SCOPE_FOR VARIABLES PROPAGATE hwy_FOUND hwy_VERSION)
    set(BUILD_SHARED_LIBS OFF)
    set(CMAKE_POSITION_INDEPENDENT_CODE ON)
    set(BUILD_TESTING OFF)
    set(HWY_ENABLE_TESTS OFF)
    set(HWY_ENABLE_EXAMPLES OFF)
    set(HWY_ENABLE_CONTRIB OFF)
    FetchContent_MakeAvailable(highway)
endblock()

if(NOT TARGET hwy::hwy)
    add_library(hwy::hwy ALIAS hwy)
endif()
