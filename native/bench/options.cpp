#include "options.h"

#include "common/error.h"

#include <charconv>
#include <sstream>

namespace lorica::bench {

Options::Options(const std::vector<std::string> & arguments) {
    for (size_t i = 0; i < arguments.size(); ++i) {
        const std::string & argument = arguments[i];
        if (!argument.starts_with("--")) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "'", argument, "' is no option; options are --name value");
        }
        const bool has_value = i + 1 < arguments.size() && !arguments[i + 1].starts_with("--");
        values_[argument.substr(2)] = has_value ? arguments[++i] : "";
    }
}

std::string Options::text(const std::string & name, const std::string & otherwise) const {
    read_.insert(name);
    const auto found = values_.find(name);
    if (found == values_.end()) return otherwise;
    if (found->second.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "--", name, " needs a value");
    return found->second;
}

int Options::number(const std::string & name, int otherwise) const {
    const std::string value = text(name, std::to_string(otherwise));
    int number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error != std::errc() || end != value.data() + value.size() || number < 0) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, "--", name, " ", value, ": a whole number is needed");
    }
    return number;
}

bool Options::flag(const std::string & name) const {
    read_.insert(name);
    const auto found = values_.find(name);
    if (found == values_.end()) return false;
    if (!found->second.empty()) fail(LORICA_ERROR_INVALID_ARGUMENT, "--", name, " takes no value, not ", found->second);
    return true;
}

std::vector<std::string> Options::list(const std::string & name, const std::string & otherwise) const {
    std::istringstream values(text(name, otherwise));
    std::vector<std::string> items;
    for (std::string item; std::getline(values, item, ',');) items.push_back(item);
    return items;
}

void Options::check_all_read() const {
    for (const auto & [name, value] : values_) {
        if (!read_.contains(name)) fail(LORICA_ERROR_INVALID_ARGUMENT, "--", name, " is no option of this command");
    }
}

}  // namespace lorica::bench
