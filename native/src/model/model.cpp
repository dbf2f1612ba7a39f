#include "model/model.h"

#include <algorithm>
#include <cstdio>
#include <map>
#include <set>

#include "common/error.h"
#include "gguf/added_tokens.h"
#include "gguf/dequantize.h"
#include "model/arch/architectures.h"

namespace lorica {

namespace {

// FNV-1a, 64 bits (Fowler, Noll and Vo): names a base model, protects against mistakes, not against malice.
class Fingerprint {
public:
    void add(const void * data, size_t n) {
        const auto * bytes = static_cast<const unsigned char *>(data);
        for (size_t i = 0; i < n; ++i) hash_ = (hash_ ^ bytes[i]) * 0x100000001b3u;
    }
    void add(const std::string & text) { add(text.data(), text.size() + 1); }
    std::string text() const {
        char buffer[17];
        std::snprintf(buffer, sizeof buffer, "%016llx", static_cast<unsigned long long>(hash_));
        return buffer;
    }

private:
    uint64_t hash_ = 0xcbf29ce484222325u;
};

}  // namespace

std::shared_ptr<const Model> Model::load(const std::string & path, const std::string & device, Dtype act,
                                         int32_t n_threads, bool use_mmap,
                                         const std::vector<std::string> & added_tokens) {
    return load(path, [=] { return make_backend(device, act, n_threads); }, use_mmap, {}, added_tokens);
}

std::shared_ptr<const Model> Model::load(const std::string & path, const MakeBackend & make_backend, bool use_mmap,
                                         const Describe & describe, const std::vector<std::string> & added_tokens) {
    GgufFile file = GgufFile::open(path, use_mmap);
    if (file.tensors().empty())
        fail(LORICA_ERROR_FORMAT, path,
             " has no tensors: it is a vocabulary alone, which can tokenize and nothing else");
    if (!added_tokens.empty()) file = with_added_tokens(std::move(file), added_tokens);
    const std::shared_ptr<Model> model(new Model(std::move(file), make_backend, describe, added_tokens));
    model->load_weights();  // outside the constructor: the destructor then releases what was loaded before an error
    model->file().check_not_cut();
    return model;
}

Model::Model(GgufFile file, const MakeBackend & make_backend, const Describe & describe,
             std::vector<std::string> added_tokens)
    : file_(std::move(file)),
      architecture_(describe ? describe(file_) : lorica::describe(file_)),
      make_backend_(make_backend),
      device_(make_backend()),
      added_tokens_(std::move(added_tokens)) {}

void Model::plan_memory() {
    for (const TensorView & view : file_.tensors()) {
        const Weight weight{view.type, view.ne[1], view.ne[0], ggml_row_size(view.type, view.ne[0]), nullptr};
        device_bytes_ += device_->weight_memory(weight);
    }
    if (device_bytes_ == 0) return;
    const int64_t available = device_->available_memory();
    if (device_bytes_ <= available) return;
    fail(LORICA_ERROR_OUT_OF_MEMORY, file_.path(), ": the weights take ", (device_bytes_ >> 20) + 1, " MiB on ",
         device_->name(), ", which has ", available >> 20,
         " MiB free; take a model in fewer bits, another GPU, or device \"cpu\"");
}

void Model::load_weights() {
    plan_memory();
    prologue_ = load_program(architecture_.prologue, "");
    epilogue_ = load_program(architecture_.epilogue, "");
    for (int32_t l = 0; l < shape().n_layer; ++l)
        layers_.push_back(load_program(architecture_.layer(l), architecture_.layer_name(l)));
    load_classifier();
    check_all_tensors_used();
    describe();
}

ProgramWeights Model::load_program(const Program & program, const std::string & prefix) {
    ProgramWeights weights;
    for (const EmbedSpec & embed : program.embeds)
        weights.embeds.push_back(load_matrix(prefix + embed.names.gguf + ".weight", embed.rows, embed.cols));
    for (const NormSpec & norm : program.norms) {
        weights.norms.push_back(load_vector(prefix + norm.names.gguf + ".weight", norm.n));
        weights.norm_biases.push_back(norm.bias ? load_vector(prefix + norm.names.gguf + ".bias", norm.n) : Vector{});
    }
    for (const LinearSpec & linear : program.linears) {
        weights.linears.push_back(load_matrix(prefix + linear.names.gguf + ".weight", linear.out, linear.in));
        weights.biases.push_back(linear.bias ? load_vector(prefix + linear.names.gguf + ".bias", linear.out)
                                             : Vector{});
    }
    for (const HeadSpec & head : program.heads) {
        const std::string name = prefix + head.names.gguf + ".weight";
        const bool own = head.tied_to.empty() || file_.find_tensor(name);
        weights.heads.push_back(own ? load_matrix(name, head.out, head.in) : prologue_.embeds.front());
    }
    return weights;
}

Model::~Model() {
    for (void * vector : vectors_) device_->release(vector);
}

const TensorView & Model::tensor(const std::string & name) {
    const TensorView * found = file_.find_tensor(name);
    if (!found) fail(LORICA_ERROR_FORMAT, file_.path(), ": tensor ", name, " is missing");
    used_.push_back(name);
    return *found;
}

Weight Model::load_matrix(const std::string & name, int64_t out, int64_t in) {
    const TensorView & view = tensor(name);
    if (view.ne[0] != in || view.ne[1] != out || view.ne[2] != 1 || view.ne[3] != 1) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": tensor ", name, " has shape [", view.ne[1], ", ", view.ne[0],
             "]; the metadata asks for [", out, ", ", in, "]");
    }
    if (!is_supported_weight_type(view.type)) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": tensor ", name, " has type ", type_name(view.type),
             ", which cannot be read");
    }
    const Weight weight{view.type, out, in, ggml_row_size(view.type, in),
                        device_->load_weight(view.data, view.n_bytes)};
    device_->prepare(weight);
    return weight;
}

