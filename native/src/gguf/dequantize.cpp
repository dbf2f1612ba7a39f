#include "gguf/dequantize.h"

#include "common/error.h"

#if defined(__linux__)
#include <dlfcn.h>
#endif

#include <array>
#include <cstring>
#include <memory>
#include <string>

namespace lorica {

const char * type_name(ggml_type type) {
    static const auto names = [] {
        std::array<std::string, GGML_TYPE_COUNT> upper;
        for (int i = 0; i < GGML_TYPE_COUNT; ++i) {
            const char * name = ggml_type_name(static_cast<ggml_type>(i));
            for (const char * c = name == nullptr ? "" : name; *c != '\0'; ++c) {
                upper[i] += *c >= 'a' && *c <= 'z' ? static_cast<char>(*c - 'a' + 'A') : *c;
            }
        }
        return upper;
    }();
    return type >= 0 && type < GGML_TYPE_COUNT ? names[type].c_str() : "unknown";
}

bool is_supported_weight_type(ggml_type type) {
    return type == GGML_TYPE_F32 ||
           (type >= 0 && type < GGML_TYPE_COUNT && ggml_get_type_traits(type)->to_float != nullptr);
}

void dequantize_row(ggml_type type, const void * src, float * dst, int64_t n) {
    if (!is_supported_weight_type(type) || n % ggml_blck_size(type) != 0) {
        fail(LORICA_ERROR_INTERNAL, "cannot dequantize ", n, " elements of type ", type_name(type));
    }
    if (type == GGML_TYPE_F32) {
        std::memcpy(dst, src, static_cast<size_t>(n) * sizeof(float));
        return;
    }
    // The grids of the IQ types are constants for reading; ggml_quantize_init() prepares only their search when
    // writing.
    ggml_get_type_traits(type)->to_float(src, dst, n);
}

// What ggml prepares for some types it computes with OpenMP where it was built with it, whose runtime ends the process
// when the system gives no thread. Of one it makes none.
void prepare_quantization(ggml_type type) {
#if defined(__linux__)
    const std::unique_ptr<void, int (*)(void *)> openmp(dlopen("libgomp.so.1", RTLD_LAZY | RTLD_NOLOAD),
                                                        [](void * library) { return library ? dlclose(library) : 0; });
    const auto set = openmp ? reinterpret_cast<void (*)(int)>(dlsym(openmp.get(), "omp_set_num_threads")) : nullptr;
    const auto get = openmp ? reinterpret_cast<int (*)()>(dlsym(openmp.get(), "omp_get_max_threads")) : nullptr;
    if (set && get) {
        const int before = get();
        set(1);
        ggml_quantize_init(type);
        set(before);
        return;
    }
#endif
    ggml_quantize_init(type);
}

}  // namespace lorica
