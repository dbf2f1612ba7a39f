// Reading GGUF: what a sound file gives, and which message each kind of damage gets.
#include "gguf/gguf_file.h"
#include "gguf/dequantize.h"
#include "gguf/gguf_writer.h"
#include "support/expect_error.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"
#include "support/test_model.h"

#include <gmock/gmock.h>
#include <sys/stat.h>

#include <cmath>
#include <limits>

namespace lorica {
namespace {

using test::expect_error;
using test::RawGguf;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

GgufFile parse(const RawGguf & raw) { return GgufFile::from_memory("test.gguf", raw.data()); }

void expect_damaged(const RawGguf & raw, const testing::Matcher<std::string> & message) {
    expect_error(LORICA_ERROR_FORMAT, AllOf(HasSubstr("test.gguf: "), message), [&] { parse(raw); });
}

// One F32 tensor of 8 values, and whatever entries `kv` writes.
template <typename Entries> RawGguf file_with(uint64_t n_kv, Entries kv) {
    RawGguf raw;
    raw.header(3, 1, n_kv);
    kv(raw);
    raw.tensor("weight", {8}, GGML_TYPE_F32, 0).pad().zeros(32);
    return raw;
}

// Only tensor infos and n_data bytes of data.
template <typename Tensors> RawGguf file_with_tensors(uint64_t n, size_t n_data, Tensors tensors) {
    RawGguf raw;
    raw.header(3, n, 0);
    tensors(raw);
    raw.pad().zeros(n_data);
    return raw;
}

TEST(GgufFileTest, gives_what_the_writer_wrote) {
    TempDir dir;
    const std::vector<float> values = test::random_values(1, 1, 6);
    const std::vector<std::byte> blocks = test::quantize(GGML_TYPE_Q8_0, test::random_values(1, 2, 128), 64);
    GgufWriter writer;
    writer.set_string("general.architecture", "llama");
    writer.set_u32("n", 7);
    writer.set_u64("big", uint64_t{1} << 40);
    writer.set_f32("eps", 1e-5f);
    writer.set_bool("flag", true);
    writer.set_strings("words", {"a", "", "é\n"});
    writer.set_i32s("types", std::vector<int32_t>{1, 2, 3});
    writer.set_f32s("scores", std::vector<float>{0.5f, -1.0f});
    writer.add_tensor("a", GGML_TYPE_F32, {3, 2}, values.data());
    writer.add_tensor("b", GGML_TYPE_Q8_0, {64, 1, 2}, blocks.data());
    writer.write(dir / "file.gguf");

    const GgufFile file = GgufFile::open(dir / "file.gguf");
    EXPECT_EQ(file.path(), dir / "file.gguf");
    EXPECT_EQ(file.n_bytes(), std::filesystem::file_size(dir / "file.gguf"));
    EXPECT_EQ(file.n_kv(), 8);
    EXPECT_EQ(file.key(0), "general.architecture");
    EXPECT_EQ(file.find_string("general.architecture"), "llama");
    EXPECT_EQ(file.find_int("n"), 7);
    EXPECT_EQ(file.find_int("big"), int64_t{1} << 40);
    EXPECT_EQ(file.find_float("eps"), double{1e-5f});
    EXPECT_EQ(file.find_bool("flag"), true);
    EXPECT_THAT(file.find_strings("words").value(), ElementsAre("a", "", "é\n"));
    EXPECT_THAT(file.find_ints("types").value(), ElementsAre(1, 2, 3));
    EXPECT_THAT(file.find_floats("scores").value(), ElementsAre(0.5, -1.0));
    EXPECT_EQ(file.find_int("absent"), std::nullopt);
    EXPECT_EQ(file.find_strings("absent"), std::nullopt);

    ASSERT_EQ(file.tensors().size(), 2u);
    const TensorView * a = file.find_tensor("a");
    const TensorView * b = file.find_tensor("b");
    ASSERT_TRUE(a != nullptr && b != nullptr);
    EXPECT_EQ(file.find_tensor("c"), nullptr);
    EXPECT_EQ(a->type, GGML_TYPE_F32);
    EXPECT_THAT(a->ne, ElementsAre(3, 2, 1, 1));
    EXPECT_EQ(a->n_dims, 2);
    EXPECT_EQ(a->n_bytes, 24u);
    EXPECT_EQ(std::memcmp(a->data, values.data(), 24), 0);
    EXPECT_THAT(b->ne, ElementsAre(64, 1, 2, 1));
    EXPECT_EQ(b->n_dims, 3);
    EXPECT_EQ(b->n_elements(), 128);
    EXPECT_EQ(std::vector(b->data, b->data + b->n_bytes), blocks);
    EXPECT_EQ(b->offset % GGUF_DEFAULT_ALIGNMENT, 0u);
}

// Number `index` of `count` files of a model with one tensor each, of 8 values, all of them `index`.
GgufWriter file_of_split(uint32_t index, uint32_t count, const std::string & tensor, std::vector<float> & values) {
    values.assign(8, static_cast<float>(index));
    GgufWriter writer;
    if (index == 0) writer.set_string("general.architecture", "llama");
    writer.set_u32("split.no", index);
    writer.set_u32("split.count", count);
    writer.set_u32("split.tensors.count", count);
    writer.add_tensor(tensor, GGML_TYPE_F32, {8}, values.data());
    return writer;
}

TEST(GgufFileTest, reads_a_model_in_several_files) {
    TempDir dir;
    std::vector<float> values[3];
    uint64_t n_bytes = 0;
    for (uint32_t i = 0; i < 3; ++i) {
        const std::string path = dir / ("m-0000" + std::to_string(i + 1) + "-of-00003.gguf");
        file_of_split(i, 3, "t" + std::to_string(i), values[i]).write(path);
        n_bytes += std::filesystem::file_size(path);
    }
    const GgufFile file = GgufFile::open(dir / "m-00001-of-00003.gguf");
    EXPECT_EQ(file.find_string("general.architecture"), "llama");
    EXPECT_EQ(file.n_bytes(), n_bytes);
    ASSERT_EQ(file.tensors().size(), 3u);
    for (size_t i = 0; i < 3; ++i) {
        const TensorView * tensor = file.find_tensor("t" + std::to_string(i));
        ASSERT_EQ(tensor, &file.tensors()[i]);
        EXPECT_EQ(std::memcmp(tensor->data, values[i].data(), 32), 0);
    }

    GgufWriter whole;
    whole.copy_metadata(file, {});
    whole.write(dir / "whole.gguf");
    const GgufFile written = GgufFile::open(dir / "whole.gguf");
    EXPECT_EQ(written.n_kv(), 1);
    EXPECT_EQ(written.find_string("general.architecture"), "llama");
}

TEST(GgufFileTest, says_what_is_wrong_with_a_model_in_several_files) {
    TempDir dir;
    std::vector<float> values;
    const std::string first = dir / "m-00001-of-00002.gguf", second = dir / "m-00002-of-00002.gguf";
    const auto open = [&](const std::string & path) { return [path] { GgufFile::open(path); }; };

    file_of_split(0, 2, "a", values).write(first);
    expect_error(LORICA_ERROR_IO, HasSubstr("m-00002-of-00002.gguf: cannot open"), open(first));

    file_of_split(1, 2, "b", values).write(second);
    EXPECT_EQ(GgufFile::open(first).tensors().size(), 2u);
    expect_error(LORICA_ERROR_INVALID_ARGUMENT,
                 AllOf(HasSubstr("m-00002-of-00002.gguf: is one of 2 files of a model; open the first, "),
                       HasSubstr("m-00001-of-00002.gguf")),
                 open(second));
    std::filesystem::copy_file(first, dir / "renamed.gguf");
    expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("its name must end with -00001-of-00002.gguf"),
                 open(dir / "renamed.gguf"));

