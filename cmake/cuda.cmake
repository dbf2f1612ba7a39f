# -DLORICA_CUDA=AUTO|ON|OFF. AUTO builds the CUDA backend where a compiler for it is found. The runtime is linked
# statically and looks for the driver when it is first used, so the library also loads where there is no GPU.
# Sets LORICA_HAVE_CUDA.
set(LORICA_CUDA AUTO CACHE STRING "Build the CUDA backend: AUTO, ON or OFF")
set_property(CACHE LORICA_CUDA PROPERTY STRINGS AUTO ON OFF)

set(LORICA_HAVE_CUDA OFF)
file(GLOB lorica_cuda_sources CONFIGURE_DEPENDS ${CMAKE_CURRENT_SOURCE_DIR}/src/backend/cuda/*)
if(LORICA_CUDA STREQUAL "AUTO" AND lorica_cuda_sources)
    include(CheckLanguage)
    check_language(CUDA)
    if(CMAKE_CUDA_COMPILER)
        set(LORICA_HAVE_CUDA ON)
    endif()
elseif(LORICA_CUDA AND NOT LORICA_CUDA STREQUAL "AUTO")
    set(LORICA_HAVE_CUDA ON)
endif()

if(LORICA_HAVE_CUDA)
    if(NOT DEFINED CMAKE_CUDA_ARCHITECTURES)
        # bf16 tensor cores begin with Ampere; the PTX of the last one serves what comes after it
        set(CMAKE_CUDA_ARCHITECTURES 80-real 86-real 89-real 90)
    endif()
    set(CMAKE_CUDA_STANDARD 20)
    set(CMAKE_CUDA_STANDARD_REQUIRED ON)
    set(CMAKE_CUDA_RUNTIME_LIBRARY Static)
    enable_language(CUDA)
    find_package(CUDAToolkit REQUIRED)
endif()
