// Damaged files, thousands of them: each is a clear error or a sound load, and never a crash. Worth most under
// -DLORICA_SANITIZE=address,undefined.
#include "common/error.h"
#include "gguf/gguf_file.h"
#include "support/c_structs.h"
#include "support/damaged_gguf.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"

#include <gmock/gmock.h>

#include <map>
#include <memory>

namespace lorica::test {
namespace {

struct ModelFree {
    void operator()(lorica_model * model) const { lorica_model_free(model); }
};
using ModelHandle = std::unique_ptr<lorica_model, ModelFree>;

ModelHandle load_model(const std::string & path) {
    auto params = test::defaults(lorica_model_default_params);
    params.device = "cpu";
    params.n_threads = 1;
    lorica_model * model = nullptr;
    EXPECT_EQ(lorica_model_load(path.c_str(), &params, &model), LORICA_OK) << lorica_last_error();
    return ModelHandle(model);
}

std::map<std::string, lorica_status> statuses(const std::vector<LoadResult> & results) {
    std::map<std::string, lorica_status> by_function;
    for (const LoadResult & result : results) {
        by_function[result.function] = result.status;
    }
    return by_function;
}

class HostileFilesTest : public testing::TestWithParam<std::string GoodFiles::*> {
protected:
    TempDir dir;
    GoodFiles good{dir.path().string()};
};

TEST_P(HostileFilesTest, are_read_in_bounds) {
    size_t n_refused = 0, n_loaded = 0;
    for_each_damage(read_file(good.*GetParam()), [&](const std::string & what, const std::vector<std::byte> & data) {
        // A block of exactly this size: AddressSanitizer sees the first byte read beyond it, which a mapped file would
        // hide.
        const std::unique_ptr<std::byte[]> exact(new std::byte[data.size()]);
        std::copy(data.begin(), data.end(), exact.get());
        try {
            const GgufFile file = GgufFile::from_memory("damaged.gguf", {exact.get(), data.size()});
            for (int64_t i = 0; i < file.n_kv(); ++i) {
                file.value_json(i, -1);
            }
            unsigned sum = 0;
            for (const TensorView & tensor : file.tensors()) {
                for (uint64_t i = 0; i < tensor.n_bytes; ++i) {
                    sum += static_cast<unsigned>(tensor.data[i]);
                }
            }
            EXPECT_LE(sum, 255u * data.size()) << what;
            ++n_loaded;
        } catch (const Error & error) {
            EXPECT_EQ(error.status(), LORICA_ERROR_FORMAT) << what << ": " << error.what();
            EXPECT_THAT(error.what(), testing::StartsWith("damaged.gguf: ")) << what;
            ++n_refused;
        }
    });
    RecordProperty("refused", static_cast<int>(n_refused));
    RecordProperty("loaded", static_cast<int>(n_loaded));
    EXPECT_GE(n_refused, 1000u);
    EXPECT_GE(n_loaded, 100u);  // not everything is fatal: the test would be blind if the parser refused all
}

TEST_P(HostileFilesTest, give_an_error_or_a_load_through_the_whole_interface) {
    const ModelHandle base = load_model(good.model);
    const std::string path = dir / "damaged.gguf";
    size_t n_files = 0;
    for_each_damage(read_file(good.*GetParam()), [&](const std::string & what, const std::vector<std::byte> & data) {
        ++n_files;
        write_file(path, data);
        for (const LoadResult & result : load_as_everything(path, base.get())) {
            if (result.status == LORICA_OK) {
                continue;
            }
            EXPECT_THAT(result.status,
                        testing::AnyOf(LORICA_ERROR_FORMAT, LORICA_ERROR_UNSUPPORTED, LORICA_ERROR_MISMATCH))
                << what << ": " << result.function << ": " << result.message;
            EXPECT_THAT(result.message, testing::HasSubstr("damaged.gguf")) << what << ": " << result.function;
            EXPECT_THAT(result.message, testing::Not(testing::HasSubstr("\n"))) << what << ": " << result.function;
        }
    });
    EXPECT_GE(n_files, 1000u);
}

INSTANTIATE_TEST_SUITE_P(All, HostileFilesTest,
                         testing::Values(&GoodFiles::model, &GoodFiles::vocabulary, &GoodFiles::adapter),
                         [](const auto & param) {
                             return param.index == 0 ? "Model" : param.index == 1 ? "Vocabulary" : "Adapter";
                         });

TEST(GoodFilesTest, load_before_they_are_damaged) {
    const TempDir dir;
    const GoodFiles good(dir.path().string());
    const ModelHandle base = load_model(good.model);
    const auto model = statuses(load_as_everything(good.model, base.get()));
    EXPECT_EQ(model.at("lorica_gguf_open"), LORICA_OK);
    EXPECT_EQ(model.at("lorica_tokenizer_encode"), LORICA_OK);
    EXPECT_EQ(model.at("lorica_tokenizer_decode"), LORICA_OK);
    EXPECT_EQ(model.at("lorica_kv_cache_eval"), LORICA_OK);
    EXPECT_EQ(model.at("lorica_adapter_load"), LORICA_ERROR_FORMAT);
    const auto vocabulary = statuses(load_as_everything(good.vocabulary, base.get()));
    EXPECT_EQ(vocabulary.at("lorica_tokenizer_encode"), LORICA_OK);
    EXPECT_EQ(vocabulary.at("lorica_model_load"), LORICA_ERROR_FORMAT);
    const auto adapter = statuses(load_as_everything(good.adapter, base.get()));
    EXPECT_EQ(adapter.at("lorica_adapter_load"), LORICA_OK);
    EXPECT_EQ(adapter.at("lorica_tokenizer_load"), LORICA_ERROR_FORMAT);
}

}  // namespace
}  // namespace lorica::test
