# cmake -DLIBRARY=liblorica.so -DHEADER=lorica.h -DNM=nm -P check_exports.cmake
# The library exports the functions that the header declares: all of them, and nothing else.
cmake_minimum_required(VERSION 3.25)

execute_process(COMMAND ${NM} --dynamic --defined-only --format=posix ${LIBRARY}
    OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
string(REGEX MATCHALL "(^|\n)[^ \n]+" exported "${symbols}")
list(TRANSFORM exported STRIP)

file(READ ${HEADER} text)
string(REGEX MATCHALL "\nLORICA_API [^(;]*[ *]lorica_[a-z0-9_]+\\(" declarations "${text}")
foreach(declaration IN LISTS declarations)
    string(REGEX MATCH "lorica_[a-z0-9_]+\\($" name "${declaration}")
    string(REPLACE "(" "" name "${name}")
    list(APPEND declared ${name})
endforeach()
if(NOT declared)
    message(FATAL_ERROR "no declaration recognised in ${HEADER}")
endif()

set(undeclared ${exported})
list(REMOVE_ITEM undeclared ${declared})
set(missing ${declared})
list(REMOVE_ITEM missing ${exported})
if(undeclared OR missing)
    list(JOIN missing " " missing)
    list(JOIN undeclared " " undeclared)
    message(FATAL_ERROR "declared in ${HEADER} but not exported: [${missing}]\nexported but not declared: [${undeclared}]")
endif()
list(LENGTH declared count)
message(STATUS "${count} functions declared and exported")