    file_of_split(1, 3, "b", values).write(second);
    expect_error(LORICA_ERROR_FORMAT,
                 AllOf(HasSubstr("m-00002-of-00002.gguf: belongs to another model"), HasSubstr("number 2 of 2")),
                 open(first));
    file_of_split(1, 2, "a", values).write(second);
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("tensor \"a\" is in two of the 2 files"), open(first));

    GgufWriter more = file_of_split(1, 2, "b", values);
    more.add_tensor("c", GGML_TYPE_F32, {8}, values.data());
    more.write(second);
    expect_error(LORICA_ERROR_FORMAT,
                 HasSubstr("\"split.tensors.count\" is 2, but the 2 files of the model hold 3 tensors"), open(first));

    file_of_split(5, 2, "a", values).write(first);
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("number 5, from 0, of 2"), open(first));
}

TEST(GgufFileTest, reads_version_2_and_a_file_without_tensors) {
    const RawGguf raw = RawGguf().header(2, 0, 1).key("n", GGUF_TYPE_UINT8).number(uint8_t{9});
    EXPECT_EQ(parse(raw).find_int("n"), 9);
    EXPECT_EQ(parse(RawGguf().header(3, 0, 0)).n_kv(), 0);
}

TEST(GgufFileTest, widens_every_integer_type) {
    const RawGguf raw = RawGguf()
                            .header(3, 0, 8)
                            .key("u8", GGUF_TYPE_UINT8)
                            .number(uint8_t{200})
                            .key("i8", GGUF_TYPE_INT8)
                            .number(int8_t{100})
                            .key("u16", GGUF_TYPE_UINT16)
                            .number(uint16_t{60000})
                            .key("i16", GGUF_TYPE_INT16)
                            .number(int16_t{30000})
                            .key("u32", GGUF_TYPE_UINT32)
                            .number(uint32_t{4000000000})
                            .key("i32", GGUF_TYPE_INT32)
                            .number(int32_t{2000000000})
                            .key("u64", GGUF_TYPE_UINT64)
                            .number(uint64_t{5000000000})
                            .key("i64", GGUF_TYPE_INT64)
                            .number(int64_t{6000000000});
    const GgufFile file = parse(raw);
    std::vector<int64_t> values;
    for (int64_t i = 0; i < file.n_kv(); ++i) {
        values.push_back(file.find_int(file.key(i)).value());
    }
    EXPECT_THAT(values, ElementsAre(200, 100, 60000, 30000, 4000000000, 2000000000, 5000000000, 6000000000));
}

