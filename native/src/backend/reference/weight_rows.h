// The rows of a weight, dequantized one at a time.
#pragma once

#include "backend/backend.h"
#include "gguf/dequantize.h"

#include <algorithm>
#include <vector>

namespace lorica::reference {

class WeightRows {
public:
    explicit WeightRows(const Weight & weight) : weight_(weight), single_(weight.in), wide_(weight.in) {}

    // Valid until the next call.
    const double * operator[](int64_t row) {
        const std::byte * data = weight_.data + static_cast<size_t>(row) * weight_.row_bytes;
        if (weight_.type == GGML_TYPE_F64) return reinterpret_cast<const double *>(data);
        dequantize_row(weight_.type, data, single_.data(), weight_.in);
        std::copy(single_.begin(), single_.end(), wide_.begin());
        return wide_.data();
    }

private:
    Weight weight_;
    std::vector<float> single_;
    std::vector<double> wide_;
};

}  // namespace lorica::reference
