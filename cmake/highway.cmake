# Google Highway: the SIMD kernels are written once and dispatched at run time. Target: hwy::hwy.
if(NOT DEFINED LORICA_HIGHWAY_VERSION)
    set(LORICA_HIGHWAY_VERSION 1.2.0)
endif()
FetchContent_Declare(highway
    GIT_REPOSITORY https://github.com/google/highway.git
    GIT_TAG ${LORICA_HIGHWAY_VERSION}
    GIT_SHALLOW ON
    EXCLUDE_FROM_ALL SYSTEM
    FIND_PACKAGE_ARGS ${LORICA_HIGHWAY_VERSION} NAMES hwy CONFIG)

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
if(hwy_FOUND)
    set(LORICA_HIGHWAY_VERSION ${hwy_VERSION})
endif()
