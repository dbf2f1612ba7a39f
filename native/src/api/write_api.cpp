#include <algorithm>
#include <map>

#include "api/api.h"
#include "api/handles.h"
#include "common/atomic_file.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "write/row_stream.h"
#include "write/tensor_source.h"
#include "write/tensor_types.h"
#include "write/write_model.h"

using lorica::api::guarded;
using lorica::api::require;

struct lorica_gguf_writer {
    lorica::GgufWriter writer;
    lorica::RowStreams streams{0};
    std::map<std::string, std::shared_ptr<const lorica::MappedFile>> files;  // by path
};

namespace {

lorica::WriteConfig write_config(const lorica_write_params * params) {
    lorica_write_params p{sizeof p, nullptr, 0};
    if (params) lorica::api::read_struct(params, "params", p);
    if (p.n_threads < 0)
        lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n_threads is ", p.n_threads, "; it must be at least 0");
    lorica::WriteConfig config;
    if (p.type) config.type = p.type;
    config.n_threads = p.n_threads;
    return config;
}

template <typename Set> lorica_status set_value(lorica_gguf_writer * writer, const char * key, Set && set) {
    return guarded([&] {
        require(writer, "writer");
        require(key, "key");
        set(writer->writer);
    });
}

template <typename T> std::span<const T> checked_span(const T * values, int64_t n) {
    if (n < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n is ", n, "; it must be at least 0");
    if (n > 0) require(values, "values");
    return {values, static_cast<size_t>(n)};
}

}  // namespace

std::vector<std::byte> lorica::api::metadata_of(const lorica_gguf_writer & writer) { return writer.writer.header(); }

lorica_status lorica_write_default_params(lorica_write_params * params) {
    return guarded([&] {
        lorica::api::write_struct(lorica_write_params{sizeof(lorica_write_params), nullptr, 0}, "params", params);
    });
}

lorica_status lorica_merge(const lorica_model * model, const lorica_adapter * adapter, const char * path,
                           const lorica_write_params * params) {
    return guarded([&] {
        require(model, "model");
        require(path, "path");
        lorica::merge_model(*model->model, adapter ? adapter->adapter.get() : nullptr, path, write_config(params));
    });
}

lorica_status lorica_quantize(const char * source, const char * target, const lorica_write_params * params) {
    return guarded([&] {
        require(source, "source");
        require(target, "target");
        lorica::quantize_model(source, target, write_config(params));
    });
}

lorica_status lorica_add_tokens(const char * source, const char * const * tokens, int64_t n_tokens,
                                const char * target) {
    return guarded([&] {
        require(source, "source");
        require(target, "target");
        std::vector<std::string> texts;
        for (const char * token : checked_span(tokens, n_tokens)) {
            require(token, "a token");
            texts.emplace_back(token);
        }
        lorica::add_tokens(source, texts, target);
    });
}

lorica_status lorica_gguf_writer_create(lorica_gguf_writer ** out) {
    return guarded([&] {
        require(out, "out");
        *out = new lorica_gguf_writer;
    });
}

void lorica_gguf_writer_free(lorica_gguf_writer * writer) { delete writer; }

lorica_status lorica_gguf_writer_set_u32(lorica_gguf_writer * writer, const char * key, uint32_t value) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_u32(key, value); });
}

lorica_status lorica_gguf_writer_set_f32(lorica_gguf_writer * writer, const char * key, float value) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_f32(key, value); });
}

lorica_status lorica_gguf_writer_set_bool(lorica_gguf_writer * writer, const char * key, bool value) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_bool(key, value); });
}

lorica_status lorica_gguf_writer_set_string(lorica_gguf_writer * writer, const char * key, const char * value) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) {
        require(value, "value");
        w.set_string(key, value);
    });
}

lorica_status lorica_gguf_writer_set_strings(lorica_gguf_writer * writer, const char * key, const char * bytes,
                                             const int64_t * offsets, int64_t n) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) {
        require(offsets, "offsets");
        if (n < 0) lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "n is ", n, "; it must be at least 0");
        std::vector<std::string> values;
        for (int64_t i = 0; i < n; ++i) {
            if (offsets[i] < 0 || offsets[i + 1] < offsets[i]) {
                lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "offsets of string ", i, " of ", key, " are ", offsets[i],
                             " and ", offsets[i + 1]);
            }
            if (offsets[i + 1] > 0) require(bytes, "bytes");
            values.emplace_back(bytes + offsets[i], bytes + offsets[i + 1]);
        }
        w.set_strings(key, values);
    });
}

lorica_status lorica_gguf_writer_set_bools(lorica_gguf_writer * writer, const char * key, const bool * values,
                                           int64_t n) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_bools(key, checked_span(values, n)); });
}

lorica_status lorica_gguf_writer_set_i32s(lorica_gguf_writer * writer, const char * key, const int32_t * values,
                                          int64_t n) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_i32s(key, checked_span(values, n)); });
}

lorica_status lorica_gguf_writer_set_f32s(lorica_gguf_writer * writer, const char * key, const float * values,
                                          int64_t n) {
    return set_value(writer, key, [&](lorica::GgufWriter & w) { w.set_f32s(key, checked_span(values, n)); });
}

lorica_status lorica_gguf_writer_add_tensor(lorica_gguf_writer * writer, const char * name, const char * type,
                                            int64_t rows, int64_t cols, const lorica_tensor_source * source) {
    return guarded([&] {
        require(writer, "writer");
        require(name, "name");
        require(type, "type");
        lorica_tensor_source from{};
        lorica::api::read_struct(source, "source", from);
        require(from.path, "source.path");
        require(from.type, "source.type");
        if (rows < 0 || cols < 1)
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", name, " has ", rows, " rows and ", cols, " columns");
        const std::string path = from.path;
        auto & file = writer->files[path];
        if (!file) file = std::make_shared<lorica::MappedFile>(path);
        const ggml_type from_type = lorica::plain_type(from.type), to = lorica::plain_type(type);
        const int64_t n_rows = std::max<int64_t>(rows, 1);
        const std::span<const int64_t> order(from.row_order, from.row_order ? static_cast<size_t>(n_rows) : 0);
        auto values = lorica::rows_of_file(file, path, from.offset, from_type, n_rows, cols, order, from.transposed);
        const int64_t ne[] = {cols, rows};
        writer->writer.add_tensor(name, to, std::span(ne, rows > 0 ? 2 : 1),
                                  writer->streams.stream(name, to, n_rows, cols, std::move(values)));
    });
}

lorica_status lorica_gguf_writer_add_vector(lorica_gguf_writer * writer, const char * name, const float * values,
                                            int64_t n) {
    return guarded([&] {
        require(writer, "writer");
        require(name, "name");
        const auto copy = checked_span(values, n);
        const auto kept = std::make_shared<const std::vector<float>>(copy.begin(), copy.end());
        const int64_t ne[] = {n};
        writer->writer.add_tensor(name, GGML_TYPE_F32, ne, [kept] { return std::as_bytes(std::span(*kept)); });
    });
}

lorica_status lorica_gguf_writer_write(lorica_gguf_writer * writer, const char * path) {
    return guarded([&] {
        require(writer, "writer");
        require(path, "path");
        for (const auto & [source, file] : writer->files) lorica::require_other_file(path, source);
        writer->writer.write(path);
    });
}
