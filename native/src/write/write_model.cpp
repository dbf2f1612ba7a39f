#include "write/write_model.h"

#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>
#include <set>
#include <span>
#include <string_view>
#include <utility>

#include "common/atomic_file.h"
#include "common/error.h"
#include "common/quote.h"
#include "gguf/added_tokens.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "write/row_stream.h"
#include "write/tensor_types.h"

namespace lorica {

namespace {

// A pair as it is added to a weight.
struct Delta {
    int64_t rank;
    std::vector<float> a;           // [rank, in]
    std::vector<float> b;           // [out, rank], with the scale in it
    std::vector<float> magnitudes;  // [out], of a DoRA
    double strength = 1;            // of its magnitudes: see DoraRows
};

// What becomes of a tensor.
struct Change {
    std::optional<Delta> delta;
    std::vector<float> row_factors, column_factors;  // IA3: [out] of what comes out, [in] of what goes in
    // What stands in its place: rows [first, first + n).
    std::function<void(int64_t first, int64_t n, float * rows)> rows;
    bool keeps_type = false;  // where that is one of plain numbers
};

std::map<std::string, Change> changes_of(const Adapter * adapter) {
    std::map<std::string, Change> changes;
    if (!adapter) return changes;
    for (const LoraPair & pair : adapter->pairs()) {
        Delta delta{pair.rank, adapter->read(pair.a), adapter->read(pair.b), {}, adapter->scale_factor()};
        if (pair.m >= 0) delta.magnitudes = adapter->read(pair.m);
        const double scale = adapter->scale(pair);
        for (float & value : delta.b) value = static_cast<float>(value * scale);
        changes[pair.base_name].delta = std::move(delta);
    }
    const Architecture & architecture = adapter->model()->architecture();
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const Adapter::Tensor & tensor = adapter->tensor(i);
        if (tensor.group >= 0 || Adapter::is_classifier(tensor.kind)) continue;
        if (tensor.kind != Adapter::Kind::scale_in && tensor.kind != Adapter::Kind::scale_out) {
            Change & change = changes[tensor.name];
            change.keeps_type = adapter->config().method == Method::full;
            if (adapter->scale_factor() == 1) {
                // A vector is one row in the file and a column in the adapter.
                const bool is_vector = tensor.cols == 1;
                change.rows = [=](int64_t first, int64_t n, float * rows) {
                    std::ranges::copy(is_vector ? adapter->read(i) : adapter->read_rows(i, first, n), rows);
                };
            } else {
                const int64_t per_row = tensor.cols == 1 ? tensor.rows : tensor.cols;
                change.rows = [per_row, all = adapter->values_in_effect(i)](int64_t first, int64_t n, float * rows) {
                    std::copy_n(all.begin() + first * per_row, n * per_row, rows);
                };
            }
            continue;
        }
        std::vector<float> values = adapter->values_in_effect(i);
        const LinearSpec & spec = architecture.layer(tensor.layer).linears[static_cast<size_t>(tensor.number)];
        const std::string base = architecture.layer_name(tensor.layer) + spec.names.gguf;
        if (tensor.kind == Adapter::Kind::scale_in) {
            changes[base + ".weight"].column_factors = std::move(values);
            continue;
        }
        if (spec.bias) changes[base + ".bias"].column_factors = values;
        changes[base + ".weight"].row_factors = std::move(values);
    }
    return changes;
}

double norm(const float * x, int64_t n) {
    double sum = 0;
    for (int64_t i = 0; i < n; ++i) sum += static_cast<double>(x[i]) * x[i];
    return std::sqrt(sum);
}

void add_rows(const Delta & delta, int64_t first, int64_t n, int64_t n_per_row, float * rows) {
    for (int64_t i = 0; i < n; ++i) {
        const float * b = delta.b.data() + (first + i) * delta.rank;
        float * row = rows + i * n_per_row;
        const double start = delta.magnitudes.empty() ? 0 : norm(row, n_per_row);
        for (int64_t k = 0; k < delta.rank; ++k) {
            const float * a = delta.a.data() + k * n_per_row;
            for (int64_t j = 0; j < n_per_row; ++j) row[j] += b[k] * a[j];
        }
        if (delta.magnitudes.empty()) continue;
        const double sum = norm(row, n_per_row);
        const double magnitude =
            start + delta.strength * (static_cast<double>(delta.magnitudes[static_cast<size_t>(first + i)]) - start);
        const auto factor = static_cast<float>(sum > 0 ? magnitude / sum : 1);
        for (int64_t j = 0; j < n_per_row; ++j) row[j] *= factor;
    }
}

void change_rows(const Change & change, int64_t first, int64_t n, int64_t n_per_row, float * rows) {
    if (change.delta) add_rows(*change.delta, first, n, n_per_row, rows);
    if (change.rows) change.rows(first, n, rows);
    for (int64_t i = 0; i < n; ++i) {
        const float factor = change.row_factors.empty() ? 1 : change.row_factors[static_cast<size_t>(first + i)];
        for (int64_t j = 0; j < n_per_row; ++j) {
            float & value = rows[i * n_per_row + j];
            value *= factor;
            if (!change.column_factors.empty()) value *= change.column_factors[static_cast<size_t>(j)];
        }
    }
}

// Pages that were read stay in memory, and count as this process's, until someone needs the room. A model is read once
// here.
void forget_pages(const TensorView & tensor) {
    const auto page = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    const auto begin = (reinterpret_cast<uintptr_t>(tensor.data) + page - 1) / page * page;
    const auto end = (reinterpret_cast<uintptr_t>(tensor.data) + tensor.n_bytes) / page * page;
    if (begin < end)
        madvise(reinterpret_cast<void *>(begin), end - begin, MADV_DONTNEED);  // clean pages come back from the file
}

// The tensor's bytes as they are, in pieces, so that not all of them are in memory at once.
GgufWriter::DataSource copy_of(const TensorView & tensor) {
    return [&tensor, next = uint64_t{0}]() mutable -> std::span<const std::byte> {
        constexpr uint64_t piece_bytes = uint64_t{1} << 24;
        if (next >= tensor.n_bytes) next = 0;
        const std::span<const std::byte> piece(tensor.data + next, std::min(piece_bytes, tensor.n_bytes - next));
        next += piece.size();
        return piece;
    };
}

// The data of a tensor, once that before it is written.
GgufWriter::DataSource after(const GgufFile & file, const TensorView * before, GgufWriter::DataSource data) {
    return [&file, before, data = std::move(data), first = true]() mutable {
        const bool forgets = std::exchange(first, false) && before && file.is_mapped() && file.is_in_file(*before);
        if (forgets) forget_pages(*before);
        const std::span<const std::byte> bytes = data();
        file.check_not_cut();
        return bytes;
    };
}

// No file of the model may be replaced by what is made of it.
void require_other_files(const std::string & target, const GgufFile & source) {
    const std::string & first = source.path();
    const int64_t count = source.find_int("split.count").value_or(1);
    const std::string mark = "-00001-of-";
    const size_t at = first.rfind(mark);
    require_other_file(target, first);
    for (int64_t i = 2; count > 1 && at != std::string::npos && i <= count; ++i) {
        const std::string number = std::to_string(i);
        std::string other = first;
        other.replace(at + 6 - number.size(), number.size(), number);  // of the five digits behind '-', the last ones
        require_other_file(target, other);
    }
}

bool is_plain(ggml_type type) { return type == GGML_TYPE_F32 || type == GGML_TYPE_F16 || type == GGML_TYPE_BF16; }

// The file's tensors, and the head behind them where a tied one no longer is the embedding.
std::vector<TensorView> tensors_to_write(const Model & model, const Adapter * adapter) {
    std::vector<TensorView> tensors = model.file().tensors();
    if (!adapter || !model.tied_output()) return tensors;
    const int32_t head = adapter->find_tensor(model.shape().n_layer, Adapter::Kind::head, 0);
    const bool is_embedding = head == adapter->find_tensor(-1, Adapter::Kind::embedding, 0);  // -1: neither is trained
    if (is_embedding && adapter->head_rank() == 0) return tensors;
    const HeadSpec & spec = model.architecture().epilogue.heads.front();
    TensorView view = *model.file().find_tensor(spec.tied_to + ".weight");
    view.name = spec.names.gguf + ".weight";
    tensors.push_back(std::move(view));
    return tensors;
}

// A classifier's tensors, which stand behind the model's or in the place of its own.
struct Classified {
    struct Tensor {
        std::string name;
        int64_t rows, cols;
        std::vector<float> values;
    };
    std::vector<Tensor> tensors;

