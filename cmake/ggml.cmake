# ggml's base library: reading and writing GGUF, block formats. Its graphs and backends are not used.
# The pinned tag is the release that Debian packages; keep the two equal.
# Target: ggml::ggml-base. Public headers used: gguf.h, and of ggml.h ggml_get_type_traits() and ggml_quantize_chunk().
if(NOT DEFINED LORICA_GGML_VERSION)
    set(LORICA_GGML_VERSION 0.27.0)
endif()

FetchContent_Declare(ggml
    GIT_REPOSITORY https://github.com/ggml-org/ggml.git
    GIT_TAG v${LORICA_GGML_VERSION}
    GIT_SHALLOW ON
    EXCLUDE_FROM_ALL
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
