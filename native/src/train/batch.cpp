// What comes into a session: checked, and copied to the device.
#include <algorithm>
#include <numeric>

#include "common/error.h"
#include "train/session.h"

namespace lorica {

namespace {

// The rows that have each id, the ids in ascending order.
std::vector<int32_t> by_id(std::span<const int32_t> ids) {
    std::vector<int32_t> rows(ids.size());
    std::iota(rows.begin(), rows.end(), 0);
    std::stable_sort(rows.begin(), rows.end(),
                     [&](int32_t a, int32_t b) { return ids[static_cast<size_t>(a)] < ids[static_cast<size_t>(b)]; });
    return rows;
}

}  // namespace

void Session::check(const PackedBatch & batch, Rows rows) const {
    if (rows == Rows::labelled && !model_->architecture().has_head()) {
        fail(LORICA_ERROR_UNSUPPORTED, "architecture '", model_->shape().architecture,
             "' is an encoder: it predicts no tokens, and has no loss but that of a classifier");
    }
    const auto n = static_cast<int64_t>(batch.tokens.size());
    if (n < 1 || n > config_.max_tokens) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the micro-batch has ", n, " tokens; this session takes 1 to ",
             config_.max_tokens);
    }
    const auto n_sequences = static_cast<int64_t>(batch.sequence_lengths.size());
    const int64_t max_sequences = config_.max_sequences > 0 ? config_.max_sequences : config_.max_tokens;
    if (n_sequences > max_sequences) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the micro-batch has ", n_sequences, " sequences; this session takes ",
             max_sequences);
    }
    int64_t sum = 0;
    for (const int32_t length : batch.sequence_lengths) {
        if (length < 1 || length > config_.longest_sequence()) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "a sequence of the micro-batch has length ", length,
                 "; this session takes 1 to ", config_.longest_sequence());
        }
        sum += length;
    }
    if (sum != n)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "the sequence lengths add up to ", sum, ", the micro-batch has ", n,
             " tokens");
    const int32_t n_vocab = model_->shape().n_vocab;
    int64_t n_types = 0, n_positions = 0;  // 0: without such a table
    for (const EmbedSpec & e : model_->architecture().prologue.embeds) {
        if (e.index == EmbedSpec::type) n_types = e.rows;
        if (e.index == EmbedSpec::position) n_positions = e.rows;
    }
    if (n_positions > 0) {
        const bool given = !batch.positions.empty();
        const int32_t counted =
            given ? *std::max_element(batch.positions.begin(), batch.positions.end())
                  : *std::max_element(batch.sequence_lengths.begin(), batch.sequence_lengths.end()) - 1;
        const int32_t last = counted + (adapter_ ? adapter_->n_virtual_tokens() : 0);
        if (last >= n_positions) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "a token of the micro-batch has position ", last,
                 "; this model has learned ", n_positions, " positions");
        }
    }
    for (int64_t t = 0; t < n; ++t) {
        const auto i = static_cast<size_t>(t);
        if (batch.tokens[i] < 0 || batch.tokens[i] >= n_vocab) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token ", t, " has id ", batch.tokens[i], "; the vocabulary has ",
                 n_vocab);
        }
        if (rows == Rows::labelled && batch.labels[i] != -100 && (batch.labels[i] < 0 || batch.labels[i] >= n_vocab)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "label ", t, " is ", batch.labels[i],
                 "; it must be -100 or an id below ", n_vocab);
        }
        if (!batch.positions.empty() && batch.positions[i] < 0) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "position ", t, " is ", batch.positions[i],
                 "; positions are not negative");
        }
        if (!batch.types.empty() && memory_.types && (batch.types[i] < 0 || batch.types[i] >= n_types)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token ", t, " has type ", batch.types[i], "; there are ", n_types);
        }
    }
}

