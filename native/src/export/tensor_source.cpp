#include "export/tensor_source.h"

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
                       ggml_type type, int64_t n_rows, int64_t n_per_row, int32_t n_rope_heads) {
    const uint64_t size = file->bytes().size();
    const uint64_t row_bytes = static_cast<uint64_t>(n_per_row) > size ? size + 1 : ggml_row_size(type, n_per_row);
    if (offset > size || static_cast<uint64_t>(n_rows) > (size - offset) / row_bytes) {
        fail(LORICA_ERROR_FORMAT, path, ": ", n_rows, " rows of ", row_bytes, " bytes at byte ", offset,
             " do not fit in a file of ", size, " bytes; is it complete?");
    }
    if (n_rope_heads < 0 || (n_rope_heads > 0 && n_rows % (2 * int64_t{n_rope_heads}) != 0)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, n_rows, " rows are not ", n_rope_heads, " heads of an even number of rows");
    }
    const int64_t head_dim = n_rope_heads > 0 ? n_rows / n_rope_heads : 0;
    return [=](int64_t first, int64_t n, float * out) {
        for (int64_t i = 0; i < n; ++i) {
            int64_t row = first + i;
            if (head_dim > 0) {
                // Hugging Face rotates row j of a head with row j + d/2, GGUF has the two next to each other.
                const int64_t head = row / head_dim, within = row % head_dim;
                row = head * head_dim + within / 2 + within % 2 * (head_dim / 2);
            }
            dequantize_row(type, file->bytes().data() + offset + static_cast<uint64_t>(row) * row_bytes,
                           out + i * n_per_row, n_per_row);
        }
        if (file->is_cut()) fail(LORICA_ERROR_IO, path, ": the file was cut off while it was in use");
    };
}

}  // namespace lorica
