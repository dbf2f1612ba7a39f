// One training session: memory plan, loss, gradients, optimizer, state.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "run/classifier.h"
#include "run/executor.h"
#include "train/plan.h"
#include "train/session_config.h"

namespace lorica {

// Sequences one after another. labels[t] is what position t is to predict, or -100.
struct PackedBatch {
    std::span<const int32_t> tokens, labels;
    std::span<const int32_t> positions;  // empty: counted within each sequence
    std::span<const int32_t> sequence_lengths;
    std::span<const int32_t> types = {};  // of the tokens; empty: 0
};

// How the hidden states of a text's tokens become one.
enum class Pooling : uint8_t { mean, first, last };

struct LossSum {
    double loss_sum = 0;
    int64_t n_trained = 0;
};

struct OptimizerStep {
    double learning_rate = 0, weight_decay = 0, grad_scale = 1, max_grad_norm = 0;
};

// What optimizer_step multiplies its learning rate and weight decay by for one tensor: a parameter group is tensors
// with one such pair.
struct TensorGroup {
    double learning_rate = 1, weight_decay = 1;

    bool operator==(const TensorGroup &) const = default;
};

class Session {
public:
    // adapter may be null: for evaluation alone.
    static MemoryPlan plan(const Model & model, const Adapter * adapter, const SessionConfig & config);

    // Without an adapter, which is null then, the session evaluates the model as it is. Errors: INVALID_ARGUMENT,
    // UNSUPPORTED, OUT_OF_MEMORY with what would fit.
    Session(std::shared_ptr<const Model> model, std::shared_ptr<Adapter> adapter, const SessionConfig & config);
    Session(std::shared_ptr<Adapter> adapter, const SessionConfig & config)
        : Session(adapter->model(), adapter, config) {}
    ~Session();
    Session(const Session &) = delete;
    Session & operator=(const Session &) = delete;

    LossSum forward_backward(const PackedBatch & batch);
    // The same in two halves, for losses that are functions of the tokens' own: backward adds the gradients of the sum
    // of weights[t] nll[t], where weights has one number per token. Nothing but zero_gradients may come between. The
    // gradient of a token's loss does not depend on its weight: forward leaves those of weight 1, and backward scales
    // their rows.
    LossSum forward(const PackedBatch & batch, std::span<float> token_nll);
    void backward(std::span<const float> weights);
    // The same of several tokens at each labelled position, its candidates, by softmax(logits / temperature). ids
    // [labelled, K] ascend within a position, and K is at most SessionConfig::n_candidates; nll and weights are alike.
    // Labels say which positions there are and nothing else. The gradients that belong to the weights need the head
    // once more: no logits are kept. loss_sum is that of all candidates.
    struct Candidates {
        std::span<const int32_t> ids;
        double temperature = 1;
    };
    LossSum forward_candidates(const PackedBatch & batch, const Candidates & candidates, std::span<float> nll);
    void backward_candidates(std::span<const float> weights);
    LossSum evaluate_candidates(const PackedBatch & batch, const Candidates & candidates, std::span<float> nll);
    // The K likeliest tokens at each labelled position by the same softmax, in ascending order of their ids, and
    // log p. Of equal ones the lower ids. Of a session with SessionConfig::likeliest. loss_sum is 0.
    LossSum evaluate_likeliest(const PackedBatch & batch, double temperature, std::span<int32_t> ids,
                               std::span<float> log_probs);
    // token_nll: empty, or one value per token. Without the adapter it is the model as it was loaded: the reference of
    // preference losses.
    LossSum evaluate(const PackedBatch & batch, std::span<float> token_nll, bool with_adapter = true);
    // Outputs of the classifier, [sequences, n_outputs()], where the adapter or the model has one; labels are not
    // looked at. Backward adds the gradients of a loss whose derivatives by the outputs are given. Nothing but
    // zero_gradients may come between.
    int64_t n_outputs() const { return classifier_.n_outputs(); }
    void forward_outputs(const PackedBatch & batch, std::span<float> outputs);
    void backward_outputs(std::span<const float> gradients);
    void evaluate_outputs(const PackedBatch & batch, std::span<float> outputs);
    // Hidden states of the last layer, behind the last norm: [sequences, n_embd].
    void embed(const PackedBatch & batch, Pooling pooling, std::span<float> embeddings);
    double optimizer_step(const OptimizerStep & step);
    void set_group(int32_t tensor, TensorGroup group);
    void zero_gradients();
    // Of the next micro-batch: what seeds dropout and noise. Without it it is one more than that of the last.
    void set_micro_batch_number(int64_t number) { micro_batch_count_ = number; }
    int64_t step_count() const { return step_count_; }

    // Operations of a training step per token, 2 for each weight of the blocks and the head in the forward pass and 2
    // for dx; 2 more for each that is trained itself. What is done in addition (recomputation, attention, the adapter)
    // is not counted, as it is not in model FLOPs utilization.
    double operations_per_token() const;
    double measure_peak() { return backend_->measure_peak(); }

    // Of a session that has one, as all below.
    const Adapter & adapter() const {
        check_training();
        return *adapter_;
    }
    std::vector<float> gradient(int32_t tensor) const { return adapter().read(gradients_, tensor); }
    void set_gradient(int32_t tensor, const float * values) {
        check_training();
        adapter_->write(gradients_, tensor, values);
    }

