// What a measurement depends on beyond the program: the machine, its memory, its clock.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <vector>

#include "json.h"

namespace lorica::bench {

inline double now() {
    return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

template <typename F> double seconds_of(const F & f) {
    const double start = now();
    f();
    return now() - start;
}

// Seconds of one call, from as many calls as take a twentieth of a second.
template <typename F> double seconds_of_one(const F & f) {
    int calls = 0;
    const double start = now();
    double end = start;
    while (end - start < 0.05) {
        f();
        ++calls;
        end = now();
    }
    return (end - start) / calls;
}

double median(std::vector<double> values);

// {"median": …, "min": …, "max": …}
Json summary(const std::vector<double> & values);

int n_usable_cores();

// Processor, cores, instruction sets, memory, system, OpenMP runtimes in this process, revision of the sources, date.
Json machine_facts();

// VmRSS and VmHWM of this process in bytes, 0 where /proc does not say.
int64_t resident_bytes();
int64_t peak_resident_bytes();
// Makes the peak start again from what is resident now. False where the system does not offer it.
bool reset_peak_resident_bytes();

int64_t cache_bytes();  // of the largest cache level, all of it; 0 when unknown

// A buffer that all threads read together, each its own part. The memory is in huge pages where the system gives them.
class ReadBuffer {
public:
    ReadBuffer(int64_t n_bytes, int n_threads);
    ~ReadBuffer();
    ReadBuffer(const ReadBuffer &) = delete;
    ReadBuffer & operator=(const ReadBuffer &) = delete;

    int64_t n_bytes() const { return n_bytes_; }
    // Bytes per second of one pass over all of it.
    double read_once();

private:
    int64_t n_bytes_;
    int n_threads_;
    uint64_t * data_ = nullptr;
    volatile uint64_t sum_ = 0;  // keeps the loads from being removed
};

}  // namespace lorica::bench
