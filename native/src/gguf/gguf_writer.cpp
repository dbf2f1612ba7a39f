#include "gguf/gguf_writer.h"

#include "common/atomic_file.h"
#include "common/error.h"
#include "common/quote.h"
#include "gguf/load.h"

#include <gguf.h>

#include <algorithm>
#include <cstring>
#include <limits>

namespace lorica {

namespace {

struct GgufContextFree {
    void operator()(gguf_context * context) const { gguf_free(context); }
};

}  // namespace

struct GgufWriter::Impl {
    std::unique_ptr<gguf_context, GgufContextFree> context{gguf_init_empty()};
    std::vector<DataSource> sources;  // of tensor i

    // ggml asserts on names that it does not like; nothing may reach it unchecked.
    std::string new_key(std::string_view key) const {
        if (key.empty() || key.find('\0') != std::string_view::npos || key.size() > 65535) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "metadata key ", quoted(key), " must have 1 to 65535 bytes and no NUL");
        }
        std::string text(key);
        if (text == GGUF_KEY_GENERAL_ALIGNMENT) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "metadata ", quoted(key), " is set by the writer");
        }
        if (gguf_find_key(context.get(), text.c_str()) >= 0) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "metadata ", quoted(key), " is set twice");
        }
        return text;
    }
};

GgufWriter::GgufWriter() : impl_(std::make_unique<Impl>()) {}
GgufWriter::GgufWriter(GgufWriter &&) noexcept = default;
GgufWriter & GgufWriter::operator=(GgufWriter &&) noexcept = default;
GgufWriter::~GgufWriter() = default;

void GgufWriter::set_u32(std::string_view key, uint32_t value) {
    gguf_set_val_u32(impl_->context.get(), impl_->new_key(key).c_str(), value);
}

void GgufWriter::set_u64(std::string_view key, uint64_t value) {
    gguf_set_val_u64(impl_->context.get(), impl_->new_key(key).c_str(), value);
}

void GgufWriter::set_f32(std::string_view key, float value) {
    gguf_set_val_f32(impl_->context.get(), impl_->new_key(key).c_str(), value);
}

void GgufWriter::set_f64(std::string_view key, double value) {
    gguf_set_val_f64(impl_->context.get(), impl_->new_key(key).c_str(), value);
}

void GgufWriter::set_bool(std::string_view key, bool value) {
    gguf_set_val_bool(impl_->context.get(), impl_->new_key(key).c_str(), value);
}

void GgufWriter::set_string(std::string_view key, std::string_view value) {
    gguf_set_val_str(impl_->context.get(), impl_->new_key(key).c_str(), std::string(value).c_str());
}

void GgufWriter::set_strings(std::string_view key, const std::vector<std::string> & values) {
    std::vector<const char *> pointers;
    for (const std::string & value : values) {
        pointers.push_back(value.c_str());
    }
    gguf_set_arr_str(impl_->context.get(), impl_->new_key(key).c_str(), pointers.data(), pointers.size());
}

void GgufWriter::set_bools(std::string_view key, std::span<const bool> values) {
    gguf_set_arr_data(impl_->context.get(), impl_->new_key(key).c_str(), GGUF_TYPE_BOOL, values.data(), values.size());
}

void GgufWriter::set_u32s(std::string_view key, std::span<const int32_t> values) {
    gguf_set_arr_data(impl_->context.get(), impl_->new_key(key).c_str(), GGUF_TYPE_UINT32, values.data(),
                      values.size());
}

void GgufWriter::set_i32s(std::string_view key, std::span<const int32_t> values) {
    gguf_set_arr_data(impl_->context.get(), impl_->new_key(key).c_str(), GGUF_TYPE_INT32, values.data(), values.size());
}

void GgufWriter::set_f32s(std::string_view key, std::span<const float> values) {
    gguf_set_arr_data(impl_->context.get(), impl_->new_key(key).c_str(), GGUF_TYPE_FLOAT32, values.data(),
                      values.size());
}

void GgufWriter::copy_metadata(const GgufFile & file, const std::vector<std::string> & except) {
    gguf_context * const context = impl_->context.get();
    for (int64_t i = 0; i < file.n_kv(); ++i) {
        const std::string & name = file.key(i);
        if (name == GGUF_KEY_GENERAL_ALIGNMENT || name.starts_with("split.") ||
            gguf_find_key(context, name.c_str()) >= 0 ||
            std::find(except.begin(), except.end(), name) != except.end()) {
            continue;
        }
        const GgufFile::RawValue value = file.raw_value(i);
        const auto type = static_cast<gguf_type>(value.type);
        if (type == GGUF_TYPE_STRING) {
            std::vector<std::string> texts;
            const std::byte * p = value.data;
            for (uint64_t j = 0; j < value.count; ++j) {
                const auto length = load<uint64_t>(p);
                texts.emplace_back(reinterpret_cast<const char *>(p) + 8, length);
                if (texts.back().find('\0') != std::string::npos) {
                    fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": metadata ", quoted(name),
                         " has a string with a NUL in it");
                }
                p += 8 + length;
            }
            if (value.is_array) {
                set_strings(name, texts);
            } else {
                set_string(name, texts.front());
            }
            continue;
        }
        const std::string key = impl_->new_key(name);
        if (value.is_array) {
            gguf_set_arr_data(context, key.c_str(), type, value.data, value.count);
            continue;
        }
        switch (type) {
            case GGUF_TYPE_UINT8: gguf_set_val_u8(context, key.c_str(), load<uint8_t>(value.data)); break;
            case GGUF_TYPE_INT8: gguf_set_val_i8(context, key.c_str(), load<int8_t>(value.data)); break;
            case GGUF_TYPE_UINT16: gguf_set_val_u16(context, key.c_str(), load<uint16_t>(value.data)); break;
            case GGUF_TYPE_INT16: gguf_set_val_i16(context, key.c_str(), load<int16_t>(value.data)); break;
            case GGUF_TYPE_UINT32: gguf_set_val_u32(context, key.c_str(), load<uint32_t>(value.data)); break;
            case GGUF_TYPE_INT32: gguf_set_val_i32(context, key.c_str(), load<int32_t>(value.data)); break;
            case GGUF_TYPE_UINT64: gguf_set_val_u64(context, key.c_str(), load<uint64_t>(value.data)); break;
            case GGUF_TYPE_INT64: gguf_set_val_i64(context, key.c_str(), load<int64_t>(value.data)); break;
            case GGUF_TYPE_FLOAT32: gguf_set_val_f32(context, key.c_str(), load<float>(value.data)); break;
            case GGUF_TYPE_FLOAT64: gguf_set_val_f64(context, key.c_str(), load<double>(value.data)); break;
            case GGUF_TYPE_BOOL: gguf_set_val_bool(context, key.c_str(), load<uint8_t>(value.data) != 0); break;
            default: fail(LORICA_ERROR_INTERNAL, file.path(), ": metadata ", quoted(name), " is of type ", value.type);
        }
    }
}