    explicit Classified(const Adapter * adapter) {
        if (!adapter || !adapter->config().classifier) return;
        for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
            const Adapter::Tensor & t = adapter->tensor(i);
            if (Adapter::is_classifier(t.kind)) tensors.push_back({t.name, t.rows, t.cols, adapter->read(i)});
        }
    }
    bool has(const std::string & name) const {
        return std::any_of(tensors.begin(), tensors.end(), [&](const Tensor & t) { return t.name == name; });
    }
    // The keys by which llama.cpp computes with them, and our own for what the outputs mean.
    void describe(const Adapter * adapter, GgufWriter & writer) const {
        if (tensors.empty()) return;
        const Architecture & architecture = adapter->model()->architecture();
        const ClassifierConfig & config = adapter->config().classifier;
        const std::string prefix = architecture.shape.architecture + ".";
        constexpr uint32_t pooling_rank = 4;
        writer.set_u32(prefix + "pooling_type", pooling_rank);
        if (!config.labels.empty()) writer.set_strings(prefix + "classifier.output_labels", config.labels);
        if (!config.problem.empty()) writer.set_string("lorica.classifier.problem", config.problem);
        if (architecture.classifier.act == Act::relu) writer.set_string(prefix + "classifier.activation", "relu");
    }
    void add_to(GgufWriter & writer) const {
        for (const Tensor & t : tensors) {
            const std::vector<int64_t> ne =
                t.cols == 1 ? std::vector<int64_t>{t.rows} : std::vector<int64_t>{t.cols, t.rows};
            writer.add_tensor(t.name, GGML_TYPE_F32, ne, [&t] { return std::as_bytes(std::span(t.values)); });
        }
    }
};

