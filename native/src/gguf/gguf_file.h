// A GGUF v2 or v3 file, validated in full and memory-mapped read-only. Knows nothing of architectures.
//
// A model may be split into several files, NAME-00001-of-00003.gguf and so on, as llama.cpp's gguf-split writes them:
// tensors lie in all of them, metadata counts in the first, which is the one to open.
//
// The header is read by our own bounded parser and by nothing else. ggml's reader asserts on some inputs, and an
// assertion would take the JVM down; and once every field has been checked against the file's size there is nothing
// left for a second parser to find, only a second copy of the vocabulary to make. ggml gives the facts (type table,
// limits) and writes files (gguf_writer.h).
#pragma once

#include <ggml.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lorica {

// One tensor of a mapped file. Valid as long as the GgufFile it came from.
struct TensorView {
    std::string name;
    ggml_type type;
    std::array<int64_t, 4> ne;  // ggml order, unused dimensions 1
    int32_t n_dims;
    const std::byte * data;
    uint64_t offset;  // from the start of the file that it lies in
    uint64_t n_bytes;

    int64_t n_elements() const { return ne[0] * ne[1] * ne[2] * ne[3]; }
};

class GgufFile {
public:
    // Errors: IO (cannot open or read; of a split model, any of its files), FORMAT (says which field is wrong and
    // where), INVALID_ARGUMENT for a file of a split model that is not its first.
    // use_mmap false: read into memory, see MappedFile. OUT_OF_MEMORY as well then.
    static GgufFile open(const std::string & path, bool use_mmap = true);
    // The same over bytes of the caller, which must outlive the result; `name` stands in messages where the path would.
    // Of a split model, this file alone.
    static GgufFile from_memory(const std::string & name, std::span<const std::byte> bytes);
    GgufFile(GgufFile &&) noexcept;
    GgufFile & operator=(GgufFile &&) noexcept;
    ~GgufFile();

    const std::string & path() const;
    uint64_t n_bytes() const;  // of all files of a split model
    bool is_mapped() const;
    // Errors: IO when a part of a file was read that was cut off meanwhile; everything computed from it is of no use.
    void check_not_cut() const;
    // Errors: MISMATCH when a file is another than when it was mapped, by size, time or a sample.
    void check_unchanged() const;

    // Metadata entries in file order; i in [0, n_kv()).
    int64_t n_kv() const;
    const std::string & key(int64_t i) const;
    // JSON text. Bytes that are not UTF-8 become U+FFFD, numbers that are not finite null; arrays stop after max_array
    // elements (-1: never).
    std::string value_json(int64_t i, int64_t max_array) const;
    std::optional<int64_t> array_length(int64_t i) const;  // nullopt when it is no array

    // Typed look-ups. Absent keys give nullopt; a key of another type fails with FORMAT and names key and type.
    // Integers are widened from any integer type of the file and must be >= 0 and fit; floats come from f32 or f64 and
    // may be NaN.
    std::optional<int64_t> find_int(std::string_view key) const;
    std::optional<double> find_float(std::string_view key) const;
    std::optional<bool> find_bool(std::string_view key) const;
    std::optional<std::string> find_string(std::string_view key) const;
    std::optional<std::vector<std::string>> find_strings(std::string_view key) const;
    std::optional<std::vector<int64_t>> find_ints(std::string_view key) const;
    std::optional<std::vector<bool>> find_bools(std::string_view key) const;
    std::optional<std::vector<double>> find_floats(std::string_view key) const;

    // Metadata entry i as it lies in the file: `type` is gguf.h's gguf_type, of the elements when it is an array.
    // Strings are u64 length and bytes, one after another.
    struct RawValue {
        uint32_t type;
        bool is_array;
        uint64_t count;
        const std::byte * data;
    };
    RawValue raw_value(int64_t i) const;

    const std::vector<TensorView> & tensors() const;              // in file order, one file after another
    const TensorView * find_tensor(std::string_view name) const;  // nullptr when absent

    // What stands in for metadata of the file, or beside it: that of a GGUF file without tensors, in memory.
    void put_metadata(std::vector<std::byte> gguf);
    // Of a tensor that the file has, in its type: other rows.
    void put_rows(const std::string & name, int64_t n_rows, std::vector<std::byte> bytes);
    // What the file itself has of a tensor of tensors().
    const TensorView & as_in_file(const TensorView & tensor) const;
    bool is_in_file(const TensorView & tensor) const { return &as_in_file(tensor) == &tensor; }

private:
    struct Impl;
    explicit GgufFile(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace lorica
