// Block formats of ggml, as values.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>

namespace lorica {

// "Q4_0", "Q4_K", "F32"; "Q4_K" and not ggml's internal spelling "q4_K". Static storage.
const char * type_name(ggml_type type);

// True for every type whose blocks ggml can expand to floats: F32, F16, BF16, Q*, Q*_K, IQ*, TQ*, MXFP4 and what later
// releases add.
bool is_supported_weight_type(ggml_type type);

// dst[n] = the values of n elements at src, n a multiple of ggml_blck_size(type). `type` must be supported; src need
// not be aligned beyond what a GGUF file guarantees. Any bytes are safe, but may give NaN. Thread-safe.
void dequantize_row(ggml_type type, const void * src, float * dst, int64_t n);

// Comes before ggml_quantize_chunk() of the type.
void prepare_quantization(ggml_type type);

}  // namespace lorica
