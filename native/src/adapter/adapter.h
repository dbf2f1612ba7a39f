// Adapters in memory: what is trained of a model, by one of several methods, and one flat array of parameters that
// holds all tensors, so that gradients, moments and optimizer run over one array of the same layout.
#pragma once

#include <atomic>
#include <map>
#include <memory>
#include <mutex>
#include <set>
#include <span>
#include <string>
#include <tuple>
#include <vector>

#include "adapter/classifier_config.h"
#include "adapter/tensor_file.h"
#include "backend/backend.h"
#include "model/model.h"
#include "model/schedule.h"

namespace lorica {

// pissa: see AdapterConfig::frozen_half.
enum class LoraInit { kaiming_uniform, gaussian, pissa };

// Biases that are trained beside a LoRA: none, those of its layers, or all of the model.
enum class TrainedBiases : uint8_t { none, lora_only, all };

enum class Method : uint8_t {
    lora,           // Hu et al. 2021; with DoRA's magnitudes or without
    ia3,            // Liu et al. 2022, "Few-shot parameter-efficient fine-tuning is better and cheaper than in-context
                    // learning", section 3.3: factors of what comes out of layers, or of what goes in
    bitfit,         // Ben Zaken et al. 2021: the biases, and the norms with them
    full,           // the model's own tensors, all or some
    prompt_tuning,  // Lester et al. 2021: embeddings in front of every text
    p_tuning,       // Liu et al. 2021: the same out of a small network, which is trained
    prefix_tuning,  // Li & Liang 2021: keys and values in front of every text, of each layer its own
    bottleneck,     // Houlsby et al. 2019: small layers of its own behind the branches of each layer
};
// "lora", as adapter.type has it.
const char * name(Method method);
// As AdapterHub calls an activation function: "relu", "swish", "gelu", "gelu_new" or "tanh". Errors: INVALID_ARGUMENT.
Act non_linearity_of(const std::string & name);
const char * name_of_non_linearity(Act act);

struct AdapterConfig {
    Method method = Method::lora;
    int32_t rank = 16;
    double alpha = 32;
    float dropout = 0;
    bool use_rslora = false;
    bool use_dora = false;
    LoraInit init = LoraInit::kaiming_uniform;
    int32_t pissa_iterations = 0;  // of the search for principal parts; 0: until they are found
    // PiSSA (Meng et al. 2024): A and B begin as the principal parts of W, which stays as it is, so that what they
    // began as is taken away again: [A; A0] and [B, -B0], of which the second halves are never trained. Of twice the
    // rank and twice the alpha (with rsLoRA sqrt(2) of it) that were asked for.
    bool frozen_half = false;
    uint64_t seed = 42;
    std::string target_modules = "all-linear";  // "q_proj,v_proj:RANK,blk.3.attn_q:RANK:ALPHA"
    std::string feedforward_modules;            // IA3: those of them whose input is multiplied
    // Trained whole beside the rest, and stored with it: PEFT's modules_to_save. It begins as the model's where that
    // has one of as many outputs, else as transformers', N(0, 0.02^2) without a bias.
    ClassifierConfig classifier;
    TrainedBiases bias = TrainedBiases::none;  // LoRA
    std::string modules_to_save;               // LoRA: "embed_tokens,lm_head": trained whole
    // LoRA: not empty, of an activated LoRA (Greenewald et al. 2025, "Activated LoRA: fine-tuned LLMs for intrinsics"),
    // whose delta is added to the tokens of a text from the first of the last occurrence of these on, as in PEFT; to
    // none where they do not occur.
    std::vector<int32_t> invocation_tokens;
    std::string layers;                // full: "0-3,7" alone; empty: all, and what is no layer
    std::string frozen;                // full: "embed,head"
    int32_t n_virtual_tokens = 0;      // prompts
    std::vector<int32_t> virtual_ids;  // prompt tuning: whose embeddings they begin as; empty: N(0, 1)
    int32_t encoder_hidden_size = 0;   // P-tuning; 0: that of the embeddings
    int32_t bottleneck_size = 0;       // how wide they are
    bool pfeiffer = false;             // one in each layer, on its stream; else two as Houlsby has them
    Act non_linearity = Act::relu;     // of bottlenecks
};

// A LoRA on a linear layer, of which the program of its layer of the model has the number `linear`; layer n_layer,
// number 0 is the output head.
struct LoraPair {
    int32_t layer;
    int16_t linear;
    int64_t rank, in, out;
    double alpha;
    int32_t a, b, m;        // its tensors: A[rank, in], B[out, rank], DoRA's magnitudes m[out] or -1
    std::string base_name;  // "blk.0.attn_q.weight"
};

class Adapter {
public:
    // Errors: INVALID_ARGUMENT, naming the value or the module that does not exist and those that do.
    static std::shared_ptr<Adapter> create(std::shared_ptr<const Model> model, const AdapterConfig & config);
    // Errors: IO, FORMAT, MISMATCH.
    static std::shared_ptr<Adapter> load(std::shared_ptr<const Model> model, const std::string & path);
    // The sum of adapters of one model, each times its factor, as one adapter: per layer the rows of all A one above
    // the other, and the columns of all B, with their scales, side by side. A copy; later changes to the parts are not
    // seen. At least one part. Only LoRAs are sums: what else there is can be copied with a factor, alone. Errors:
    // INVALID_ARGUMENT (another model's adapter, a factor that is not finite), UNSUPPORTED (another method among
    // others).
    struct Part {
        std::shared_ptr<const Adapter> adapter;
        double factor;
    };
    static std::shared_ptr<Adapter> stack(std::shared_ptr<const Model> model, std::span<const Part> parts);
    // Several such sums beside each other, of which a Lora::gate with as many columns chooses: of each pair, the ranks
    // of every sum are filled up with zeros to those of the widest. Errors: likewise, and UNSUPPORTED for all that is
    // no LoRA.
    static std::shared_ptr<Adapter> mixture(std::shared_ptr<const Model> model,
                                            std::span<const std::vector<Part>> sums);
    // The same parts by the tokens with which they begin, in the order of the first of each; those that are no
    // activated LoRAs with none.
    struct Alike {
        std::vector<int32_t> invocation;
        std::vector<Part> parts;

