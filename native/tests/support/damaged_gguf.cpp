#include "support/damaged_gguf.h"
#include "support/c_structs.h"

#include "adapter/lora_file.h"
#include "common/random.h"
#include "gguf/gguf_writer.h"
#include "support/raw_gguf.h"
#include "support/test_model.h"

#include <algorithm>
#include <cstring>
#include <span>

namespace lorica::test {

namespace {

constexpr int64_t n_embd = 32, n_vocab = 265;

// GPT-2's alphabet: printable Latin-1 stands for itself, the other bytes for U+0100 and on.
std::string byte_symbol(int byte) {
    int code = byte;
    if (!((byte >= 33 && byte <= 126) || (byte >= 161 && byte <= 172) || byte >= 174)) {
        code = 256;
        for (int other = 0; other < byte; ++other) {
            code += !((other >= 33 && other <= 126) || (other >= 161 && other <= 172) || other >= 174);
        }
    }
    if (code < 0x80) {
        return {static_cast<char>(code)};
    }
    return {static_cast<char>(0xc0 | code >> 6), static_cast<char>(0x80 | (code & 0x3f))};
}

void write_bpe_vocabulary(const std::string & path) {
    std::vector<std::string> tokens, merges = {"t h", "th e", "\u0120 the", "a n"};
    for (int byte = 0; byte < 256; ++byte) {
        tokens.push_back(byte_symbol(byte));
    }
    for (const char * token : {"th", "the", "\u0120the", "an", "<|endoftext|>"}) {
        tokens.emplace_back(token);
    }
    std::vector<int32_t> types(tokens.size(), 1);
    types.back() = 3;
    GgufWriter writer;
    writer.set_string("general.architecture", "llama");
    writer.set_string("tokenizer.ggml.model", "gpt2");
    writer.set_string("tokenizer.ggml.pre", "gpt-2");
    writer.set_strings("tokenizer.ggml.tokens", tokens);
    writer.set_i32s("tokenizer.ggml.token_type", types);
    writer.set_strings("tokenizer.ggml.merges", merges);
    writer.set_u32("tokenizer.ggml.bos_token_id", static_cast<uint32_t>(tokens.size() - 1));
    writer.set_u32("tokenizer.ggml.eos_token_id", static_cast<uint32_t>(tokens.size() - 1));
    writer.set_string("tokenizer.chat_template", "{{ messages }}");
    writer.write(path);
}

// A number of the header: what a lie can be told about.
struct Field {
    std::string what;
    size_t offset;
    size_t n_bytes;
};

struct Name {
    size_t offset;  // of the text, behind its length
    size_t n_bytes;
};

// Finds the numbers and names in the header of a sound file.
class HeaderMap {
public:
    explicit HeaderMap(std::span<const std::byte> data) : data_(data) {
        field("magic", 4);
        field("version", 4);
        const uint64_t n_tensors = field("n_tensors", 8);
        const uint64_t n_kv = field("n_kv", 8);
        for (uint64_t i = 0; i < n_kv; ++i) {
            const std::string key = name(keys_, "key length");
            value(key);
        }
        for (uint64_t i = 0; i < n_tensors; ++i) {
            const std::string tensor = name(tensor_names_, "tensor name length");
            const uint64_t n_dims = field(tensor + " n_dims", 4);
            for (uint64_t d = 0; d < n_dims; ++d) {
                field(tensor + " ne", 8);
            }
            field(tensor + " type", 4);
            field(tensor + " offset", 8);
        }
    }

    const std::vector<Field> & fields() const { return fields_; }
    const std::vector<Name> & keys() const { return keys_; }
    const std::vector<Name> & tensor_names() const { return tensor_names_; }
    size_t n_bytes() const { return offset_; }

private:
    uint64_t field(const std::string & what, size_t n) {
        fields_.push_back({what, offset_, n});
        uint64_t number = 0;
        std::memcpy(&number, &data_[offset_], n);
        offset_ += n;
        return number;
    }

    std::string name(std::vector<Name> & names, const std::string & what) {
        const size_t n = field(what, 8);
        names.push_back({offset_, n});
        const std::string text(reinterpret_cast<const char *>(&data_[offset_]), n);
        offset_ += n;
        return text;
    }

    void value(const std::string & key) {
        const uint64_t type = field(key + " type", 4);
        if (type != GGUF_TYPE_ARRAY) {
            element(key, type, true);
            return;
        }
        const uint64_t element_type = field(key + " element type", 4);
        const uint64_t count = field(key + " count", 8);
        for (uint64_t i = 0; i < count; ++i) {
            element(key, element_type, i < 8 || i + 4 > count);  // the inner ones are all alike
        }
    }