TEST(GgufFileTest, refuses_integers_that_are_negative_or_too_large) {
    const RawGguf raw = RawGguf()
                            .header(3, 0, 3)
                            .key("minus", GGUF_TYPE_INT32)
                            .number(int32_t{-5})
                            .key("huge", GGUF_TYPE_UINT64)
                            .number(~uint64_t{0})
                            .array_key("list", GGUF_TYPE_INT8, 2)
                            .number(int8_t{1})
                            .number(int8_t{-1});
    const GgufFile file = parse(raw);
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("metadata \"minus\" is -5, at least 0"),
                 [&] { file.find_int("minus"); });
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("metadata \"huge\" is 18446744073709551615"),
                 [&] { file.find_int("huge"); });
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("metadata \"list\" is -1"), [&] { file.find_ints("list"); });
}

TEST(GgufFileTest, names_key_and_type_when_a_value_is_of_another_type) {
    const RawGguf raw = RawGguf()
                            .header(3, 0, 3)
                            .key("text", GGUF_TYPE_STRING)
                            .string("x")
                            .key("half", GGUF_TYPE_FLOAT32)
                            .number(0.5f)
                            .array_key("list", GGUF_TYPE_STRING, 0);
    const GgufFile file = parse(raw);
    const auto wrong = [&](const char * what, const std::function<void()> & body) {
        expect_error(LORICA_ERROR_FORMAT, HasSubstr(what), body);
    };
    wrong("metadata \"text\" is of type str, expected an integer", [&] { file.find_int("text"); });
    wrong("metadata \"half\" is of type f32, expected an integer", [&] { file.find_int("half"); });
    wrong("metadata \"text\" is of type str, expected f32 or f64", [&] { file.find_float("text"); });
    wrong("metadata \"half\" is of type f32, expected bool", [&] { file.find_bool("half"); });
    wrong("metadata \"half\" is of type f32, expected str", [&] { file.find_string("half"); });
    wrong("metadata \"list\" is of type array of str, expected str", [&] { file.find_string("list"); });
    wrong("metadata \"text\" is of type str, expected array of str", [&] { file.find_strings("text"); });
    wrong("metadata \"list\" is of type array of str, expected array of integers", [&] { file.find_ints("list"); });
    wrong("metadata \"list\" is of type array of str, expected array of f32 or f64", [&] { file.find_floats("list"); });
}