void GgufWriter::add_tensor(std::string_view name, ggml_type type, std::span<const int64_t> ne, DataSource data) {
    if (name.empty() || name.size() >= GGML_MAX_NAME || name.find('\0') != std::string_view::npos) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor name ", quoted(name), " must have 1 to ", GGML_MAX_NAME - 1,
             " bytes and no NUL");
    }
    if (ne.empty() || ne.size() > GGML_MAX_DIMS || type < 0 || type >= GGML_TYPE_COUNT || ggml_blck_size(type) <= 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", quoted(name), " needs 1 to ", GGML_MAX_DIMS,
             " dimensions and a type that ggml has");
    }

    // Only what gguf_add_tensor() reads: shape, strides, type and name. No ggml context is needed for that.
    ggml_tensor tensor{};
    tensor.type = type;
    std::memcpy(tensor.name, name.data(), name.size());
    int64_t n_elements = 1;
    for (size_t d = 0; d < GGML_MAX_DIMS; ++d) {
        tensor.ne[d] = d < ne.size() ? ne[d] : 1;
        // 8 bytes is the largest element of any type, so no byte count overflows either.
        if (tensor.ne[d] < 1 || __builtin_mul_overflow(n_elements, tensor.ne[d], &n_elements) ||
            n_elements > std::numeric_limits<int64_t>::max() / 8) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", quoted(name), ": dimension ", d, " is ", tensor.ne[d]);
        }
    }
    if (tensor.ne[0] % ggml_blck_size(type) != 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", quoted(name), ": rows of ", tensor.ne[0],
             " elements are no whole number of ", ggml_type_name(type), " blocks of ", ggml_blck_size(type));
    }
    tensor.nb[0] = ggml_type_size(type);
    tensor.nb[1] = ggml_row_size(type, tensor.ne[0]);
    for (size_t d = 2; d < GGML_MAX_DIMS; ++d) {
        tensor.nb[d] = tensor.nb[d - 1] * static_cast<size_t>(tensor.ne[d - 1]);
    }
    if (gguf_find_tensor(impl_->context.get(), tensor.name) >= 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", quoted(name), " is added twice");
    }
    impl_->sources.push_back(std::move(data));
    gguf_add_tensor(impl_->context.get(), &tensor);
}

void GgufWriter::add_tensor(std::string_view name, ggml_type type, std::initializer_list<int64_t> ne,
                            const void * data) {
    int64_t n_rows = 1;
    for (size_t d = 1; d < ne.size(); ++d) {
        n_rows *= ne.begin()[d];
    }
    const int64_t row = ne.size() > 0 ? *ne.begin() : 0;
    add_tensor(name, type, std::span(ne.begin(), ne.size()), [=] {
        return std::span(static_cast<const std::byte *>(data), ggml_row_size(type, row) * static_cast<size_t>(n_rows));
    });
}

std::vector<std::byte> GgufWriter::header() const {
    const gguf_context * context = impl_->context.get();
    std::vector<std::byte> bytes(gguf_get_meta_size(context));
    gguf_get_meta_data(context, bytes.data());
    return bytes;
}

void GgufWriter::write(const std::string & path) const {
    const gguf_context * context = impl_->context.get();
    AtomicFile file(path);

    const std::vector<std::byte> header = this->header();
    file.write(header.data(), header.size());

    const uint64_t alignment = gguf_get_alignment(context);
    for (size_t i = 0; i < impl_->sources.size(); ++i) {
        const auto id = static_cast<int64_t>(i);
        const uint64_t n_bytes = gguf_get_tensor_size(context, id),
                       start = header.size() + gguf_get_tensor_offset(context, id);
        uint64_t done = 0;
        do {
            const std::span<const std::byte> data = impl_->sources[i]();
            if (file.n_written() != start + done || data.empty() || data.size() > n_bytes - done) {
                fail(LORICA_ERROR_INTERNAL, path, ": tensor ", gguf_get_tensor_name(context, id), " got ", data.size(),
                     " bytes at byte ", file.n_written(), " and not what the header says");
            }
            file.write(data.data(), data.size());
            done += data.size();
        } while (done < n_bytes);
        file.write_zeros((alignment - n_bytes % alignment) % alignment);
    }
    file.commit();
}

}  // namespace lorica
