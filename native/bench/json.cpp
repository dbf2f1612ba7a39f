#include "json.h"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace lorica::bench {

Json::Json(double value) {
    if (!std::isfinite(value)) return;
    char text[32];
    std::snprintf(text, sizeof(text), "%.6g", value);
    text_ = text;
}

std::string Json::quote(const std::string & text) {
    std::string out = "\"";
    for (const char c : text) {
        if (c == '"' || c == '\\') {
            out += '\\';
            out += c;
        } else if (static_cast<unsigned char>(c) < 0x20) {
            char escape[8];
            std::snprintf(escape, sizeof(escape), "\\u%04x", c);
            out += escape;
        } else {
            out += c;
        }
    }
    return out + '"';
}

Json & Json::operator[](const std::string & key) {
    kind_ = Kind::object;
    const auto found =
        std::find_if(members_.begin(), members_.end(), [&](const auto & member) { return member.first == key; });
    return found != members_.end() ? found->second : members_.emplace_back(key, Json()).second;
}

Json & Json::set(const std::string & key, Json value) {
    (*this)[key] = std::move(value);
    return *this;
}

Json & Json::push(Json value) {
    kind_ = Kind::array;
    members_.emplace_back(std::string(), std::move(value));
    return *this;
}

std::string Json::dump(int indent) const {
    if (kind_ == Kind::scalar) return text_;
    const bool object = kind_ == Kind::object;
    const std::string margin(static_cast<size_t>(indent) + 2, ' ');
    std::string out = object ? "{" : "[";
    for (size_t i = 0; i < members_.size(); ++i) {
        out += (i == 0 ? "\n" : ",\n") + margin;
        if (object) out += quote(members_[i].first) + ": ";
        out += members_[i].second.dump(indent + 2);
    }
    return out + "\n" + std::string(static_cast<size_t>(indent), ' ') + (object ? "}" : "]");
}

}  // namespace lorica::bench
