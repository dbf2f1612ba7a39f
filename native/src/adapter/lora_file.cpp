#include "adapter/lora_file.h"

#include "adapter/classifier_file.h"
#include "common/error.h"
#include "common/quote.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <string_view>

namespace lorica {

namespace {

// Of adapter.type, with tensors that are no part of a pair.
constexpr std::string_view and_weights = "_and_weights";
constexpr std::string_view invocation_key = "adapter.alora.invocation_tokens";  // llama.cpp's
constexpr std::string_view suffix_a = ".lora_a", suffix_b = ".lora_b", suffix_m = ".lora_magnitude_vector";

void require_string(const GgufFile & file, const char * key, std::string_view wanted, const char * hint) {
    const auto value = file.find_string(key);
    if (value != wanted) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": not a LoRA adapter: metadata \"", key, "\" is ",
             value ? quoted(*value) : "missing", ", expected ", quoted(wanted), hint);
    }
}

float finite_float(const GgufFile & file, const char * key, float fallback) {
    const double value = file.find_float(key).value_or(fallback);
    if (!std::isfinite(value) || std::abs(value) > double{std::numeric_limits<float>::max()}) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": metadata \"", key, "\" is ", value, ", a finite number is needed");
    }
    return static_cast<float>(value);
}

// "(64, 8)", in ggml's order as other tools print it
std::string shape(const TensorView & tensor) {
    std::string text = "(" + std::to_string(tensor.ne[0]);
    for (int d = 1; d < std::max(tensor.n_dims, 2); ++d) {
        text += ", " + std::to_string(tensor.ne[static_cast<size_t>(d)]);
    }
    return text + ")";
}

std::vector<float> read_values(const GgufFile & file, const TensorView & tensor) {
    std::vector<float> values(static_cast<size_t>(tensor.n_elements()));
    dequantize_row(tensor.type, tensor.data, values.data(), tensor.n_elements());
    const auto bad = std::find_if_not(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    if (bad != values.end()) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": tensor ", quoted(tensor.name), ": value ", bad - values.begin(),
             " is ", *bad, ", a finite number is needed");
    }
    return values;
}

void require_matrix(const GgufFile & file, const TensorView & tensor) {
    if (tensor.type != GGML_TYPE_F32 && tensor.type != GGML_TYPE_F16 && tensor.type != GGML_TYPE_BF16) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": tensor ", quoted(tensor.name), " is of type ", type_name(tensor.type),
             ", F32, F16 or BF16 is needed");
    }
    if (tensor.ne[2] != 1 || tensor.ne[3] != 1) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": tensor ", quoted(tensor.name), " has the shape ", shape(tensor),
             ", a matrix is needed");
    }
}

// magnitudes: null but for a DoRA
LoraFilePair read_pair(const GgufFile & file, const TensorView & a, const TensorView & b,
                       const TensorView * magnitudes) {
    for (const TensorView * tensor : {&a, &b, magnitudes}) {
        if (tensor) require_matrix(file, *tensor);
    }
    if (a.ne[1] != b.ne[0]) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": tensor ", quoted(b.name), " has the shape ", shape(b),
             ", which does not chain", " with ", shape(a), " of ", quoted(a.name), ": A is (in, r) and B is (r, out)");
    }
    LoraFilePair pair;
    pair.base_name = a.name.substr(0, a.name.size() - suffix_a.size());
    pair.n_in = a.ne[0];
    pair.rank = a.ne[1];
    pair.n_out = b.ne[1];
    pair.a = read_values(file, a);
    pair.b = read_values(file, b);
    if (magnitudes) {
        if (magnitudes->n_elements() != pair.n_out) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": tensor ", quoted(magnitudes->name), " has the shape ",
                 shape(*magnitudes), ", one magnitude ", "for each of ", pair.n_out, " rows is needed");
        }
        pair.magnitudes = read_values(file, *magnitudes);
    }
    return pair;
}

}  // namespace