TEST(GgufFileTest, gives_values_as_json) {
    const RawGguf raw = RawGguf()
                            .header(3, 0, 8)
                            .key("n", GGUF_TYPE_INT16)
                            .number(int16_t{-3})
                            .key("f", GGUF_TYPE_FLOAT32)
                            .number(0.1f)
                            .key("nan", GGUF_TYPE_FLOAT64)
                            .number(std::nan(""))
                            .key("b", GGUF_TYPE_BOOL)
                            .number(uint8_t{1})
                            .key("s", GGUF_TYPE_STRING)
                            .string("a\"\\\n\x7f\xff ▁é 😀 \xed\xa0\x80")
                            .array_key("list", GGUF_TYPE_UINT8, 3)
                            .number(uint8_t{1})
                            .number(uint8_t{2})
                            .number(uint8_t{3})
                            .array_key("words", GGUF_TYPE_STRING, 2)
                            .string("x")
                            .string("")
                            .key("max", GGUF_TYPE_UINT64)
                            .number(~uint64_t{0});
    const GgufFile file = parse(raw);
    EXPECT_EQ(file.value_json(0, -1), "-3");
    EXPECT_EQ(file.value_json(1, -1), "0.1");
    EXPECT_EQ(file.value_json(2, -1), "null");
    EXPECT_EQ(file.value_json(3, -1), "true");
    EXPECT_EQ(file.value_json(4, -1), "\"a\\\"\\\\\\u000a\x7f\uFFFD ▁é 😀 \uFFFD\uFFFD\uFFFD\"");
    EXPECT_EQ(file.value_json(5, -1), "[1,2,3]");
    EXPECT_EQ(file.value_json(5, 2), "[1,2]");
    EXPECT_EQ(file.value_json(5, 0), "[]");
    EXPECT_EQ(file.value_json(6, 9), "[\"x\",\"\"]");
    EXPECT_EQ(file.value_json(7, -1), "18446744073709551615");
    EXPECT_EQ(file.array_length(5), 3);
    EXPECT_EQ(file.array_length(0), std::nullopt);
}

TEST(GgufFileTest, honours_the_alignment_key) {
    RawGguf raw;
    raw.header(3, 2, 1).key("general.alignment", GGUF_TYPE_UINT32).number(uint32_t{64});
    raw.tensor("a", {1}, GGML_TYPE_F32, 0).tensor("b", {1}, GGML_TYPE_F32, 64).pad(64).zeros(64).number(2.5f);
    const GgufFile file = parse(raw);
    float value = 0;
    dequantize_row(GGML_TYPE_F32, file.find_tensor("b")->data, &value, 1);
    EXPECT_EQ(value, 2.5f);
    EXPECT_EQ(file.find_tensor("b")->offset % 64, 0u);
}