void write_model(const GgufFile & file, const std::vector<TensorView> & tensors, const Adapter * adapter,
                 const std::string & path, const WriteConfig & config) {
    const std::map<std::string, Change> changes = changes_of(adapter);
    const Classified classified(adapter);
    require_other_files(path, file);
    std::optional<TensorTypes> types;
    if (config.type) types.emplace(*config.type, file);

    GgufWriter writer;
    if (types && types->file_type()) {
        writer.set_u32("general.file_type", *types->file_type());
        if (types->is_quantized()) writer.set_u32("general.quantization_version", GGML_QNT_VERSION);
    }
    std::vector<std::string> except;
    if (types && !types->file_type()) except.push_back("general.file_type");  // what it says would no longer be true
    classified.describe(adapter, writer);
    writer.copy_metadata(file, except);

    const RowStreams streams(config.n_threads);
    const TensorView * before = nullptr;
    for (const TensorView & tensor : tensors) {
        if (classified.has(tensor.name)) continue;
        const TensorView * const last = std::exchange(before, &tensor);
        const auto found = changes.find(tensor.name);
        const Change * change = found == changes.end() ? nullptr : &found->second;
        // Norms, biases and RoPE factors: they are small, and some readers want them as they are. So do llama.cpp's of
        // the embeddings of positions.
        const bool is_matrix =
            tensor.ne[1] > 1 && tensor.name.ends_with(".weight") && tensor.name != "position_embd.weight";
        ggml_type type = tensor.type;
        if (types && is_matrix) {
            type = types->of(tensor);
        } else if (change && is_matrix && !(change->keeps_type && is_plain(tensor.type))) {
            type = GGML_TYPE_F16;
        } else if (change) {
            type = GGML_TYPE_F32;  // a vector, which has it already, or embeddings of positions
        }
        const std::span<const int64_t> ne(tensor.ne.data(), static_cast<size_t>(tensor.n_dims));
        if (type == tensor.type && !change) {
            writer.add_tensor(tensor.name, type, ne, after(file, last, copy_of(tensor)));
            continue;
        }
        if (!is_supported_weight_type(tensor.type)) {
            fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": tensor ", quoted(tensor.name), " has type ",
                 type_name(tensor.type), ", which cannot be read");
        }
        const int64_t n_per_row = tensor.ne[0];
        const size_t row_bytes = ggml_row_size(tensor.type, n_per_row);
        auto rows = [=, &tensor](int64_t first, int64_t n, float * out) {
            dequantize_row(tensor.type, tensor.data + static_cast<size_t>(first) * row_bytes, out, n * n_per_row);
            if (change) change_rows(*change, first, n, n_per_row, out);
        };
        const int64_t n_rows = tensor.n_elements() / n_per_row;
        writer.add_tensor(tensor.name, type, ne,
                          after(file, last, streams.stream(tensor.name, type, n_rows, n_per_row, rows)));
    }
    classified.add_to(writer);
    writer.write(path);
}

}  // namespace

