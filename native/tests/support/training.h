// Small training problems for the tests of the engine.
#pragma once

#include <cmath>
#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter.h"
#include "common/error.h"
#include "common/random.h"
#include "model/model.h"
#include "support/temp_dir.h"
#include "support/test_model.h"
#include "train/session.h"

namespace lorica::test {

// Sequences of random ids; about two thirds of the positions are trained on.
struct Batch {
    std::vector<int32_t> tokens, labels, sequence_lengths;

    PackedBatch view() const { return {tokens, labels, {}, sequence_lengths}; }
};

// What a call that fails says; "no error" where it does not.
template <typename Call> std::string error_of(const Call & call) {
    try {
        call();
    } catch (const Error & e) {
        return e.what();
    }
    return "no error";
}

inline Batch random_batch(uint64_t seed, const std::vector<int32_t> & lengths, int32_t n_vocab) {
    Batch batch;
    batch.sequence_lengths = lengths;
    uint64_t i = 0;
    auto id = [&] { return static_cast<int32_t>(random_u32(seed, i++) % static_cast<uint32_t>(n_vocab)); };
    for (const int32_t length : lengths) {
        for (int32_t t = 0; t < length; ++t) batch.tokens.push_back(id());
        for (int32_t t = 0; t < length; ++t) {
            const bool trained = t + 1 < length && (t == 0 || random_u32(seed + 1, i) % 3 != 0);
            const int32_t label =
                t + 1 < length ? batch.tokens[batch.tokens.size() - static_cast<size_t>(length - t - 1)] : -100;
            batch.labels.push_back(trained ? label : -100);
            ++i;
        }
    }
    return batch;
}

// The sequence `i` of a batch alone.
inline Batch part(const Batch & batch, size_t i) {
    size_t first = 0;
    for (size_t s = 0; s < i; ++s) first += static_cast<size_t>(batch.sequence_lengths[s]);
    const auto n = static_cast<size_t>(batch.sequence_lengths[i]);
    auto slice = [&](const std::vector<int32_t> & x) {
        return std::vector<int32_t>(x.begin() + first, x.begin() + first + n);
    };
    return {slice(batch.tokens), slice(batch.labels), {static_cast<int32_t>(n)}};
}

inline std::shared_ptr<const Model> load(const std::string & path, const std::string & device, Dtype act,
                                         int32_t n_threads = 2) {
    return Model::load(path, device, act, n_threads);
}

// Multiples of 2^-12, so that steps of powers of two are exact in f32.
inline std::vector<float> exact_values(uint64_t seed, int64_t n, double size) {
    std::vector<float> values(static_cast<size_t>(n));
    for (size_t i = 0; i < values.size(); ++i) {
        values[i] = static_cast<float>(std::round(size * random_normal(seed, i) * 4096) / 4096);
    }
    return values;
}

// An adapter whose B is not zero, and whose magnitudes are not the norms, so that every gradient is there to be seen.
// The same on every device: magnitudes are near 1, as the norms of random weights are, but not made of the norms, whose
// last bit differs from device to device, and by much more once it is rounded across a bound.
inline std::shared_ptr<Adapter> busy_adapter(std::shared_ptr<const Model> model, const AdapterConfig & config) {
    auto adapter = Adapter::create(std::move(model), config);
    for (int32_t i = 0; i < adapter->n_tensors(); ++i) {
        const auto tensor = adapter->tensor(i);
        const uint64_t seed = 900 + static_cast<uint64_t>(i);
        const double size = tensor.kind == Adapter::Kind::a ? 1 / std::sqrt(static_cast<double>(tensor.cols)) : 0.05;
        std::vector<float> values = exact_values(seed, tensor.rows * tensor.cols, size);
        if (tensor.kind == Adapter::Kind::magnitude) {
            for (float & value : values) value += 1;
        }
        adapter->write(adapter->params(), i, values.data());
    }
    return adapter;
}

inline std::vector<std::vector<float>> gradients(const Session & session) {
    std::vector<std::vector<float>> result;
    for (int32_t i = 0; i < session.adapter().n_tensors(); ++i) result.push_back(session.gradient(i));
    return result;
}

// |a - b| / |b| in the Euclidean norm.
inline double relative_error(const std::vector<float> & a, const std::vector<float> & b) {
    double difference = 0, size = 0;
    for (size_t i = 0; i < b.size(); ++i) {
        difference += (static_cast<double>(a[i]) - b[i]) * (static_cast<double>(a[i]) - b[i]);
        size += static_cast<double>(b[i]) * b[i];
    }
    return std::sqrt(difference / size);
}

}  // namespace lorica::test
