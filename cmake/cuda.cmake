# The CUDA backend, liblorica-cuda.so: a library of its own, which liblorica.so opens at run time. -DLORICA_CUDA=
#   AUTO  where nvcc is found there is a target lorica_cuda, built when it is asked for: cmake --build build --target lorica_cuda
#   ON    nvcc is required, and the library is part of the build
#   OFF   not there
# -DCMAKE_CUDA_ARCHITECTURES=90a (or 80, 89, native, …), or CUDAARCHS=90a in the environment, compiles for one GPU and takes a fifth of
# the time. Hopper is 90a: without the a its own instructions cannot be used.
#
# The runtime is linked statically and looks for the driver when it is first used. Nothing else of the toolkit is needed where the
# library runs.
set(LORICA_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE LORICA_CUDA PROPERTY STRINGS AUTO ON OFF)

file(GLOB lorica_cuda_sources CONFIGURE_DEPENDS
    ${CMAKE_CURRENT_SOURCE_DIR}/src/backend/cuda/*.cu ${CMAKE_CURRENT_SOURCE_DIR}/src/backend/cuda/*.cpp)
list(APPEND lorica_cuda_sources ${CMAKE_CURRENT_SOURCE_DIR}/src/backend/backend.cpp)

set(LORICA_HAVE_CUDA OFF)
if(LORICA_CUDA STREQUAL "AUTO")
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        set(LORICA_HAVE_CUDA ON)
    endif()
elseif(LORICA_CUDA)
    set(LORICA_HAVE_CUDA ON)
endif()

if(LORICA_HAVE_CUDA)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES AND DEFINED ENV{CUDAARCHS})
        set(CMAKE_CUDA_ARCHITECTURES $ENV{CUDAARCHS})
    endif()
    set(lorica_architectures_were_chosen ${CMAKE_CUDA_ARCHITECTURES})
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        set(CMAKE_CUDA_ARCHITECTURES 80)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    set(CMAKE_CUDA_VISIBILITY_PRESET hidden)
    enable_language(CUDA)
    if(NOT lorica_architectures_were_chosen)
        # bf16 tensor cores begin with Ampere; code for 10.0 runs on 10.3 as well, and the PTX of the last one serves what comes after it
        if(CMAKE_CUDA_COMPILER_VERSION VERSION_GREATER_EQUAL 12.8)
            set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 100-real 120)
        else()
            set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90a-real 90-virtual)
        endif()
    endif()

    set(lorica_cuda_from_all EXCLUDE_FROM_ALL)
    if(NOT LORICA_CUDA STREQUAL "AUTO")
        set(lorica_cuda_from_all)
    endif()
    add_library(lorica_cuda MODULE ${lorica_cuda_from_all} ${lorica_cuda_sources})
    target_include_directories(lorica_cuda PRIVATE include src ${CMAKE_CUDA_TOOLKIT_INCLUDE_DIRECTORIES})
    target_compile_options(lorica_cuda PRIVATE
        $<$<COMPILE_LANGUAGE:CUDA>:--expt-relaxed-constexpr;--extended-lambda;-lineinfo;-Xfatbin=-compress-all>)
    if(CMAKE_CUDA_ARCHITECTURES MATCHES "90a")
        target_compile_definitions(lorica_cuda PRIVATE LORICA_CUDA_SM90A)
    elseif(CMAKE_CUDA_ARCHITECTURES MATCHES "(^|;)(90($|;|-)|native|all)")
        message(WARNING "CMAKE_CUDA_ARCHITECTURES is ${CMAKE_CUDA_ARCHITECTURES}: a Hopper GPU takes its own instructions for large "
            "products only with 90a")
    endif()
    target_link_libraries(lorica_cuda PRIVATE ggml::ggml-base)
    target_link_options(lorica_cuda PRIVATE -Wl,--exclude-libs,ALL)
    set_target_properties(lorica_cuda PROPERTIES
        OUTPUT_NAME lorica-cuda
        BUILD_WITH_INSTALL_RPATH ON
        INSTALL_RPATH $ORIGIN)
endif()
