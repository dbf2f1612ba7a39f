#include "common/machine.h"

#include <algorithm>
#include <atomic>
#include <cmath>
#include <fstream>
#include <limits>
#include <optional>
#include <sstream>
#include <thread>
#include <vector>

#if !defined(_WIN32)
#include <sys/resource.h>
#include <unistd.h>
#endif
#if defined(__linux__)
#include <sched.h>
#endif

namespace lorica {

namespace {

std::atomic<int64_t> reserved = 0;

std::vector<std::string> split(const std::string & text, char separator) {
    std::vector<std::string> parts;
    std::istringstream stream(text);
    for (std::string part; std::getline(stream, part, separator);) parts.push_back(part);
    return parts;
}

std::optional<int64_t> read_number(const std::string & path) {
    std::ifstream file(path);
    int64_t number;
    if (file >> number) return number;
    return std::nullopt;  // "max" as well
}

// The value of `key` in a file of "key value" lines; 0 where there is none.
int64_t read_entry(const std::string & path, const std::string & key) {
    std::ifstream file(path);
    std::string name;
    for (int64_t value; file >> name >> value;) {
        if (name == key) return value;
    }
    return 0;
}

// A mounted hierarchy and the part of it that is seen there.
struct Mount {
    std::string folder, root;
};

// mountinfo: "36 35 98:0 /root /folder options … - type source super,options" (proc(5)).
std::optional<Mount> find_mount(const std::string & root, const std::string & controller) {
    std::ifstream file(root + "/proc/self/mountinfo");
    for (std::string line; std::getline(file, line);) {
        const size_t dash = line.find(" - ");
        if (dash == std::string::npos) continue;
        const std::vector<std::string> head = split(line.substr(0, dash), ' '),
                                       tail = split(line.substr(dash + 3), ' ');
        if (head.size() < 5 || tail.size() < 3) continue;
        if (controller.empty()) {
            if (tail[0] == "cgroup2") return Mount{head[4], head[3]};
            continue;
        }
        const std::vector<std::string> options = split(tail[2], ',');
        if (tail[0] == "cgroup" && std::find(options.begin(), options.end(), controller) != options.end())
            return Mount{head[4], head[3]};
    }
    return std::nullopt;
}

// The folders of the process's group and of those around it, from the inside out. controller: of version 1; empty:
// version 2.
std::vector<std::string> group_folders(const std::string & root, const std::string & controller) {
    const std::optional<Mount> mount = find_mount(root, controller);
    if (!mount) return {};
    std::ifstream file(root + "/proc/self/cgroup");
    for (std::string line; std::getline(file, line);) {  // "4:cpu,cpuacct:/path", "0::/path"
        const size_t first = line.find(':'), second = line.find(':', first + 1);
        if (first == std::string::npos || second == std::string::npos) continue;
        const std::vector<std::string> controllers = split(line.substr(first + 1, second - first - 1), ',');
        const bool found = controller.empty()
                               ? controllers.empty()
                               : std::find(controllers.begin(), controllers.end(), controller) != controllers.end();
        if (!found) continue;
        // In a container the path may be the host's while the mount shows a part of it.
        std::string path = line.substr(second + 1);
        if (mount->root != "/" && path.starts_with(mount->root)) path.erase(0, mount->root.size());
        std::vector<std::string> folders;
        for (; !path.empty() && path != "/"; path.erase(path.rfind('/')))
            folders.push_back(root + mount->folder + path);
        folders.push_back(root + mount->folder);
        return folders;
    }
    return {};
}

void limit_processors(CgroupLimits & limits, double quota, double period) {
    if (quota <= 0 || period <= 0) return;
    const double processors = quota / period;
    limits.processors = limits.processors > 0 ? std::min(limits.processors, processors) : processors;
}

// Pages of files can be given back, but for those in memory file systems, which the lists of files do not count.
void limit_memory(CgroupLimits & limits, int64_t limit, int64_t used, int64_t cached) {
    const int64_t left = std::max<int64_t>(0, limit - std::max<int64_t>(0, used - cached));
    limits.memory = limits.memory >= 0 ? std::min(limits.memory, left) : left;
}

#if !defined(_WIN32)
// A field of /proc/self/status in bytes, which it gives in kB.
int64_t status_bytes(const std::string & key) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);) {
        if (line.starts_with(key + ":")) return std::atoll(line.c_str() + key.size() + 1) * 1024;
    }
    return 0;
}

