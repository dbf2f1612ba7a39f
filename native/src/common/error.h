// The one exception type of the core. src/api turns it into a status code and the message of lorica_last_error().
#pragma once

#include <lorica/status.h>

#include <sstream>
#include <stdexcept>
#include <string>

namespace lorica {

class Error : public std::runtime_error {
public:
    Error(lorica_status status, const std::string & message) : std::runtime_error(message), status_(status) {}
    lorica_status status() const { return status_; }

private:
    lorica_status status_;
};

// fail(LORICA_ERROR_FORMAT, "tensor ", name, " has ", n, " dimensions"): throws Error with the parts joined.
template <typename... Parts> [[noreturn]] void fail(lorica_status status, const Parts &... parts) {
    std::ostringstream message;
    (message << ... << parts);
    throw Error(status, message.str());
}

}  // namespace lorica
