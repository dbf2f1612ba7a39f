// Writes GGUF v3 files: header by ggml, tensors streamed one by one, the whole atomically.
#pragma once

#include <ggml.h>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "gguf/gguf_file.h"

namespace lorica {

//     GgufWriter writer;
//     writer.set_string("general.architecture", "llama");
//     writer.add_tensor("output_norm.weight", GGML_TYPE_F32, {n_embd}, norm.data());
//     writer.write("out.gguf");
//
// Every function fails with INVALID_ARGUMENT for what could not be read back: an empty or repeated name, one that is
// too long, a shape that is no whole number of blocks.
class GgufWriter {
public:
    GgufWriter();
    GgufWriter(GgufWriter &&) noexcept;
    GgufWriter & operator=(GgufWriter &&) noexcept;
    ~GgufWriter();

    void set_u32(std::string_view key, uint32_t value);
    void set_u64(std::string_view key, uint64_t value);
    void set_f32(std::string_view key, float value);
    void set_f64(std::string_view key, double value);
    void set_bool(std::string_view key, bool value);
    void set_string(std::string_view key, std::string_view value);  // ends before the first NUL
    void set_strings(std::string_view key, const std::vector<std::string> & values);
    void set_bools(std::string_view key, std::span<const bool> values);
    void set_u32s(std::string_view key, std::span<const int32_t> values);  // none below 0
    void set_i32s(std::string_view key, std::span<const int32_t> values);
    void set_f32s(std::string_view key, std::span<const float> values);

    // All metadata of a file but general.alignment, what says that a model is split, and the keys in `except`. What is
    // set already stays. Errors: UNSUPPORTED for a string with a NUL in it.
    void copy_metadata(const GgufFile & file, const std::vector<std::string> & except);

    // `data` gives the tensor's bytes when its turn comes, all at once or, in further calls, piece by piece; they need
    // to live until the next call of any such function, so a large file can be written through one small buffer.
    using DataSource = std::function<std::span<const std::byte>()>;
    void add_tensor(std::string_view name, ggml_type type, std::span<const int64_t> ne, DataSource data);
    // The same for data that lives until write() returns.
    void add_tensor(std::string_view name, ggml_type type, std::initializer_list<int64_t> ne, const void * data);

    // The file's beginning, before the data of the first tensor: all there is of a file without tensors.
    std::vector<std::byte> header() const;
    // Errors: IO; the file that was there then stays as it was. May be called again.
    void write(const std::string & path) const;

private:
    struct Impl;
    std::unique_ptr<Impl> impl_;
};

}  // namespace lorica
