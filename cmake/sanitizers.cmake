# -DLORICA_SANITIZE=address,undefined builds everything, tests included, under those sanitizers; the first finding ends
# the process.
set(LORICA_SANITIZE "" CACHE STRING "Sanitizers to build with, comma-separated: address, undefined, leak, thread")

if(LORICA_SANITIZE)
    add_compile_options(-fsanitize=${LORICA_SANITIZE} -fno-sanitize-recover=all -fno-omit-frame-pointer)
    add_link_options(-fsanitize=${LORICA_SANITIZE})
endif()
