// Adapter files: what is written comes back, what llama.cpp writes is read, and each malformed file gets a message that
// names the fault.
#include "adapter/lora_file.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"
#include "support/expect_error.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"
#include "support/test_model.h"

#include <gmock/gmock.h>
#include <sys/resource.h>

#include <csignal>
#include <limits>

namespace lorica {
namespace {

using test::expect_error;
using test::TempDir;
using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;

LoraFile sample() {
    LoraFile file;
    file.architecture = "llama";
    file.alpha = 32;
    file.base_fingerprint = "0123456789abcdef";
    file.rank = 3;
    file.use_rslora = true;
    file.dropout = 0.05f;
    file.pairs.push_back(
        {"blk.0.attn_q.weight", 3, 8, 5, test::random_values(1, 1, 24), test::random_values(1, 2, 15)});
    file.pairs.push_back(
        {"blk.0.ffn_down.weight", 1, 4, 8, test::random_values(1, 3, 4), test::random_values(1, 4, 8)});
    return file;
}

TEST(LoraFileTest, comes_back_as_written) {
    TempDir dir;
    const LoraFile written = sample();
    write_lora_file(dir / "adapter.gguf", written);
    const LoraFile read = read_lora_file(dir / "adapter.gguf");
    EXPECT_EQ(read.architecture, written.architecture);
    EXPECT_EQ(read.alpha, written.alpha);
    EXPECT_EQ(read.base_fingerprint, written.base_fingerprint);
    EXPECT_EQ(read.rank, written.rank);
    EXPECT_EQ(read.use_rslora, written.use_rslora);
    EXPECT_EQ(read.dropout, written.dropout);
    ASSERT_EQ(read.pairs.size(), written.pairs.size());
    for (size_t i = 0; i < read.pairs.size(); ++i) {
        EXPECT_EQ(read.pairs[i].base_name, written.pairs[i].base_name);
        EXPECT_EQ(read.pairs[i].rank, written.pairs[i].rank);
        EXPECT_EQ(read.pairs[i].n_in, written.pairs[i].n_in);
        EXPECT_EQ(read.pairs[i].n_out, written.pairs[i].n_out);
        EXPECT_EQ(read.pairs[i].a, written.pairs[i].a);
        EXPECT_EQ(read.pairs[i].b, written.pairs[i].b);
    }
    write_lora_file(dir / "again.gguf", read);
    EXPECT_EQ(test::read_file(dir / "again.gguf"), test::read_file(dir / "adapter.gguf"));
}

TEST(LoraFileTest, has_the_layout_that_llama_cpp_loads) {
    TempDir dir;
    write_lora_file(dir / "adapter.gguf", sample());
    const GgufFile file = GgufFile::open(dir / "adapter.gguf");
    EXPECT_EQ(file.find_string("general.type"), "adapter");
    EXPECT_EQ(file.find_string("general.architecture"), "llama");
    EXPECT_EQ(file.find_string("adapter.type"), "lora");
    EXPECT_EQ(file.find_float("adapter.lora.alpha"), 32.0);
    ASSERT_EQ(file.tensors().size(), 4u);
    EXPECT_EQ(file.tensors()[0].name, "blk.0.attn_q.weight.lora_a");
    EXPECT_THAT(file.tensors()[0].ne, ElementsAre(8, 3, 1, 1));
    EXPECT_EQ(file.tensors()[1].name, "blk.0.attn_q.weight.lora_b");
    EXPECT_THAT(file.tensors()[1].ne, ElementsAre(3, 5, 1, 1));
    for (const TensorView & tensor : file.tensors()) {
        EXPECT_EQ(tensor.type, GGML_TYPE_F32);
    }
}

// A file with the four keys that llama.cpp's converter writes, changed and filled by the tests.
struct Malformed {
    std::optional<std::string> type = "adapter", adapter_type = "lora", architecture = "llama";
    std::optional<float> alpha = 16.0f;
    std::function<void(GgufWriter &)> more = [](GgufWriter &) {};
    struct Tensor {
        std::string name;
        std::vector<int64_t> ne;
        ggml_type type = GGML_TYPE_F32;
        float fill = 0.5f;
    };
    std::vector<Tensor> tensors = {{"blk.0.attn_q.weight.lora_a", {32, 2}}, {"blk.0.attn_q.weight.lora_b", {2, 6}}};

