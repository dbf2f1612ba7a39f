# ggml's base library: reading and writing GGUF, block formats. Its graphs and backends are not used.
# The pinned tag is the release that Debian packages; keep the two equal.
# Target: ggml::ggml-base. Public headers used: gguf.h, and of ggml.h ggml_get_type_traits() and ggml_quantize_chunk().
if(NOT DEFINED LORICA_GGML_VERSION)
    set(LORICA_GGML_VERSION 0.27.0)
endif()
# Sources in a folder, -DFETCHCONTENT_SOURCE_DIR_GGML=FOLDER, have a version of their own.
if(FETCHCONTENT_SOURCE_DIR_GGML)
    file(STRINGS ${FETCHCONTENT_SOURCE_DIR_GGML}/CMakeLists.txt lines REGEX "^set\\(GGML_VERSION_(MAJOR|MINOR|PATCH) [0-9]+\\)")
    string(REGEX MATCHALL "[0-9]+" version "${lines}")
    list(JOIN version . version)
    if(NOT version MATCHES "^[0-9]+\\.[0-9]+\\.[0-9]+$")
        message(FATAL_ERROR "${FETCHCONTENT_SOURCE_DIR_GGML} does not hold ggml's sources: its CMakeLists.txt names no version")
    endif()
    if(NOT version VERSION_EQUAL LORICA_GGML_VERSION)
        message(WARNING "ggml ${version} of ${FETCHCONTENT_SOURCE_DIR_GGML} is built in, and ${LORICA_GGML_VERSION} is what Lorica is tested with")
    endif()
    set(LORICA_GGML_VERSION ${version})
endif()

FetchContent_Declare(ggml
    GIT_REPOSITORY https://github.com/ggml-org/ggml.git
    GIT_TAG v${LORICA_GGML_VERSION}
    GIT_SHALLOW ON
    EXCLUDE_FROM_ALL SYSTEM
    FIND_PACKAGE_ARGS ${LORICA_GGML_VERSION} CONFIG)

block(SCOPE_FOR VARIABLES PROPAGATE ggml_FOUND ggml_VERSION)
    # Only for the fetched source: one static library inside liblorica.so.
    set(BUILD_SHARED_LIBS OFF)
    set(CMAKE_POSITION_INDEPENDENT_CODE ON)
    set(GGML_CPU OFF)
    set(GGML_BUILD_TESTS OFF)
    set(GGML_BUILD_EXAMPLES OFF)
    FetchContent_MakeAvailable(ggml)
endblock()

if(NOT TARGET ggml::ggml-base)
    add_library(ggml::ggml-base ALIAS ggml-base)
endif()
if(ggml_FOUND)
    set(LORICA_GGML_VERSION ${ggml_VERSION})
endif()
