# Target lorica_warnings: what our own sources are compiled with, and nobody else's.
option(LORICA_WERROR "Treat warnings as errors (continuous integration)" OFF)

add_library(lorica_warnings INTERFACE)
# A designated initializer leaves the other members as they are declared: that is what it is for.
foreach(flag -Wall -Wextra -Wpedantic -Wno-missing-field-initializers $<$<BOOL:${LORICA_WERROR}>:-Werror>)
    target_compile_options(lorica_warnings INTERFACE $<$<COMPILE_LANGUAGE:CXX>:${flag}>)
endforeach()
