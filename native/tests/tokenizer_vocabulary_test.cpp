// What a vocabulary says about itself: defaults, special tokens, and damage that is refused.
#include "tokenizer_support.h"

#include "common/error.h"

#include <gmock/gmock.h>

#include <functional>
#include <limits>

namespace lorica::test {
namespace {

using testing::AllOf;
using testing::ElementsAre;
using testing::HasSubstr;
using testing::IsEmpty;

class TokenizerVocabulary : public testing::Test {
protected:
    GgufFile write(const VocabularyKeys & keys) { return GgufFile::open(keys.write(temp_ / "vocabulary.gguf")); }

    TempDir temp_;
};

struct Damage {
    std::string name;
    VocabularyKeys keys;
    std::function<void(VocabularyKeys &)> apply;
    lorica_status status;
    std::string message;  // a part of it
};

class DamagedVocabulary : public TokenizerVocabulary, public testing::WithParamInterface<Damage> {};

TEST_P(DamagedVocabulary, IsRefusedInOneClearLine) {
    VocabularyKeys keys = GetParam().keys;
    GetParam().apply(keys);
    const GgufFile file = write(keys);
    try {
        const Tokenizer tokenizer(file);
        FAIL() << "was accepted";
    } catch (const Error & error) {
        EXPECT_EQ(error.status(), GetParam().status);
        EXPECT_THAT(error.what(), AllOf(HasSubstr("vocabulary.gguf"), HasSubstr(GetParam().message)));
        EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    }
}

const VocabularyKeys bpe = VocabularyKeys::bpe();
const VocabularyKeys spm = VocabularyKeys::sentence_piece();
constexpr lorica_status format = LORICA_ERROR_FORMAT, unsupported = LORICA_ERROR_UNSUPPORTED;

const std::string model = "tokenizer.ggml.model", pre = "tokenizer.ggml.pre", tokens = "tokenizer.ggml.tokens",
                  merges = "tokenizer.ggml.merges", scores = "tokenizer.ggml.scores",
                  types = "tokenizer.ggml.token_type", bos = "tokenizer.ggml.bos_token_id",
                  eos = "tokenizer.ggml.eos_token_id";

INSTANTIATE_TEST_SUITE_P(
    All, DamagedVocabulary,
    testing::Values(
        Damage{"NoModel", bpe, [](auto & k) { k.strings.erase(model); }, format, "no tokenizer.ggml.model"},
        Damage{"UnknownModel", bpe, [](auto & k) { k.strings[model] = "t5\n"; }, unsupported, "\"t5\\x0a\""},
        Damage{"UnknownPre", bpe, [](auto & k) { k.strings[pre] = "nope"; }, unsupported,
               "\"nope\"; supported are default, gpt-2"},
        Damage{"NoTokens", bpe, [](auto & k) { k.string_arrays.erase(tokens); }, format,
               "tokenizer.ggml.tokens is missing"},
        Damage{"EmptyVocabulary", spm, [](auto & k) { k.string_arrays[tokens].clear(); }, format,
               "tokenizer.ggml.tokens has 0 tokens"},
        Damage{"TokensOfAnotherType", spm,
               [](auto & k) {
                   k.string_arrays.erase(tokens);
                   k.strings[tokens] = "a b c";
               },
               format, "tokenizer.ggml.tokens"},
        Damage{"RepeatedToken", bpe, [](auto & k) { k.string_arrays[tokens][3] = "a"; }, format,
               "has \"a\" twice, as 1 and as 3"},
        Damage{"FewerScoresThanTokens", spm, [](auto & k) { k.float_arrays[scores].pop_back(); }, format,
               "tokenizer.ggml.scores has 8 entries, but the vocabulary has 9 tokens"},
        Damage{"ScoreThatIsNoNumber", spm,
               [](auto & k) { k.float_arrays[scores][4] = std::numeric_limits<float>::quiet_NaN(); }, format,
               "scores[4] is not a number"},
        Damage{"MoreTypesThanTokens", bpe, [](auto & k) { k.int_arrays[types].push_back(1); }, format,
               "tokenizer.ggml.token_type has 10 entries, but the vocabulary has 9 tokens"},
        Damage{"TypeOutOfRange", bpe, [](auto & k) { k.int_arrays[types][2] = 7; }, format, "token_type[2] is 7"},
        Damage{"ByteTokenThatNamesNoByte", spm, [](auto & k) { k.int_arrays[types][4] = 6; }, format,
               "token 4 is a byte, but its text \"a\""},
        Damage{"NoMerges", bpe, [](auto & k) { k.string_arrays.erase(merges); }, format,
               "tokenizer.ggml.merges is missing"},
        Damage{"MergeOfOneToken", bpe, [](auto & k) { k.string_arrays[merges][1] = "abc"; }, format,
               "merges[1] is \"abc\", not two tokens"},
        Damage{"MergeOfAnUnknownToken", bpe, [](auto & k) { k.string_arrays[merges][0] = "a x"; }, format,
               "merges[0] \"a x\" needs the token \"x\""},
        Damage{"MergeIntoAnUnknownToken", bpe, [](auto & k) { k.string_arrays[merges][0] = "a d"; }, format,
               "needs the token \"ad\""},
        Damage{"BosOutOfRange", bpe, [](auto & k) { k.numbers[bos] = 9; }, format,
               "tokenizer.ggml.bos_token_id is 9, but the vocabulary has 9 tokens"},
        Damage{"EosOutOfRange", spm, [](auto & k) { k.numbers[eos] = 4000000000U; }, format,
               "tokenizer.ggml.eos_token_id is 4000000000"},
        Damage{"BosAskedForButMissing", bpe,
               [](auto & k) {
                   k.numbers.erase(bos);
                   k.flags["tokenizer.ggml.add_bos_token"] = true;
               },
               format, "tokenizer.ggml.bos_token_id is missing"}),
    [](const auto & info) { return info.param.name; });

TEST_F(TokenizerVocabulary, SentencePieceDefaultsAreLlama2s) {
    const Tokenizer tokenizer(write(spm));
    const Vocabulary & vocabulary = tokenizer.vocabulary();
    EXPECT_EQ(vocabulary.unk, 0);
    EXPECT_EQ(vocabulary.bos, 1);
    EXPECT_EQ(vocabulary.eos, 2);
    EXPECT_EQ(vocabulary.eot, -1);
    EXPECT_EQ(vocabulary.pad, -1);
    EXPECT_TRUE(vocabulary.add_bos);
    EXPECT_FALSE(vocabulary.add_eos);
    EXPECT_EQ(vocabulary.pre, "");
    // "ab" and "ba" have equal scores: the leftmost wins.
    EXPECT_THAT(tokenizer.encode("aba", {.add_special = true}), ElementsAre(1, 7, 4));
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 7, 4}, false), "aba");
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 7, 4}, true), "<s> aba");
}

