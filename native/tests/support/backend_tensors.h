// Matrices on any backend for tests: written and read as doubles, with poison around them.
#pragma once

#include "backend/backend.h"
#include "common/bf16.h"
#include "common/random.h"
#include "gguf/dequantize.h"
#include "support/test_model.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <vector>

namespace lorica::test {

using Values = std::vector<double>;

// n independent normal numbers.
inline Values normal(uint64_t seed, int64_t n, double deviation = 1) {
    Values values(n);
    for (int64_t i = 0; i < n; ++i) {
        values[i] = deviation * random_normal(seed, static_cast<uint64_t>(i));
    }
    return values;
}

inline std::vector<std::byte> encode(Dtype type, const Values & values) {
    std::vector<std::byte> bytes(values.size() * dtype_size(type));
    for (size_t i = 0; i < values.size(); ++i) {
        std::byte * target = bytes.data() + i * dtype_size(type);
        const auto single = static_cast<float>(values[i]);
        const Bf16 half(single);
        switch (type) {
            case Dtype::bf16: std::memcpy(target, &half, sizeof half); break;
            case Dtype::f32: std::memcpy(target, &single, sizeof single); break;
            case Dtype::f64: std::memcpy(target, &values[i], sizeof values[i]); break;
        }
    }
    return bytes;
}

inline Values decode(Dtype type, const std::vector<std::byte> & bytes) {
    Values values(bytes.size() / dtype_size(type));
    for (size_t i = 0; i < values.size(); ++i) {
        const std::byte * source = bytes.data() + i * dtype_size(type);
        float single;
        Bf16 half;
        switch (type) {
            case Dtype::bf16:
                std::memcpy(&half, source, sizeof half);
                values[i] = static_cast<float>(half);
                break;
            case Dtype::f32:
                std::memcpy(&single, source, sizeof single);
                values[i] = single;
                break;
            case Dtype::f64: std::memcpy(&values[i], source, sizeof values[i]); break;
        }
    }
    return values;
}

// What remains of the values in a format.
inline Values rounded(Dtype type, const Values & values) { return decode(type, encode(type, values)); }

// ‖actual − expected‖ / ‖expected‖; NaN when an element is.
inline double relative_error(const Values & actual, const Values & expected) {
    double difference = 0, norm = 0;
    for (size_t i = 0; i < expected.size(); ++i) {
        difference += (actual[i] - expected[i]) * (actual[i] - expected[i]);
        norm += expected[i] * expected[i];
    }
    return difference == 0 ? 0 : std::sqrt(difference / norm);
}

// Plain device memory that holds the elements of a host vector.
template <typename T> class DeviceArray {
public:
    DeviceArray(Backend & backend, const std::vector<T> & values)
        : backend_(&backend), data_(backend.allocate(values.size() * sizeof(T))) {
        backend.copy_to_device(data_, values.data(), values.size() * sizeof(T));
    }
    ~DeviceArray() { backend_->release(data_); }
    DeviceArray(const DeviceArray &) = delete;
    DeviceArray & operator=(const DeviceArray &) = delete;

    const T * data() const { return static_cast<const T *>(data_); }

private:
    Backend * backend_;
    void * data_;
};

// A matrix on a device. It lies in a larger block: a row before it, a row after it, stride - cols elements after each
// row. All of that is a NaN of a certain bit pattern at first, the matrix itself too.
class DeviceMatrix {
public:
    DeviceMatrix(Backend & backend, Dtype type, int64_t rows, int64_t cols, int64_t stride)
        : backend_(&backend), type_(type), rows_(rows), cols_(cols), stride_(stride) {
        const int64_t n = (rows + 2) * stride;
        std::vector<std::byte> poison(static_cast<size_t>(n) * dtype_size(type));
        for (int64_t i = 0; i < n; ++i) {
            std::memcpy(poison.data() + i * dtype_size(type), poison_element(), dtype_size(type));
        }
        block_ = backend.allocate(poison.size());
        backend.copy_to_device(block_, poison.data(), poison.size());
    }
    ~DeviceMatrix() { backend_->release(block_); }
    DeviceMatrix(const DeviceMatrix &) = delete;
    DeviceMatrix & operator=(const DeviceMatrix &) = delete;

