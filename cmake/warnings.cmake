# Target lorica_warnings: what our own sources are compiled with, and nobody else's.
option(LORICA_WERROR "Treat warnings as errors (continuous integration)" OFF)

add_library(lorica_warnings INTERFACE)
foreach(flag -Wall -Wextra -Wpedantic $<$<BOOL:${LORICA_WERROR}>:-Werror>)
    target_compile_options(lorica_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${flag}>)
endforeach()
