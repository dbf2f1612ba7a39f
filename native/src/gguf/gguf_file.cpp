// The layout is that of the GGUF specification (docs/gguf.md in ggml's repository):
//   "GGUF", u32 version, u64 n_tensors, u64 n_kv,
//   n_kv x      { string key, u32 type, value },
//   n_tensors x { string name, u32 n_dims, u64 ne[n_dims], u32 type, u64 offset into the data section },
//   zeros up to general.alignment, data section.
// A string is u64 length and bytes; an array is u32 element type, u64 count and elements. All numbers are
// little-endian. Each file of a split model says in split.no which it is, from 0, and in split.count of how many;
// split.tensors.count is the number of tensors in all of them.
#include "gguf/gguf_file.h"

#include "common/error.h"
#include "common/mapped_file.h"
#include "common/quote.h"
#include "gguf/load.h"

#include <gguf.h>

#include <algorithm>
#include <bit>
#include <charconv>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>

namespace lorica {

static_assert(std::endian::native == std::endian::little, "weights are used where they lie in the file");

namespace {

// The specification's limit for keys; ggml's for tensor names is GGML_MAX_NAME with the terminating zero.
constexpr uint64_t max_key_bytes = 65535;
// The smallest encodings, against which counts are held before anything is reserved: an entry is a key of one byte
// and a value of one, a tensor a name of one byte and a single dimension.
constexpr uint64_t min_kv_bytes = 8 + 1 + 4 + 1;
constexpr uint64_t min_tensor_bytes = 8 + 1 + 4 + 8 + 4 + 8;
// Of a split model: their names have room for five digits.
constexpr int64_t max_files = 99999;
// The specification asks for a multiple of 8, which keeps every block type's fields aligned in memory.
constexpr uint64_t min_alignment = 8;

// 0 for strings, arrays and what is no type at all.
uint64_t scalar_size(uint32_t type) {
    switch (type) {
        case GGUF_TYPE_UINT8:
        case GGUF_TYPE_INT8:
        case GGUF_TYPE_BOOL: return 1;
        case GGUF_TYPE_UINT16:
        case GGUF_TYPE_INT16: return 2;
        case GGUF_TYPE_UINT32:
        case GGUF_TYPE_INT32:
        case GGUF_TYPE_FLOAT32: return 4;
        case GGUF_TYPE_UINT64:
        case GGUF_TYPE_INT64:
        case GGUF_TYPE_FLOAT64: return 8;
        default: return 0;
    }
}

bool is_integer(gguf_type type) {
    return scalar_size(type) != 0 && type != GGUF_TYPE_BOOL && type != GGUF_TYPE_FLOAT32 && type != GGUF_TYPE_FLOAT64;
}

bool is_float(gguf_type type) { return type == GGUF_TYPE_FLOAT32 || type == GGUF_TYPE_FLOAT64; }

// A checked string in the file: u64 length, then the bytes.
std::string_view string_at(const std::byte * p) {
    return {reinterpret_cast<const char *>(p) + 8, static_cast<size_t>(load<uint64_t>(p))};
}

struct Entry {
    std::string key;
    gguf_type type;  // of the value, or of the elements of an array
    bool is_array;
    uint64_t count;           // 1 for scalars
    const std::byte * value;  // the first element

    std::string type_name() const {
        return is_array ? std::string("array of ") + gguf_type_name(type) : std::string(gguf_type_name(type));
    }
};

// Reads the header front to back; every read is held against what is left.
class Cursor {
public:
    Cursor(const std::string & file, std::span<const std::byte> bytes) : file_(file), bytes_(bytes) {}

    uint64_t offset() const { return offset_; }
    uint64_t remaining() const { return bytes_.size() - offset_; }

    template <typename... Parts> [[noreturn]] void damaged(const std::string & field, const Parts &... parts) const {
        fail(LORICA_ERROR_FORMAT, file_, ": damaged GGUF file: ", field, ": ", parts..., " (at byte ", offset_, ")");
    }

