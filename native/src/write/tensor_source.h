// A tensor of plain numbers in another file, such as safetensors, on its way into a GGUF file.
#pragma once

#include <ggml.h>

#include <cstdint>
#include <memory>
#include <span>
#include <string>

#include "common/mapped_file.h"
#include "write/row_stream.h"

namespace lorica {

// "F32", "F16", "BF16". Errors: UNSUPPORTED.
ggml_type plain_type(const std::string & name);

// Rows of n_per_row numbers of `type` from byte `offset` of the file. row_order, empty or n_rows long, and
// `transposed`: see lorica_tensor_source. Errors: FORMAT when the file ends before the last row that is read;
// INVALID_ARGUMENT for a row before the first, and for both row_order and `transposed`.
RowSource rows_of_file(std::shared_ptr<const MappedFile> file, const std::string & path, uint64_t offset,
                       ggml_type type, int64_t n_rows, int64_t n_per_row, std::span<const int64_t> row_order,
                       bool transposed);

}  // namespace lorica
