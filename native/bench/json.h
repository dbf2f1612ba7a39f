// JSON values that keep the order of their members: what the benchmarks print.
#pragma once

#include <concepts>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lorica::bench {

//     Json result;
//     result.set("shape", "s135").set("tokens_per_second", 812.5);
//     result["steps"].push(Json().set("seconds", 1.25));
class Json {
public:
    Json() = default;
    Json(bool value) : text_(value ? "true" : "false") {}
    Json(std::integral auto value) : text_(std::to_string(value)) {}
    Json(double value);  // null when it is no number
    Json(const char * value) : text_(quote(value)) {}
    Json(const std::string & value) : text_(quote(value)) {}

    // An empty value becomes an object or an array by the first use as one.
    Json & set(const std::string & key, Json value);
    Json & operator[](const std::string & key);
    Json & push(Json value);

    std::string dump(int indent = 0) const;

private:
    enum class Kind { scalar, object, array };

    static std::string quote(const std::string & text);

    Kind kind_ = Kind::scalar;
    std::string text_ = "null";
    std::vector<std::pair<std::string, Json>> members_;  // an array's have no keys
};

}  // namespace lorica::bench