// Virtual tokens come in front of each sequence, and positions count them. Their ids are -1, -2, …, by which a prompt
// is found; with a prefix they are nothing but room for its keys and values, any token.
void Session::upload(const PackedBatch & batch, Rows rows, bool with_adapter) {
    check(batch, rows);
    if (adapter_ && adapter_->version() != adapter_version_) {
        adapter_version_ = adapter_->version();
        backend_->parameters_changed();
    }
    has_forward_ = has_outputs_ = false;
    n_candidates_ = 0;
    temperature_ = 1;
    n_given_tokens_ = static_cast<int64_t>(batch.tokens.size());
    const int32_t n_virtual = adapter_ && with_adapter ? adapter_->n_virtual_tokens() : 0;
    segments_.clear();
    const bool has_prompt = n_virtual > 0 && adapter_->has_prompt();
    noise_segments_.clear();
    prefix_.clear();
    trained_rows_.clear();
    trained_tokens_.clear();
    std::vector<int32_t> tokens, positions, types, labels;
    int32_t given = 0;
    for (const int32_t length : batch.sequence_lengths) {
        const auto first = static_cast<int32_t>(tokens.size()), end = first + n_virtual + length;
        segments_.push_back({first, length + n_virtual, first, length + n_virtual});
        noise_segments_.push_back({first + n_virtual, length, first + n_virtual, length});
        if (n_virtual > 0 && !has_prompt) prefix_.push_back({first, 0, n_virtual});
        // As in PEFT, a classifier's first token is the first of the prompt.
        if (rows == Rows::first) trained_rows_.push_back(has_prompt ? first : first + n_virtual);
        if (rows == Rows::last) trained_rows_.push_back(end - 1);
        for (int32_t t = first + n_virtual; rows == Rows::all && t < end; ++t) trained_rows_.push_back(t);
        for (int32_t i = 0; i < n_virtual; ++i) {
            tokens.push_back(has_prompt ? -1 - i : 0);
            positions.push_back(i);
            types.push_back(0);
        }
        for (int32_t i = 0; i < length; ++i, ++given) {
            const auto t = static_cast<size_t>(given);
            if (rows == Rows::labelled && batch.labels[t] != -100) {
                trained_rows_.push_back(static_cast<int32_t>(tokens.size()));
                trained_tokens_.push_back(given);
                labels.push_back(batch.labels[t]);
            }
            tokens.push_back(batch.tokens[t]);
            positions.push_back(n_virtual + (batch.positions.empty() ? i : batch.positions[t]));
            types.push_back(batch.types.empty() ? 0 : batch.types[t]);
        }
    }
    n_tokens_ = static_cast<int64_t>(tokens.size());
    auto copy = [&](int32_t * device, std::span<const int32_t> host) {
        backend_->copy_to_device(device, host.data(), host.size_bytes());
    };
    copy(memory_.tokens, tokens);
    copy(memory_.positions, positions);
    copy(memory_.rows, trained_rows_);
    copy(memory_.labels, labels);
    if (memory_.types) copy(memory_.types, types);
    if (memory_.gate) upload_gate(batch);
    if (!plan_->trains_prologue()) return;
    const auto sort = [&](std::span<const int32_t> ids, int32_t * to_ids, int32_t * to_rows) {
        const std::vector<int32_t> rows = by_id(ids);
        std::vector<int32_t> sorted;
        for (const int32_t row : rows) sorted.push_back(ids[static_cast<size_t>(row)]);
        copy(to_ids, sorted);
        copy(to_rows, rows);
        const auto n_negative = std::lower_bound(sorted.begin(), sorted.end(), 0) - sorted.begin();
        return SortedIds{to_ids + n_negative, to_rows + n_negative, n_tokens_ - n_negative};
    };
    sorted_tokens_ = sort(tokens, memory_.sorted_tokens, memory_.token_rows);
    sorted_positions_ = sort(positions, memory_.sorted_positions, memory_.position_rows);
    if (memory_.types) sorted_types_ = sort(types, memory_.sorted_types, memory_.type_rows);
    std::vector<int32_t> virtual_ids, virtual_rows;
    for (int32_t i = 0; i < n_virtual; ++i) {
        for (const Segment & segment : segments_) {
            virtual_ids.push_back(i);
            virtual_rows.push_back(segment.q_begin + i);
        }
    }
    copy(memory_.virtual_ids, virtual_ids);
    copy(memory_.virtual_rows, virtual_rows);
    sorted_virtual_ = {memory_.virtual_ids, memory_.virtual_rows, static_cast<int64_t>(virtual_ids.size())};
}

// Such an adapter has no virtual tokens: rows are tokens.
void Session::upload_gate(const PackedBatch & batch) {
    const std::vector<int32_t> & invocation = adapter_->config().invocation_tokens;
    std::vector<float> gate;
    for (const Segment & segment : segments_) {
        const int32_t begin = Adapter::begin_of(
            invocation, batch.tokens.subspan(static_cast<size_t>(segment.q_begin), static_cast<size_t>(segment.q_len)));
        for (int32_t i = 0; i < segment.q_len; ++i) gate.push_back(i >= begin ? 1.0f : 0.0f);
    }
    std::vector<float> of_head;
    for (const int32_t row : trained_rows_) of_head.push_back(gate[static_cast<size_t>(row)]);
    const auto upload = [&](float * to, const std::vector<float> & values) {
        backend_->copy_to_device(to, values.data(), values.size() * sizeof(float));
        return Matrix{to, Dtype::f32, static_cast<int64_t>(values.size()), 1, 1};
    };
    attached_->set_gate(upload(memory_.gate, gate));
    attached_->set_head_gate(upload(memory_.head_gate, of_head));
}

}  // namespace lorica