TEST(GgufFileTest, allows_tensors_in_any_order_and_with_gaps) {
    const GgufFile file = parse(file_with_tensors(2, 256, [](RawGguf & raw) {
        raw.tensor("last", {8}, GGML_TYPE_F32, 224).tensor("first", {8}, GGML_TYPE_F32, 64);
    }));
    EXPECT_EQ(file.find_tensor("last")->offset - file.find_tensor("first")->offset, 160u);
}

// ---- files that are not there, or not GGUF

TEST(GgufFileTest, says_why_a_file_cannot_be_opened) {
    TempDir dir;
    expect_error(LORICA_ERROR_IO, HasSubstr("absent.gguf: cannot open: No such file"),
                 [&] { GgufFile::open(dir / "absent.gguf"); });
    expect_error(LORICA_ERROR_IO, HasSubstr("is a directory"), [&] { GgufFile::open(dir.path()); });
    ASSERT_EQ(::mkfifo((dir / "pipe").c_str(), 0600), 0);
    expect_error(LORICA_ERROR_IO, HasSubstr("is not a regular file"), [&] { GgufFile::open(dir / "pipe"); });
    test::write_file(dir / "empty", {});
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("the file is empty"), [&] { GgufFile::open(dir / "empty"); });
}

TEST(GgufFileTest, recognizes_what_people_open_by_mistake) {
    expect_damaged(RawGguf().bytes("version https://git-lfs.github.com/spec/v1"), HasSubstr("git lfs pull"));
    expect_damaged(RawGguf().bytes("tjgg").zeros(40), HasSubstr("before GGUF"));
    expect_damaged(RawGguf().bytes("PK\x03\x04").zeros(40),
                   HasSubstr("not a GGUF file: it starts with \"PK\\x03\\x04\""));
    expect_damaged(RawGguf().bytes("GG"), HasSubstr("not a GGUF file"));
}

TEST(GgufFileTest, refuses_other_versions_and_big_endian_files) {
    expect_damaged(RawGguf().header(1, 0, 0), HasSubstr("version 1 (at byte 4) is not supported"));
    expect_damaged(RawGguf().header(4, 0, 0), HasSubstr("version 4 (at byte 4) is not supported"));
    expect_damaged(RawGguf().header(0x03000000, 0, 0), HasSubstr("big-endian"));
}

// ---- damaged metadata

TEST(GgufFileTest, refuses_counts_that_cannot_fit) {
    expect_damaged(RawGguf().header(3, 0, uint64_t{1} << 40),
                   HasSubstr("number of metadata entries: 1099511627776 cannot fit"));
    expect_damaged(RawGguf().header(3, ~uint64_t{0}, 0),
                   HasSubstr("number of tensors: 18446744073709551615 cannot fit"));
    expect_damaged(RawGguf().bytes("GGUF").number(uint32_t{3}).number(uint32_t{0}),
                   HasSubstr("number of tensors: needs 8 bytes"));
}

TEST(GgufFileTest, refuses_bad_keys) {
    const auto entry = [](std::string_view key) {
        return file_with(1, [&](RawGguf & raw) { raw.key(key, GGUF_TYPE_UINT32).number(uint32_t{1}); });
    };
    expect_damaged(entry(""), HasSubstr("key of metadata entry 0: is empty (at byte 24)"));
    expect_damaged(entry(std::string_view("a\0b", 3)), HasSubstr("contains a NUL byte"));
    expect_damaged(entry(std::string(65536, 'k')), HasSubstr("has 65536 bytes, at most 65535"));
    EXPECT_NO_THROW(parse(entry(std::string(65535, 'k'))));
    expect_damaged(file_with(1, [](RawGguf & raw) { raw.number(~uint64_t{0} - 4).zeros(40); }),
                   HasSubstr("key of metadata entry 0"));
}

TEST(GgufFileTest, refuses_a_key_that_is_there_twice) {
    expect_damaged(
        file_with(
            2,
            [](RawGguf & raw) {
                raw.key("twin", GGUF_TYPE_UINT8).number(uint8_t{1}).key("twin", GGUF_TYPE_UINT8).number(uint8_t{1});
            }),
        HasSubstr("metadata \"twin\": is there twice"));
}