Vector Model::load_vector(const std::string & name, int64_t n) {
    const TensorView & view = tensor(name);
    if (view.n_elements() != n || view.ne[0] != n) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": tensor ", name, " has ", view.n_elements(),
             " elements; it must have ", n);
    }
    if (!is_supported_weight_type(view.type)) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": tensor ", name, " has type ", type_name(view.type),
             ", which cannot be read");
    }
    std::vector<float> values(static_cast<size_t>(n));
    dequantize_row(view.type, view.data, values.data(), n);
    void * memory = device_->allocate(values.size() * sizeof(float));
    vectors_.push_back(memory);
    device_->copy_to_device(memory, values.data(), values.size() * sizeof(float));
    return static_cast<const float *>(memory);
}

// Computed on the host, of one row for each text.
std::vector<float> Model::load_on_host(const std::string & name, int64_t rows, int64_t cols) {
    const TensorView & view = tensor(name);
    if (view.n_elements() != rows * cols || view.ne[0] != (cols == 1 ? rows : cols)) {
        fail(LORICA_ERROR_FORMAT, file_.path(), ": tensor ", name, " has shape [", view.ne[1], ", ", view.ne[0],
             "]; it must be [", rows, ", ", cols, "]");
    }
    if (!is_supported_weight_type(view.type)) {
        fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": tensor ", name, " has type ", type_name(view.type),
             ", which cannot be read");
    }
    std::vector<float> values(static_cast<size_t>(rows * cols));
    dequantize_row(view.type, view.data, values.data(), rows * cols);
    return values;
}

