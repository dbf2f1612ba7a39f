#include "tokenizer_support.h"

#include <lorica/lorica.h>

#include <gmock/gmock.h>

#include <cstring>

namespace lorica::test {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;
using testing::StrEq;

class TokenizerApi : public testing::Test {
protected:
    void SetUp() override {
        const std::string path = (tokenizer_data() / "bpe-small.gguf").string();
        ASSERT_EQ(lorica_tokenizer_load(path.c_str(), &tokenizer_), LORICA_OK) << lorica_last_error();
    }
    void TearDown() override { lorica_tokenizer_free(tokenizer_); }

    std::vector<int32_t> encode(const std::string & text) {
        int64_t n = -1;
        const auto size = static_cast<int64_t>(text.size());
        EXPECT_EQ(lorica_tokenizer_encode(tokenizer_, text.data(), size, false, true, nullptr, 0, &n), LORICA_OK);
        std::vector<int32_t> ids(static_cast<size_t>(n));
        EXPECT_EQ(lorica_tokenizer_encode(tokenizer_, text.data(), size, false, true, ids.data(), n, &n), LORICA_OK);
        return ids;
    }

    lorica_tokenizer * tokenizer_ = nullptr;
};

TEST_F(TokenizerApi, TellsAboutTheVocabulary) {
    lorica_tokenizer_info info{sizeof(lorica_tokenizer_info)};
    ASSERT_EQ(lorica_tokenizer_get_info(tokenizer_, &info), LORICA_OK);
    EXPECT_THAT(info.model, StrEq("gpt2"));
    EXPECT_THAT(info.pre, StrEq("gpt-2"));
    EXPECT_EQ(info.chat_template, nullptr);
    EXPECT_GT(info.n_vocab, 500);
    EXPECT_EQ(info.bos, 0);
    EXPECT_EQ(info.eos, 2);
    EXPECT_EQ(info.eot, 2);
    EXPECT_EQ(info.unk, -1);
    EXPECT_FALSE(info.add_bos);
    EXPECT_THAT(lorica_tokenizer_token_text(tokenizer_, 2), StrEq("<|im_end|>"));
    EXPECT_TRUE(lorica_tokenizer_is_control(tokenizer_, 2));
    EXPECT_TRUE(lorica_tokenizer_is_end_of_generation(tokenizer_, 2));
    EXPECT_FALSE(lorica_tokenizer_is_control(tokenizer_, 3));
    for (const int32_t id : {-1, info.n_vocab}) {
        EXPECT_EQ(lorica_tokenizer_token_text(tokenizer_, id), nullptr);
        EXPECT_FALSE(lorica_tokenizer_is_control(tokenizer_, id));
        EXPECT_FALSE(lorica_tokenizer_is_end_of_generation(tokenizer_, id));
    }
}

TEST_F(TokenizerApi, WritesNoMoreThanTheCapacityAndTheFullCount) {
    const std::vector<int32_t> all = encode("The adapter<|im_end|>");
    ASSERT_GT(all.size(), 2U);
    std::vector<int32_t> ids(all.size(), -7);
    int64_t n = -1;
    ASSERT_EQ(lorica_tokenizer_encode(tokenizer_, "The adapter<|im_end|>", 21, false, true, ids.data(), 2, &n),
              LORICA_OK);
    EXPECT_EQ(n, static_cast<int64_t>(all.size()));
    EXPECT_EQ(ids[1], all[1]);
    EXPECT_EQ(ids[2], -7);

    std::string text(5, '#');
    ASSERT_EQ(lorica_tokenizer_decode(tokenizer_, all.data(), n, false, text.data(), 3, &n), LORICA_OK);
    EXPECT_EQ(n, 11);
    EXPECT_EQ(text, "The##");
}

TEST_F(TokenizerApi, TakesEmptyTextAndTextWithNuls) {
    int64_t n = -1;
    EXPECT_EQ(lorica_tokenizer_encode(tokenizer_, nullptr, 0, true, false, nullptr, 0, &n), LORICA_OK);
    EXPECT_EQ(n, 0);
    EXPECT_EQ(encode(std::string("\0\0", 2)).size(), 2U);
    EXPECT_EQ(lorica_tokenizer_decode(tokenizer_, nullptr, 0, true, nullptr, 0, &n), LORICA_OK);
    EXPECT_EQ(n, 0);
}

TEST_F(TokenizerApi, ABatchWritesIdsOneAfterAnotherUpToTheCapacity) {
    const std::string texts = "The end.<|im_end|><|im_end|>";
    const std::vector<int64_t> offsets = {0, 8, 8, 18, 28};
    const bool parse_special[] = {true, true, true, false};
    std::vector<int64_t> id_offsets(5, -1);
    ASSERT_EQ(lorica_tokenizer_encode_batch(tokenizer_, texts.data(), offsets.data(), parse_special, 4, 2, nullptr, 0,
                                            id_offsets.data()),
              LORICA_OK);
    const auto n_first = static_cast<int64_t>(encode("The end.").size());
    EXPECT_EQ(id_offsets[1], n_first);
    EXPECT_EQ(id_offsets[2], n_first);
    EXPECT_EQ(id_offsets[3], n_first + 1);
    EXPECT_GT(id_offsets[4], n_first + 2);

    std::vector<int32_t> ids(static_cast<size_t>(id_offsets[4]), -7);
    const std::vector<int64_t> expected_offsets = id_offsets;
    ASSERT_EQ(lorica_tokenizer_encode_batch(tokenizer_, texts.data(), offsets.data(), parse_special, 4, 2, ids.data(),
                                            n_first + 1, id_offsets.data()),
              LORICA_OK);
    EXPECT_EQ(id_offsets, expected_offsets);
    EXPECT_EQ(ids[static_cast<size_t>(n_first)], 2);
    EXPECT_EQ(ids[static_cast<size_t>(n_first) + 1], -7);

    int64_t only = -1;
    EXPECT_EQ(lorica_tokenizer_encode_batch(tokenizer_, nullptr, nullptr, nullptr, 0, 0, nullptr, 0, &only), LORICA_OK);
    EXPECT_EQ(only, 0);
}

TEST_F(TokenizerApi, RefusesWhatCannotBeMeant) {
    int64_t n = 0;
    int32_t id = 0;
    const int64_t descending[] = {0, 4, 2}, negative[] = {-1, 2};
    int64_t id_offsets[3];
    lorica_tokenizer * other = nullptr;
    const auto refused = [](lorica_status status, const char * why) {
        EXPECT_EQ(status, LORICA_ERROR_INVALID_ARGUMENT);
        EXPECT_THAT(lorica_last_error(), HasSubstr(why));
    };
    refused(lorica_tokenizer_load(nullptr, &other), "path");
    refused(lorica_tokenizer_load("x", nullptr), "out");
    refused(lorica_tokenizer_encode(nullptr, "a", 1, false, false, &id, 1, &n), "tokenizer");
    refused(lorica_tokenizer_encode(tokenizer_, nullptr, 1, false, false, &id, 1, &n), "text");
    refused(lorica_tokenizer_encode(tokenizer_, "a", -1, false, false, &id, 1, &n), "n_bytes");
    refused(lorica_tokenizer_encode(tokenizer_, "a", 1, false, false, nullptr, 1, &n), "ids");
    refused(lorica_tokenizer_encode(tokenizer_, "a", 1, false, false, &id, 1, nullptr), "n_tokens");
    const auto batch = [&](const int64_t * offsets, int64_t n_texts, int32_t n_threads) {
        return lorica_tokenizer_encode_batch(tokenizer_, "abcd", offsets, nullptr, n_texts, n_threads, nullptr, 0,
                                             id_offsets);
    };
    refused(batch(descending, 2, 1), "offsets[1]");
    refused(batch(negative, 1, 1), "offsets[0]");
    refused(batch(descending, 1, -1), "n_threads");
    id = -1;
    refused(lorica_tokenizer_decode(tokenizer_, &id, 1, false, nullptr, 0, &n), "token id -1 is out of range");
    EXPECT_EQ(lorica_tokenizer_load("/nowhere.gguf", &other), LORICA_ERROR_IO);
    EXPECT_EQ(other, nullptr);
    lorica_tokenizer_free(nullptr);
    lorica_detokenizer_free(nullptr);
}

TEST_F(TokenizerApi, StreamsWholeCharacters) {
    lorica_detokenizer * detokenizer = nullptr;
    ASSERT_EQ(lorica_detokenizer_create(tokenizer_, false, &detokenizer), LORICA_OK);
    const char * text = nullptr;
    int64_t n = -1;
    std::string total;
    std::vector<int32_t> ids = encode("Ω≈ç√ 𝔘 end");
    for (const int32_t id : ids) {
        ASSERT_EQ(lorica_detokenizer_push(detokenizer, id, &text, &n), LORICA_OK);
        total.append(text, static_cast<size_t>(n));
    }
    EXPECT_EQ(total, "Ω≈ç√ 𝔘 end");
    ASSERT_EQ(lorica_detokenizer_finish(detokenizer, &text, &n), LORICA_OK);
    EXPECT_EQ(n, 0);

    ids = encode("𝔘");
    ASSERT_GT(ids.size(), 1U);
    ASSERT_EQ(lorica_detokenizer_push(detokenizer, ids[0], &text, &n), LORICA_OK);
    EXPECT_EQ(n, 0);
    EXPECT_EQ(lorica_detokenizer_push(detokenizer, 1 << 20, &text, &n), LORICA_ERROR_INVALID_ARGUMENT);
    ASSERT_EQ(lorica_detokenizer_finish(detokenizer, &text, &n), LORICA_OK);
    EXPECT_THAT(std::string(text, static_cast<size_t>(n)), testing::StartsWith("\ufffd"));
    lorica_detokenizer_free(detokenizer);
}

}  // namespace
}  // namespace lorica::test
