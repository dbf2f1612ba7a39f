// The rows of a quantized weight, dequantized one at a time.
#pragma once

#include "backend/backend.h"
#include "gguf/dequantize.h"

#include <vector>

namespace lorica::reference {

class WeightRows {
public:
    explicit WeightRows(const Weight & weight) : weight_(weight), buffer_(weight.in) {}

    // Valid until the next call.
    const float * operator[](int64_t row) {
        dequantize_row(weight_.type, weight_.data + static_cast<size_t>(row) * weight_.row_bytes, buffer_.data(),
                       weight_.in);
        return buffer_.data();
    }

private:
    Weight weight_;
    std::vector<float> buffer_;
};

}  // namespace lorica::reference