    const std::byte * take(uint64_t n, const std::string & field) {
        if (n > remaining()) {
            damaged(field, "needs ", n, " bytes, but the file ends after ", remaining(), "; is it complete?");
        }
        const std::byte * p = bytes_.data() + offset_;
        offset_ += n;
        return p;
    }

    template <typename T> T read(const std::string & field) { return load<T>(take(sizeof(T), field)); }

    // Leaves the cursor at the string when it is refused, so that the message points there.
    std::string_view string(const std::string & field, uint64_t max_bytes = std::numeric_limits<uint64_t>::max()) {
        if (remaining() < 8) {
            take(8, field);
        }
        const auto length = load<uint64_t>(bytes_.data() + offset_);
        if (length > max_bytes) {
            damaged(field, "has ", length, " bytes, at most ", max_bytes, " are allowed");
        }
        if (length > remaining() - 8) {
            damaged(field, "has ", length, " bytes, but the file ends after ", remaining() - 8, "; is it complete?");
        }
        const std::byte * p = take(8 + length, field);
        return string_at(p);
    }

    // Keys and tensor names: not empty, and without a NUL, since C strings are made of them.
    std::string name(const std::string & field, uint64_t max_bytes) {
        const uint64_t start = offset_;
        std::string text(string(field, max_bytes));
        offset_ = start;
        if (text.empty()) {
            damaged(field, "is empty");
        }
        if (text.find('\0') != std::string::npos) {
            damaged(field, "contains a NUL byte");
        }
        offset_ = start + 8 + text.size();
        return text;
    }

private:
    const std::string & file_;
    std::span<const std::byte> bytes_;
    uint64_t offset_ = 0;
};

void check_bools(const Cursor & cursor, const std::string & field, const std::byte * p, uint64_t n) {
    for (uint64_t i = 0; i < n; ++i) {
        if (load<uint8_t>(p + i) > 1) {
            cursor.damaged(field, "a bool has the value ", int(load<uint8_t>(p + i)), ", 0 or 1 is allowed");
        }
    }
}

Entry read_entry(Cursor & cursor, int64_t index) {
    Entry entry;
    entry.key = cursor.name("key of metadata entry " + std::to_string(index), max_key_bytes);
    const std::string field = "metadata " + quoted(entry.key);

    auto type = cursor.read<uint32_t>(field);
    entry.is_array = type == GGUF_TYPE_ARRAY;
    entry.count = 1;
    if (entry.is_array) {
        type = cursor.read<uint32_t>(field);
        entry.count = cursor.read<uint64_t>(field);
        if (type == GGUF_TYPE_ARRAY) {
            cursor.damaged(field, "is an array of arrays, which no reader supports");
        }
    }
    if (scalar_size(type) == 0 && type != GGUF_TYPE_STRING) {
        cursor.damaged(field, "has the unknown value type ", type);
    }
    entry.type = static_cast<gguf_type>(type);

    const uint64_t element_bytes = type == GGUF_TYPE_STRING ? 8 : scalar_size(type);
    if (entry.count > cursor.remaining() / element_bytes) {
        cursor.damaged(field, "has ", entry.count, " elements of at least ", element_bytes,
                       " bytes, but the file ends after ", cursor.remaining(), " bytes; is it complete?");
    }
    if (type == GGUF_TYPE_STRING) {
        entry.value = cursor.take(0, field);
        for (uint64_t i = 0; i < entry.count; ++i) {
            cursor.string(field);
        }
    } else {
        entry.value = cursor.take(entry.count * element_bytes, field);
        if (type == GGUF_TYPE_BOOL) {
            check_bools(cursor, field, entry.value, entry.count);
        }
    }
    return entry;
}

// `offset` is still relative to the data section, whose place is known once all infos are read.
TensorView read_tensor_info(Cursor & cursor, int64_t index, uint64_t alignment) {
    TensorView tensor;
    tensor.name = cursor.name("name of tensor " + std::to_string(index), GGML_MAX_NAME - 1);
    const std::string field = "tensor " + quoted(tensor.name);

    const auto n_dims = cursor.read<uint32_t>(field);
    if (n_dims < 1 || n_dims > 4) {
        cursor.damaged(field, "has ", n_dims, " dimensions, 1 to 4 are allowed");
    }
    tensor.n_dims = static_cast<int32_t>(n_dims);
    tensor.ne = {1, 1, 1, 1};
    int64_t n_elements = 1;
    for (uint32_t d = 0; d < n_dims; ++d) {
        const auto ne = cursor.read<uint64_t>(field);
        if (ne == 0 || ne > uint64_t(std::numeric_limits<int64_t>::max()) ||
            __builtin_mul_overflow(n_elements, static_cast<int64_t>(ne), &n_elements)) {
            cursor.damaged(field, "dimension ", d, " is ", ne,
                           ne == 0 ? ", at least 1 is needed" : ", which is too large");
        }
        tensor.ne[d] = static_cast<int64_t>(ne);
    }

    const auto type = cursor.read<uint32_t>(field);
    if (type >= GGML_TYPE_COUNT) {
        cursor.damaged(field, "has the tensor type ", type, ", which is unknown; it may need a newer ggml");
    }
    tensor.type = static_cast<ggml_type>(type);
    const int64_t block = ggml_blck_size(tensor.type);
    if (block <= 0 || ggml_type_size(tensor.type) == 0) {
        cursor.damaged(field, "has the tensor type ", type, ", which ggml has removed; convert the model again");
    }
    if (tensor.ne[0] % block != 0) {
        cursor.damaged(field, "rows of ", tensor.ne[0], " elements are no whole number of ",
                       ggml_type_name(tensor.type), " blocks of ", block);
    }
    // In this order the products cannot pass n_elements * type_size, and that is checked.
    if (__builtin_mul_overflow(static_cast<uint64_t>(n_elements / block), uint64_t(ggml_type_size(tensor.type)),
                               &tensor.n_bytes)) {
        cursor.damaged(field, "has ", n_elements, " elements, which is too large");
    }

    tensor.offset = cursor.read<uint64_t>(field);
    if (tensor.offset % alignment != 0) {
        cursor.damaged(field, "lies at offset ", tensor.offset, ", which is no multiple of the alignment ", alignment);
    }
    return tensor;
}

// What people really open by mistake gets a message of its own.
void check_magic(const std::string & file, std::span<const std::byte> bytes) {
    if (bytes.empty()) {
        fail(LORICA_ERROR_FORMAT, file, ": the file is empty");
    }
    const std::string_view start(reinterpret_cast<const char *>(bytes.data()), std::min<size_t>(bytes.size(), 16));
    if (start.starts_with("GGUF")) {
        return;
    }
    if (start.starts_with("version https://")) {
        fail(LORICA_ERROR_FORMAT, file, ": is a Git LFS pointer and not the model; fetch it with \"git lfs pull\"");
    }
    for (const char * old : {"tjgg", "lmgg", "fmgg"}) {
        if (start.starts_with(old)) {
            fail(LORICA_ERROR_FORMAT, file, ": is a GGML file from before GGUF; convert the original model again");
        }
    }
    fail(LORICA_ERROR_FORMAT, file, ": not a GGUF file: it starts with ", quoted(start.substr(0, 4)),
         " instead of \"GGUF\"");
}

void append_json_string(std::string & out, std::string_view text) {
    static constexpr char hex[] = "0123456789abcdef";
    out += '"';
    while (!text.empty()) {
        const size_t length = utf8_character_length(text);
        const auto byte = static_cast<uint8_t>(text[0]);
        if (length == 0) {
            out += "\xef\xbf\xbd";
        } else if (byte == '"' || byte == '\\') {
            out += '\\';
            out += text[0];
        } else if (byte < 0x20) {
            out += "\\u00";
            out += hex[byte >> 4];
            out += hex[byte & 15];
        } else {
            out += text.substr(0, length);
        }
        text.remove_prefix(std::max<size_t>(length, 1));
    }
    out += '"';
}

template <typename T> void append_json_number(std::string & out, T value) {
    if constexpr (std::is_floating_point_v<T>) {
        if (!std::isfinite(value)) {
            out += "null";
            return;
        }
    }
    char buffer[64];
    const auto end = std::to_chars(buffer, buffer + sizeof(buffer), value).ptr;
    out.append(buffer, end);
}

double float_at(gguf_type type, const std::byte * p) {
    return type == GGUF_TYPE_FLOAT32 ? load<float>(p) : load<double>(p);
}

// The size of the element at p, and its JSON text appended.
uint64_t append_json_element(std::string & out, gguf_type type, const std::byte * p) {
    switch (type) {
        case GGUF_TYPE_UINT8: append_json_number(out, load<uint8_t>(p)); break;
        case GGUF_TYPE_INT8: append_json_number(out, load<int8_t>(p)); break;
        case GGUF_TYPE_UINT16: append_json_number(out, load<uint16_t>(p)); break;
        case GGUF_TYPE_INT16: append_json_number(out, load<int16_t>(p)); break;
        case GGUF_TYPE_UINT32: append_json_number(out, load<uint32_t>(p)); break;
        case GGUF_TYPE_INT32: append_json_number(out, load<int32_t>(p)); break;
        case GGUF_TYPE_UINT64: append_json_number(out, load<uint64_t>(p)); break;
        case GGUF_TYPE_INT64: append_json_number(out, load<int64_t>(p)); break;
        case GGUF_TYPE_FLOAT32: append_json_number(out, load<float>(p)); break;
        case GGUF_TYPE_FLOAT64: append_json_number(out, load<double>(p)); break;
        case GGUF_TYPE_BOOL: out += load<uint8_t>(p) != 0 ? "true" : "false"; break;
        default: append_json_string(out, string_at(p)); return 8 + string_at(p).size();
    }
    return scalar_size(type);
}

// NAME-00002-of-00003.gguf for index 1 of 3.
std::string split_name(const std::string & name, int64_t index, int64_t count) {
    const auto five_digits = [](int64_t n) {
        const std::string digits = std::to_string(n);
        return std::string(5 - std::min<size_t>(digits.size(), 5), '0') + digits;
    };
    return name + "-" + five_digits(index + 1) + "-of-" + five_digits(count) + ".gguf";
}

}  // namespace

struct GgufFile::Impl {
    std::string path;
    std::vector<MappedFile> files;     // none when the bytes are the caller's, several of a split model
    std::span<const std::byte> bytes;  // of the first
    std::vector<Entry> entries;
    std::vector<TensorView> tensors;
    // Views of the names in the vectors above.
    std::unordered_map<std::string_view, size_t> entry_of_key;
    std::unordered_map<std::string_view, size_t> tensor_of_name;
    // Of put_metadata() and put_rows().
    std::vector<std::vector<std::byte>> put;
    std::unordered_map<std::string, TensorView> of_file;

