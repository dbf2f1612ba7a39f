// Rows of floats on their way into tensors of a GGUF file: computed, converted and handed over in pieces of bounded
// size.
#pragma once

#include <ggml.h>

#include <functional>
#include <memory>
#include <string>

#include "gguf/gguf_writer.h"

namespace lorica {

// Writes rows [first, first + n) of a tensor as f32 into `out`; called from several threads at once.
using RowSource = std::function<void(int64_t first, int64_t n, float * out)>;

// Makes the data of tensors, one after another through the same two buffers.
class RowStreams {
public:
    // 0 threads: all cores. Results do not depend on it.
    explicit RowStreams(int32_t n_threads);

    // n_rows rows of n_per_row elements, converted to `type`. Errors while it is read: NON_FINITE, naming the tensor
    // and the row; UNSUPPORTED when ggml cannot write the type.
    GgufWriter::DataSource stream(const std::string & name, ggml_type type, int64_t n_rows, int64_t n_per_row,
                                  RowSource source) const;

private:
    struct Buffers {
        std::vector<float> values;
        std::vector<std::byte> blocks;
    };
    int32_t n_threads_;
    std::shared_ptr<Buffers> buffers_;
};

}  // namespace lorica
