# cmake -DLIBRARY=liblorica.so -DDIRECTORY=stage [-DROOT=FOLDERS -DOBJDUMP=objdump] -P stage.cmake
# Puts the library, and next to it those libraries that it needs and that a machine with glibc and libstdc++ may not have
# (ggml and what it was built with, Highway), so that the folder works wherever it is copied.
# For another processor than this one libraries are looked for in the folders ROOT, and read by its OBJDUMP.
cmake_minimum_required(VERSION 3.25)

set(directories)
if(ROOT)
    set(CMAKE_GET_RUNTIME_DEPENDENCIES_PLATFORM linux+elf)
    set(CMAKE_GET_RUNTIME_DEPENDENCIES_TOOL objdump)
    set(CMAKE_GET_RUNTIME_DEPENDENCIES_COMMAND ${OBJDUMP})
    foreach(root IN LISTS ROOT)
        file(GLOB folders ${root}/lib ${root}/usr/lib/*-linux-gnu)
        list(APPEND directories ${folders})
    endforeach()
endif()
file(GET_RUNTIME_DEPENDENCIES
    LIBRARIES ${LIBRARY}
    DIRECTORIES ${directories}
    RESOLVED_DEPENDENCIES_VAR needed
    UNRESOLVED_DEPENDENCIES_VAR missing
    PRE_EXCLUDE_REGEXES "^(libc|libm|libdl|libpthread|librt|libstdc\\+\\+|libgcc_s|libasan|libubsan|liblsan|libtsan|ld-linux.*)\\.so")
if(missing)
    message(FATAL_ERROR "${LIBRARY} needs libraries that cannot be found: ${missing}")
endif()

file(REMOVE_RECURSE ${DIRECTORY})
foreach(file IN LISTS LIBRARY needed)
    file(COPY ${file} DESTINATION ${DIRECTORY} FOLLOW_SYMLINK_CHAIN)
endforeach()

# Under the name that the loader asks for, and as a file: archives such as jars hold no links.
file(GLOB links ${DIRECTORY}/*)
foreach(link IN LISTS links)
    if(IS_SYMLINK ${link})
        file(REAL_PATH ${link} target)
        file(REMOVE ${link})
        file(COPY_FILE ${target} ${link})
        list(APPEND targets ${target})
    endif()
endforeach()
if(targets)
    file(REMOVE ${targets})
endif()
