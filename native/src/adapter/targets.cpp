#include "adapter/targets.h"

#include <charconv>
#include <cmath>
#include <locale>
#include <map>
#include <sstream>

#include "common/error.h"

namespace lorica {

namespace {

std::vector<std::string> split_commas(const std::string & text) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, ',');) {
        const size_t first = part.find_first_not_of(" \t"), last = part.find_last_not_of(" \t");
        if (first != std::string::npos) parts.push_back(part.substr(first, last - first + 1));
    }
    return parts;
}

struct Words {
    std::string name;
    int32_t rank = 0;
    double alpha = 0;
};

// std::from_chars reads no fractions in libc++ yet.
bool read_number(const std::string & text, double & value) {
    std::istringstream stream(text);
    stream.imbue(std::locale::classic());
    return stream >> std::noskipws >> value && stream.eof();
}

// NAME, NAME:RANK or NAME:RANK:ALPHA.
Words parse_target(const std::string & text, int32_t rank, double alpha) {
    Words target{text.substr(0, text.find(':')), rank, alpha};
    if (target.name.size() == text.size()) return target;
    const char * p = text.data() + target.name.size() + 1;
    const char * const end = text.data() + text.size();
    const auto result = std::from_chars(p, end, target.rank);
    bool is_read = result.ec == std::errc{} && result.ptr == end;
    if (result.ec == std::errc{} && result.ptr != end && *result.ptr == ':')
        is_read = read_number({result.ptr + 1, end}, target.alpha);
    if (!is_read) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "target module '", text,
             "' is not of the form NAME, NAME:RANK or NAME:RANK:ALPHA");
    }
    return target;
}

void check_size(int32_t rank, double alpha, int32_t largest_rank) {
    if (rank < 1 || rank > largest_rank) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "rank is ", rank, "; it must lie between 1 and ", largest_rank,
             " for this model");
    }
    if (!std::isfinite(alpha) || alpha <= 0)
        fail(LORICA_ERROR_INVALID_ARGUMENT, "alpha is ", alpha, "; it must be positive");
}

[[noreturn]] void unknown_module(const Architecture & architecture, const std::string & name) {
    const std::vector<Names> modules = linear_names(architecture);
    std::string known;
    for (const Names & module : modules) known += module.hf + ", ";
    const int32_t last = architecture.shape.n_layer - 1;
    fail(LORICA_ERROR_INVALID_ARGUMENT, "target module '", name, "' does not exist; there are ", known,
         "tensor names from ", architecture.layer_name(0), architecture.layer(0).linears.front().names.gguf, " to ",
         architecture.layer_name(last), architecture.layer(last).linears.back().names.gguf,
         ", all-linear, and default");
}

// "q_proj", "self_attn.q_proj", as PEFT compares names: from their end or from a dot on.
bool is_end_of(std::string_view name, std::string_view whole) {
    if (!whole.ends_with(name)) return false;
    return name.size() == whole.size() || (!name.empty() && whole[whole.size() - name.size() - 1] == '.');
}

bool is_named(const LinearSpec & linear, std::string_view name) {
    return name == linear.names.gguf || is_end_of(name, linear.names.hf);
}

// What PEFT adapts where no target_modules are given (utils/constants.py): q_proj and v_proj, or the layer that is all
// of q, k and v.
bool is_default(const LinearSpec & linear) {
    return linear.names.gguf == "attn_q" || linear.names.gguf == "attn_v" || linear.names.gguf == "attn_qkv";
}

bool is_meant(const LinearSpec & linear, std::string_view name) {
    if (name == "all-linear") return true;
    return name == "default" ? is_default(linear) : is_named(linear, name);
}

}  // namespace

std::optional<LinearPlace> find_linear(const Architecture & architecture, std::string name) {
    if (name.ends_with(".weight")) name.resize(name.size() - 7);
    for (int32_t l = 0; l < architecture.shape.n_layer; ++l) {
        const std::vector<LinearSpec> & linears = architecture.layer(l).linears;
        for (const std::string & layer : {architecture.layer_name(l), architecture.layer_hf_name(l)}) {
            if (!name.starts_with(layer)) continue;
            const std::string_view rest = std::string_view(name).substr(layer.size());
            for (size_t i = 0; i < linears.size(); ++i) {
                if (is_named(linears[i], rest)) return LinearPlace{l, static_cast<int16_t>(i)};
            }
        }
    }
    for (size_t i = 0; i < architecture.epilogue.heads.size(); ++i) {
        const auto number = static_cast<int16_t>(i);
        if (is_named(architecture.linear(architecture.shape.n_layer, number), name))
            return LinearPlace{architecture.shape.n_layer, number};
    }
    return std::nullopt;
}

std::vector<Target> parse_targets(const Architecture & architecture, const std::string & text, int32_t rank,
                                  double alpha) {
    const Shape & shape = architecture.shape;
    const int32_t largest = std::min(shape.n_embd, shape.n_ff);
    check_size(rank, alpha, largest);
    const std::vector<std::string> parts = split_commas(text);
    if (parts.empty())
        fail(LORICA_ERROR_INVALID_ARGUMENT, "target_modules is empty; \"all-linear\" means every linear layer");
    std::map<std::pair<int32_t, int16_t>, Words> targets;
    for (const std::string & part : parts) {
        const Words target = parse_target(part, rank, alpha);
        check_size(target.rank, target.alpha, largest);
        bool found = false;
        for (int32_t l = 0; l < shape.n_layer; ++l) {
            const std::vector<LinearSpec> & linears = architecture.layer(l).linears;
            for (size_t i = 0; i < linears.size(); ++i) {
                if (!is_meant(linears[i], target.name)) continue;
                targets[{l, static_cast<int16_t>(i)}] = target;
                found = true;
            }
        }
        if (found) continue;
        const auto one = find_linear(architecture, target.name);
        if (!one) unknown_module(architecture, target.name);
        targets[{one->layer, one->linear}] = target;
    }
    std::vector<Target> all;
    for (const auto & [place, words] : targets) all.push_back({place.first, place.second, words.rank, words.alpha});
    return all;
}

}  // namespace lorica
