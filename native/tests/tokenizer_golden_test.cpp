// Ids as llama.cpp or Hugging Face's tokenizers give them, for every vocabulary and pre-tokenizer. The files are made
// by scripts/make_tokenizer_goldens.py.
#include "tokenizer_support.h"

#include <gmock/gmock.h>

#include <algorithm>
#include <cctype>

namespace lorica::test {
namespace {

struct Golden {
    std::string name;        // of the .golden file
    std::string vocabulary;  // file, see find_vocabulary
    std::string pre;         // replaces tokenizer.ggml.pre when not empty
};

void PrintTo(const Golden & golden, std::ostream * out) { *out << golden.name; }

struct Case {
    EncodeOptions options;
    std::string text;
    std::vector<int32_t> ids;
};

std::string unescape(const std::string & text) {
    std::string out;
    for (size_t i = 0; i < text.size(); ++i) {
        if (text[i] != '\\') {
            out += text[i];
            continue;
        }
        switch (text.at(++i)) {
            case 'n': out += '\n'; break;
            case 't': out += '\t'; break;
            case 'r': out += '\r'; break;
            case '\\': out += '\\'; break;
            case 'x':
                out += static_cast<char>(std::stoi(text.substr(i + 1, 2), nullptr, 16));
                i += 2;
                break;
            default: throw std::runtime_error("unknown escape in " + text);
        }
    }
    return out;
}

std::vector<Case> read_cases(const std::string & name) {
    std::ifstream file(tokenizer_data() / (name + ".golden"));
    std::vector<Case> cases;
    for (std::string line; std::getline(file, line);) {
        const size_t text = line.find('\t') + 1;
        const size_t ids = line.find('\t', text) + 1;
        Case & c = cases.emplace_back();
        c.options = {.add_special = line.at(0) == '1', .parse_special = line.at(1) == '1'};
        c.text = unescape(line.substr(text, ids - 1 - text));
        std::istringstream numbers(line.substr(ids));
        for (int32_t id; numbers >> id;) {
            c.ids.push_back(id);
        }
    }
    return cases;
}

class TokenizerGolden : public testing::TestWithParam<Golden> {
protected:
    void SetUp() override {
        const auto path = find_vocabulary(GetParam().vocabulary);
        if (!path) {
            GTEST_SKIP() << GetParam().vocabulary << " is neither in the repository nor in ../shared";
        }
        if (GetParam().pre.empty()) {
            tokenizer_.emplace(GgufFile::open(*path));
            return;
        }
        const GgufFile file = GgufFile::open(*path);
        VocabularyKeys keys;
        keys.strings = {{"tokenizer.ggml.model", "gpt2"}, {"tokenizer.ggml.pre", GetParam().pre}};
        for (const std::string key : {"tokenizer.ggml.bos_token_id", "tokenizer.ggml.eos_token_id"}) {
            keys.numbers[key] = static_cast<uint32_t>(file.find_int(key).value());
        }
        for (const std::string key : {"tokenizer.ggml.tokens", "tokenizer.ggml.merges"}) {
            keys.string_arrays[key] = file.find_strings(key).value();
        }
        const auto types = file.find_ints("tokenizer.ggml.token_type").value();
        keys.int_arrays["tokenizer.ggml.token_type"] = {types.begin(), types.end()};
        tokenizer_.emplace(GgufFile::open(keys.write(temp_ / "vocabulary.gguf")));
    }

