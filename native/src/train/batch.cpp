// What comes into a session: checked, and copied to the device.
#include "common/error.h"
#include "train/session.h"

namespace lorica {

void Session::check(const PackedBatch & batch) const {
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
    for (int64_t t = 0; t < n; ++t) {
        const auto i = static_cast<size_t>(t);
        if (batch.tokens[i] < 0 || batch.tokens[i] >= n_vocab) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "token ", t, " has id ", batch.tokens[i], "; the vocabulary has ",
                 n_vocab);
        }
        if (batch.labels[i] != -100 && (batch.labels[i] < 0 || batch.labels[i] >= n_vocab)) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "label ", t, " is ", batch.labels[i],
                 "; it must be -100 or an id below ", n_vocab);
        }
        if (!batch.positions.empty() && batch.positions[i] < 0) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "position ", t, " is ", batch.positions[i],
                 "; positions are not negative");
        }
    }
}

void Session::upload(const PackedBatch & batch) {
    check(batch);
    has_forward_ = false;
    n_tokens_ = static_cast<int64_t>(batch.tokens.size());
    segments_.clear();
    std::vector<int32_t> positions(batch.positions.begin(), batch.positions.end());
    const bool count_positions = positions.empty();
    int32_t first = 0;
    for (const int32_t length : batch.sequence_lengths) {
        segments_.push_back({first, length, first, length});
        for (int32_t i = 0; count_positions && i < length; ++i) positions.push_back(i);
        first += length;
    }
    trained_rows_.clear();
    std::vector<int32_t> labels;
    for (int32_t t = 0; t < n_tokens_; ++t) {
        const int32_t label = batch.labels[static_cast<size_t>(t)];
        if (label == -100) continue;
        trained_rows_.push_back(t);
        labels.push_back(label);
    }
    auto copy = [&](int32_t * device, std::span<const int32_t> host) {
        backend_->copy_to_device(device, host.data(), host.size_bytes());
    };
    copy(memory_.tokens, batch.tokens);
    copy(memory_.positions, positions);
    copy(memory_.rows, trained_rows_);
    copy(memory_.labels, labels);
}

}  // namespace lorica