void Model::load_classifier() {
    const ClassifierSpec & spec = architecture_.classifier;
    ClassifierWeights & c = classifier_;
    const int64_t n = shape().n_embd;
    if (spec.has_dense() && file_.find_tensor(spec.dense.gguf + ".weight")) {
        c.dense = load_on_host(spec.dense.gguf + ".weight", n, n);
        c.dense_bias = load_on_host(spec.dense.gguf + ".bias", n, 1);
    }
    const TensorView * out = file_.find_tensor(spec.out.gguf + ".weight");
    if (!out) return;
    c.n_outputs = out->ne[1];
    if (c.n_outputs < 1 || c.n_outputs > (1 << 20))
        fail(LORICA_ERROR_FORMAT, file_.path(), ": ", out->name, " has ", c.n_outputs, " rows");
    c.out = load_on_host(out->name, c.n_outputs, n);
    c.out_bias = file_.find_tensor(spec.out.gguf + ".bias") ? load_on_host(spec.out.gguf + ".bias", c.n_outputs, 1)
                                                            : std::vector<float>(static_cast<size_t>(c.n_outputs));
    c.problem = file_.find_string("lorica.classifier.problem").value_or("");
    if (const auto labels = file_.find_strings(shape().architecture + ".classifier.output_labels")) {
        if (static_cast<int64_t>(labels->size()) == c.n_outputs) c.labels = *labels;
    }
}

// Factors of frequencies, which the reader has read.
bool Model::is_of_rope(std::string_view tensor) const {
    if (tensor == "rope_freqs.weight") return true;
    if (tensor != "rope_factors_long.weight" && tensor != "rope_factors_short.weight") return false;
    return std::ranges::any_of(architecture_.kinds, [](const Program & layer) {
        return std::ranges::any_of(layer.ropes, [](const RopeSpec & rope) { return rope.original_context > 0; });
    });
}

// A tensor that the engine does not know would be left out of the computation without a word.
void Model::check_all_tensors_used() const {
    const std::set<std::string> used(used_.begin(), used_.end());
    for (const TensorView & view : file_.tensors()) {
        if (!used.contains(view.name) && !is_of_rope(view.name) && !view.name.ends_with(".attn_rot_embd")) {
            fail(LORICA_ERROR_UNSUPPORTED, file_.path(), ": tensor ", view.name, " is no part of the architecture '",
                 shape().architecture, "' as it is computed here");
        }
    }
}

void Model::describe() {
    name_ = file_.find_string("general.name").value_or("");
    std::map<std::string, int64_t> bytes_by_type;
    Fingerprint fingerprint;
    fingerprint.add(shape().architecture);
    for (const TensorView & view : file_.tensors()) {
        if (is_of_rope(view.name)) continue;
        n_params_ += view.n_elements();
        weight_bytes_ += static_cast<int64_t>(view.n_bytes);
        bytes_by_type[type_name(view.type)] += view.n_elements();
        const TensorView & in_file = file_.as_in_file(view);
        fingerprint.add(in_file.name);
        fingerprint.add(in_file.ne.data(), sizeof in_file.ne);
        fingerprint.add(type_name(in_file.type));
        const size_t sample = std::min<size_t>(in_file.n_bytes, 256);
        fingerprint.add(in_file.data, sample);
        fingerprint.add(in_file.data + (in_file.n_bytes - sample) / 2, sample);
    }
    fingerprint_ = fingerprint.text();
    file_type_ = std::max_element(bytes_by_type.begin(), bytes_by_type.end(), [](const auto & a, const auto & b) {
                     return a.second < b.second;
                 })->first;
}

std::vector<const Weight *> Model::linear_weights() const {
    std::vector<const Weight *> weights;
    for (const ProgramWeights & layer : layers_) {
        for (const Weight & weight : layer.linears) weights.push_back(&weight);
    }
    if (output()) weights.push_back(&output());
    return weights;
}

std::shared_ptr<const ArrangedWeights> Model::arranged_weights(Backend & backend) const {
    const std::lock_guard lock(arranging_);
    std::shared_ptr<const ArrangedWeights> arranged = arranged_.lock();
    if (!arranged) {
        // The rest is left to whoever else needs some.
        arranged = backend.arrange(linear_weights(), backend.available_memory() / 4 * 3);
        arranged_ = arranged;
    }
    return arranged;
}

std::unique_ptr<Backend> Model::new_backend() const { return make_backend_(); }

}  // namespace lorica