    TempDir temp_;
    std::optional<Tokenizer> tokenizer_;
};

TEST_P(TokenizerGolden, EncodesAsTheOriginal) {
    const std::vector<Case> cases = read_cases(GetParam().name);
    ASSERT_GT(cases.size(), 60U);
    for (const Case & c : cases) {
        EXPECT_EQ(tokenizer_->encode(c.text, c.options), c.ids)
            << testing::PrintToString(c.text) << " with add_special " << c.options.add_special << ", parse_special "
            << c.options.parse_special;
    }
}

TEST_P(TokenizerGolden, StreamsWhatItDecodes) {
    for (const Case & c : read_cases(GetParam().name)) {
        for (const bool special : {false, true}) {
            Detokenizer detokenizer(*tokenizer_, special);
            std::string streamed;
            for (const int32_t id : c.ids) {
                streamed += detokenizer.push(id);
            }
            streamed += detokenizer.finish();
            EXPECT_EQ(streamed, tokenizer_->decode(c.ids, special)) << testing::PrintToString(c.text);
        }
    }
}

// Not for WordPiece and form C, which change the text.
class TokenizerRoundTrip : public TokenizerGolden {};

TEST_P(TokenizerRoundTrip, DecodesToTheTextItEncoded) {
    for (const Case & c : read_cases(GetParam().name)) {
        // SentencePiece spells a space as U+2581, and puts one behind each special token.
        const bool is_altered =
            tokenizer_->vocabulary().model == TokenizerModel::SENTENCEPIECE &&
            (c.text.find("<tool>") != std::string::npos || c.text.find("\u2581") != std::string::npos);
        // Falcon and SmolLM2 have no tokens for some control characters and leave them out.
        if (is_altered || c.text.starts_with('\x1c')) {
            continue;
        }
        const auto ids = tokenizer_->encode(c.text, {.add_special = true});
        EXPECT_EQ(tokenizer_->decode(ids, false), c.text);
        EXPECT_EQ(tokenizer_->decode(tokenizer_->encode(c.text, {}), true), c.text);
    }
}

std::string test_name(const testing::TestParamInfo<Golden> & info) {
    std::string name = info.param.name;
    std::ranges::replace_if(name, [](unsigned char c) { return !std::isalnum(c); }, '_');
    return name;
}

const auto small_merging = testing::Values(
    Golden{"bpe-small.default", "bpe-small.gguf", "default"}, Golden{"bpe-small.gpt-2", "bpe-small.gguf", "gpt-2"},
    Golden{"bpe-small.smollm", "bpe-small.gguf", "smollm"},
    Golden{"bpe-small.starcoder", "bpe-small.gguf", "starcoder"},
    Golden{"bpe-small.falcon", "bpe-small.gguf", "falcon"},
    Golden{"bpe-small.llama-bpe", "bpe-small.gguf", "llama-bpe"},
    Golden{"bpe-small.tekken", "bpe-small.gguf", "tekken"}, Golden{"bpe-small.gpt-4o", "bpe-small.gguf", "gpt-4o"},
    Golden{"spm-small", "spm-small.gguf", ""});
const auto composing = testing::Values(Golden{"bpe-small.qwen2", "bpe-small.gguf", "qwen2"},
                                       Golden{"bpe-small.qwen35", "bpe-small.gguf", "qwen35"},
                                       Golden{"bpe-small.olmo", "bpe-small.gguf", "olmo"});
const auto real_merging =
    testing::Values(Golden{"austen-7m", "models/austen-7m-q4_0.gguf", ""},
                    Golden{"smollm2", "models/smollm2-135m-instruct-q4_1.gguf", ""},
                    Golden{"llama-spm", "data/vocab/llama-spm.gguf", ""}, Golden{"gpt-2", "data/vocab/gpt-2.gguf", ""},
                    Golden{"falcon", "data/vocab/falcon.gguf", ""});

INSTANTIATE_TEST_SUITE_P(Small, TokenizerGolden, small_merging, test_name);
INSTANTIATE_TEST_SUITE_P(Small, TokenizerRoundTrip, small_merging, test_name);
INSTANTIATE_TEST_SUITE_P(Composing, TokenizerGolden, composing, test_name);
INSTANTIATE_TEST_SUITE_P(Real, TokenizerGolden, real_merging, test_name);
INSTANTIATE_TEST_SUITE_P(Real, TokenizerRoundTrip, real_merging, test_name);
INSTANTIATE_TEST_SUITE_P(WordPiece, TokenizerGolden,
                         testing::Values(Golden{"wordpiece-small", "wordpiece-small.gguf", ""},
                                         Golden{"bert-bge", "data/vocab/bert-bge.gguf", ""}),
                         test_name);

}  // namespace
}  // namespace lorica::test
