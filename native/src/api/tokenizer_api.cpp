#include "api/api.h"
#include "api/handles.h"
#include "tokenizer/tokenizer.h"

#include <algorithm>

using lorica::fail;
using lorica::api::guarded;
using lorica::api::require;

struct lorica_tokenizer {
    lorica::Tokenizer tokenizer;
};

struct lorica_detokenizer {
    lorica::Detokenizer detokenizer;
    std::string text;  // what was returned last
};

namespace {

// Refuses a negative size, and NULL where the size says that there is something.
void require_array(const void * pointer, int64_t size, const char * name, const char * size_name) {
    if (size < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, size_name, " must not be negative, it is ", size);
    }
    if (size > 0) {
        require(pointer, name);
    }
}

template <typename T> void copy_up_to(int64_t capacity, const T * from, size_t n, T * to) {
    std::copy_n(from, std::min(n, static_cast<size_t>(capacity)), to);
}

}  // namespace

lorica_status lorica_tokenizer_load(const char * path, lorica_tokenizer ** out) {
    return guarded([&] {
        require(path, "path");
        require(out, "out");
        *out = new lorica_tokenizer{lorica::Tokenizer(lorica::GgufFile::open(path))};
    });
}

lorica_status lorica_tokenizer_of_model(const lorica_model * model, lorica_tokenizer ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        *out = new lorica_tokenizer{lorica::Tokenizer(model->model->file())};
    });
}

void lorica_tokenizer_free(lorica_tokenizer * tokenizer) { delete tokenizer; }

lorica_status lorica_tokenizer_get_info(const lorica_tokenizer * tokenizer, lorica_tokenizer_info * out) {
    return guarded([&] {
        require(tokenizer, "tokenizer");
        require(out, "out");
        const lorica::Vocabulary & vocabulary = tokenizer->tokenizer.vocabulary();
        lorica::api::write_struct(
            lorica_tokenizer_info{
                .struct_size = sizeof(lorica_tokenizer_info),
                .model = vocabulary.model_name.c_str(),
                .pre = vocabulary.pre.c_str(),
                .chat_template = vocabulary.chat_template ? vocabulary.chat_template->c_str() : nullptr,
                .n_vocab = vocabulary.size(),
                .bos = vocabulary.bos,
                .eos = vocabulary.eos,
                .eot = vocabulary.eot,
                .unk = vocabulary.unk,
                .pad = vocabulary.pad,
                .add_bos = vocabulary.add_bos,
                .add_eos = vocabulary.add_eos,
            },
            "out", out);
    });
}

lorica_status lorica_tokenizer_encode(const lorica_tokenizer * tokenizer, const char * text, int64_t n_bytes,
                                      bool add_special, bool parse_special, int32_t * ids, int64_t capacity,
                                      int64_t * n_tokens) {
    return guarded([&] {
        require(tokenizer, "tokenizer");
        require_array(text, n_bytes, "text", "n_bytes");
        require_array(ids, capacity, "ids", "capacity");
        require(n_tokens, "n_tokens");
        const std::vector<int32_t> encoded = tokenizer->tokenizer.encode(
            {text, static_cast<size_t>(n_bytes)}, {.add_special = add_special, .parse_special = parse_special});
        copy_up_to(capacity, encoded.data(), encoded.size(), ids);
        *n_tokens = static_cast<int64_t>(encoded.size());
    });
}

