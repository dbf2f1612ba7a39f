// The linear layers of a transformer block that an adapter can sit on, with the names that people and files give them.
#pragma once

#include <array>
#include <cstddef>
#include <optional>
#include <string_view>

namespace lorica {

enum class Module : size_t { q, k, v, o, gate, up, down };
constexpr size_t n_modules = 7;

struct ModuleNames {
    Module module;
    std::string_view hugging_face;  // model.layers.N.….NAME
    std::string_view gguf;          // blk.N.NAME
};

constexpr std::array<ModuleNames, n_modules> module_names{{
    {Module::q, "q_proj", "attn_q"},
    {Module::k, "k_proj", "attn_k"},
    {Module::v, "v_proj", "attn_v"},
    {Module::o, "o_proj", "attn_output"},
    {Module::gate, "gate_proj", "ffn_gate"},
    {Module::up, "up_proj", "ffn_up"},
    {Module::down, "down_proj", "ffn_down"},
}};

constexpr size_t index(Module module) { return static_cast<size_t>(module); }

// Either spelling.
constexpr std::optional<Module> find_module(std::string_view name) {
    for (const ModuleNames & names : module_names) {
        if (name == names.hugging_face || name == names.gguf) return names.module;
    }
    return std::nullopt;
}

}  // namespace lorica
