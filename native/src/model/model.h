// A frozen base model: its file, its description, and its weights as the chosen device reads them.
#pragma once

#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/gguf_file.h"
#include "model/program.h"

namespace lorica {

// What the nodes of one program read, by number in its tables.
struct ProgramWeights {
    std::vector<Weight> linears;
    std::vector<Vector> biases;              // of those; empty where there is none
    std::vector<Vector> norms, norm_biases;  // device memory
    std::vector<Weight> embeds, heads;
};

// Of a file that holds a classifier: what ClassifierSpec describes, f32 on the host.
struct ClassifierWeights {
    std::vector<float> dense, dense_bias;  // empty where the file has none
    int64_t n_outputs = 0;                 // 0: no outputs, only what comes before
    std::vector<float> out, out_bias;      // [n_outputs, n_embd], [n_outputs]
    std::vector<std::string> labels;       // of the outputs; empty where the file does not say
    std::string problem;                   // transformers' problem_type, or ""
};

// Immutable once made; shared by adapters, sessions and contexts, which keep it alive.
class Model {
public:
    // device as make_backend takes it. Errors: IO, FORMAT, UNSUPPORTED, DEVICE.
    // added_tokens: with these behind the tokens of its vocabulary (with_added_tokens).
    static std::shared_ptr<const Model> load(const std::string & path, const std::string & device, Dtype act,
                                             int32_t n_threads, bool use_mmap = true,
                                             const std::vector<std::string> & added_tokens = {});
    // Every instance of the device is made by this function.
    using MakeBackend = std::function<std::unique_ptr<Backend>()>;
    // What the file computes: lorica::describe(), or what a test has made of it.
    using Describe = std::function<Architecture(const GgufFile &)>;
    static std::shared_ptr<const Model> load(const std::string & path, const MakeBackend & make_backend,
                                             bool use_mmap = true, const Describe & describe = {},
                                             const std::vector<std::string> & added_tokens = {});
    ~Model();

    const GgufFile & file() const { return file_; }
    const Architecture & architecture() const { return architecture_; }
    const Shape & shape() const { return architecture_.shape; }
    const ProgramWeights & prologue() const { return prologue_; }
    const std::vector<ProgramWeights> & layers() const { return layers_; }
    const ProgramWeights & epilogue() const { return epilogue_; }
    const Weight & embedding() const { return prologue_.embeds.front(); }
    const ClassifierWeights & classifier() const { return classifier_; }
    // Empty of an encoder.
    const Weight & output() const {
        static const Weight none;
        return epilogue_.heads.empty() ? none : epilogue_.heads.front();
    }
    bool tied_output() const { return architecture_.has_head() && output().data == embedding().data; }

    const std::string & name() const { return name_; }
    const std::string & file_type() const { return file_type_; }
    // Of what the file has, without added tokens.
    const std::string & fingerprint() const { return fingerprint_; }
    const std::vector<std::string> & added_tokens() const { return added_tokens_; }
    int64_t n_params() const { return n_params_; }
    int64_t weight_bytes() const { return weight_bytes_; }
    // Memory that the weights take on the device; 0: it reads the mapped file.
    int64_t device_bytes() const { return device_bytes_; }

    // An instance of the model's device of its own, for a session or a context.
    std::unique_ptr<Backend> new_backend() const;
    // The instance that owns the weights; its memory functions may be called from any thread.
    Backend & device() const { return *device_; }
    // Those of all layers from the lowest on, and the head's.
    std::vector<const Weight *> linear_weights() const;
    // What Backend::arrange() makes of the linear weights, by whoever asks first, with that backend of this model's;
    // the others share it while any of them keeps it. Null where the device has no use for it or memory is short. Any
    // thread may ask.
    std::shared_ptr<const ArrangedWeights> arranged_weights(Backend & backend) const;

private:
    Model(GgufFile file, const MakeBackend & make_backend, const Describe & describe,
          std::vector<std::string> added_tokens);
    void plan_memory();
    void load_weights();
    ProgramWeights load_program(const Program & program, const std::string & prefix);
    Weight load_matrix(const std::string & name, int64_t out, int64_t in);
    Vector load_vector(const std::string & name, int64_t n);
    void load_classifier();
    std::vector<float> load_on_host(const std::string & name, int64_t rows, int64_t cols);
    const TensorView & tensor(const std::string & name);
    bool is_of_rope(std::string_view tensor) const;
    void check_all_tensors_used() const;
    void describe();

    GgufFile file_;
    Architecture architecture_;
    MakeBackend make_backend_;
    std::unique_ptr<Backend> device_;
    std::vector<void *> vectors_;  // owned by device_
    std::vector<std::string> used_, added_tokens_;

    ProgramWeights prologue_, epilogue_;
    std::vector<ProgramWeights> layers_;
    ClassifierWeights classifier_;
    std::string name_, file_type_, fingerprint_;
    mutable std::mutex arranging_;
    mutable std::weak_ptr<const ArrangedWeights> arranged_;
    int64_t n_params_ = 0, weight_bytes_ = 0, device_bytes_ = 0;
};

}  // namespace lorica
