// The process's log: one callback, set through lorica_log_set; silent without one.
#pragma once

#include <lorica/status.h>

#include <sstream>
#include <string>

namespace lorica {

void set_log_callback(lorica_log_callback callback, void * user_data);
bool log_enabled();
void write_log(lorica_log_level level, std::string message);

// log(LORICA_LOG_WARN, "cannot pin ", n, " bytes"): the parts joined into one line.
template <typename... Parts> void log(lorica_log_level level, const Parts &... parts) {
    if (log_enabled()) {
        std::ostringstream message;
        (message << ... << parts);
        write_log(level, message.str());
    }
}

}  // namespace lorica
