# Linux on arm64, compiled on another processor: native/CMakePresets.json names it. On arm64 itself it changes nothing.
#
# LORICA_ARM64_ROOT, a variable of the environment or -D…, is a folder into which Debian's arm64 packages of ggml, Highway and GoogleTest are
# unpacked (scripts/sysroot.sh arm64 makes it). Without it they are built from their repositories. Compilers and the C library are those of
# Debian's g++-aarch64-linux-gnu; programs, and so the tests, run under qemu-aarch64 (Debian's qemu-user).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
if(NOT CMAKE_HOST_SYSTEM_PROCESSOR MATCHES "^(aarch64|arm64)$")
    set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
    set(CMAKE_CXX_COMPILER aarch64-linux-gnu-g++)

    if(NOT DEFINED LORICA_ARM64_ROOT)
        set(LORICA_ARM64_ROOT "$ENV{LORICA_ARM64_ROOT}")
    endif()
    # Also for the small projects by which CMake tries out the compiler.
    list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES LORICA_ARM64_ROOT)
    set(CMAKE_FIND_ROOT_PATH ${LORICA_ARM64_ROOT} /usr/aarch64-linux-gnu)
    set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
    set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
    set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
    if(LORICA_ARM64_ROOT)
        set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
        # The folder's own C library is not linked against, and may be a newer one.
        set(CMAKE_EXE_LINKER_FLAGS_INIT "-Wl,-rpath-link,/usr/aarch64-linux-gnu/lib")
        set(CMAKE_SHARED_LINKER_FLAGS_INIT "-Wl,-rpath-link,/usr/aarch64-linux-gnu/lib")
    endif()
    set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64 -L /usr/aarch64-linux-gnu)
endif()