TEST_F(TokenizerVocabulary, AWordWithoutPiecesBecomesUnknownWhereThereAreNoByteTokens) {
    EXPECT_THAT(Tokenizer(write(spm)).encode("aé", {}), ElementsAre(3, 4, 0, 0));
}

TEST_F(TokenizerVocabulary, KeysOverrideTheDefaults) {
    VocabularyKeys keys = spm;
    keys.flags = {{"tokenizer.ggml.add_bos_token", false},
                  {"tokenizer.ggml.add_eos_token", true},
                  {"tokenizer.ggml.add_space_prefix", false}};
    keys.numbers["tokenizer.ggml.eos_token_id"] = 8;
    const Tokenizer tokenizer(write(keys));
    EXPECT_THAT(tokenizer.encode("ab", {.add_special = true}), ElementsAre(6, 8));
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{7}, false), " ab");
    EXPECT_TRUE(tokenizer.vocabulary()[8].end_of_generation);
}

TEST_F(TokenizerVocabulary, ByteLevelBpeAddsBosOnlyWherePreTokenizerOrKeySaySo) {
    for (const auto & [name, adds_bos] : std::map<std::string, bool>{
             {"gpt-2", false}, {"smollm", false}, {"qwen2", false}, {"llama-bpe", true}, {"llama3", true}}) {
        VocabularyKeys keys = bpe;
        keys.strings[pre] = name;
        EXPECT_EQ(Tokenizer(write(keys)).vocabulary().add_bos, adds_bos) << name;
        keys.flags["tokenizer.ggml.add_bos_token"] = !adds_bos;
        EXPECT_EQ(Tokenizer(write(keys)).vocabulary().add_bos, !adds_bos) << name;
    }
}

TEST_F(TokenizerVocabulary, AFileWithoutPreTokenizerHasTheDefaultOne) {
    VocabularyKeys keys = bpe;
    keys.strings.erase("tokenizer.ggml.pre");
    EXPECT_EQ(Tokenizer(write(keys)).vocabulary().pre, "default");
}

TEST_F(TokenizerVocabulary, PaddingBehindTheLastTokenMeansNone) {
    VocabularyKeys keys = spm;
    keys.numbers["tokenizer.ggml.padding_token_id"] = 9;
    EXPECT_EQ(Tokenizer(write(keys)).vocabulary().pad, -1);
}

TEST_F(TokenizerVocabulary, AWordThatIsATokenIgnoresMergesWherePreTokenizerSaysSo) {
    VocabularyKeys keys = bpe;
    keys.string_arrays[merges] = {"a b"};
    EXPECT_THAT(Tokenizer(write(keys)).encode("abc", {}), ElementsAre(7, 3));
    keys.strings["tokenizer.ggml.pre"] = "llama-bpe";
    EXPECT_THAT(Tokenizer(write(keys)).encode("abc", {}), ElementsAre(8));
}