    static std::unique_ptr<Impl> open(const std::string & path, bool use_mmap);
    void parse();
    void add_other_files(bool use_mmap);
    void place_tensors(const Cursor & cursor, uint64_t alignment);

    const Entry * find(std::string_view key) const {
        const auto found = entry_of_key.find(key);
        return found == entry_of_key.end() ? nullptr : &entries[found->second];
    }
    [[noreturn]] void wrong_type(const Entry & entry, const char * wanted) const {
        fail(LORICA_ERROR_FORMAT, path, ": metadata ", quoted(entry.key), " is of type ", entry.type_name(),
             ", expected ", wanted);
    }
    int64_t int_element(const Entry & entry, uint64_t i) const;
    std::optional<int64_t> find_int(std::string_view key) const;
    void check_not_cut() const {
        for (const MappedFile & file : files) {
            if (file.is_cut()) fail(LORICA_ERROR_IO, path, ": the file was cut off while it was in use");
        }
    }
};

std::unique_ptr<GgufFile::Impl> GgufFile::Impl::open(const std::string & path, bool use_mmap) {
    auto impl = std::make_unique<Impl>();
    impl->path = path;
    impl->files.emplace_back(path, !use_mmap);
    impl->bytes = impl->files.front().bytes();
    impl->parse();
    return impl;
}

void GgufFile::Impl::parse() {
    check_magic(path, bytes);
    Cursor cursor(path, bytes);
    cursor.take(4, "magic");
    const auto version = cursor.read<uint32_t>("version");
    if ((version & 0xffff) == 0) {
        fail(LORICA_ERROR_FORMAT, path, ": GGUF version ", version,
             " (at byte 4): the file seems to be big-endian, which is ",
             "not supported; convert the model for a little-endian machine");
    }
    if (version != 2 && version != 3) {
        fail(LORICA_ERROR_FORMAT, path, ": GGUF version ", version, " (at byte 4) is not supported, only 2 and 3 are");
    }
    const auto n_tensors = cursor.read<uint64_t>("number of tensors");
    const auto n_kv = cursor.read<uint64_t>("number of metadata entries");
    // n_kv first: dividing what remains by the smallest size also keeps the sums below from overflowing.
    if (n_kv > cursor.remaining() / min_kv_bytes) {
        cursor.damaged("number of metadata entries", n_kv, " cannot fit in a file of ", bytes.size(), " bytes");
    }
    if (n_tensors > cursor.remaining() / min_tensor_bytes) {
        cursor.damaged("number of tensors", n_tensors, " cannot fit in a file of ", bytes.size(), " bytes");
    }

    // No reserve(): an Entry is larger than its smallest encoding, and the counts are not proven yet.
    for (uint64_t i = 0; i < n_kv; ++i) {
        entries.push_back(read_entry(cursor, static_cast<int64_t>(i)));
    }
    for (size_t i = 0; i < entries.size(); ++i) {
        if (!entry_of_key.emplace(entries[i].key, i).second) {
            cursor.damaged("metadata " + quoted(entries[i].key), "is there twice");
        }
    }

    uint64_t alignment = GGUF_DEFAULT_ALIGNMENT;
    if (const Entry * entry = find(GGUF_KEY_GENERAL_ALIGNMENT)) {
        if (entry->is_array || entry->type != GGUF_TYPE_UINT32) {
            wrong_type(*entry, "u32");
        }
        alignment = load<uint32_t>(entry->value);
        if (alignment < min_alignment || !std::has_single_bit(alignment)) {
            cursor.damaged("metadata " + quoted(entry->key), "is ", alignment, ", a power of two from ", min_alignment,
                           " is needed");
        }
    }

    for (uint64_t i = 0; i < n_tensors; ++i) {
        tensors.push_back(read_tensor_info(cursor, static_cast<int64_t>(i), alignment));
    }
    for (size_t i = 0; i < tensors.size(); ++i) {
        if (!tensor_of_name.emplace(tensors[i].name, i).second) {
            cursor.damaged("tensor " + quoted(tensors[i].name), "is there twice");
        }
    }
    place_tensors(cursor, alignment);
}

// The tensors of the other files of a split model.
void GgufFile::Impl::add_other_files(bool use_mmap) {
    const int64_t count = find_int("split.count").value_or(1), index = find_int("split.no").value_or(0);
    if (count <= 1) {
        return;
    }
    if (count > max_files || index >= count) {
        fail(LORICA_ERROR_FORMAT, path, ": its metadata says that it is number ", index, ", from 0, of ", count,
             " files of a model");
    }
    const std::string of_this = split_name("", index, count), of_first = split_name("", 0, count);
    if (!path.ends_with(of_this)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, path, ": is one of ", count,
             " files of a model, and its name must end with ", of_this, " for the others to be found beside it");
    }
    const std::string name = path.substr(0, path.size() - of_this.size());
    if (index > 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, path, ": is one of ", count, " files of a model; open the first, ", name,
             of_first);
    }
    for (int64_t i = 1; i < count; ++i) {
        const std::unique_ptr<Impl> other = open(split_name(name, i, count), use_mmap);
        if (other->find_int("split.count") != count || other->find_int("split.no") != i) {
            fail(LORICA_ERROR_FORMAT, other->path, ": belongs to another model than ", path,
                 ": its metadata does not say that it is number ", i + 1, " of ", count);
        }
        files.push_back(std::move(other->files.front()));
        tensors.insert(tensors.end(), other->tensors.begin(), other->tensors.end());
    }
    // The names have moved.
    tensor_of_name.clear();
    for (size_t i = 0; i < tensors.size(); ++i) {
        if (!tensor_of_name.emplace(tensors[i].name, i).second) {
            fail(LORICA_ERROR_FORMAT, path, ": tensor ", quoted(tensors[i].name), " is in two of the ", count,
                 " files of the model");
        }
    }
    const auto expected = find_int("split.tensors.count");
    if (expected && *expected != static_cast<int64_t>(tensors.size())) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata \"split.tensors.count\" is ", *expected, ", but the ", count,
             " files of the model hold ", tensors.size(), " tensors");
    }
}