lorica_status lorica_tokenizer_encode_batch(const lorica_tokenizer * tokenizer, const char * texts,
                                            const int64_t * offsets, const bool * parse_special, int64_t n_texts,
                                            int32_t n_threads, int32_t * ids, int64_t capacity, int64_t * id_offsets) {
    return guarded([&] {
        require(tokenizer, "tokenizer");
        require_array(offsets, n_texts, "offsets", "n_texts");
        require_array(ids, capacity, "ids", "capacity");
        require(id_offsets, "id_offsets");
        if (n_threads < 0) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "n_threads must not be negative, it is ", n_threads);
        }
        const auto n = static_cast<size_t>(n_texts);
        std::vector<std::string_view> views(n);
        for (size_t i = 0; i < n; ++i) {
            if (offsets[i] < 0 || offsets[i + 1] < offsets[i]) {
                fail(LORICA_ERROR_INVALID_ARGUMENT, "offsets must ascend from 0 on, but offsets[", i, "] is ",
                     offsets[i], " and offsets[", i + 1, "] is ", offsets[i + 1]);
            }
            if (offsets[i + 1] > offsets[i]) {
                require(texts, "texts");
                views[i] = {texts + offsets[i], static_cast<size_t>(offsets[i + 1] - offsets[i])};
            }
        }
        const auto encoded = tokenizer->tokenizer.encode_batch(
            views, [&](size_t i) { return parse_special != nullptr && parse_special[i]; }, n_threads);
        int64_t written = 0;
        for (size_t i = 0; i < n; ++i) {
            id_offsets[i] = written;
            copy_up_to(std::max<int64_t>(capacity - written, 0), encoded[i].data(), encoded[i].size(), ids + written);
            written += static_cast<int64_t>(encoded[i].size());
        }
        id_offsets[n] = written;
    });
}

lorica_status lorica_tokenizer_decode(const lorica_tokenizer * tokenizer, const int32_t * ids, int64_t n_ids,
                                      bool special, char * text, int64_t capacity, int64_t * n_bytes) {
    return guarded([&] {
        require(tokenizer, "tokenizer");
        require_array(ids, n_ids, "ids", "n_ids");
        require_array(text, capacity, "text", "capacity");
        require(n_bytes, "n_bytes");
        const std::string decoded = tokenizer->tokenizer.decode({ids, static_cast<size_t>(n_ids)}, special);
        copy_up_to(capacity, decoded.data(), decoded.size(), text);
        *n_bytes = static_cast<int64_t>(decoded.size());
    });
}

const char * lorica_tokenizer_token_text(const lorica_tokenizer * tokenizer, int32_t id) {
    if (tokenizer == nullptr || !tokenizer->tokenizer.vocabulary().contains(id)) {
        return nullptr;
    }
    return tokenizer->tokenizer.vocabulary()[id].text.c_str();
}

bool lorica_tokenizer_is_control(const lorica_tokenizer * tokenizer, int32_t id) {
    return tokenizer != nullptr && tokenizer->tokenizer.vocabulary().contains(id) &&
           tokenizer->tokenizer.vocabulary()[id].type == lorica::TokenType::CONTROL;
}

bool lorica_tokenizer_is_end_of_generation(const lorica_tokenizer * tokenizer, int32_t id) {
    return tokenizer != nullptr && tokenizer->tokenizer.vocabulary().contains(id) &&
           tokenizer->tokenizer.vocabulary()[id].end_of_generation;
}

lorica_status lorica_detokenizer_create(const lorica_tokenizer * tokenizer, bool special, lorica_detokenizer ** out) {
    return guarded([&] {
        require(tokenizer, "tokenizer");
        require(out, "out");
        *out = new lorica_detokenizer{lorica::Detokenizer(tokenizer->tokenizer, special), {}};
    });
}

void lorica_detokenizer_free(lorica_detokenizer * detokenizer) { delete detokenizer; }

lorica_status lorica_detokenizer_push(lorica_detokenizer * detokenizer, int32_t id, const char ** text,
                                      int64_t * n_bytes) {
    return guarded([&] {
        require(detokenizer, "detokenizer");
        require(text, "text");
        require(n_bytes, "n_bytes");
        detokenizer->text = detokenizer->detokenizer.push(id);
        *text = detokenizer->text.data();
        *n_bytes = static_cast<int64_t>(detokenizer->text.size());
    });
}

lorica_status lorica_detokenizer_finish(lorica_detokenizer * detokenizer, const char ** text, int64_t * n_bytes) {
    return guarded([&] {
        require(detokenizer, "detokenizer");
        require(text, "text");
        require(n_bytes, "n_bytes");
        detokenizer->text = detokenizer->detokenizer.finish();
        *text = detokenizer->text.data();
        *n_bytes = static_cast<int64_t>(detokenizer->text.size());
    });
}
