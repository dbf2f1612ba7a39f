// --name value options of the benchmarks. A name that nobody asked for is an error.
#pragma once

#include <map>
#include <set>
#include <string>
#include <vector>

namespace lorica::bench {

class Options {
public:
    // Errors: INVALID_ARGUMENT.
    explicit Options(const std::vector<std::string> & arguments);

    std::string text(const std::string & name, const std::string & otherwise) const;
    int number(const std::string & name, int otherwise) const;  // >= 0
    bool flag(const std::string & name) const;
    std::vector<std::string> list(const std::string & name, const std::string & otherwise) const;  // a,b,c

    // To be called when all have been read. Errors: INVALID_ARGUMENT.
    void check_all_read() const;

private:
    std::map<std::string, std::string> values_;
    mutable std::set<std::string> read_;
};

}  // namespace lorica::bench