void merge_model(const Model & model, const Adapter * adapter, const std::string & path, const WriteConfig & config) {
    if (adapter && adapter->model().get() != &model) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the adapter belongs to another model handle");
    }
    if (adapter && adapter->bottlenecks()) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "a bottleneck cannot be folded into a model, which has no layers like it; use it with the model");
    }
    if (adapter && !adapter->config().invocation_tokens.empty()) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "an activated LoRA (aLoRA) cannot be folded into a model: it applies to no token before its invocation, a "
             "weight to all; use it with the model");
    }
    if (adapter && adapter->n_virtual_tokens() > 0) {
        fail(LORICA_ERROR_UNSUPPORTED,
             "a prompt or prefix cannot be folded into a model: it stands in front of every text; use it with the "
             "model");
    }
    write_model(model.file(), tensors_to_write(model, adapter), adapter, path, config);
}

void quantize_model(const std::string & source, const std::string & target, const WriteConfig & config) {
    if (!config.type) fail(LORICA_ERROR_INVALID_ARGUMENT, "no type is given; Q4_K_M is a good first choice");
    const GgufFile file = GgufFile::open(source);
    if (file.find_string("general.type").value_or("model") == "adapter") {
        fail(LORICA_ERROR_UNSUPPORTED, source, " is an adapter; models are quantized");
    }
    if (file.tensors().empty()) fail(LORICA_ERROR_UNSUPPORTED, source, " holds no tensors, only a vocabulary");
    write_model(file, file.tensors(), nullptr, target, config);
}

void add_tokens(const std::string & source, std::span<const std::string> tokens, const std::string & target) {
    GgufFile file = GgufFile::open(source);
    require_other_files(target, file);
    if (file.tensors().empty()) fail(LORICA_ERROR_UNSUPPORTED, source, " holds no tensors, only a vocabulary");
    file = with_added_tokens(std::move(file), tokens);
    GgufWriter writer;
    writer.copy_metadata(file, {});
    const TensorView * before = nullptr;
    for (const TensorView & tensor : file.tensors()) {
        const TensorView * const last = std::exchange(before, &tensor);
        const std::span<const int64_t> ne(tensor.ne.data(), static_cast<size_t>(tensor.n_dims));
        writer.add_tensor(tensor.name, tensor.type, ne, after(file, last, copy_of(tensor)));
    }
    writer.write(target);
}

}  // namespace lorica
