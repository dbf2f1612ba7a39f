// Defaults and the recognition of special tokens by their text are those of llama.cpp (src/llama-vocab.cpp).
#include "tokenizer/vocabulary.h"

#include "common/error.h"
#include "common/log.h"
#include "common/quote.h"
#include "tokenizer/pre_tokenizer.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace lorica {

namespace {

std::string key_of(std::string_view name) { return "tokenizer.ggml." + std::string(name); }

TokenizerModel model_named(const GgufFile & file, const std::string & name) {
    if (name == "llama") {
        return TokenizerModel::SENTENCEPIECE;
    }
    if (name == "gpt2") {
        return TokenizerModel::BYTE_LEVEL_BPE;
    }
    if (name == "bert") {
        return TokenizerModel::WORDPIECE;
    }
    fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": tokenizer.ggml.model is ", quoted(name),
         "; supported are \"llama\", \"gpt2\" and \"bert\"");
}

template <typename T>
void require_length(const GgufFile & file, const std::string & key, const std::vector<T> & values, size_t n_tokens) {
    if (values.size() != n_tokens) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", key, " has ", values.size(), " entries, but the vocabulary has ",
             n_tokens, " tokens; the file is damaged or was converted wrongly");
    }
}

// Texts that end a generation whatever the file says of them. Those of end_of_turn are also what info calls eot, the
// first that the vocabulary has.
constexpr std::array<std::string_view, 11> end_of_turn = {
    "<|eot_id|>", "<|im_end|>", "<|end|>", "<end_of_turn>",         "<|endoftext|>",      "<|end_of_text|>",
    "<EOT>",      "_<EOT>",     "[EOT]",   "<｜end▁of▁sentence｜>", "<end_of_utterance>",
};
constexpr std::array<std::string_view, 3> other_ends = {"<|eom_id|>", "<|return|>", "<|call|>"};
// The same for control tokens only: learned vocabularies have the first as a word of HTML.
constexpr std::array<std::string_view, 3> plain_ends = {"</s>", "<eos>", "[EOS]"};

// Fill-in-the-middle tokens after which a completion is over: by key, or else by text.
struct FillInMiddleEnd {
    std::string_view key;
    std::array<std::string_view, 5> texts;
};
constexpr std::array<FillInMiddleEnd, 3> fill_in_middle_ends = {{
    {"fim_pad_token_id", {"<|fim_pad|>", "<fim-pad>", "<fim_pad>", "<PAD>", "[PAD]"}},
    {"fim_rep_token_id", {"<|fim_repo|>", "<|repo_name|>", "<fim-repo>", "<REPO>", "<reponame>"}},
    {"fim_sep_token_id", {"<|file_sep|>"}},
}};

}  // namespace

Vocabulary::Vocabulary(const GgufFile & file) {
    const auto name = file.find_string(key_of("model"));
    if (!name) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": the file has no vocabulary (no tokenizer.ggml.model)");
    }
    model_name = *name;
    model = model_named(file, model_name);
    chat_template = file.find_string("tokenizer.chat_template");
    load_tokens(file);
    load_special_ids(file);
    mark_end_of_generation(file);
    load_rules(file);
    mark_stripping(file);
}

int32_t Vocabulary::find(std::string_view text) const {
    const auto found = ids_.find(text);
    return found == ids_.end() ? -1 : found->second;
}

int32_t Vocabulary::find_producible(std::string_view text) const {
    const int32_t id = find(text);
    return id >= 0 && !(*this)[id].is_hidden() ? id : -1;
}

void Vocabulary::load_tokens(const GgufFile & file) {
    const std::string tokens_key = key_of("tokens");
    auto texts = file.find_strings(tokens_key);
    if (!texts) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", tokens_key, " is missing; the file has no usable vocabulary");
    }
    if (texts->empty() || texts->size() > static_cast<size_t>(std::numeric_limits<int32_t>::max())) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", tokens_key, " has ", texts->size(), " tokens");
    }
    tokens_.resize(texts->size());
    ids_.reserve(texts->size());
    for (size_t i = 0; i < tokens_.size(); ++i) {
        tokens_[i].text = (*texts)[i].empty() ? "[EMPTY_" + std::to_string(i) + "]" : std::move((*texts)[i]);
        const auto [entry, is_new] = ids_.emplace(tokens_[i].text, static_cast<int32_t>(i));
        if (!is_new) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": ", tokens_key, " has ", quoted(tokens_[i].text), " twice, as ",
                 entry->second, " and as ", i);
        }
    }

    const std::string scores_key = key_of("scores");
    if (const auto scores = file.find_floats(scores_key)) {
        require_length(file, scores_key, *scores, tokens_.size());
        for (size_t i = 0; i < tokens_.size(); ++i) {
            if (std::isnan((*scores)[i])) {
                fail(LORICA_ERROR_FORMAT, file.path(), ": ", scores_key, "[", i, "] is not a number");
            }
            tokens_[i].score = static_cast<float>((*scores)[i]);
        }
    }

    const std::string types_key = key_of("token_type");
    if (const auto types = file.find_ints(types_key)) {
        require_length(file, types_key, *types, tokens_.size());
        for (size_t i = 0; i < tokens_.size(); ++i) {
            if ((*types)[i] > static_cast<int64_t>(TokenType::BYTE)) {
                fail(LORICA_ERROR_FORMAT, file.path(), ": ", types_key, "[", i, "] is ", (*types)[i],
                     ", which is no token type (0 to 6)");
            }
            tokens_[i].type = static_cast<TokenType>((*types)[i]);
        }
    }
}

