#include "gguf/added_tokens.h"

#include <set>
#include <string_view>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/quote.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"

namespace lorica {

namespace {

std::vector<float> mean_of_rows(const TensorView & tensor) {
    const auto n = static_cast<size_t>(tensor.ne[0]);
    const size_t row_bytes = ggml_row_size(tensor.type, tensor.ne[0]);
    std::vector<double> sum(n);
    std::vector<float> row(n);
    for (int64_t i = 0; i < tensor.ne[1]; ++i) {
        dequantize_row(tensor.type, tensor.data + static_cast<size_t>(i) * row_bytes, row.data(), tensor.ne[0]);
        for (size_t j = 0; j < n; ++j) sum[j] += row[j];
    }
    for (size_t j = 0; j < n; ++j) row[j] = static_cast<float>(sum[j] / static_cast<double>(tensor.ne[1]));
    return row;
}

// The keys of a vocabulary that has grown. Returns how large it was.
int64_t set_vocabulary(const GgufFile & file, std::span<const std::string> more, GgufWriter & grown) {
    constexpr int32_t normal = 1, user_defined = 4;  // gguf.TokenType
    constexpr float score = -1000;                   // llama.cpp's, of a token that no other is merged into
    const std::string prefix = "tokenizer.ggml.";
    std::vector<std::string> texts = file.find_strings(prefix + "tokens").value_or(std::vector<std::string>{});
    if (texts.empty())
        fail(LORICA_ERROR_FORMAT, file.path(), ": the file has no vocabulary (no tokenizer.ggml.tokens)");
    if (file.find_string(prefix + "model") == "bert") {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(),
             ": its vocabulary is WordPiece, whose words are looked up whole; tokens are added to others");
    }
    if (more.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "there are no tokens to add");
    const size_t n_before = texts.size();
    std::set<std::string_view> known(texts.begin(), texts.end());
    for (const std::string & token : more) {
        if (token.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "a token to add is empty");
        if (!known.insert(token).second)
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token ", quoted(token), " is there already; add it once");
    }
    texts.insert(texts.end(), more.begin(), more.end());
    grown.set_strings(prefix + "tokens", texts);
    const std::vector<int64_t> types =
        file.find_ints(prefix + "token_type").value_or(std::vector<int64_t>(n_before, normal));
    std::vector<int32_t> new_types(types.begin(), types.end());
    new_types.resize(texts.size(), user_defined);
    grown.set_i32s(prefix + "token_type", new_types);
    if (const auto scores = file.find_floats(prefix + "scores")) {
        std::vector<float> new_scores(scores->begin(), scores->end());
        new_scores.resize(texts.size(), score);
        grown.set_f32s(prefix + "scores", new_scores);
    }
    const std::string size_key = file.find_string("general.architecture").value_or("") + ".vocab_size";
    if (file.find_int(size_key)) grown.set_u32(size_key, static_cast<uint32_t>(texts.size()));
    return static_cast<int64_t>(n_before);
}

// The tensor's bytes, and behind them its mean `n_more` times.
std::vector<std::byte> grown_rows(const GgufFile & file, const TensorView & tensor, int64_t n_more) {
    const size_t row_bytes = ggml_row_size(tensor.type, tensor.ne[0]);
    const std::vector<float> mean = mean_of_rows(tensor);
    std::vector<std::byte> row(row_bytes);
    prepare_quantization(tensor.type);
    if (ggml_quantize_chunk(tensor.type, mean.data(), row.data(), 0, 1, tensor.ne[0], nullptr) != row_bytes) {
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": ", quoted(tensor.name), ": type ", type_name(tensor.type),
             " can be read but not written");
    }
    std::vector<std::byte> bytes;
    bytes.reserve(tensor.n_bytes + static_cast<size_t>(n_more) * row_bytes);
    bytes.assign(tensor.data, tensor.data + tensor.n_bytes);
    for (int64_t i = 0; i < n_more; ++i) bytes.insert(bytes.end(), row.begin(), row.end());
    return bytes;
}

}  // namespace

GgufFile with_added_tokens(GgufFile file, std::span<const std::string> tokens) {
    GgufWriter vocabulary;
    const int64_t n_before = set_vocabulary(file, tokens, vocabulary), n_more = static_cast<int64_t>(tokens.size());
    bool has_embedding = file.tensors().empty();
    std::vector<std::pair<std::string, std::vector<std::byte>>> grown;
    for (const TensorView & tensor : file.tensors()) {
        const bool is_embedding = tensor.name == "token_embd.weight";
        if (!is_embedding && tensor.name != "output.weight") {
            if (tensor.name.starts_with("output.") || tensor.name.starts_with("per_layer_token_embd")) {
                fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": ", quoted(tensor.name),
                     " has numbers for each token, which cannot be added to");
            }
            continue;
        }
        has_embedding = has_embedding || is_embedding;
        if (tensor.n_dims != 2 || tensor.ne[1] != n_before) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": ", quoted(tensor.name), " has ", tensor.ne[1],
                 " rows, the vocabulary ", n_before, " tokens");
        }
        if (!is_supported_weight_type(tensor.type) || ggml_quantize_requires_imatrix(tensor.type)) {
            fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": ", quoted(tensor.name), " has type ", type_name(tensor.type),
                 ", to which no rows can be added");
        }
        grown.emplace_back(tensor.name, grown_rows(file, tensor, n_more));
    }
    if (!has_embedding)
        fail(LORICA_ERROR_UNSUPPORTED, file.path(), " has no token_embd.weight: it has no words to add to");
    file.check_not_cut();
    file.put_metadata(vocabulary.header());
    for (auto & [name, bytes] : grown) file.put_rows(name, n_before + n_more, std::move(bytes));
    return file;
}

}  // namespace lorica