// Turns offsets into pointers: inside the file, and no byte in two tensors.
void GgufFile::Impl::place_tensors(const Cursor & cursor, uint64_t alignment) {
    if (tensors.empty()) {
        return;  // vocabulary-only files may end without the padding
    }
    const uint64_t data_start = (cursor.offset() + alignment - 1) / alignment * alignment;
    if (data_start > bytes.size()) {
        cursor.damaged("tensor data", "starts at byte ", data_start, ", but the file has ", bytes.size(),
                       "; is it complete?");
    }
    const uint64_t data_bytes = bytes.size() - data_start;
    for (TensorView & tensor : tensors) {
        if (tensor.offset > data_bytes || tensor.n_bytes > data_bytes - tensor.offset) {
            cursor.damaged("tensor " + quoted(tensor.name), "has ", tensor.n_bytes, " bytes at offset ", tensor.offset,
                           " of ", data_bytes, " bytes of tensor data; is the file complete?");
        }
        tensor.offset += data_start;
        tensor.data = bytes.data() + tensor.offset;
    }

    std::vector<const TensorView *> by_offset;
    for (const TensorView & tensor : tensors) {
        by_offset.push_back(&tensor);
    }
    std::sort(by_offset.begin(), by_offset.end(), [](auto * a, auto * b) { return a->offset < b->offset; });
    for (size_t i = 1; i < by_offset.size(); ++i) {
        const TensorView & before = *by_offset[i - 1];
        if (by_offset[i]->offset < before.offset + before.n_bytes) {
            cursor.damaged("tensor " + quoted(by_offset[i]->name), "overlaps tensor ", quoted(before.name));
        }
    }
}

