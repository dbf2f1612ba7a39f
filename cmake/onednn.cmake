# oneDNN, optional: the benchmarks compare the kernels with it. -DONEDNN_ROOT=… is a folder into which the Maven artifact
# org.bytedeco:dnnl:3.11-1.5.13 with the classifier linux-x86_64 was unpacked. Target: onednn::onednn.
set(ONEDNN_ROOT "" CACHE PATH "Unpacked org.bytedeco:dnnl artifact")

if(ONEDNN_ROOT)
    file(GLOB_RECURSE onednn_header ${ONEDNN_ROOT}/dnnl.hpp)
    list(FILTER onednn_header INCLUDE REGEX "/oneapi/dnnl/dnnl.hpp$")
    file(GLOB_RECURSE onednn_library ${ONEDNN_ROOT}/libdnnl.so.*)
    if(NOT onednn_header OR NOT onednn_library)
        message(FATAL_ERROR "ONEDNN_ROOT=${ONEDNN_ROOT} holds no oneapi/dnnl/dnnl.hpp and libdnnl.so.*: "
                            "unpack the artifact org.bytedeco:dnnl there")
    endif()
    list(GET onednn_library 0 onednn_library)
    cmake_path(GET onednn_header PARENT_PATH onednn_include)
    add_library(onednn::onednn SHARED IMPORTED)
    set_target_properties(onednn::onednn PROPERTIES
        IMPORTED_LOCATION ${onednn_library}
        INTERFACE_INCLUDE_DIRECTORIES ${onednn_include}/../..)
endif()