    void element(const std::string & key, uint64_t type, bool keep) {
        static constexpr size_t sizes[] = {1, 1, 2, 2, 4, 4, 4, 1, 8, 0, 8, 8, 8};
        const uint64_t number = field(key, sizes[type]);
        if (type == GGUF_TYPE_STRING) {
            offset_ += number;
        }
        if (!keep) {
            fields_.pop_back();
        }
    }

    std::span<const std::byte> data_;
    std::vector<Field> fields_;
    std::vector<Name> keys_, tensor_names_;
    size_t offset_ = 0;
};

}  // namespace

GoodFiles::GoodFiles(const std::string & folder)
    : model(folder + "/model.gguf"), vocabulary(folder + "/vocabulary.gguf"), adapter(folder + "/adapter.gguf") {
    TestModel shape;
    shape.n_layer = 1;
    shape.n_embd = n_embd;
    shape.n_ff = 32;
    shape.n_vocab = n_vocab;
    shape.n_ctx = 64;
    shape.rope_freqs = true;
    shape.rope_scaling_type = "linear";
    shape.type = GGML_TYPE_Q4_0;
    shape.output_type = GGML_TYPE_F32;
    write_test_model(model, shape);
    write_bpe_vocabulary(vocabulary);

    LoraFile lora;
    lora.architecture = "llama";
    lora.alpha = 8;
    lora.rank = 2;
    for (const auto & [name, out] :
         {std::pair("blk.0.attn_q.weight", n_embd), std::pair("blk.0.attn_v.weight", n_embd / 2)}) {
        lora.pairs.push_back({name, 2, n_embd, out, random_values(5, 1, 2 * n_embd), random_values(5, 2, 2 * out)});
    }
    write_lora_file(adapter, lora);
}

void for_each_damage(const std::vector<std::byte> & good,
                     const std::function<void(const std::string & what, const std::vector<std::byte> & data)> & use) {
    const HeaderMap header(good);
    const auto at = [](size_t offset) { return " at byte " + std::to_string(offset); };

    // Cut: inside each field of the header, and in the data.
    std::vector<size_t> cuts;
    for (const Field & field : header.fields()) {
        cuts.push_back(field.offset);
        cuts.push_back(field.offset + field.n_bytes / 2);
    }
    for (size_t i = 0; i < 64; ++i) {
        cuts.push_back(header.n_bytes() + (good.size() - header.n_bytes()) * i / 64);
        cuts.push_back(good.size() - 1 - i);
    }
    for (size_t cut : cuts) {
        use("cut" + at(cut), {good.begin(), good.begin() + static_cast<ptrdiff_t>(std::min(cut, good.size()))});
    }

    // Lies: every number of the header replaced by extremes, neighbours and another's size.
    std::vector<std::byte> data = good;
    for (const Field & field : header.fields()) {
        uint64_t truth = 0;
        std::memcpy(&truth, &good[field.offset], field.n_bytes);
        for (uint64_t lie : {uint64_t{0}, uint64_t{1}, truth + 1, truth - 1, truth * 2, truth + 32, uint64_t{5},
                             uint64_t{9}, uint64_t{40}, uint64_t{0x7f}, uint64_t{0xffff}, uint64_t{0x7fffffff},
                             uint64_t{0x7fc00000}, uint64_t{0xffffffff}, uint64_t{1} << 32, uint64_t{1} << 61,
                             uint64_t{1} << 63, ~uint64_t{0}, uint64_t{good.size()}}) {
            if (std::memcmp(&lie, &truth, field.n_bytes) != 0) {
                std::memcpy(&data[field.offset], &lie, field.n_bytes);
                use(field.what + " = " + std::to_string(lie) + at(field.offset), data);
            }
        }
        std::memcpy(&data[field.offset], &truth, field.n_bytes);
    }

    // Names that are there twice, and names nobody expects.
    for (const auto * names : {&header.keys(), &header.tensor_names()}) {
        for (size_t i = 0; i < names->size(); ++i) {
            const Name & name = (*names)[i];
            for (size_t j = i + 1; j < names->size(); ++j) {
                if ((*names)[j].n_bytes == name.n_bytes) {
                    std::memcpy(&data[(*names)[j].offset], &good[name.offset], name.n_bytes);
                    use("the name doubled" + at((*names)[j].offset), data);
                    std::memcpy(&data[(*names)[j].offset], &good[(*names)[j].offset], name.n_bytes);
                }
            }
            for (std::byte other : {std::byte{0}, std::byte{'x'}, std::byte{0xff}}) {
                data[name.offset + name.n_bytes / 2] = other;
                use("the name changed" + at(name.offset), data);
            }
            data[name.offset + name.n_bytes / 2] = good[name.offset + name.n_bytes / 2];
        }
    }

    // Accidents: flipped bits, lost and foreign bytes; first all over the header's start, then anywhere.
    uint64_t i = 0;
    const auto random = [&](size_t below) { return random_u32(11, i++) % below; };
    for (size_t bit = 0; bit < 64 * 8; ++bit) {
        data[bit / 8] ^= std::byte(1 << bit % 8);
        use("bit " + std::to_string(bit) + " flipped", data);
        data[bit / 8] = good[bit / 8];
    }
    for (int round = 0; round < 600; ++round) {
        data = good;
        const size_t end = round % 3 == 0 ? good.size() : header.n_bytes();
        std::string what = "random damage " + std::to_string(round);
        for (size_t n = 1 + random(8); n > 0; --n) {
            const size_t place = random(std::min(end, data.size()));
            switch (random(4)) {
                case 0: data.erase(data.begin() + static_cast<ptrdiff_t>(place)); break;
                case 1: data.insert(data.begin() + static_cast<ptrdiff_t>(place), std::byte(random(256))); break;
                case 2: data[place] = std::byte(random(256)); break;
                default: data[place] ^= std::byte(1 << random(8));
            }
        }
        use(what, data);
    }
}

std::vector<LoadResult> load_as_everything(const std::string & path, const lorica_model * base) {
    std::vector<LoadResult> results;
    const auto note = [&](const char * function, lorica_status status) {
        results.push_back({function, status, status == LORICA_OK ? "" : lorica_last_error()});
        return status == LORICA_OK;
    };

    lorica_gguf * gguf = nullptr;
    if (note("lorica_gguf_open", lorica_gguf_open(path.c_str(), &gguf))) {
        for (int64_t i = 0; i < lorica_gguf_n_kv(gguf); ++i) {
            lorica_gguf_value_json(gguf, i, -1);
        }
        for (int64_t i = 0; i < lorica_gguf_n_tensors(gguf); ++i) {
            lorica_gguf_tensor tensor{sizeof(lorica_gguf_tensor)};
            note("lorica_gguf_tensor_info", lorica_gguf_tensor_info(gguf, i, &tensor));
        }
    }
    lorica_gguf_free(gguf);

    lorica_tokenizer * tokenizer = nullptr;
    if (note("lorica_tokenizer_load", lorica_tokenizer_load(path.c_str(), &tokenizer))) {
        const std::string text = "the man \n\xf0\x9f\x98\x80 \xff<|endoftext|></s>";
        int32_t ids[256];
        int64_t n_ids = 0, n_bytes = 0;
        char decoded[1024];
        note("lorica_tokenizer_encode",
             lorica_tokenizer_encode(tokenizer, text.data(), static_cast<int64_t>(text.size()), true, true, ids, 256,
                                     &n_ids));
        note("lorica_tokenizer_decode",
             lorica_tokenizer_decode(tokenizer, ids, std::min<int64_t>(n_ids, 256), true, decoded, 1024, &n_bytes));
    }
    lorica_tokenizer_free(tokenizer);

    auto params = test::defaults(lorica_model_default_params);
    params.device = "cpu";
    params.n_threads = 1;
    lorica_model * model = nullptr;
    if (note("lorica_model_load", lorica_model_load(path.c_str(), &params, &model))) {
        lorica_model_info info{sizeof(lorica_model_info)};
        note("lorica_model_get_info", lorica_model_get_info(model, &info));
        lorica_kv_cache * context = nullptr;
        if (note("lorica_kv_cache_create", lorica_kv_cache_create(model, nullptr, 4, &context))) {
            const int32_t tokens[] = {0, info.n_vocab - 1};
            std::vector<float> logits(static_cast<size_t>(info.n_vocab));
            note("lorica_kv_cache_eval", lorica_kv_cache_eval(context, tokens, 2, false, logits.data()));
        }
        lorica_kv_cache_free(context);
    }
    lorica_model_free(model);

    lorica_adapter * adapter = nullptr;
    note("lorica_adapter_load", lorica_adapter_load(base, path.c_str(), &adapter));
    lorica_adapter_free(adapter);
    return results;
}

}  // namespace lorica::test