        // The number of the first token of a text that they apply to; that of its tokens where there is none.
        int32_t begin(std::span<const int32_t> text) const { return begin_of(invocation, text); }
    };
    static std::vector<Alike> by_invocation(std::span<const Part> parts);
    static int32_t begin_of(std::span<const int32_t> invocation, std::span<const int32_t> text);
    void save(const std::string & path) const;
    ~Adapter();

    const std::shared_ptr<const Model> & model() const { return model_; }
    const AdapterConfig & config() const { return config_; }
    const std::vector<LoraPair> & pairs() const { return pairs_; }
    const LoraPair * find(int32_t layer, int16_t linear) const;
    int64_t n_params() const { return n_params_; }
    // The same without what follows from others, the prompt of P-tuning, and without frozen halves.
    int64_t n_trained() const;
    int32_t max_rank() const;
    int32_t head_rank() const;  // of the pair on the output head; 0: there is none
    const std::string & target_modules() const { return target_modules_; }
    const std::string & base_fingerprint() const { return base_fingerprint_; }

    // alpha / rank (or alpha / sqrt(rank)) of the pair
    double own_scale(const LoraPair & pair) const;
    // that times the factor of set_scale_factor
    double scale(const LoraPair & pair) const { return own_scale(pair) * scale_factor_; }
    double scale_factor() const { return scale_factor_; }
    void set_scale_factor(double factor);

    // Device memory in param format, n_params() elements. Who writes to it says so with params_changed().
    void * params() const { return params_; }
    // Embeddings in front of every text; 0: none.
    int32_t n_virtual_tokens() const;
    // Whether these have embeddings, or no more than keys and values.
    bool has_prompt() const { return find_tensor(-1, Kind::prompt, 0) >= 0; }
    // With a prefix: 0, 1, … and as many zeros as it is long.
    const int32_t * counting() const { return static_cast<const int32_t *>(counting_); }
    const float * zeros() const { return static_cast<const float *>(zeros_); }
    // P-tuning: what a backward pass has left at the prompt goes on to what the prompt is made of.
    void pass_on_prompt_gradient(void * gradients) const;
    BottleneckSites bottlenecks() const;
    // The lowest layer that has a tensor: -1 where that is the prologue, n_layer the epilogue.
    int32_t first_layer() const;
    // Whether it has weights of linear layers or of the head.
    bool trains_matrices() const;
    // Whether it has tensors that stand in for those of the model, or factors of them, beside or without pairs.
    bool has_sites() const { return !sites_.empty(); }
    // Whether anything is not as it was before training. Errors: NON_FINITE, naming a tensor.
    bool has_effect() const;
    void params_changed();
    // Another number after each change.
    uint64_t version() const { return version_; }

