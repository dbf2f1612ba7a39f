#include "write/row_stream.h"

#include <algorithm>
#include <cmath>

#include "common/error.h"
#include "common/quote.h"
#include "common/thread_pool.h"
#include "gguf/dequantize.h"

namespace lorica {

namespace {

// Elements in f32 at a time: 16 MiB, enough rows for all threads.
constexpr int64_t piece_elements = int64_t{1} << 22;
// What a thread takes at once.
constexpr int64_t group_elements = int64_t{1} << 14;

void require_finite(const std::string & name, int64_t first_row, int64_t n_per_row, std::span<const float> values) {
    const auto bad = std::find_if_not(values.begin(), values.end(), [](float value) { return std::isfinite(value); });
    if (bad != values.end()) {
        fail(LORICA_ERROR_NON_FINITE, "tensor ", quoted(name), ": row ", first_row + (bad - values.begin()) / n_per_row,
             " has the value ", *bad, "; nothing is written");
    }
}

}  // namespace

RowStreams::RowStreams(int32_t n_threads)
    : n_threads_(n_threads > 0 ? n_threads : ThreadPool::instance().n_threads()),
      buffers_(std::make_shared<Buffers>()) {}

GgufWriter::DataSource RowStreams::stream(const std::string & name, ggml_type type, int64_t n_rows, int64_t n_per_row,
                                          RowSource source) const {
    return [=, this_buffers = buffers_, n_threads = n_threads_,
            next = int64_t{0}]() mutable -> std::span<const std::byte> {
        const int64_t first = next, n = std::min(n_rows - first, std::max<int64_t>(piece_elements / n_per_row, 1));
        const size_t row_bytes = ggml_row_size(type, n_per_row);
        this_buffers->values.resize(static_cast<size_t>(n * n_per_row));
        this_buffers->blocks.resize(static_cast<size_t>(n) * row_bytes);
        float * const values = this_buffers->values.data();
        std::byte * const blocks = this_buffers->blocks.data();
        prepare_quantization(type);

        const int64_t group = std::max<int64_t>(group_elements / n_per_row, 1);
        parallel_tasks((n + group - 1) / group, n_threads, [&](int, int64_t i) {
            const int64_t start = i * group, rows = std::min(group, n - start);
            float * const x = values + start * n_per_row;
            source(first + start, rows, x);
            require_finite(name, first + start, n_per_row, {x, static_cast<size_t>(rows * n_per_row)});
            const size_t written = ggml_quantize_chunk(type, x, blocks + static_cast<size_t>(start) * row_bytes, 0,
                                                       rows, n_per_row, nullptr);
            if (written != static_cast<size_t>(rows) * row_bytes) {
                fail(LORICA_ERROR_UNSUPPORTED, "tensor ", quoted(name), ": type ", type_name(type),
                     " can be read but not written");
            }
        });
        next = first + n < n_rows ? first + n : 0;  // the file may be written again
        return this_buffers->blocks;
    };
}

}  // namespace lorica