int64_t GgufFile::Impl::int_element(const Entry & entry, uint64_t i) const {
    const std::byte * p = entry.value + i * scalar_size(entry.type);
    int64_t value = 0;
    switch (entry.type) {
        case GGUF_TYPE_UINT8: return load<uint8_t>(p);
        case GGUF_TYPE_UINT16: return load<uint16_t>(p);
        case GGUF_TYPE_UINT32: return load<uint32_t>(p);
        case GGUF_TYPE_INT8: value = load<int8_t>(p); break;
        case GGUF_TYPE_INT16: value = load<int16_t>(p); break;
        case GGUF_TYPE_INT32: value = load<int32_t>(p); break;
        case GGUF_TYPE_UINT64:
            if (load<uint64_t>(p) > uint64_t(std::numeric_limits<int64_t>::max())) {
                fail(LORICA_ERROR_FORMAT, path, ": metadata ", quoted(entry.key), " is ", load<uint64_t>(p),
                     ", which is too large");
            }
            [[fallthrough]];
        default: value = load<int64_t>(p);
    }
    if (value < 0) {
        fail(LORICA_ERROR_FORMAT, path, ": metadata ", quoted(entry.key), " is ", value, ", at least 0 is needed");
    }
    return value;
}

std::optional<int64_t> GgufFile::Impl::find_int(std::string_view key) const {
    const Entry * entry = find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (entry->is_array || !is_integer(entry->type)) {
        wrong_type(*entry, "an integer");
    }
    return int_element(*entry, 0);
}

