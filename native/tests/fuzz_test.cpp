// Files from strangers, changed at random: each is a clear error or a sound load, never a crash, and never takes memory
// that the file's size does not justify. LORICA_FUZZ_INPUTS=100000 runs that many of each kind instead of a few; worth
// most under -DLORICA_SANITIZE=address,undefined (scripts/test-sanitized.sh). The input being read lies in the file
// that the test names when it begins, so that it is still there after a crash.
#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <map>
#include <memory>

#include <unistd.h>

#include "support/c_structs.h"
#include "support/counted_memory.h"
#include "support/damaged_gguf.h"
#include "support/mutator.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"

namespace lorica::test {
namespace {

uint64_t n_inputs() {
    const char * text = std::getenv("LORICA_FUZZ_INPUTS");
    return text ? std::strtoull(text, nullptr, 10) : 200;
}

struct ModelFree {
    void operator()(lorica_model * model) const { lorica_model_free(model); }
};

class FuzzTest : public testing::Test {
protected:
    void SetUp() override {
        auto params = test::defaults(lorica_model_default_params);
        params.device = "cpu";
        params.n_threads = 1;
        lorica_model * loaded = nullptr;
        ASSERT_EQ(lorica_model_load(good.model.c_str(), &params, &loaded), LORICA_OK) << lorica_last_error();
        base.reset(loaded);
        if (n_inputs() > 1000) std::printf("input being read: %s\n", path.c_str());
    }
    void TearDown() override { std::filesystem::remove(path); }

    void run(const std::vector<std::vector<std::byte>> & corpus) {
        ASSERT_FALSE(corpus.empty());
        const Mutator mutator(corpus);
        std::map<std::string, std::map<lorica_status, size_t>> seen;
        const int64_t live_at_first = live_bytes();
        for (uint64_t i = 0; i < n_inputs() && !HasFailure(); ++i) {
            const std::vector<std::byte> data = mutator.input(i);
            write_file(path, data);
            const int64_t before = live_bytes();
            reset_most_bytes();
            for (const LoadResult & result : load_as_everything(path, base.get())) {
                ++seen[result.function][result.status];
                if (result.status == LORICA_OK) continue;
                EXPECT_THAT(result.status, testing::AnyOf(LORICA_ERROR_FORMAT, LORICA_ERROR_UNSUPPORTED,
                                                          LORICA_ERROR_MISMATCH, LORICA_ERROR_NON_FINITE))
                    << "input " << i << ": " << result.function << ": " << result.message;
                EXPECT_THAT(result.message, testing::Not(testing::HasSubstr("\n"))) << "input " << i;
            }
            // Vocabularies become hash tables and tries: many times their bytes, but not more.
            EXPECT_LE(most_bytes() - before, static_cast<int64_t>(256 * data.size() + (4 << 20))) << "input " << i;
        }
        // Tables that are made once stay; what each input left behind would add up.
        EXPECT_LE(live_bytes() - live_at_first, 8 << 20);
        for (const auto & [function, statuses] : seen) {
            for (const auto & [status, n] : statuses)
                RecordProperty(function + "_" + std::to_string(status), static_cast<int>(n));
        }
        // Neither all nor nothing is refused: the test would be blind.
        EXPECT_GT(seen["lorica_gguf_open"][LORICA_OK], 0u);
        EXPECT_GT(seen["lorica_gguf_open"][LORICA_ERROR_FORMAT], 0u);
    }

    TempDir dir;
    GoodFiles good{dir.path().string()};
    std::unique_ptr<lorica_model, ModelFree> base;
    std::string path = std::filesystem::temp_directory_path() / ("lorica-fuzz-" + std::to_string(getpid()) + ".gguf");
};

TEST_F(FuzzTest, ModelsAndAdapters) { run({read_file(good.model), read_file(good.adapter)}); }

TEST_F(FuzzTest, Tokenizers) {
    auto corpus = read_gguf_files(LORICA_REPOSITORY "/native/tests/data/tokenizer");
    corpus.push_back(read_file(good.vocabulary));
    run(corpus);
}

// The tensors of safetensors files are read by rows, from where their header says; whatever it says.
TEST_F(FuzzTest, TensorsOfOtherFiles) {
    const std::string target = dir / "target.gguf";
    write_file(path, std::vector<std::byte>(1000));
    const Mutator mutator({std::vector<std::byte>(40)});
    size_t n_read = 0, n_refused = 0;
    for (uint64_t i = 0; i < n_inputs() && !HasFailure(); ++i) {
        std::vector<std::byte> data = mutator.input(i);
        data.resize(40);
        int64_t numbers[5];
        std::memcpy(numbers, data.data(), sizeof numbers);
        const int64_t order[] = {numbers[3], numbers[4]};
        const lorica_tensor_source source{sizeof(lorica_tensor_source),      path.c_str(),
                                          static_cast<uint64_t>(numbers[0]), numbers[3] % 2 ? "F32" : "BF16",
                                          numbers[1] == 2 ? order : nullptr, numbers[4] % 2 != 0};
        lorica_gguf_writer * writer = nullptr;
        ASSERT_EQ(lorica_gguf_writer_create(&writer), LORICA_OK);
        const int64_t before = live_bytes();
        reset_most_bytes();
        lorica_status status =
            lorica_gguf_writer_add_tensor(writer, "x.weight", "F16", numbers[1], numbers[2] + 1, &source);
        if (status == LORICA_OK) status = lorica_gguf_writer_write(writer, target.c_str());
        EXPECT_THAT(status, testing::AnyOf(LORICA_OK, LORICA_ERROR_FORMAT, LORICA_ERROR_INVALID_ARGUMENT))
            << i << lorica_last_error();
        EXPECT_LE(most_bytes() - before, 1 << 20) << i;
        ++(status == LORICA_OK ? n_read : n_refused);
        lorica_gguf_writer_free(writer);
    }
    EXPECT_GT(n_read, 0u);
    EXPECT_GT(n_refused, 0u);
}

}  // namespace
}  // namespace lorica::test
