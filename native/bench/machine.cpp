#include "machine.h"

#include "common/error.h"
#include "common/machine.h"
#include "common/thread_pool.h"

#include <link.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/utsname.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <limits>
#include <set>
#include <sstream>

namespace lorica::bench {

namespace {

// The value behind "key<spaces>: " in a file such as /proc/cpuinfo.
std::string proc_value(const char * path, const std::string & key) {
    std::ifstream file(path);
    for (std::string line; std::getline(file, line);) {
        if (!line.starts_with(key)) continue;
        const size_t colon = line.find(':');
        const size_t start = colon == std::string::npos ? colon : line.find_first_not_of(" \t", colon + 1);
        return start == std::string::npos ? "" : line.substr(start);
    }
    return "";
}

int64_t proc_bytes(const char * path, const std::string & key) {
    return std::atoll(proc_value(path, key).c_str()) * 1024;  // "123 kB"
}

std::string first_line(const std::string & path) {
    std::ifstream file(path);
    std::string line;
    std::getline(file, line);
    return line;
}

std::string output_of(const std::string & command) {
    FILE * pipe = popen(command.c_str(), "r");
    if (!pipe) return "";
    std::array<char, 256> line{};
    const bool got = std::fgets(line.data(), line.size(), pipe) != nullptr;
    pclose(pipe);
    std::string text = got ? line.data() : "";
    text.erase(text.find_last_not_of('\n') + 1);
    return text;
}

std::string git_revision() {
    const std::string git = "git -c safe.directory='*' -C '" LORICA_REPOSITORY "' ";
    const std::string revision = output_of(git + "rev-parse --short=12 HEAD 2>/dev/null");
    if (revision.empty()) return "unknown";
    return output_of(git + "status --porcelain --untracked-files=no 2>/dev/null").empty() ? revision
                                                                                          : revision + "+changes";
}

std::string instruction_sets() {
    const std::string list = proc_value("/proc/cpuinfo", "flags") + proc_value("/proc/cpuinfo", "Features");
    std::istringstream flags(list);
    const std::set<std::string> interesting = {"avx2",        "fma",         "avx_vnni", "avx512f",  "avx512_bf16",
                                               "avx512_fp16", "avx512_vnni", "amx_bf16", "amx_tile", "amx_int8",
                                               "bf16",        "asimd",       "sve"};
    std::string found;
    for (std::string flag; flags >> flag;) {
        if (interesting.contains(flag)) found += (found.empty() ? "" : " ") + flag;
    }
    return found;
}

Json openmp_runtimes() {
    std::set<std::string> names;
    dl_iterate_phdr(
        [](dl_phdr_info * info, size_t, void * out) {
            const std::string path = info->dlpi_name ? info->dlpi_name : "";
            const std::string name = path.substr(path.rfind('/') + 1);
            if (name.starts_with("libgomp") || name.starts_with("libiomp") || name.starts_with("libomp")) {
                static_cast<std::set<std::string> *>(out)->insert(name);
            }
            return 0;
        },
        &names);
    Json list;
    for (const std::string & name : names) list.push(name);
    return list;
}

std::string utc_now() {
    const std::time_t time = std::time(nullptr);
    std::tm parts{};
    gmtime_r(&time, &parts);
    std::array<char, 32> text{};
    std::strftime(text.data(), text.size(), "%Y-%m-%dT%H:%M:%SZ", &parts);
    return text.data();
}

#if defined(__x86_64__) && !defined(__clang__)
__attribute__((target_clones("default", "avx2", "avx512f")))
#endif
uint64_t
sum_of(const uint64_t * data, size_t n) {
    uint64_t sum = 0;
    for (size_t i = 0; i < n; ++i) sum += data[i];
    return sum;
}

}  // namespace

double median(std::vector<double> values) {
    if (values.empty()) return std::numeric_limits<double>::quiet_NaN();
    std::sort(values.begin(), values.end());
    const size_t half = values.size() / 2;
    return values.size() % 2 == 1 ? values[half] : (values[half - 1] + values[half]) / 2;
}

Json summary(const std::vector<double> & values) {
    if (values.empty()) return {};
    const auto [min, max] = std::minmax_element(values.begin(), values.end());
    return Json().set("median", median(values)).set("min", *min).set("max", *max).set("n", values.size());
}

int n_usable_cores() { return usable_processors(); }

Json machine_facts() {
    Json facts;
    std::string cpu = proc_value("/proc/cpuinfo", "model name");
    facts.set("cpu", cpu.empty() ? "unknown" : cpu)
        .set("cpu_family_model_stepping", proc_value("/proc/cpuinfo", "cpu family") + "/" +
                                              proc_value("/proc/cpuinfo", "model\t") + "/" +
                                              proc_value("/proc/cpuinfo", "stepping"))
        .set("cores", n_usable_cores())
        .set("instruction_sets", instruction_sets())
        .set("last_level_cache_bytes", cache_bytes())
        .set("memory_bytes", proc_bytes("/proc/meminfo", "MemTotal"))
        .set("memory_available_bytes", proc_bytes("/proc/meminfo", "MemAvailable"));
    utsname system{};
    if (uname(&system) == 0)
        facts.set("system", std::string(system.sysname) + " " + system.release + " " + system.machine);
    facts.set("compiler", __VERSION__).set("openmp_runtimes", openmp_runtimes());
    for (const char * name : {"LORICA_ISA", "ONEDNN_MAX_CPU_ISA"}) {
        if (const char * value = std::getenv(name)) facts[name] = value;
    }
    double load = 0;
    if (getloadavg(&load, 1) == 1) facts.set("load_average_before", load);
    return facts.set("revision", git_revision()).set("date", utc_now());
}

int64_t resident_bytes() { return proc_bytes("/proc/self/status", "VmRSS"); }
int64_t peak_resident_bytes() { return proc_bytes("/proc/self/status", "VmHWM"); }

bool reset_peak_resident_bytes() {
    std::ofstream file("/proc/self/clear_refs");
    file << "5" << std::flush;  // proc(5): resets the peak to the current value
    return file.good();
}

int64_t cache_bytes() {
    int64_t largest = 0;
    for (int index = 0; index < 8; ++index) {
        const std::string size =
            first_line("/sys/devices/system/cpu/cpu0/cache/index" + std::to_string(index) + "/size");
        int64_t bytes = std::atoll(size.c_str());
        if (size.ends_with('K')) bytes <<= 10;
        if (size.ends_with('M')) bytes <<= 20;
        largest = std::max(largest, bytes);
    }
    return largest;
}

ReadBuffer::ReadBuffer(int64_t n_bytes, int n_threads) : n_bytes_(n_bytes / 4096 * 4096), n_threads_(n_threads) {
    void * memory =
        mmap(nullptr, static_cast<size_t>(n_bytes_), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED)
        fail(LORICA_ERROR_OUT_OF_MEMORY, "no ", n_bytes_, " bytes to measure the memory's bandwidth with");
    madvise(memory, static_cast<size_t>(n_bytes_), MADV_HUGEPAGE);
    data_ = static_cast<uint64_t *>(memory);
    const int64_t n = n_bytes_ / 8;
    parallel_pieces(n, n_threads_, [&](int, int64_t begin, int64_t end) {
        for (int64_t i = begin; i < end; ++i) data_[i] = static_cast<uint64_t>(i);
    });
}

ReadBuffer::~ReadBuffer() { munmap(data_, static_cast<size_t>(n_bytes_)); }

double ReadBuffer::read_once() {
    const int64_t n = n_bytes_ / 8;
    std::atomic<uint64_t> sum = 0;
    const double seconds = seconds_of([&] {
        parallel_pieces(n, n_threads_, [&](int, int64_t begin, int64_t end) {
            sum += sum_of(data_ + begin, static_cast<size_t>(end - begin));
        });
    });
    sum_ = sum;
    return static_cast<double>(n_bytes_) / seconds;
}

}  // namespace lorica::bench
