// The C boundary: exceptions become a status and a message; and the lorica_gguf_* functions behind it.
#include "api/api.h"
#include "common/log.h"
#include "support/temp_dir.h"
#include "support/test_model.h"

#include <lorica/lorica.h>

#include <gmock/gmock.h>

#include <new>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

namespace {

using lorica::api::guarded;
using lorica::test::TempDir;
using testing::HasSubstr;

TEST(ApiBoundaryTest, turns_exceptions_into_a_status_and_a_message) {
    EXPECT_EQ(guarded([] {}), LORICA_OK);
    EXPECT_EQ(guarded([] { lorica::fail(LORICA_ERROR_MISMATCH, "a", 1); }), LORICA_ERROR_MISMATCH);
    EXPECT_STREQ(lorica_last_error(), "a1");
    EXPECT_EQ(guarded([] { throw std::bad_alloc(); }), LORICA_ERROR_OUT_OF_MEMORY);
    EXPECT_THAT(lorica_last_error(), HasSubstr("out of memory"));
    EXPECT_EQ(guarded([] { throw std::out_of_range("vector"); }), LORICA_ERROR_INTERNAL);
    EXPECT_THAT(lorica_last_error(), HasSubstr("vector"));
    EXPECT_EQ(guarded([] { throw 1; }), LORICA_ERROR_INTERNAL);
    EXPECT_EQ(guarded([] { lorica::api::require(nullptr, "path"); }), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_STREQ(lorica_last_error(), "path must not be NULL");
}

TEST(ApiBoundaryTest, keeps_the_message_after_a_success_and_apart_for_each_thread) {
    EXPECT_EQ(guarded([] { lorica::fail(LORICA_ERROR_IO, "mine"); }), LORICA_ERROR_IO);
    EXPECT_EQ(guarded([] {}), LORICA_OK);
    std::thread([] {
        EXPECT_STREQ(lorica_last_error(), "");
        EXPECT_EQ(guarded([] { lorica::fail(LORICA_ERROR_IO, "theirs"); }), LORICA_ERROR_IO);
        EXPECT_STREQ(lorica_last_error(), "theirs");
    }).join();
    EXPECT_STREQ(lorica_last_error(), "mine");
}

TEST(ApiBoundaryTest, gives_one_line_and_cuts_long_ones_between_characters) {
    EXPECT_EQ(guarded([] { lorica::fail(LORICA_ERROR_IO, "two\nlines\r\n\x1b[2J"); }), LORICA_ERROR_IO);
    EXPECT_STREQ(lorica_last_error(), "two lines   [2J");
    for (int shift = 0; shift < 3; ++shift) {
        std::string text(static_cast<size_t>(shift), 'x');
        for (int i = 0; i < 4000; ++i) {
            text += "▁";
        }
        EXPECT_EQ(guarded([&] { lorica::fail(LORICA_ERROR_IO, text); }), LORICA_ERROR_IO);
        const std::string message = lorica_last_error();
        EXPECT_GT(message.size(), 4000u);
        EXPECT_EQ((message.size() - static_cast<size_t>(shift)) % 3, 0u);
    }
}

TEST(LogTest, is_silent_by_default_and_calls_back_once_set) {
    std::vector<std::string> lines;
    const auto callback = [](lorica_log_level level, const char * message, void * user_data) {
        static_cast<std::vector<std::string> *>(user_data)->push_back(std::to_string(level) + message);
    };
    EXPECT_FALSE(lorica::log_enabled());
    lorica::log(LORICA_LOG_WARN, "unheard");
    lorica_log_set(callback, &lines);
    lorica::log(LORICA_LOG_WARN, "a", 1, "\nb");
    lorica_log_set(nullptr, nullptr);
    lorica::log(LORICA_LOG_WARN, "unheard");
    EXPECT_THAT(lines, testing::ElementsAre("2a1 b"));
}

TEST(VersionTest, has_three_numbers) {
    EXPECT_THAT(lorica_version(), testing::MatchesRegex("[0-9]+\\.[0-9]+\\.[0-9]+"));
}

TEST(GgufApiTest, shows_what_is_in_a_file) {
    TempDir dir;
    const std::string path = lorica::test::write_test_model(dir / "model.gguf", {.type = GGML_TYPE_Q4_0});
    lorica_gguf * gguf = nullptr;
    ASSERT_EQ(lorica_gguf_open(path.c_str(), &gguf), LORICA_OK) << lorica_last_error();

    ASSERT_GT(lorica_gguf_n_kv(gguf), 10);
    EXPECT_STREQ(lorica_gguf_key(gguf, 0), "general.architecture");
    EXPECT_STREQ(lorica_gguf_value_json(gguf, 0, -1), "\"llama\"");
    bool seen_tokens = false;
    for (int64_t i = 0; i < lorica_gguf_n_kv(gguf); ++i) {
        if (lorica_gguf_key(gguf, i) == std::string("tokenizer.ggml.tokens")) {
            seen_tokens = true;
            EXPECT_EQ(lorica_gguf_array_length(gguf, i), 300);
            EXPECT_STREQ(lorica_gguf_value_json(gguf, i, 2), R"(["<unk>","<s>"])");
        }
    }
    EXPECT_TRUE(seen_tokens);

    ASSERT_EQ(lorica_gguf_n_tensors(gguf), 21);
    lorica_gguf_tensor tensor{sizeof(lorica_gguf_tensor)};
    ASSERT_EQ(lorica_gguf_tensor_info(gguf, 0, &tensor), LORICA_OK);
    EXPECT_STREQ(tensor.name, "token_embd.weight");
    EXPECT_STREQ(tensor.type, "Q4_0");
    EXPECT_EQ(tensor.n_dims, 2);
    EXPECT_THAT(tensor.ne, testing::ElementsAre(64, 300, 1, 1));
    EXPECT_EQ(tensor.n_bytes, 300u * 2 * 18);
    EXPECT_EQ(tensor.offset % 32, 0u);
    lorica_gguf_free(gguf);
}

TEST(GgufApiTest, survives_misuse) {
    TempDir dir;
    lorica_gguf * gguf = nullptr;
    EXPECT_EQ(lorica_gguf_open(nullptr, &gguf), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_STREQ(lorica_last_error(), "path must not be NULL");
    EXPECT_EQ(lorica_gguf_open("x", nullptr), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(lorica_gguf_open((dir / "absent").c_str(), &gguf), LORICA_ERROR_IO);
    EXPECT_EQ(gguf, nullptr);

    ASSERT_EQ(lorica_gguf_open(lorica::test::write_test_model(dir / "model.gguf", {}).c_str(), &gguf), LORICA_OK);
    lorica_gguf_tensor tensor{sizeof(lorica_gguf_tensor)};
    for (int64_t i : {int64_t{-1}, int64_t{1} << 40}) {
        EXPECT_EQ(lorica_gguf_key(gguf, i), nullptr);
        EXPECT_EQ(lorica_gguf_value_json(gguf, i, -1), nullptr);
        EXPECT_EQ(lorica_gguf_array_length(gguf, i), -1);
        EXPECT_EQ(lorica_gguf_tensor_info(gguf, i, &tensor), LORICA_ERROR_INVALID_ARGUMENT);
    }
    EXPECT_EQ(lorica_gguf_array_length(gguf, 0), -1);
    EXPECT_EQ(lorica_gguf_tensor_info(gguf, 0, nullptr), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(lorica_gguf_n_bytes(nullptr), 0u);
    EXPECT_EQ(lorica_gguf_n_kv(nullptr), 0);
    EXPECT_EQ(lorica_gguf_n_tensors(nullptr), 0);
    EXPECT_EQ(lorica_gguf_key(nullptr, 0), nullptr);
    lorica_gguf_free(gguf);
    lorica_gguf_free(nullptr);
}

}  // namespace