TEST(GgufFileTest, refuses_bad_values) {
    const auto value = [](auto write) { return file_with(1, [&](RawGguf & raw) { write(raw); }); };
    expect_damaged(value([](RawGguf & r) { r.key("k", 13).zeros(8); }),
                   HasSubstr("metadata \"k\": has the unknown value type 13"));
    expect_damaged(value([](RawGguf & r) { r.key("k", ~0u).zeros(8); }), HasSubstr("unknown value type 4294967295"));
    expect_damaged(value([](RawGguf & r) { r.key("k", GGUF_TYPE_BOOL).number(uint8_t{2}); }),
                   HasSubstr("a bool has the value 2"));
    expect_damaged(value([](RawGguf & r) { r.key("k", GGUF_TYPE_STRING).number(uint64_t{1} << 62); }),
                   HasSubstr("metadata \"k\": has 4611686018427387904 bytes, but the file ends after"));
    expect_damaged(value([](RawGguf & r) { r.array_key("k", GGUF_TYPE_ARRAY, 1).zeros(40); }),
                   HasSubstr("array of arrays"));
    expect_damaged(value([](RawGguf & r) { r.array_key("k", 77, 1).zeros(40); }), HasSubstr("unknown value type 77"));
    expect_damaged(value([](RawGguf & r) { r.array_key("k", GGUF_TYPE_UINT64, uint64_t{1} << 61); }),
                   HasSubstr("has 2305843009213693952 elements of at least 8 bytes"));
    expect_damaged(value([](RawGguf & r) { r.array_key("k", GGUF_TYPE_STRING, uint64_t{1} << 61); }),
                   HasSubstr("has 2305843009213693952 elements of at least 8 bytes"));
    expect_damaged(value([](RawGguf & r) { r.array_key("k", GGUF_TYPE_STRING, 2).string("a").number(uint64_t{9999}); }),
                   HasSubstr("metadata \"k\": has 9999 bytes"));
    expect_damaged(
        value([](RawGguf & r) { r.array_key("k", GGUF_TYPE_BOOL, 2).number(uint8_t{1}).number(uint8_t{9}); }),
        HasSubstr("a bool has the value 9"));
}

TEST(GgufFileTest, refuses_bad_alignments) {
    const auto alignment = [](uint32_t n) {
        return file_with(1, [&](RawGguf & raw) { raw.key("general.alignment", GGUF_TYPE_UINT32).number(n); });
    };
    for (uint32_t n : {0u, 1u, 4u, 24u, ~0u}) {
        expect_damaged(alignment(n), HasSubstr("metadata \"general.alignment\": is " + std::to_string(n)));
    }
    expect_damaged(alignment(1u << 31), HasSubstr("tensor data: starts at byte 2147483648"));
    expect_damaged(
        file_with(1, [](RawGguf & raw) { raw.key("general.alignment", GGUF_TYPE_UINT64).number(uint64_t{32}); }),
        HasSubstr("is of type u64, expected u32"));
}

// ---- damaged tensors

TEST(GgufFileTest, refuses_bad_tensor_names) {
    const auto named = [](std::string_view name) {
        return file_with_tensors(1, 32, [&](RawGguf & raw) { raw.tensor(name, {8}, GGML_TYPE_F32, 0); });
    };
    expect_damaged(named(""), HasSubstr("name of tensor 0: is empty"));
    expect_damaged(named(std::string_view("a\0b", 3)), HasSubstr("contains a NUL byte"));
    expect_damaged(named(std::string(64, 't')), HasSubstr("name of tensor 0: has 64 bytes, at most 63"));
    EXPECT_NO_THROW(parse(named(std::string(63, 't'))));
    expect_damaged(
        file_with_tensors(
            2, 64,
            [](RawGguf & raw) { raw.tensor("twin", {8}, GGML_TYPE_F32, 0).tensor("twin", {8}, GGML_TYPE_F32, 32); }),
        HasSubstr("tensor \"twin\": is there twice"));
}