LoraFile read_lora_file(const std::string & path) {
    const GgufFile file = GgufFile::open(path);
    require_string(file, "general.type", "adapter", "; is it a model?");
    const std::string type = file.find_string("adapter.type").value_or("");
    const bool use_dora = type.starts_with("dora"), has_others = type.ends_with(and_weights);
    if (type != "dora" && type != "dora_and_weights" && type != "lora_and_weights")
        require_string(file, "adapter.type", "lora", "");
    LoraFile lora;
    for (const int64_t id : file.find_ints(invocation_key).value_or(std::vector<int64_t>{})) {
        if (id > std::numeric_limits<int32_t>::max())
            fail(LORICA_ERROR_FORMAT, path, ": metadata ", quoted(invocation_key), " holds ", id,
                 ", which is no token");
        lora.invocation_tokens.push_back(static_cast<int32_t>(id));
    }
    lora.use_dora = use_dora;
    lora.architecture = file.find_string("general.architecture").value_or("");
    if (lora.architecture.empty()) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"general.architecture\" is missing: whose adapter is it?");
    }
    lora.alpha = finite_float(file, "adapter.lora.alpha", 0);
    lora.base_fingerprint = file.find_string("lorica.base_fingerprint").value_or("");
    lora.added_tokens = file.find_strings(added_tokens_key).value_or(std::vector<std::string>{});
    const int64_t rank = file.find_int("lorica.rank").value_or(0);
    if (rank > std::numeric_limits<int32_t>::max()) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"lorica.rank\" is ", rank, ", which is too large");
    }
    lora.rank = static_cast<int32_t>(rank);
    lora.use_rslora = file.find_bool("lorica.use_rslora").value_or(false);
    lora.true_alpha = file.find_float("lorica.alpha").value_or(0);
    if (!std::isfinite(lora.true_alpha) || lora.true_alpha < 0) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"lorica.alpha\" is ", lora.true_alpha,
             ", a positive number is needed");
    }
    lora.frozen_half = file.find_bool("lorica.frozen_half").value_or(false);
    lora.dropout = finite_float(file, "lorica.dropout", 0);
    if (lora.dropout < 0 || lora.dropout >= 1) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"lorica.dropout\" is ", lora.dropout,
             ", expected 0 <= dropout < 1");
    }

    for (const TensorView & tensor : file.tensors()) {
        const std::string_view name = tensor.name;
        if (is_of_classifier(name)) {
            if (tensor.type != GGML_TYPE_F32 || tensor.ne[2] != 1 || tensor.ne[3] != 1)
                fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " is no matrix of F32");
            lora.classifier_tensors.push_back({tensor.name, tensor.ne[1], tensor.ne[0], read_values(file, tensor)});
            continue;
        }
        if (use_dora && name.ends_with(suffix_m)) {
            if (!file.find_tensor(std::string(name.substr(0, name.size() - suffix_m.size())) + std::string(suffix_a))) {
                fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " has no ", suffix_a, " beside it");
            }
            continue;
        }
        const bool is_a = name.ends_with(suffix_a);
        if (!is_a && !name.ends_with(suffix_b) && has_others) {
            require_matrix(file, tensor);
            lora.others.push_back({tensor.name, tensor.ne[1], tensor.ne[0], read_values(file, tensor)});
            continue;
        }
        if (!is_a && !name.ends_with(suffix_b)) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " belongs in no LoRA adapter: names end in ",
                 suffix_a, " or ", suffix_b);
        }
        const std::string base(name.substr(0, name.size() - suffix_a.size()));
        const TensorView * other = file.find_tensor(base + std::string(is_a ? suffix_b : suffix_a));
        if (other == nullptr) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " has no ", is_a ? suffix_b : suffix_a,
                 " beside it");
        }
        if (base == "token_embd.weight") {
            fail(LORICA_ERROR_UNSUPPORTED, path, ": adapts the embedding (", quoted(name), "), which is not supported");
        }
        const TensorView * magnitudes = use_dora ? file.find_tensor(base + std::string(suffix_m)) : nullptr;
        if (use_dora && !magnitudes) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " has no ", suffix_m, " beside it");
        }
        if (is_a) {
            lora.pairs.push_back(read_pair(file, tensor, *other, magnitudes));
            if (lora.frozen_half && lora.pairs.back().rank % 2 != 0) {
                fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(name), " has ", lora.pairs.back().rank,
                     " rows, of which half cannot be frozen (lorica.frozen_half)");
            }
        }
    }
    if (lora.pairs.empty()) {
        fail(LORICA_ERROR_FORMAT, path, ": the adapter has no tensors");
    }
    lora.classifier = read_classifier(file);
    return lora;
}

void write_lora_file(const std::string & path, const LoraFile & file) {
    GgufWriter writer;
    writer.set_string("general.type", "adapter");
    writer.set_string("general.architecture", file.architecture);
    writer.set_string("adapter.type", std::string(file.use_dora ? "dora" : "lora") +
                                          std::string(file.others.empty() ? "" : and_weights));
    writer.set_f32("adapter.lora.alpha", file.alpha);
    if (!file.base_fingerprint.empty()) {
        writer.set_string("lorica.base_fingerprint", file.base_fingerprint);
    }
    if (!file.added_tokens.empty()) writer.set_strings(added_tokens_key, file.added_tokens);
    if (file.rank != 0) {
        writer.set_u32("lorica.rank", static_cast<uint32_t>(file.rank));
    }
    writer.set_bool("lorica.use_rslora", file.use_rslora);
    if (file.true_alpha != 0) writer.set_f64("lorica.alpha", file.true_alpha);
    writer.set_f32("lorica.dropout", file.dropout);
    if (file.frozen_half) writer.set_bool("lorica.frozen_half", true);
    if (!file.invocation_tokens.empty()) writer.set_u32s(invocation_key, file.invocation_tokens);
    write_classifier(file.classifier, writer);
    for (const TensorFile::Tensor & tensor : file.classifier_tensors)
        writer.add_tensor(tensor.name, GGML_TYPE_F32, {tensor.cols, tensor.rows}, tensor.values.data());
    for (const LoraFilePair & pair : file.pairs) {
        if (pair.a.size() != static_cast<size_t>(pair.rank * pair.n_in) ||
            pair.b.size() != static_cast<size_t>(pair.n_out * pair.rank) ||
            pair.magnitudes.size() != (file.use_dora ? static_cast<size_t>(pair.n_out) : 0)) {
            fail(LORICA_ERROR_INTERNAL, path, ": the pair of ", quoted(pair.base_name),
                 " does not have the size of its shape");
        }
        writer.add_tensor(pair.base_name + std::string(suffix_a), GGML_TYPE_F32, {pair.n_in, pair.rank}, pair.a.data());
        writer.add_tensor(pair.base_name + std::string(suffix_b), GGML_TYPE_F32, {pair.rank, pair.n_out},
                          pair.b.data());
        if (file.use_dora) {
            writer.add_tensor(pair.base_name + std::string(suffix_m), GGML_TYPE_F32, {pair.n_out},
                              pair.magnitudes.data());
        }
    }
    for (const TensorFile::Tensor & tensor : file.others)
        writer.add_tensor(tensor.name, GGML_TYPE_F32, {tensor.cols, tensor.rows}, tensor.values.data());
    writer.write(path);
}

}  // namespace lorica