// Nothing for a key that is absent or names no token: files in the wild have padding ids one behind the last token.
std::optional<int32_t> Vocabulary::find_id(const GgufFile & file, const std::string & key) const {
    const auto id = file.find_int(key);
    return id && *id < size() ? std::optional(static_cast<int32_t>(*id)) : std::nullopt;
}

int32_t Vocabulary::required_id(const GgufFile & file, const std::string & key, int32_t otherwise) const {
    const auto id = file.find_int(key);
    if (id && *id >= size()) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", key, " is ", *id, ", but the vocabulary has ", size(), " tokens");
    }
    return id ? static_cast<int32_t>(*id) : contains(otherwise) ? otherwise : -1;
}

void Vocabulary::load_special_ids(const GgufFile & file) {
    int32_t default_bos = -1, default_eos = -1, default_unk = -1;
    std::string eos_key = key_of("eos_token_id");
    if (model == TokenizerModel::SENTENCEPIECE) {
        default_unk = 0;
        default_bos = 1;
        default_eos = 2;
    } else if (model == TokenizerModel::WORDPIECE) {
        // [CLS] and [SEP] stand where other vocabularies have BOS and EOS.
        default_unk = 100;
        default_bos = file.find_int(key_of("cls_token_id")) ? required_id(file, key_of("cls_token_id"), -1) : 101;
        default_eos = 102;
        eos_key = key_of("seperator_token_id");  // GGUF spells it so
    }
    bos = required_id(file, key_of("bos_token_id"), default_bos);
    eos = required_id(file, eos_key, default_eos);
    unk = required_id(file, key_of("unknown_token_id"), default_unk);
    pad = find_id(file, key_of("padding_token_id")).value_or(model == TokenizerModel::WORDPIECE ? 0 : -1);
    eot = find_id(file, key_of("eot_token_id")).value_or(-1);
    for (size_t i = 0; eot < 0 && i < end_of_turn.size(); ++i) {
        eot = find(end_of_turn[i]);
    }
}

void Vocabulary::mark_end_of_generation(const GgufFile & file) {
    const auto mark = [&](int32_t id) {
        if (id >= 0) {
            tokens_[static_cast<size_t>(id)].end_of_generation = true;
        }
    };
    // A token that looks like a control token is one, even where the conversion lost its type.
    const auto mark_text = [&](std::string_view text) {
        const int32_t id = find(text);
        mark(id);
        if (id >= 0) {
            tokens_[static_cast<size_t>(id)].type = TokenType::CONTROL;
        }
        return id >= 0;
    };
    for (const std::string_view text : end_of_turn) {
        mark_text(text);
    }
    for (const std::string_view text : other_ends) {
        mark_text(text);
    }
    for (const std::string_view text : plain_ends) {
        const int32_t id = find(text);
        if (id >= 0 && (*this)[id].type == TokenType::CONTROL) {
            mark(id);
        }
    }
    for (const FillInMiddleEnd & end : fill_in_middle_ends) {
        if (const auto id = find_id(file, key_of(end.key))) {
            mark(*id);
            continue;
        }
        std::ranges::any_of(end.texts, mark_text);
    }
    if (model != TokenizerModel::WORDPIECE) {
        mark(eos);
    }
    mark(eot);
    mark(find_id(file, key_of("eom_token_id")).value_or(-1));
}

void Vocabulary::load_rules(const GgufFile & file) {
    const auto flag = [&](std::string_view name, bool otherwise) {
        return file.find_bool(key_of(name)).value_or(otherwise);
    };
    if (model == TokenizerModel::WORDPIECE) {
        add_bos = add_eos = true;
        lowercase = flag("normalizer.lowercase", true);
        strip_accents = flag("normalizer.strip_accents", lowercase);
    } else {
        bool default_add_bos = model == TokenizerModel::SENTENCEPIECE;
        if (model == TokenizerModel::BYTE_LEVEL_BPE) {
            pre = file.find_string(key_of("pre")).value_or("");
            if (pre.empty()) {
                pre = "default";
                log(LORICA_LOG_WARN, file.path(), " does not say how its texts are split (", key_of("pre"),
                    "): it is done by the rules of \"default\", which may not be this model's; convert the model "
                    "again");
            }
            const PreTokenizer pre_tokenizer = PreTokenizer::named(file, pre);
            ignore_merges = pre_tokenizer.ignores_merges();
            default_add_bos = pre_tokenizer.adds_bos() && bos >= 0;
        } else {
            add_space_prefix = flag("add_space_prefix", true);
        }
        add_bos = flag("add_bos_token", default_add_bos);
        add_eos = flag("add_eos_token", false);
    }
    const auto require_token = [&](bool wanted, int32_t id, const char * key) {
        if (wanted && id < 0) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": texts are to be wrapped in special tokens, but ", key_of(key),
                 " is missing");
        }
    };
    require_token(add_bos, bos, "bos_token_id");
    require_token(add_eos, eos, model == TokenizerModel::WORDPIECE ? "seperator_token_id" : "eos_token_id");
}

// GGUF does not say which special tokens swallow white space. The Phi-3 family is the only one of the supported models
// that has such tokens, and is known by its name.
void Vocabulary::mark_stripping(const GgufFile & file) {
    std::string name = file.find_string("general.name").value_or("");
    std::ranges::transform(name, name.begin(),
                           [](char c) { return c >= 'A' && c <= 'Z' ? static_cast<char>(c + 32) : c; });
    if (name.find("phi-3") == std::string::npos && name.find("phi3") == std::string::npos) {
        return;
    }
    for (Token & token : tokens_) {
        const bool is_special = token.is_hidden() || token.type == TokenType::USER_DEFINED;
        token.strip_right = (is_special || token.text == "</s>") && token.text != "<unk>" && token.text != "<s>" &&
                            token.text != "<|endoftext|>";
    }
}

}  // namespace lorica
