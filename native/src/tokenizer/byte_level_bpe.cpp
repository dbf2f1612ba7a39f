#include "tokenizer/byte_level_bpe.h"

#include "common/error.h"
#include "common/quote.h"
#include "tokenizer/unicode.h"

namespace lorica {

namespace {

// GPT-2's alphabet: bytes that print stand for themselves, the others for the characters from U+0100 on.
constexpr bool prints(uint32_t byte) {
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) || (byte >= 0xae && byte <= 0xff);
}

constexpr std::array<uint32_t, 256> make_alphabet() {
    std::array<uint32_t, 256> alphabet{};
    uint32_t next = 0x100;
    for (uint32_t byte = 0; byte < 256; ++byte) {
        alphabet[byte] = prints(byte) ? byte : next++;
    }
    return alphabet;
}

constexpr std::array<uint32_t, 256> alphabet = make_alphabet();

constexpr std::array<int16_t, 0x144> make_reverse_alphabet() {
    std::array<int16_t, 0x144> bytes{};
    bytes.fill(-1);
    for (uint32_t byte = 0; byte < 256; ++byte) {
        bytes[alphabet[byte]] = static_cast<int16_t>(byte);
    }
    return bytes;
}

constexpr std::array<int16_t, 0x144> reverse_alphabet = make_reverse_alphabet();

constexpr uint64_t pair_of(int32_t left, int32_t right) {
    return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

}  // namespace

ByteLevelBpe::ByteLevelBpe(const GgufFile & file, const Vocabulary & vocabulary)
    : vocabulary_(vocabulary), pre_tokenizer_(PreTokenizer::named(file, vocabulary.pre)) {
    for (size_t byte = 0; byte < 256; ++byte) {
        std::string spelling;
        append_utf8(spelling, alphabet[byte]);
        byte_ids_[byte] = vocabulary.find_producible(spelling);
    }

    const std::string key = "tokenizer.ggml.merges";
    const auto merges = file.find_strings(key);
    if (!merges) {
        fail(LORICA_ERROR_FORMAT, file.path(), ": ", key, " is missing, which byte-level BPE needs");
    }
    merges_.reserve(merges->size());
    for (size_t rank = 0; rank < merges->size(); ++rank) {
        const std::string_view merge = (*merges)[rank];
        // The first character may be a space of its own, as llama.cpp reads it.
        const size_t space = merge.find(' ', 1);
        if (space == std::string_view::npos) {
            fail(LORICA_ERROR_FORMAT, file.path(), ": ", key, "[", rank, "] is ", quoted(merge),
                 ", not two tokens with a space between");
        }
        const std::string_view left = merge.substr(0, space), right = merge.substr(space + 1);
        const std::string both = std::string(left) + std::string(right);
        for (const std::string_view token : {left, right, std::string_view(both)}) {
            if (vocabulary.find(token) < 0) {
                fail(LORICA_ERROR_FORMAT, file.path(), ": ", key, "[", rank, "] ", quoted(merge), " needs the token ",
                     quoted(token), ", which the vocabulary does not have");
            }
        }
        // Plain text never becomes a control token, not even where a file has merges that lead there.
        if (vocabulary.find_producible(both) >= 0) {
            merges_.emplace(pair_of(vocabulary.find(left), vocabulary.find(right)),
                            MergeQueue::Merge{static_cast<double>(rank), vocabulary.find(both)});
        }
    }
}

void ByteLevelBpe::encode(std::string_view text, Session & session, std::vector<int32_t> & ids) const {
    std::string storage;
    if (pre_tokenizer_.composes()) {
        text = composed(text, storage);
    }
    for (const uint32_t length : pre_tokenizer_.split(text)) {
        const std::string_view word = text.substr(0, length);
        session.cache.append(word, ids, [&] { encode_word(word, session.queue, ids); });
        text.remove_prefix(length);
    }
}

void ByteLevelBpe::encode_word(std::string_view word, MergeQueue & queue, std::vector<int32_t> & ids) const {
    if (vocabulary_.ignore_merges) {
        std::string spelling;
        for (const char c : word) {
            append_utf8(spelling, alphabet[static_cast<uint8_t>(c)]);
        }
        if (const int32_t id = vocabulary_.find_producible(spelling); id >= 0) {
            ids.push_back(id);
            return;
        }
    }
    queue.clear();
    for (const char c : word) {
        queue.push(byte_ids_[static_cast<uint8_t>(c)]);
    }
    queue.run([&](size_t left, size_t right) -> std::optional<MergeQueue::Merge> {
        const auto found = merges_.find(pair_of(queue.value(left), queue.value(right)));
        return found == merges_.end() ? std::nullopt : std::optional(found->second);
    });
    queue.for_each([&](size_t, int32_t id) {
        if (id >= 0) {
            ids.push_back(id);
        }
    });
}

std::string ByteLevelBpe::decode(std::string_view spelling) {
    std::string storage, bytes;
    const std::string_view valid = valid_utf8(spelling, storage);
    for (size_t position = 0; position < valid.size();) {
        const uint32_t code = next_character(valid, position);
        if (code < reverse_alphabet.size() && reverse_alphabet[code] >= 0) {
            bytes += static_cast<char>(reverse_alphabet[code]);
        } else {
            append_utf8(bytes, code);
        }
    }
    return bytes;
}

}  // namespace lorica
