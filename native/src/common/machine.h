// What this process may use of the machine: processors and memory, after affinity, control groups and resource limits.
#pragma once

#include <cstdint>
#include <string>

namespace lorica {

// What the control groups (version 1 and 2) of a process allow it, its own and those around it.
struct CgroupLimits {
    double processors = 0;  // quota / period of the tightest; 0: none
    int64_t memory = -1;    // bytes that may still be taken, memory that only caches files not counted; -1: no limit
};

// root: in place of "/", for tests. What cannot be read limits nothing.
CgroupLimits read_cgroup_limits(const std::string & root = "");

// Processors that this process may run on at a time, at least 1: those of its affinity, at most as many as the quotas
// of its control groups add up to (2.5 processors count as 3).
int usable_processors();

// Bytes that the system is likely to give without swapping and within the limits of this process: the smallest of what
// /proc/meminfo calls available, what control groups leave, and what RLIMIT_AS and RLIMIT_DATA leave; less what
// set_reserved_memory() names. `mapped`: bytes of files that are mapped already and counted in what is needed; they
// take no more address space.
int64_t available_memory(int64_t mapped = 0);

// Memory that somebody else in this process will yet take, such as the heap of a JVM up to its largest size.
void set_reserved_memory(int64_t n_bytes);

}  // namespace lorica
