#include "api/api.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_file.h"

using lorica::api::guarded;
using lorica::api::require;

struct lorica_gguf {
    lorica::GgufFile file;
    std::string value;  // what lorica_gguf_value_json returned last

    bool has_entry(int64_t i) const { return i >= 0 && i < file.n_kv(); }
};

lorica_status lorica_gguf_open(const char * path, lorica_gguf ** out) {
    return guarded([&] {
        require(path, "path");
        require(out, "out");
        *out = new lorica_gguf{lorica::GgufFile::open(path), {}};
    });
}

void lorica_gguf_free(lorica_gguf * gguf) { delete gguf; }

uint64_t lorica_gguf_n_bytes(const lorica_gguf * gguf) { return gguf == nullptr ? 0 : gguf->file.n_bytes(); }

int64_t lorica_gguf_n_kv(const lorica_gguf * gguf) { return gguf == nullptr ? 0 : gguf->file.n_kv(); }

int64_t lorica_gguf_n_tensors(const lorica_gguf * gguf) {
    return gguf == nullptr ? 0 : static_cast<int64_t>(gguf->file.tensors().size());
}

const char * lorica_gguf_key(const lorica_gguf * gguf, int64_t i) {
    return gguf != nullptr && gguf->has_entry(i) ? gguf->file.key(i).c_str() : nullptr;
}

const char * lorica_gguf_value_json(lorica_gguf * gguf, int64_t i, int64_t max_array) {
    if (gguf == nullptr || !gguf->has_entry(i)) {
        return nullptr;
    }
    const lorica_status status = guarded([&] { gguf->value = gguf->file.value_json(i, max_array); });
    return status == LORICA_OK ? gguf->value.c_str() : nullptr;
}

int64_t lorica_gguf_array_length(const lorica_gguf * gguf, int64_t i) {
    return gguf != nullptr && gguf->has_entry(i) ? gguf->file.array_length(i).value_or(-1) : -1;
}

lorica_status lorica_gguf_tensor_info(const lorica_gguf * gguf, int64_t i, lorica_gguf_tensor * out) {
    return guarded([&] {
        require(gguf, "gguf");
        require(out, "out");
        const auto & tensors = gguf->file.tensors();
        if (i < 0 || i >= static_cast<int64_t>(tensors.size())) {
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", i, " is out of range, the file has ",
                         tensors.size());
        }
        const lorica::TensorView & tensor = tensors[static_cast<size_t>(i)];
        lorica::api::write_struct(
            lorica_gguf_tensor{
                .struct_size = sizeof(lorica_gguf_tensor),
                .name = tensor.name.c_str(),
                .type = lorica::type_name(tensor.type),
                .n_dims = tensor.n_dims,
                .ne = {tensor.ne[0], tensor.ne[1], tensor.ne[2], tensor.ne[3]},
                .offset = tensor.offset,
                .n_bytes = tensor.n_bytes,
            },
            "out", out);
    });
}
