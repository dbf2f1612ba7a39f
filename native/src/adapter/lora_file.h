// A GGUF LoRA adapter file, as llama.cpp reads and writes it, as plain data. Whether it fits a model is not asked here.
//
// Metadata: general.type "adapter", general.architecture that of the base, adapter.type "lora", adapter.lora.alpha.
// Tensors: <base tensor>.lora_a with ne (in, r) and <base tensor>.lora_b with ne (r, out): A[r, in] and B[out, r] by
// rows. Keys under "lorica." are ours and optional; llama.cpp ignores them. A DoRA, which llama.cpp cannot compute, has
// adapter.type "dora", at which it stops, and <base tensor>.lora_magnitude_vector with ne (out) beside each pair. So
// has one with tensors of the base that were trained whole (PEFT's modules_to_save and bias): "lora_and_weights", or
// "dora_and_weights".
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "adapter/tensor_file.h"

namespace lorica {

struct LoraFilePair {
    std::string base_name;  // "blk.0.attn_q.weight"
    int64_t rank = 0, n_in = 0, n_out = 0;
    std::vector<float> a;           // [rank, n_in]
    std::vector<float> b;           // [n_out, rank]
    std::vector<float> magnitudes;  // [n_out], of a DoRA
};

struct LoraFile {
    std::string architecture;
    // adapter.lora.alpha as stored: it has rsLoRA's factor sqrt(rank) folded in. 0, which is also what a file without
    // the key gives, makes the scale 1 for llama.cpp, and so here.
    float alpha = 0;
    std::string base_fingerprint;           // lorica.base_fingerprint, "" when absent
    std::vector<std::string> added_tokens;  // lorica.added_tokens: behind those of the base's vocabulary
    int32_t rank = 0;          // lorica.rank, as asked for; 0 when absent. The pairs have ranks of their own.
    bool use_rslora = false;   // lorica.use_rslora
    double true_alpha = 0;     // lorica.alpha: what rsLoRA was asked for; 0 when absent
    bool use_dora = false;     // adapter.type
    bool frozen_half = false;  // lorica.frozen_half: see AdapterConfig; false when absent
    float dropout = 0;         // lorica.dropout
    std::vector<int32_t> invocation_tokens;  // adapter.alora.invocation_tokens, of an activated LoRA
    std::vector<LoraFilePair> pairs;         // in the order of the file
    ClassifierConfig classifier;
    std::vector<TensorFile::Tensor> classifier_tensors;  // llama.cpp stops at these, which are no LoRA
    // What was trained whole beside them, under the base's names.
    std::vector<TensorFile::Tensor> others;
};

// Reads F32, F16 and BF16. Errors: IO; FORMAT (names the key or tensor at fault: no adapter, half a pair, shapes that
// do not chain, values that are not finite); UNSUPPORTED (an adapted embedding).
LoraFile read_lora_file(const std::string & path);

// Writes F32, atomically: the file that was there stays as it was when anything fails. Errors: IO.
void write_lora_file(const std::string & path, const LoraFile & file);

}  // namespace lorica