TEST(GgufFileTest, refuses_bad_shapes) {
    const auto shaped = [](std::initializer_list<uint64_t> ne, ggml_type type = GGML_TYPE_F32) {
        return file_with_tensors(1, 4096, [&](RawGguf & raw) { raw.tensor("w", ne, type, 0); });
    };
    constexpr uint64_t big = uint64_t{1} << 32;
    expect_damaged(shaped({}), HasSubstr("tensor \"w\": has 0 dimensions"));
    expect_damaged(shaped({1, 1, 1, 1, 1}), HasSubstr("has 5 dimensions"));
    expect_damaged(shaped({8, 0}), HasSubstr("dimension 1 is 0, at least 1 is needed"));
    expect_damaged(shaped({~uint64_t{0}}), HasSubstr("dimension 0 is 18446744073709551615, which is too large"));
    expect_damaged(shaped({big, big}), HasSubstr("dimension 1 is 4294967296, which is too large"));
    expect_damaged(shaped({big, big / 4}), HasSubstr("has 4611686018427387904 elements, which is too large"));
    expect_damaged(shaped({33}, GGML_TYPE_Q4_0),
                   HasSubstr("rows of 33 elements are no whole number of q4_0 blocks of 32"));
    expect_damaged(shaped({128, 2}, GGML_TYPE_Q4_K), HasSubstr("blocks of 256"));
}

TEST(GgufFileTest, refuses_unknown_and_removed_types) {
    const auto typed = [](uint32_t type) {
        return file_with_tensors(1, 4096, [&](RawGguf & raw) { raw.tensor("w", {32}, type, 0); });
    };
    expect_damaged(typed(GGML_TYPE_COUNT), HasSubstr("which is unknown"));
    expect_damaged(typed(0x80000000u), HasSubstr("has the tensor type 2147483648, which is unknown"));
    for (uint32_t removed : {4u, 5u, 31u, 36u}) {
        expect_damaged(typed(removed), HasSubstr("which ggml has removed"));
    }
}

TEST(GgufFileTest, refuses_data_outside_the_file_unaligned_or_shared) {
    const auto placed = [](uint64_t a, uint64_t b) {
        return file_with_tensors(
            2, 64, [&](RawGguf & raw) { raw.tensor("a", {8}, GGML_TYPE_F32, a).tensor("b", {8}, GGML_TYPE_F32, b); });
    };
    EXPECT_NO_THROW(parse(placed(0, 32)));
    expect_damaged(placed(0, 8), HasSubstr("tensor \"b\": lies at offset 8, which is no multiple of the alignment 32"));
    expect_damaged(placed(0, 64), HasSubstr("tensor \"b\": has 32 bytes at offset 64 of 64 bytes of tensor data"));
    expect_damaged(placed(0, ~uint64_t{31}), HasSubstr("tensor \"b\": has 32 bytes at offset 18446744073709551584"));
    expect_damaged(placed(32, 32), HasSubstr("tensor \"b\": overlaps tensor \"a\""));
    expect_damaged(
        file_with_tensors(
            2, 128,
            [](RawGguf & raw) { raw.tensor("small", {8}, GGML_TYPE_F32, 32).tensor("large", {16}, GGML_TYPE_F32, 0); }),
        HasSubstr("tensor \"small\": overlaps tensor \"large\""));
}

TEST(GgufFileTest, makes_hostile_names_harmless_in_messages) {
    expect_damaged(file_with(1, [](RawGguf & raw) { raw.key("a\n\x1b[2J\xff", 99); }),
                   HasSubstr("\"a\\x0a\\x1b[2J\\xff\""));
    expect_damaged(file_with(1, [](RawGguf & raw) { raw.key(std::string(5000, 'x'), 99); }),
                   HasSubstr(std::string(80, 'x') + "…\""));
}

// ---- writing