    // Computes again what depends on parameters that have changed; comes before a forward pass. The backend has
    // workspace for max_rank() tokens.
    void update(Backend & backend) const;
    // DoRA: by what the rows of a pair's output are multiplied.
    DoraRows dora_rows(const LoraPair & pair) const;
    // IA3: the same, with factors that are parameters themselves.
    DoraRows ia3_rows(int32_t tensor) const;
    // Bytes beside the parameters.
    int64_t extra_bytes() const;

    // The tensors in the order of the array: A and B of each pair, behind them all magnitudes; all else as the model
    // computes.
    enum class Kind : uint8_t {
        a,
        b,
        magnitude,
        scale_out,  // IA3's l[out, 1]
        scale_in,   // IA3's l[1, in]
        bias,       // of a linear layer, in place of the model's; so the next two
        norm_weight,
        norm_bias,
        weight,     // of a linear layer
        embedding,  // of the head too where that is the embedding
        head,
        encoder_input,   // of P-tuning [n, n_embd]
        encoder_weight,  // of its layers
        encoder_bias,
        prompt,    // the embeddings of virtual tokens [n, n_embd]
        prefix_k,  // of an attention: keys of virtual tokens, rotated, [n, n_head_kv head_dim]; their values
        prefix_v,
        // Of a bottleneck, by the numbers that BottleneckSites gives its layers: W, and biases.
        bottleneck_weight,
        bottleneck_bias,
        classifier_dense,  // W[n_embd, n_embd] and its bias; so the next two of what makes the outputs
        classifier_dense_bias,
        classifier_out,
        classifier_out_bias,
    };
    static constexpr bool is_classifier(Kind kind) { return kind >= Kind::classifier_dense; }
    struct Tensor {
        std::string name;  // "blk.0.attn_q.weight.lora_a", "blk.0.attn_k.weight.ia3_l", "blk.0.attn_norm.weight"
        Kind kind;
        int64_t rows, cols;
        int32_t group;   // which pair
        int64_t offset;  // in elements of the array
        double alpha;    // of the pair
        // Where it sits: number `number` of its kind in the program of the layer; -1 is the prologue, n_layer the
        // epilogue.
        int32_t layer;
        int16_t number;
    };
    // -1: there is none.
    int32_t find_tensor(int32_t layer, Kind kind, int16_t number) const;
    // What a tensor comes to with the factor of set_scale_factor: itself, or between what it began with and itself.
    // Memory of the device; not of A, B and magnitudes, which have a scale.
    const void * in_effect(int32_t tensor) const;
    // The same on the host.
    std::vector<float> values_in_effect(int32_t tensor) const;
    int32_t n_tensors() const { return static_cast<int32_t>(tensors_.size()); }
    const Tensor & tensor(int32_t i) const { return tensors_[static_cast<size_t>(i)]; }
    void * parameters(int32_t tensor) const;
    std::vector<float> read(const void * array, int32_t tensor) const;  // from any device array of this layout
    // The same without a loss, where parameters are f64; and values added to an array.
    std::vector<double> read_wide(const void * array, int32_t tensor) const;
    void add(void * array, int32_t tensor, std::span<const double> values) const;
    // Of the classifier; -1: it has none.
    int32_t find_classifier(Kind kind) const { return find_tensor(model_->shape().n_layer, kind, 0); }
    std::vector<float> read(int32_t tensor) const { return read(params_, tensor); }
    std::vector<float> read_rows(int32_t tensor, int64_t first, int64_t n) const;
    void write(void * array, int32_t tensor, const float * values);