TEST_F(TokenizerVocabulary, ControlTokensComeFromTextOnlyOnDemand) {
    VocabularyKeys keys = bpe;
    // Merges that lead to a control token do not count.
    keys.int_arrays[types][8] = 3;
    const Tokenizer tokenizer(write(keys));
    EXPECT_THAT(tokenizer.encode("abc", {}), ElementsAre(7, 3));
    EXPECT_THAT(tokenizer.encode("abc", {.parse_special = true}), ElementsAre(8));
    EXPECT_THAT(tokenizer.encode("a<|end|>b", {.parse_special = true}), ElementsAre(1, 0, 2));
    EXPECT_THAT(tokenizer.encode("a<|end|>b", {}), ElementsAre(1, 5, 4, 2));  // of "<|end|>" only e and d have tokens
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 0, 2}, false), "ab");
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{1, 0, 2}, true), "a<|end|>b");
}

TEST_F(TokenizerVocabulary, LongerSpecialTokensWin) {
    VocabularyKeys keys = bpe;
    keys.string_arrays[tokens].insert(keys.string_arrays[tokens].end(), {"dd", "ddee"});
    keys.int_arrays[types].insert(keys.int_arrays[types].end(), {4, 4});
    const Tokenizer tokenizer(write(keys));
    EXPECT_THAT(tokenizer.encode("addb", {}), ElementsAre(1, 9, 2));  // user-defined: parsed without being asked to
    EXPECT_THAT(tokenizer.encode("dddee", {}), ElementsAre(4, 10));
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{9}, false), "dd");
}

TEST_F(TokenizerVocabulary, SpecialTokensOfPhi3SwallowTheSpaceBehindThem) {
    VocabularyKeys keys = bpe;
    keys.strings["general.name"] = "Phi-3 mini";
    EXPECT_THAT(Tokenizer(write(keys)).encode("a<|end|> \n b ", {.parse_special = true}), ElementsAre(1, 0, 2, 6));
    keys.strings["general.name"] = "Llama";
    EXPECT_THAT(Tokenizer(write(keys)).encode("a<|end|> b", {.parse_special = true}), ElementsAre(1, 0, 6, 2));
}

TEST_F(TokenizerVocabulary, TokensThatEndATurnAreKnownByTheirText) {
    VocabularyKeys keys = bpe;
    keys.string_arrays[tokens].insert(keys.string_arrays[tokens].end(), {"<|endoftext|>", "<|im_end|>", "<|fim_pad|>"});
    // A conversion that lost their types.
    keys.int_arrays[types].insert(keys.int_arrays[types].end(), {1, 1, 1});
    keys.numbers["tokenizer.ggml.eos_token_id"] = 5;
    keys.string_arrays[tokens].push_back("</s>");
    keys.int_arrays[types].push_back(1);
    const Tokenizer tokenizer(write(keys));
    const Vocabulary & vocabulary = tokenizer.vocabulary();
    EXPECT_EQ(vocabulary.eot, 10);
    for (const int32_t id : {0, 5, 9, 10, 11}) {
        EXPECT_TRUE(vocabulary[id].end_of_generation) << id;
    }
    for (const int32_t id : {9, 10, 11}) {
        EXPECT_EQ(vocabulary[id].type, TokenType::CONTROL) << id;
    }
    EXPECT_EQ(vocabulary[5].type, TokenType::NORMAL);
    EXPECT_FALSE(vocabulary[1].end_of_generation);
    EXPECT_FALSE(vocabulary[12].end_of_generation);  // HTML, as long as the file does not call it a control token
}

TEST_F(TokenizerVocabulary, EmptyTokensAndUnusedOnesStandForNothing) {
    VocabularyKeys keys = bpe;
    keys.string_arrays[tokens][5] = "";
    keys.int_arrays[types][4] = 5;
    const Tokenizer tokenizer(write(keys));
    EXPECT_EQ(tokenizer.vocabulary()[5].text, "[EMPTY_5]");
    EXPECT_EQ(tokenizer.decode(std::vector<int32_t>{4}, true), "");
}

TEST_F(TokenizerVocabulary, IdsOutOfRangeAreRefusedAndLeaveTheStreamAsItWas) {
    const Tokenizer tokenizer(write(spm));
    for (const int32_t id : {-1, 9, std::numeric_limits<int32_t>::max(), std::numeric_limits<int32_t>::min()}) {
        EXPECT_THROW(tokenizer.decode(std::vector<int32_t>{4, id}, false), Error);
        Detokenizer detokenizer(tokenizer, false);
        EXPECT_THROW(detokenizer.push(id), Error);
        EXPECT_EQ(detokenizer.push(7), "ab");
    }
}

}  // namespace
}  // namespace lorica::test
