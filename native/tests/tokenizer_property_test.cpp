// What holds for every text and every stream of ids, tried on random ones.
#include "tokenizer_support.h"

#include "common/error.h"
#include "common/quote.h"

#include <gmock/gmock.h>

#include <array>
#include <iterator>
#include <random>

namespace lorica::test {
namespace {

bool is_valid_utf8(std::string_view text) {
    while (!text.empty()) {
        const size_t length = utf8_character_length(text);
        if (length == 0) {
            return false;
        }
        text.remove_prefix(length);
    }
    return true;
}

class TokenizerProperty : public testing::TestWithParam<std::string> {
protected:
    const Tokenizer tokenizer_{GgufFile::open((tokenizer_data() / GetParam()).string())};
    std::mt19937 random_{42};

    size_t below(size_t n) { return std::uniform_int_distribution<size_t>(0, n - 1)(random_); }

    std::string random_bytes() {
        std::string text(below(60), '\0');
        for (char & c : text) {
            c = static_cast<char>(below(4) == 0 ? " \n'<|>01"[below(8)] : static_cast<char>(below(256)));
        }
        return text;
    }

    std::string random_text() {
        std::string text;
        for (size_t n = below(40); n > 0; --n) {
            const size_t end = std::array<size_t, 4>{0x80, 0x800, 0x3100, 0x110000}[below(4)];
            const auto code = static_cast<uint32_t>(below(end));
            append_utf8(text, code >= 0xd800 && code < 0xe000 ? ' ' : code);
        }
        return text;
    }
};

TEST_P(TokenizerProperty, AnyBytesAreEncodedAsTheirValidForm) {
    for (int i = 0; i < 3000; ++i) {
        const std::string bytes = random_bytes();
        std::string storage;
        const std::string_view valid = valid_utf8(bytes, storage);
        ASSERT_TRUE(is_valid_utf8(valid));
        for (const bool parse_special : {false, true}) {
            EXPECT_EQ(tokenizer_.encode(bytes, {.add_special = true, .parse_special = parse_special}),
                      tokenizer_.encode(valid, {.add_special = true, .parse_special = parse_special}))
                << quoted(bytes);
        }
    }
}

// Not for WordPiece, which normalizes the text.
class TokenizerRoundTripProperty : public TokenizerProperty {};

TEST_P(TokenizerRoundTripProperty, TextSurvives) {
    for (int i = 0; i < 3000; ++i) {
        const std::string text = random_text();
        if (text.find("\u2581") == std::string::npos) {
            EXPECT_EQ(tokenizer_.decode(tokenizer_.encode(text, {}), true), text) << quoted(text);
        }
    }
}

TEST_P(TokenizerProperty, AnyStreamOfIdsGivesWholeCharactersAndInTotalTheDecodedText) {
    const auto n_vocab = static_cast<size_t>(tokenizer_.vocabulary().size());
    for (int i = 0; i < 2000; ++i) {
        std::vector<int32_t> ids(below(30));
        for (int32_t & id : ids) {
            id = static_cast<int32_t>(below(below(2) == 0 ? 270 : n_vocab));  // half of them bytes and special tokens
        }
        for (const bool special : {false, true}) {
            Detokenizer detokenizer(tokenizer_, special);
            for (int round = 0; round < 2; ++round) {  // finish() begins anew
                std::string total;
                for (const int32_t id : ids) {
                    const std::string text = detokenizer.push(id);
                    EXPECT_TRUE(is_valid_utf8(text)) << quoted(text);
                    total += text;
                }
                const std::string rest = detokenizer.finish();
                EXPECT_TRUE(is_valid_utf8(rest));
                std::string storage;
                EXPECT_EQ(total + rest, valid_utf8(tokenizer_.decode(ids, special), storage));
            }
        }
    }
}

TEST_P(TokenizerProperty, ABatchGivesTheIdsOfItsTexts) {
    std::vector<std::string> texts;
    for (int i = 0; i < 500; ++i) {
        texts.push_back(random_text() + (i % 3 == 0 ? "<|im_end|></s>[SEP] x" : ""));
    }
    const std::vector<std::string_view> views(texts.begin(), texts.end());
    const auto parse_special = [](size_t i) { return i % 2 == 0; };
    for (const int n_threads : {0, 1, 2, 7}) {
        const auto batch = tokenizer_.encode_batch(views, parse_special, n_threads);
        ASSERT_EQ(batch.size(), texts.size());
        for (size_t i = 0; i < texts.size(); ++i) {
            EXPECT_EQ(batch[i], tokenizer_.encode(texts[i], {.parse_special = parse_special(i)}));
        }
    }
}

TEST_P(TokenizerProperty, AFileWithFlippedBytesIsRefusedOrUsable) {
    std::ifstream file(tokenizer_data() / GetParam(), std::ios::binary);
    const std::string sound((std::istreambuf_iterator<char>(file)), std::istreambuf_iterator<char>());
    const TempDir temp;
    const std::string path = temp / "damaged.gguf";
    int n_loaded = 0, n_refused = 0;
    for (int i = 0; i < 300; ++i) {
        std::string damaged = sound;
        for (size_t n = 1 + below(2); n > 0; --n) {
            damaged[below(below(4) == 0 ? 1200 : damaged.size())] = static_cast<char>(below(256));
        }
        std::ofstream(path, std::ios::binary) << damaged;
        try {
            const Tokenizer tokenizer(GgufFile::open(path));
            const auto ids = tokenizer.encode(random_bytes() + " The adapter's 123 <|im_end|></s>[SEP]",
                                              {.add_special = true, .parse_special = true});
            for (const int32_t id : ids) {
                EXPECT_TRUE(tokenizer.vocabulary().contains(id));
            }
            tokenizer.decode(ids, true);
            ++n_loaded;
        } catch (const Error & error) {
            EXPECT_THAT(error.what(), testing::HasSubstr("damaged.gguf"));
            ++n_refused;
        }
    }
    EXPECT_GT(n_loaded, 5);
    EXPECT_GT(n_refused, 5);
}

constexpr auto test_name = [](const testing::TestParamInfo<std::string> & info) {
    return info.param.substr(0, info.param.find('-'));
};
INSTANTIATE_TEST_SUITE_P(Small, TokenizerProperty,
                         testing::Values("bpe-small.gguf", "spm-small.gguf", "wordpiece-small.gguf"), test_name);
INSTANTIATE_TEST_SUITE_P(Small, TokenizerRoundTripProperty, testing::Values("bpe-small.gguf", "spm-small.gguf"),
                         test_name);

TEST(Utf8, ReplacesEachByteThatIsNoPartOfACharacter) {
    const auto repaired = [](std::string_view text) {
        std::string storage;
        return std::string(valid_utf8(text, storage));
    };
    EXPECT_EQ(repaired("é€😀"), "é€😀");
    EXPECT_EQ(repaired("a\xff"
                       "b"),
              "a\ufffdb");
    EXPECT_EQ(repaired("\xe2\x82"), "\ufffd\ufffd");                      // cut off
    EXPECT_EQ(repaired("\xc0\x80"), "\ufffd\ufffd");                      // overlong
    EXPECT_EQ(repaired("\xed\xa0\x80"), "\ufffd\ufffd\ufffd");            // a surrogate
    EXPECT_EQ(repaired("\xf4\x90\x80\x80"), "\ufffd\ufffd\ufffd\ufffd");  // above U+10FFFF
    EXPECT_EQ(repaired(std::string_view("\0x", 2)), std::string("\0x", 2));
}

TEST(Utf8, HoldsACharacterBackUntilItIsWhole) {
    Utf8Assembler assembler;
    const auto push = [&](std::string_view bytes) {
        std::string out;
        assembler.push(bytes, out);
        return out;
    };
    EXPECT_EQ(push("a\xf0\x9f"), "a");
    EXPECT_EQ(push("\x98"), "");
    EXPECT_EQ(push("\x80"
                   "b"),
              "😀b");
    EXPECT_EQ(push("\xe2\x82"), "");
    EXPECT_EQ(push("c"),
              "\ufffd\ufffd"
              "c");
    EXPECT_EQ(push("\xff"), "\ufffd");
    EXPECT_EQ(push("\xe2\x82"), "");
    std::string rest;
    assembler.finish(rest);
    EXPECT_EQ(rest, "\ufffd\ufffd");
}

}  // namespace
}  // namespace lorica::test