GgufFile::GgufFile(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
GgufFile::GgufFile(GgufFile &&) noexcept = default;
GgufFile & GgufFile::operator=(GgufFile &&) noexcept = default;
GgufFile::~GgufFile() = default;

GgufFile GgufFile::open(const std::string & path, bool use_mmap) {
    auto impl = Impl::open(path, use_mmap);
    impl->add_other_files(use_mmap);
    impl->check_not_cut();
    return GgufFile(std::move(impl));
}

GgufFile GgufFile::from_memory(const std::string & name, std::span<const std::byte> bytes) {
    auto impl = std::make_unique<Impl>();
    impl->path = name;
    impl->bytes = bytes;
    impl->parse();
    return GgufFile(std::move(impl));
}

const std::string & GgufFile::path() const { return impl_->path; }
uint64_t GgufFile::n_bytes() const {
    uint64_t sum = impl_->files.empty() ? impl_->bytes.size() : 0;
    for (const MappedFile & file : impl_->files) {
        sum += file.bytes().size();
    }
    return sum;
}

bool GgufFile::is_mapped() const {
    return std::any_of(impl_->files.begin(), impl_->files.end(), [](const auto & file) { return file.is_mapped(); });
}

void GgufFile::check_not_cut() const { impl_->check_not_cut(); }

void GgufFile::check_unchanged() const {
    for (const MappedFile & file : impl_->files) file.check_unchanged();
}

int64_t GgufFile::n_kv() const { return static_cast<int64_t>(impl_->entries.size()); }
const std::string & GgufFile::key(int64_t i) const { return impl_->entries.at(static_cast<size_t>(i)).key; }

std::string GgufFile::value_json(int64_t i, int64_t max_array) const {
    const Entry & entry = impl_->entries.at(static_cast<size_t>(i));
    std::string out;
    if (!entry.is_array) {
        append_json_element(out, entry.type, entry.value);
        return out;
    }
    const uint64_t count = max_array < 0 ? entry.count : std::min(entry.count, static_cast<uint64_t>(max_array));
    const std::byte * p = entry.value;
    out += '[';
    for (uint64_t element = 0; element < count; ++element) {
        if (element > 0) {
            out += ',';
        }
        p += append_json_element(out, entry.type, p);
    }
    return out + ']';
}

GgufFile::RawValue GgufFile::raw_value(int64_t i) const {
    const Entry & entry = impl_->entries.at(static_cast<size_t>(i));
    return {entry.type, entry.is_array, entry.count, entry.value};
}

std::optional<int64_t> GgufFile::array_length(int64_t i) const {
    const Entry & entry = impl_->entries.at(static_cast<size_t>(i));
    return entry.is_array ? std::optional(static_cast<int64_t>(entry.count)) : std::nullopt;
}

std::optional<int64_t> GgufFile::find_int(std::string_view key) const { return impl_->find_int(key); }

std::optional<double> GgufFile::find_float(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (entry->is_array || !is_float(entry->type)) {
        impl_->wrong_type(*entry, "f32 or f64");
    }
    return float_at(entry->type, entry->value);
}

std::optional<bool> GgufFile::find_bool(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (entry->is_array || entry->type != GGUF_TYPE_BOOL) {
        impl_->wrong_type(*entry, "bool");
    }
    return load<uint8_t>(entry->value) != 0;
}

std::optional<std::string> GgufFile::find_string(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (entry->is_array || entry->type != GGUF_TYPE_STRING) {
        impl_->wrong_type(*entry, "str");
    }
    return std::string(string_at(entry->value));
}

std::optional<std::vector<std::string>> GgufFile::find_strings(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (!entry->is_array || entry->type != GGUF_TYPE_STRING) {
        impl_->wrong_type(*entry, "array of str");
    }
    std::vector<std::string> values;
    values.reserve(entry->count);
    const std::byte * p = entry->value;
    for (uint64_t i = 0; i < entry->count; ++i) {
        values.emplace_back(string_at(p));
        p += 8 + values.back().size();
    }
    return values;
}

std::optional<std::vector<int64_t>> GgufFile::find_ints(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (!entry->is_array || !is_integer(entry->type)) {
        impl_->wrong_type(*entry, "array of integers");
    }
    std::vector<int64_t> values(entry->count);
    for (uint64_t i = 0; i < entry->count; ++i) {
        values[i] = impl_->int_element(*entry, i);
    }
    return values;
}

std::optional<std::vector<bool>> GgufFile::find_bools(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (!entry->is_array || entry->type != GGUF_TYPE_BOOL) {
        impl_->wrong_type(*entry, "array of bool");
    }
    std::vector<bool> values;
    for (uint64_t i = 0; i < entry->count; ++i) {
        values.push_back(load<uint8_t>(entry->value + i) != 0);
    }
    return values;
}

std::optional<std::vector<double>> GgufFile::find_floats(std::string_view key) const {
    const Entry * entry = impl_->find(key);
    if (entry == nullptr) {
        return std::nullopt;
    }
    if (!entry->is_array || !is_float(entry->type)) {
        impl_->wrong_type(*entry, "array of f32 or f64");
    }
    std::vector<double> values(entry->count);
    for (uint64_t i = 0; i < entry->count; ++i) {
        values[i] = float_at(entry->type, entry->value + i * scalar_size(entry->type));
    }
    return values;
}

void GgufFile::put_metadata(std::vector<std::byte> gguf) {
    const GgufFile other = from_memory(path(), gguf);
    for (const Entry & entry : other.impl_->entries) {
        const auto found = impl_->entry_of_key.find(entry.key);
        if (found == impl_->entry_of_key.end()) {
            impl_->entries.push_back(entry);
        } else {
            impl_->entries[found->second] = entry;
        }
        // The keys may have moved.
        impl_->entry_of_key.clear();
        for (size_t i = 0; i < impl_->entries.size(); ++i) impl_->entry_of_key.emplace(impl_->entries[i].key, i);
    }
    impl_->put.push_back(std::move(gguf));
}

void GgufFile::put_rows(const std::string & name, int64_t n_rows, std::vector<std::byte> bytes) {
    const auto found = impl_->tensor_of_name.find(name);
    if (found == impl_->tensor_of_name.end()) fail(LORICA_ERROR_INTERNAL, path(), " has no tensor ", quoted(name));
    TensorView & tensor = impl_->tensors[found->second];
    if (tensor.n_dims != 2 || bytes.size() != static_cast<size_t>(n_rows) * ggml_row_size(tensor.type, tensor.ne[0]))
        fail(LORICA_ERROR_INTERNAL, "tensor ", quoted(name), " is given ", bytes.size(), " bytes");
    impl_->of_file.emplace(name, tensor);
    impl_->put.push_back(std::move(bytes));
    tensor.ne[1] = n_rows;
    tensor.n_bytes = impl_->put.back().size();
    tensor.data = impl_->put.back().data();
}

const TensorView & GgufFile::as_in_file(const TensorView & tensor) const {
    const auto found = impl_->of_file.find(tensor.name);
    return found == impl_->of_file.end() ? tensor : found->second;
}

const std::vector<TensorView> & GgufFile::tensors() const { return impl_->tensors; }

const TensorView * GgufFile::find_tensor(std::string_view name) const {
    const auto found = impl_->tensor_of_name.find(name);
    return found == impl_->tensor_of_name.end() ? nullptr : &impl_->tensors[found->second];
}

}  // namespace lorica