    // Set while a training session holds the adapter.
    std::atomic<bool> in_training{false};

private:
    Adapter(std::shared_ptr<const Model> model, AdapterConfig config);
    void add_pair(int32_t layer, int16_t linear, int64_t rank, double alpha);
    int32_t add_tensor(Kind kind, const char * suffix, int64_t rows, int64_t cols, int32_t group);
    void add_site(Kind kind, std::string name, int64_t rows, int64_t cols, int32_t layer, int16_t number);
    void add_ia3(int32_t layer, int16_t linear, bool is_feedforward);
    void add_bitfit();
    void add_classifier();
    void initialize_classifier();
    void add_magnitudes();
    void add_prompt(int64_t n);
    void check_prompt() const;
    std::vector<float> prompt_start() const;
    void add_prefix(int64_t n);
    void allocate_prefix();
    std::vector<float> normal_start(int32_t tensor) const;
    void add_bottlenecks();
    void check_bottlenecks() const;
    bool is_up(const Tensor & tensor) const;
    std::vector<float> bottleneck_start(int32_t tensor) const;
    void add_encoder(int64_t n, int64_t hidden);
    void check_encoder() const;
    bool has_encoder() const;
    std::vector<float> encoder_start(int32_t tensor) const;
    std::vector<std::vector<double>> encoder_activations() const;
    void update_prompt() const;
    // A tensor in place of the model's.
    void add_whole(const TensorSpec & spec);
    void add_whole(const std::set<std::string> & names);
    // The head that is the embedding learns with it.
    void tie_head();
    void add_beside_lora();
    void check_invocation() const;
    // The first tensor that is of no pair.
    int32_t first_site() const;
    void write_sites(const std::vector<TensorFile::Tensor> & stored, const std::string & path);
    // Once all tensors are there.
    void allocate();
    void allocate_dora();
    void allocate_ones();
    int64_t longest_vector() const;
    static std::shared_ptr<Adapter> create_other(std::shared_ptr<const Model> model, const AdapterConfig & config);
    void initialize();
    void double_ranks();
    static bool is_as_it_began(const LoraPair & pair, std::span<const float> a, std::span<const float> b);
    void initialize_pissa();
    // Where a tensor begins that is none of a pair.
    std::vector<float> start(int32_t tensor) const;
    void update_dora(Backend & backend) const;
    void update_effect() const;
    static std::shared_ptr<Adapter> load_lora(std::shared_ptr<const Model> model, const std::string & path);
    static std::shared_ptr<Adapter> load_tensors(std::shared_ptr<const Model> model, const std::string & path);
    void save_tensors(const std::string & path) const;
    static void check_base(const Model & model, const std::string & path, const std::string & architecture,
                           const std::vector<std::string> & added_tokens, const std::string & fingerprint);
    void put(void * array, int32_t tensor, const float * values) const;
    void put(void * array, int32_t tensor, const std::vector<double> & values) const;
    void name_targets();
    std::vector<float> read_values(const void * source, int64_t n) const;
    const Weight & weight(const LoraPair & pair) const;
    std::shared_ptr<Adapter> copy() const;

    std::shared_ptr<const Model> model_;
    AdapterConfig config_;
    std::vector<LoraPair> pairs_;
    std::vector<Tensor> tensors_;
    std::vector<std::vector<int32_t>> by_layer_;  // by number of the linear layer: index into pairs_, or -1
    std::map<std::tuple<int32_t, Kind, int16_t>, int32_t> sites_;  // of what is in no pair: which tensor
    int64_t n_params_ = 0;
    void * params_ = nullptr;
    double scale_factor_ = 1;

    // DoRA. One element per magnitude; products_ is scratch for one pair.
    int64_t first_magnitude_ = 0, n_magnitudes_ = 0;  // elements of the array
    void *squares_ = nullptr, *factors_ = nullptr, *slopes_ = nullptr, *products_ = nullptr;
    mutable std::mutex stale_mutex_;
    mutable bool is_stale_ = true;
    std::atomic<uint64_t> version_ = 0;
    // Of what is in no pair: the parameters with a factor, made when there is one; and for IA3 as many ones as the
    // longest vector has elements.
    mutable void * effect_ = nullptr;
    void * ones_ = nullptr;
    void *counting_ = nullptr, *zeros_ = nullptr;  // of a prefix

    std::string target_modules_, base_fingerprint_;
};

}  // namespace lorica
