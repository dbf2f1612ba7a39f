#include "write/tensor_source.h"

#include <algorithm>
#include <vector>

#include "common/error.h"
#include "common/quote.h"
#include "gguf/dequantize.h"

namespace lorica {

ggml_type plain_type(const std::string & name) {
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_F16, GGML_TYPE_BF16}) {
        if (name == type_name(type)) return type;
    }
    fail(LORICA_ERROR_UNSUPPORTED, "numbers of type ", quoted(name), " cannot be read; F32, F16 and BF16 can");
}

RowSource rows_of_file(std::shared_ptr<const MappedFile> file, const std::string & path, uint64_t offset,
                       ggml_type type, int64_t n_rows, int64_t n_per_row, std::span<const int64_t> row_order,
                       bool transposed) {
    if (transposed && !row_order.empty()) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "rows of a transposed source cannot be put into another order");
    }
    if (!row_order.empty() && std::ranges::min(row_order) < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "row ", std::ranges::min(row_order), " of a source is asked for");
    }
    const uint64_t rows_read =
        row_order.empty() ? static_cast<uint64_t>(n_rows) : static_cast<uint64_t>(std::ranges::max(row_order)) + 1;
    const uint64_t size = file->bytes().size();
    const uint64_t row_bytes = static_cast<uint64_t>(n_per_row) > size ? size + 1 : ggml_row_size(type, n_per_row);
    if (offset > size || rows_read > (size - offset) / row_bytes) {
        fail(LORICA_ERROR_FORMAT, path, ": ", rows_read, " rows of ", row_bytes, " bytes at byte ", offset,
             " do not fit in a file of ", size, " bytes; is it complete?");
    }
    const auto bytes_from = [file, offset, type](int64_t element) {
        return file->bytes().data() + offset + static_cast<uint64_t>(element) * ggml_type_size(type);
    };
    if (transposed) {
        return [=](int64_t first, int64_t n, float * out) {
            std::vector<float> column(static_cast<size_t>(n));
            for (int64_t j = 0; j < n_per_row; ++j) {
                dequantize_row(type, bytes_from(j * n_rows + first), column.data(), n);
                for (int64_t i = 0; i < n; ++i) out[i * n_per_row + j] = column[static_cast<size_t>(i)];
            }
        };
    }
    return
        [=, order = std::vector<int64_t>(row_order.begin(), row_order.end())](int64_t first, int64_t n, float * out) {
            for (int64_t i = 0; i < n; ++i) {
                const int64_t row = order.empty() ? first + i : order[static_cast<size_t>(first + i)];
                dequantize_row(type, bytes_from(row * n_per_row), out + i * n_per_row, n_per_row);
            }
            if (file->is_cut()) fail(LORICA_ERROR_IO, path, ": the file was cut off while it was in use");
        };
}

}  // namespace lorica