    Matrix view() const {
        void * first = static_cast<std::byte *>(block_) + static_cast<size_t>(stride_) * dtype_size(type_);
        return {first, type_, rows_, cols_, stride_};
    }

    void write(const Values & values) {
        std::vector<std::byte> block = read_block();
        const std::vector<std::byte> bytes = encode(type_, values);
        const size_t row_bytes = static_cast<size_t>(cols_) * dtype_size(type_);
        for (int64_t r = 0; r < rows_; ++r) {
            std::copy_n(bytes.data() + r * row_bytes, row_bytes, block.data() + row_offset(r));
        }
        backend_->copy_to_device(block_, block.data(), block.size());
    }

    // The bytes of the view, rows back to back.
    std::vector<std::byte> read_bytes() const {
        const std::vector<std::byte> block = read_block();
        const size_t row_bytes = static_cast<size_t>(cols_) * dtype_size(type_);
        std::vector<std::byte> bytes(rows_ * row_bytes);
        for (int64_t r = 0; r < rows_; ++r) {
            std::copy_n(block.data() + row_offset(r), row_bytes, bytes.data() + r * row_bytes);
        }
        return bytes;
    }
    Values read() const { return decode(type_, read_bytes()); }

    bool surroundings_are_intact() const {
        const std::vector<std::byte> block = read_block();
        for (int64_t i = 0; i < (rows_ + 2) * stride_; ++i) {
            const int64_t row = i / stride_ - 1, column = i % stride_;
            const bool inside = row >= 0 && row < rows_ && column < cols_;
            if (!inside &&
                std::memcmp(block.data() + i * dtype_size(type_), poison_element(), dtype_size(type_)) != 0) {
                return false;
            }
        }
        return true;
    }

private:
    const void * poison_element() const {
        // The low bytes come first.
        static constexpr uint64_t bf16 = 0x7fda, f32 = 0x7fda5a5a, f64 = 0x7ffa5a5a5a5a5a5a;
        return type_ == Dtype::bf16 ? &bf16 : type_ == Dtype::f32 ? &f32 : &f64;
    }
    size_t row_offset(int64_t row) const { return static_cast<size_t>((row + 1) * stride_) * dtype_size(type_); }
    std::vector<std::byte> read_block() const {
        std::vector<std::byte> block(static_cast<size_t>((rows_ + 2) * stride_) * dtype_size(type_));
        backend_->copy_to_host(block.data(), block_, block.size());
        return block;
    }

    Backend * backend_;
    Dtype type_;
    int64_t rows_, cols_, stride_;
    void * block_ = nullptr;
};

// A weight W[out, in] of random numbers, in a type's blocks.
class QuantizedWeight {
public:
    QuantizedWeight(ggml_type type, int64_t out, int64_t in, uint64_t seed)
        : type_(type),
          out_(out),
          in_(in),
          row_bytes_(ggml_row_size(type, in)),
          blocks_(random_blocks(type, out, in, 1 / std::sqrt(static_cast<float>(in)), seed, 0)) {}

    Weight on(Backend & backend) const {
        return {type_, out_, in_, row_bytes_, backend.load_weight(blocks_.data(), blocks_.size())};
    }

    // W as the blocks say it.
    Values values() const {
        std::vector<float> singles(out_ * in_);
        dequantize_row(type_, blocks_.data(), singles.data(), out_ * in_);
        return {singles.begin(), singles.end()};
    }

private:
    ggml_type type_;
    int64_t out_, in_;
    size_t row_bytes_;
    std::vector<std::byte> blocks_;
};

// Every type that a model's matrices may have.
inline std::vector<ggml_type> weight_types() {
    std::vector<ggml_type> types;
    for (int type = 0; type < GGML_TYPE_COUNT; ++type) {
        if (is_supported_weight_type(static_cast<ggml_type>(type))) {
            types.push_back(static_cast<ggml_type>(type));
        }
    }
    return types;
}

}  // namespace lorica::test