    void save_state(const std::string & path) const;
    void load_state(const std::string & path);

private:
    static WorkspaceShape workspace(const Model & model, const Adapter * adapter, const SessionConfig & config);
    // Those that Backend::expand is to copy, of so many bytes at most.
    struct Copies {
        int64_t n_bytes = 0;
        std::vector<const Weight *> weights;
    };
    static Copies weights_to_expand(const Model & model, const Adapter * adapter, const SessionConfig & config,
                                    int64_t max_bytes);
    static MemoryPlan plan_with(const Model & model, const Adapter * adapter, const SessionConfig & config,
                                int32_t recomputed_layers);

    [[noreturn]] static void refuse(const Model & model, const Adapter * adapter, const SessionConfig & config,
                                    const MemoryPlan & plan);
    static int64_t optimizer_bytes(const Adapter & adapter, Optimizer optimizer);
    // What is saved, in that order: arrays and their sizes in bytes.
    std::vector<std::pair<void *, size_t>> state_arrays() const;
    Moments8bit moments_8bit(int32_t tensor) const;
    void allocate_trained();
    void allocate_optimizer();
    void release();

    // What of a batch goes to the rows that are picked.
    enum class Rows : uint8_t { labelled, first, last, all };
    void upload(const PackedBatch & batch, Rows rows = Rows::labelled, bool with_adapter = true);
    // Of an activated LoRA: which rows it applies to, by where it begins in each sequence.
    void upload_gate(const PackedBatch & batch);
    // With room for virtual tokens in front of every sequence.
    static SessionConfig with_virtual_tokens(SessionConfig config, const Adapter * adapter);
    void check(const PackedBatch & batch, Rows rows) const;
    void check_training() const;
    void check_optimizer() const;
    Bound bound(const Program & program, const ProgramWeights & weights, const BlockPlan & plan,
                std::span<const Matrix> slots, int32_t layer = -1) const;
    // Of training: activations are kept, and the input may get noise.
    void embed(bool training, bool with_adapter = true);
    void forward(bool training);
    void forward_without_adapter();
    void begin_training(const PackedBatch & batch, Rows rows = Rows::labelled);
    void begin_evaluation(const PackedBatch & batch, Rows rows);
    void check_outputs(size_t n_values, size_t n_sequences) const;
    Rows classified() const;
    void run_features(bool with_gradient);
    std::vector<double> read_features() const;
    void write_outputs(const std::vector<double> & values, std::span<float> outputs) const;
    void backward_through(const Program & program, const BlockPlan & plan, const PlacedSlots & slots);
    // Multiplies what the head left by weights of the trained rows, which lie where their losses were.
    void scale_head_gradient();
    // Of everything random in the micro-batch to come.
    uint64_t micro_batch_seed() const { return config_.seed + static_cast<uint64_t>(micro_batch_count_); }
    void update(const OptimizerStep & step, AdamwParams params);
    // Of halves of pairs that are not trained, which have no moments.
    void clear_frozen_gradients();
    static int64_t frozen_bytes(const Adapter & adapter);
    // evaluation: behind forward(false), losses alone; loss: the same behind forward(true); gradient: what goes back
    // and what is trained on the head too; weighted: those of losses times memory_.row_weights.
    enum class HeadPass : uint8_t { evaluation, loss, gradient, weighted };
    void head(HeadPass pass, bool with_adapter = true);
    // What head() left of n labels, on the host.
    std::vector<double> read_nll(size_t n);
    double loss(std::span<float> token_nll);
    // Copies candidates to the device, for whatever the head does with the batch.
    void put_candidates(const Candidates & candidates, size_t n_nll);
    int64_t checked_per_row(size_t n, const char * what) const;
    double write_nll(std::span<float> nll);
    void backward();
    // Of the work that a device may repeat for a batch: all that decides it beside the segments.
    uint64_t shape_key() const;
    [[noreturn]] void fail_non_finite_loss() const;
    [[noreturn]] void fail_non_finite_gradient() const;

    std::shared_ptr<Adapter> adapter_;  // may be null
    std::shared_ptr<const Model> model_;
    SessionConfig config_, planned_;  // as given; with room for virtual tokens
    std::unique_ptr<Backend> backend_;
    void *arena_ = nullptr, *gradients_ = nullptr;
    void *moment1_ = nullptr,
         *moment2_ = nullptr;  // AdamW: param format; with 8 bits: codes, one block after another within a tensor
    void *scales1_ = nullptr, *scales2_ = nullptr;  // of those blocks, f32; null without
    // Of frozen halves: the trained columns of a B and their gradients, one B at a time; the numbers 0, 1, … and as
    // many zeros.
    void * columns_ = nullptr;
    int32_t * counting_ = nullptr;
    float * zeros_ = nullptr;
    std::vector<TensorGroup> groups_;
    std::unique_ptr<AttachedAdapter> attached_;
    std::unique_ptr<SessionPlan> plan_;
    SessionMemory memory_;

    // Of the current batch.
    int64_t n_given_tokens_ = 0, n_tokens_ = 0;  // without virtual tokens and with them
    std::vector<Segment> segments_, noise_segments_;
    std::vector<PrefixRows> prefix_;
    std::vector<int32_t> trained_rows_, trained_tokens_;  // the same by the number that the caller knows
    SortedIds sorted_tokens_, sorted_positions_, sorted_types_, sorted_virtual_;

    uint64_t adapter_version_ = ~uint64_t{0};  // that the device was told of
    bool has_forward_ = false;                 // of this batch with gradients, so that backward may follow
    bool has_outputs_ = false;                 // the same of outputs
    int32_t n_candidates_ = 0;                 // of the current batch; 0: labels
    double temperature_ = 1;
    Classifier classifier_;

    int64_t step_count_ = 0;
    int64_t micro_batch_count_ = 0;          // position of the dropout stream
    int64_t stepped_micro_batch_count_ = 0;  // the same when the last optimizer step was done
};

}  // namespace lorica
