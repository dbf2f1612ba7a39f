#include "model/arch/architectures.h"

#include "common/error.h"

namespace lorica {

namespace {

struct Known {
    const char * name;
    Architecture (*describe)(const Reader & file);
};

#define LORICA_ENTRY(function, name) {name, function},
constexpr Known known[] = {LORICA_ARCHITECTURES(LORICA_ENTRY)};
#undef LORICA_ENTRY

// What some of llama.cpp's other architectures compute beyond what a description here can say.
struct Missing {
    std::string_view name, what;
};
constexpr std::string_view experts = "mixtures of experts", recurrence = "state space layers";
constexpr Missing missing[] = {
    {"lfm2", "short convolutions"},
    {"lfm2moe", "short convolutions and mixtures of experts"},
    {"qwen35", "the gated delta rule"},
    {"qwen35moe", "the gated delta rule and mixtures of experts"},
    {"qwen3next", "the gated delta rule and mixtures of experts"},
    {"kimi-linear", "the gated delta rule and mixtures of experts"},
    {"gemma3n", "embeddings per layer and keys that layers share"},
    {"gemma4", "embeddings per layer and keys that layers share"},
    {"gpt-oss", "mixtures of experts and attention sinks"},
    {"deepseek", experts},
    {"deepseek2", "multi-head latent attention and mixtures of experts"},
    {"mistral4", "multi-head latent attention and mixtures of experts"},
    {"qwen2moe", experts},
    {"qwen3moe", experts},
    {"granitemoe", experts},
    {"phimoe", experts},
    {"olmoe", experts},
    {"llama4", experts},
    {"glm4moe", experts},
    {"ernie4_5-moe", experts},
    {"dbrx", experts},
    {"grok", experts},
    {"arctic", experts},
    {"qwen2vl", "rotations in several dimensions"},
    {"qwen3vl", "rotations in several dimensions"},
    {"granitehybrid", recurrence},
    {"nemotron_h", recurrence},
    {"falcon-h1", recurrence},
    {"jamba", recurrence},
    {"mamba", recurrence},
    {"mamba2", recurrence},
    {"rwkv6", "RWKV's recurrence"},
    {"rwkv7", "RWKV's recurrence"},
    {"bloom", "ALiBi"},
    {"mpt", "ALiBi"},
    {"t5", "an encoder beside the decoder"},
    {"t5encoder", "relative positions in attention"},
};

}  // namespace

std::string architecture_names() {
    std::string names;
    for (const Known & one : known) names += (names.empty() ? "" : ", ") + std::string(one.name);
    return names;
}

Architecture describe(const GgufFile & file) {
    const Reader reader(file);
    for (const Known & one : known) {
        if (reader.architecture() == one.name) return one.describe(reader);
    }
    for (const Missing & one : missing) {
        if (reader.architecture() == one.name) {
            fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": architecture '", one.name, "' needs ", one.what,
                 ", which Lorica does not have");
        }
    }
    fail(LORICA_ERROR_UNSUPPORTED, file.path(), ": architecture '", reader.architecture(), "' is not supported (",
         architecture_names(), std::size(known) == 1 ? " is)" : " are)");
}

}  // namespace lorica