TEST(GgufWriterTest, refuses_what_could_not_be_read_back) {
    GgufWriter writer;
    const float value = 1;
    writer.set_u32("n", 1);
    writer.add_tensor("w", GGML_TYPE_F32, {1}, &value);
    const auto refused = [&](const char * message, const std::function<void()> & body) {
        expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr(message), body);
    };
    refused("metadata \"n\" is set twice", [&] { writer.set_bool("n", true); });
    refused("metadata key \"\"", [&] { writer.set_u32("", 1); });
    refused("is set by the writer", [&] { writer.set_u32("general.alignment", 64); });
    refused("tensor \"w\" is added twice", [&] { writer.add_tensor("w", GGML_TYPE_F32, {1}, &value); });
    refused("must have 1 to 63 bytes", [&] { writer.add_tensor(std::string(64, 'x'), GGML_TYPE_F32, {1}, &value); });
    refused("dimension 1 is 0", [&] { writer.add_tensor("v", GGML_TYPE_F32, {1, 0}, &value); });
    refused("no whole number of q4_0 blocks", [&] { writer.add_tensor("v", GGML_TYPE_Q4_0, {16}, &value); });
    refused("a type that ggml has", [&] { writer.add_tensor("v", ggml_type(4), {32}, &value); });
    refused("1 to 4 dimensions", [&] { writer.add_tensor("v", GGML_TYPE_F32, {1, 1, 1, 1, 1}, &value); });

    TempDir dir;
    writer.write(dir / "file.gguf");
    EXPECT_EQ(GgufFile::open(dir / "file.gguf").tensors().size(), 1u);
}

TEST(GgufWriterTest, leaves_the_old_file_when_a_tensor_cannot_be_made) {
    TempDir dir;
    test::write_file(dir / "file.gguf", RawGguf().bytes("old").data());
    GgufWriter writer;
    const std::vector<int64_t> ne = {1 << 20};
    const std::vector<std::byte> data(4u << 20);
    writer.add_tensor("a", GGML_TYPE_F32, ne, [&] { return std::span(data); });
    writer.add_tensor("b", GGML_TYPE_F32, ne, []() -> std::span<const std::byte> { throw std::runtime_error("stop"); });
    EXPECT_THROW(writer.write(dir / "file.gguf"), std::runtime_error);
    EXPECT_EQ(test::read_file(dir / "file.gguf"), RawGguf().bytes("old").data());
    EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1);
}

// ---- models

TEST(TestModelTest, is_the_same_file_for_the_same_seed) {
    TempDir dir;
    test::TestModel model;
    model.type = GGML_TYPE_Q4_0;
    const auto first = test::read_file(test::write_test_model(dir / "a", model));
    EXPECT_EQ(test::read_file(test::write_test_model(dir / "b", model)), first);
    model.seed = 2;
    EXPECT_NE(test::read_file(test::write_test_model(dir / "c", model)), first);
}

TEST(TestModelTest, can_be_written_in_every_type) {
    TempDir dir;
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_MXFP4}) {
        test::TestModel model;
        model.n_embd = 256;
        model.n_ff = 512;
        model.type = type;
        model.tied_output = true;
        model.rope_freqs = true;
        model.rope_scaling_type = "linear";
        const GgufFile file = GgufFile::open(test::write_test_model(dir / "model.gguf", model));
        EXPECT_EQ(file.find_tensor("blk.1.ffn_down.weight")->type, type);
        EXPECT_THAT(file.find_tensor("blk.1.ffn_down.weight")->ne, ElementsAre(512, 256, 1, 1));
        EXPECT_THAT(file.find_tensor("rope_freqs.weight")->ne, ElementsAre(32, 1, 1, 1));
        EXPECT_EQ(file.find_tensor("output.weight"), nullptr);
        EXPECT_EQ(file.find_strings("tokenizer.ggml.tokens")->size(), 300u);
    }
}

}  // namespace
}  // namespace lorica