// What a limit leaves, or the largest number.
int64_t left_of(int resource, const char * used) {
    rlimit limit{};
    if (getrlimit(resource, &limit) != 0 || limit.rlim_cur == RLIM_INFINITY ||
        limit.rlim_cur > static_cast<rlim_t>(std::numeric_limits<int64_t>::max()))
        return std::numeric_limits<int64_t>::max();
    return std::max<int64_t>(0, static_cast<int64_t>(limit.rlim_cur) - status_bytes(used));
}
#endif

int64_t free_memory() {
    std::ifstream file("/proc/meminfo");
    std::string key;
    int64_t kibibytes;
    while (file >> key >> kibibytes) {
        if (key == "MemAvailable:") return kibibytes * 1024;
        file.ignore(64, '\n');
    }
#if defined(_SC_AVPHYS_PAGES)
    return static_cast<int64_t>(sysconf(_SC_AVPHYS_PAGES)) * sysconf(_SC_PAGESIZE);
#else
    return std::numeric_limits<int64_t>::max();
#endif
}

}  // namespace

CgroupLimits read_cgroup_limits(const std::string & root) {
    CgroupLimits limits;
    for (const std::string & folder : group_folders(root, "")) {
        std::ifstream file(folder + "/cpu.max");
        std::string quota;
        double period;
        if (file >> quota >> period && quota != "max") limit_processors(limits, std::atof(quota.c_str()), period);
        if (const auto limit = read_number(folder + "/memory.max")) {
            const std::string stat = folder + "/memory.stat";
            limit_memory(limits, *limit, read_number(folder + "/memory.current").value_or(0),
                         read_entry(stat, "inactive_file") + read_entry(stat, "active_file"));
        }
    }
    for (const std::string & folder : group_folders(root, "cpu")) {
        const auto quota = read_number(folder + "/cpu.cfs_quota_us"),
                   period = read_number(folder + "/cpu.cfs_period_us");
        if (quota && period) limit_processors(limits, static_cast<double>(*quota), static_cast<double>(*period));
    }
    for (const std::string & folder : group_folders(root, "memory")) {
        const auto limit = read_number(folder + "/memory.limit_in_bytes");
        constexpr int64_t unlimited = int64_t{1} << 60;  // the kernel says "none" as the largest number of whole pages
        if (!limit || *limit >= unlimited) continue;
        const std::string stat = folder + "/memory.stat";
        limit_memory(limits, *limit, read_number(folder + "/memory.usage_in_bytes").value_or(0),
                     read_entry(stat, "total_inactive_file") + read_entry(stat, "total_active_file"));
    }
    return limits;
}

int usable_processors() {
    int processors = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
    // Of the process's first thread: the one that asks may be bound to a single one.
    cpu_set_t set;
    if (sched_getaffinity(getpid(), sizeof set, &set) == 0) processors = CPU_COUNT(&set);
#endif
    const double quota = read_cgroup_limits().processors;
    if (quota > 0) processors = std::min(processors, static_cast<int>(std::ceil(std::min(quota, 1e6))));
    return std::max(1, processors);
}

int64_t available_memory(int64_t mapped) {
    int64_t available = free_memory();
    if (const int64_t group = read_cgroup_limits().memory; group >= 0) available = std::min(available, group);
#if !defined(_WIN32)
    available = std::min(available, left_of(RLIMIT_DATA, "VmData"));
#endif
    available = std::max<int64_t>(0, available - reserved.load(std::memory_order_relaxed));
#if !defined(_WIN32)
    // What is set aside has its addresses already, as the heap of a JVM has.
    const int64_t addresses = left_of(RLIMIT_AS, "VmSize");
    if (addresses < std::numeric_limits<int64_t>::max() - mapped) available = std::min(available, addresses + mapped);
#endif
    return available;
}

void set_reserved_memory(int64_t n_bytes) { reserved = std::max<int64_t>(0, n_bytes); }

}  // namespace lorica