    std::string write(const std::string & path) const {
        GgufWriter writer;
        const auto set = [&](const char * key, const std::optional<std::string> & value) {
            if (value) {
                writer.set_string(key, *value);
            }
        };
        set("general.type", type);
        set("adapter.type", adapter_type);
        set("general.architecture", architecture);
        if (alpha) {
            writer.set_f32("adapter.lora.alpha", *alpha);
        }
        more(writer);
        for (const Tensor & tensor : tensors) {
            int64_t n = 1;
            for (int64_t extent : tensor.ne) {
                n *= extent;
            }
            const std::vector<float> values(static_cast<size_t>(n), tensor.fill);
            writer.add_tensor(tensor.name, tensor.type, tensor.ne,
                              [data = test::quantize(tensor.type, values, tensor.ne[0])] { return std::span(data); });
        }
        writer.write(path);
        return path;
    }
};

void expect_refused(const Malformed & file, const testing::Matcher<std::string> & message,
                    lorica_status status = LORICA_ERROR_FORMAT) {
    TempDir dir;
    const std::string path = file.write(dir / "bad.gguf");
    expect_error(status, AllOf(HasSubstr("bad.gguf: "), message), [&] { read_lora_file(path); });
}

TEST(LoraFileTest, reads_half_precision) {
    for (ggml_type type : {GGML_TYPE_F16, GGML_TYPE_BF16}) {
        TempDir dir;
        Malformed file;
        file.tensors[0].type = type;
        file.tensors[1].type = type;
        const LoraFile lora = read_lora_file(file.write(dir / "half.gguf"));
        EXPECT_THAT(lora.pairs.at(0).a, testing::AllOf(testing::SizeIs(64), testing::Each(0.5f)));
        EXPECT_THAT(lora.pairs.at(0).b, testing::AllOf(testing::SizeIs(12), testing::Each(0.5f)));
        EXPECT_EQ(lora.alpha, 16.0f);
    }
}

TEST(LoraFileTest, gives_zero_for_a_missing_alpha_as_llama_cpp_does) {
    TempDir dir;
    Malformed file;
    file.alpha.reset();
    const LoraFile lora = read_lora_file(file.write(dir / "adapter.gguf"));
    EXPECT_EQ(lora.alpha, 0.0f);
    EXPECT_EQ(lora.base_fingerprint, "");
    EXPECT_EQ(lora.rank, 0);
    EXPECT_FALSE(lora.use_rslora);
}

TEST(LoraFileTest, refuses_what_is_no_lora_adapter) {
    TempDir dir;
    const std::string model = test::write_test_model(dir / "model.gguf", {});
    expect_error(LORICA_ERROR_FORMAT, HasSubstr("not a LoRA adapter: metadata \"general.type\" is missing"),
                 [&] { read_lora_file(model); });

    Malformed file;
    file.type = "model";
    expect_refused(file, HasSubstr("\"general.type\" is \"model\", expected \"adapter\"; is it a model?"));
    file = {};
    file.adapter_type = "control_vector";
    expect_refused(file, HasSubstr("\"adapter.type\" is \"control_vector\", expected \"lora\""));
    file = {};
    file.adapter_type.reset();
    expect_refused(file, HasSubstr("\"adapter.type\" is missing"));
    file = {};
    file.architecture.reset();
    expect_refused(file, HasSubstr("\"general.architecture\" is missing"));
}

TEST(LoraFileTest, refuses_bad_metadata) {
    Malformed file;
    file.alpha = std::numeric_limits<float>::quiet_NaN();
    expect_refused(file, HasSubstr("\"adapter.lora.alpha\" is nan"));
    file = {};
    file.alpha.reset();
    file.more = [](GgufWriter & writer) { writer.set_string("adapter.lora.alpha", "16"); };
    expect_refused(file, HasSubstr("\"adapter.lora.alpha\" is of type str"));
    file = {};
    file.more = [](GgufWriter & writer) { writer.set_f32("lorica.dropout", 1.0f); };
    expect_refused(file, HasSubstr("\"lorica.dropout\" is 1, expected 0 <= dropout < 1"));
    file = {};
    file.more = [](GgufWriter & writer) { writer.set_u64("lorica.rank", uint64_t{1} << 40); };
    expect_refused(file, HasSubstr("\"lorica.rank\" is 1099511627776"));
}

TEST(LoraFileTest, refuses_half_a_pair) {
    Malformed file;
    file.tensors.pop_back();
    expect_refused(file, HasSubstr("tensor \"blk.0.attn_q.weight.lora_a\" has no .lora_b beside it"));
    file = {};
    file.tensors.erase(file.tensors.begin());
    expect_refused(file, HasSubstr("tensor \"blk.0.attn_q.weight.lora_b\" has no .lora_a beside it"));
    file = {};
    file.tensors.clear();
    expect_refused(file, HasSubstr("has no tensors"));
}

TEST(LoraFileTest, refuses_shapes_that_do_not_chain) {
    Malformed file;
    file.tensors[1].ne = {3, 6};
    expect_refused(
        file, HasSubstr("\"blk.0.attn_q.weight.lora_b\" has the shape (3, 6), which does not chain with (32, 2) of "
                        "\"blk.0.attn_q.weight.lora_a\""));
    file = {};
    file.tensors[0].ne = {32, 2, 2};
    expect_refused(file, HasSubstr("\"blk.0.attn_q.weight.lora_a\" has the shape (32, 2, 2), a matrix is needed"));
}

TEST(LoraFileTest, refuses_foreign_tensors_types_and_values) {
    Malformed file;
    file.tensors.push_back({"blk.0.attn_norm.weight", {32}});
    expect_refused(file, HasSubstr("tensor \"blk.0.attn_norm.weight\" belongs in no LoRA adapter"));
    file = {};
    file.tensors[0].type = GGML_TYPE_Q8_0;
    expect_refused(file, HasSubstr("\"blk.0.attn_q.weight.lora_a\" is of type Q8_0"));
    file = {};
    file.tensors[1].fill = std::numeric_limits<float>::infinity();
    expect_refused(file, HasSubstr("tensor \"blk.0.attn_q.weight.lora_b\": value 0 is inf"));
}

TEST(LoraFileTest, refuses_adapters_of_kinds_that_are_not_supported) {
    Malformed file;
    file.tensors = {{"token_embd.weight.lora_a", {2, 32}}, {"token_embd.weight.lora_b", {2, 8}}};
    expect_refused(file, HasSubstr("adapts the embedding"), LORICA_ERROR_UNSUPPORTED);
    file = {};
    file.more = [](GgufWriter & writer) {
        writer.set_i32s("adapter.alora.invocation_tokens", std::vector<int32_t>{1, -2});
    };
    expect_refused(file, HasSubstr("invocation_tokens\" is -2"));
}

// ---- a disk that is full: RLIMIT_FSIZE makes write() fail at any byte that one likes

class FileSizeLimit {
public:
    explicit FileSizeLimit(rlim_t bytes) : handler_(std::signal(SIGXFSZ, SIG_IGN)) {
        ::getrlimit(RLIMIT_FSIZE, &before_);
        const rlimit limit{bytes, before_.rlim_max};
        ::setrlimit(RLIMIT_FSIZE, &limit);
    }
    ~FileSizeLimit() {
        ::setrlimit(RLIMIT_FSIZE, &before_);
        std::signal(SIGXFSZ, handler_);
    }

private:
    rlimit before_{};
    void (*handler_)(int);
};

TEST(LoraFileTest, leaves_the_old_file_when_the_disk_is_full) {
    TempDir dir;
    LoraFile file = sample();
    write_lora_file(dir / "adapter.gguf", file);
    const auto old = test::read_file(dir / "adapter.gguf");

    file.pairs.push_back(
        {"blk.1.attn_q.weight", 8, 65536, 8, test::random_values(2, 1, 8 * 65536), test::random_values(2, 2, 64)});
    for (rlim_t limit : {rlim_t{0}, rlim_t{100}, rlim_t{1} << 18, rlim_t{1} << 20, rlim_t{2} << 20}) {
        {
            FileSizeLimit full(limit);
            expect_error(LORICA_ERROR_IO,
                         AllOf(HasSubstr("adapter.gguf: cannot write: File too large"),
                               HasSubstr("the file was left as it was")),
                         [&] { write_lora_file(dir / "adapter.gguf", file); });
        }
        EXPECT_EQ(test::read_file(dir / "adapter.gguf"), old) << "limit " << limit;
        EXPECT_EQ(std::distance(std::filesystem::directory_iterator(dir.path()), {}), 1) << "limit " << limit;
    }
    write_lora_file(dir / "adapter.gguf", file);
    EXPECT_EQ(read_lora_file(dir / "adapter.gguf").pairs.size(), 3u);
}

TEST(LoraFileTest, says_where_it_cannot_write) {
    TempDir dir;
    expect_error(LORICA_ERROR_IO,
                 AllOf(HasSubstr("absent/adapter.gguf: cannot create the file in"), HasSubstr("No such file")),
                 [&] { write_lora_file(dir / "absent/adapter.gguf", sample()); });
    expect_error(LORICA_ERROR_IO, HasSubstr("is a directory"), [&] { write_lora_file(dir.path(), sample()); });
    expect_error(LORICA_ERROR_IO, HasSubstr("is not a regular file"), [&] { write_lora_file("/dev/full", sample()); });
}

}  // namespace
}  // namespace lorica
