// The pool of threads: work is done once whoever comes, callers share, nothing ends the process.
#include "common/thread_pool.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <chrono>
#include <functional>
#include <latch>
#include <set>
#include <stdexcept>
#include <string>
#include <thread>
#include <vector>

#include "common/machine.h"

#if defined(__linux__)
#include <grp.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#endif

namespace lorica {
namespace {

using namespace std::chrono_literals;

// Takes about this long on each thread that comes, so that others have the time to come.
void busy_for(std::chrono::nanoseconds duration) {
    const auto end = std::chrono::steady_clock::now() + duration;
    while (std::chrono::steady_clock::now() < end) {
    }
}

TEST(ThreadPool, DoesEachPieceOnceWithAnyNumberOfThreads) {
    for (const int n_threads : {1, 2, 3, 8, 33}) {
        for (int repetition = 0; repetition < 200; ++repetition) {
            constexpr int64_t n = 1000;
            std::vector<std::atomic<int>> done(n);
            parallel_pieces(n, n_threads, [&](int, int64_t begin, int64_t end) {
                for (int64_t i = begin; i < end; ++i) ++done[static_cast<size_t>(i)];
            });
            for (const std::atomic<int> & times : done) ASSERT_EQ(times, 1);
        }
    }
}

TEST(ThreadPool, PiecesBeginAtWholeGrains) {
    std::mutex mutex;
    std::set<std::pair<int64_t, int64_t>> pieces;
    parallel_pieces(
        1000, 4,
        [&](int, int64_t begin, int64_t end) {
            const std::lock_guard lock(mutex);
            pieces.insert({begin, end});
        },
        32);
    int64_t at = 0;
    for (const auto & [begin, end] : pieces) {
        EXPECT_EQ(begin, at);
        EXPECT_EQ(begin % 32, 0);
        at = end;
    }
    EXPECT_EQ(at, 1000);
}

TEST(ThreadPool, RanksAreDistinctAndBelowTheNumberAskedFor) {
    for (int repetition = 0; repetition < 50; ++repetition) {
        std::mutex mutex;
        std::multiset<int> ranks;
        parallel(4, [&](int rank) {
            busy_for(20us);
            const std::lock_guard lock(mutex);
            ranks.insert(rank);
        });
        EXPECT_EQ(ranks.count(0), 1u);
        for (const int rank : ranks) {
            EXPECT_EQ(ranks.count(rank), 1u);
            EXPECT_LT(rank, 4);
        }
    }
}

TEST(ThreadPool, ThreadsComeToHelp) {
    const auto caller = std::this_thread::get_id();
    std::atomic<bool> helped = false;
    const auto deadline = std::chrono::steady_clock::now() + 3min;  // where the machine is busy they come late
    while (!helped && std::chrono::steady_clock::now() < deadline) {
        parallel(2, [&](int) {
            busy_for(1ms);
            if (std::this_thread::get_id() != caller) helped = true;
        });
    }
    EXPECT_TRUE(helped);
}

TEST(ThreadPool, ACallInsideOfACallRunsOnItsThreadAlone) {
    parallel(3, [&](int) {
        const auto outer = std::this_thread::get_id();
        int calls = 0;
        parallel(3, [&](int rank) {
            EXPECT_EQ(rank, 0);
            EXPECT_EQ(std::this_thread::get_id(), outer);
            ++calls;
        });
        EXPECT_EQ(calls, 1);
    });
}

TEST(ThreadPool, WhatAThreadThrowsReachesTheCaller) {
    for (int repetition = 0; repetition < 100; ++repetition) {
        EXPECT_THROW(parallel_tasks(64, 4,
                                    [&](int, int64_t i) {
                                        if (i == repetition % 64) throw std::runtime_error("no");
                                    }),
                     std::runtime_error);
        int64_t sum = 0;
        parallel_tasks(3, 1, [&](int, int64_t i) { sum += i; });  // and the pool goes on
        EXPECT_EQ(sum, 3);
    }
}

TEST(ThreadPool, ManyCallersGetWhatTheyAskedForAndMakeNoThreadsOfTheirOwn) {
    constexpr int n_callers = 50, n_threads = 8;
    ThreadPool & pool = ThreadPool::instance();
    const int before = pool.n_workers();
    std::vector<std::thread> callers;
    std::atomic<int64_t> sum = 0;
    for (int c = 0; c < n_callers; ++c) {
        callers.emplace_back([&] {
            for (int repetition = 0; repetition < 200; ++repetition) {
                parallel_tasks(40, n_threads, [&](int, int64_t i) { sum += i; });
            }
        });
    }
    for (std::thread & caller : callers) caller.join();
    EXPECT_EQ(sum, int64_t{n_callers} * 200 * 40 * 39 / 2);
    EXPECT_LE(pool.n_workers(), std::max(before, std::max(n_threads, pool.n_threads()) - 1));
}

// A caller that is counted takes its share from the others, all of whose threads then are no more than the processors.
TEST(ThreadPool, CallersShareTheThreads) {
    constexpr int n_callers = 4, n_threads = 8;
    ThreadPool::instance().set_limit(0);  // forgets what other tests have asked for
    std::latch begin(n_callers), end(n_callers);
    std::vector<size_t> most(n_callers, 0);
    std::atomic<int> computing = 0, most_computing = 0;
    std::vector<std::thread> callers;
    for (int c = 0; c < n_callers; ++c) {
        callers.emplace_back([&, c] {
            const ThreadPool::Caller counted;
            begin.arrive_and_wait();
            for (int repetition = 0; repetition < 20; ++repetition) {
                std::mutex own;
                std::set<std::thread::id> threads;
                parallel(n_threads, [&](int) {
                    const int now = ++computing;
                    for (int seen = most_computing; seen < now && !most_computing.compare_exchange_weak(seen, now);) {
                    }
                    busy_for(200us);
                    const std::lock_guard lock(own);
                    threads.insert(std::this_thread::get_id());
                    --computing;
                });
                most[static_cast<size_t>(c)] = std::max(most[static_cast<size_t>(c)], threads.size());
            }
            end.arrive_and_wait();
        });
    }
    for (std::thread & caller : callers) caller.join();
    const int capacity = std::max(n_threads, ThreadPool::instance().n_threads());
    for (const size_t n : most) EXPECT_LE(n, static_cast<size_t>((capacity + n_callers - 1) / n_callers));
    EXPECT_LE(most_computing, capacity);
}

TEST(ThreadPool, ALimitHoldsForCallsThatDoNotSay) {
    ThreadPool & pool = ThreadPool::instance();
    pool.set_limit(1);
    EXPECT_EQ(pool.n_threads(), 1);
    pool.set_limit(1 << 20);  // no more than the machine has
    EXPECT_EQ(pool.n_threads(), usable_processors());
    pool.set_limit(0);
    EXPECT_EQ(pool.n_threads(), usable_processors());
}

TEST(ThreadPool, WorksOnWhenItsThreadsWereAsleep) {
    for (const auto wait : {0ms, 1ms, 5ms, 20ms, 50ms}) {
        std::this_thread::sleep_for(wait);
        int64_t expected = 0;
        std::atomic<int64_t> sum = 0;
        for (int64_t i = 0; i < 100; ++i) expected += i;
        parallel_tasks(100, 4, [&](int, int64_t i) { sum += i; });
        EXPECT_EQ(sum, expected);
    }
}

#if defined(__linux__)

// Runs `body` in a process of its own, which has used no pool yet, and gives what it returns.
int in_a_child(const std::function<int()> & body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
}

int64_t sum_of_100() {
    std::atomic<int64_t> sum = 0;
    for (int repetition = 0; repetition < 50; ++repetition) parallel_tasks(100, 8, [&](int, int64_t i) { sum += i; });
    return sum / 50;
}

// Each is a test of its own, and so of a process of its own under ctest: a child of a process whose pool has threads
// has the pool without the threads, which works as well.
TEST(ThreadPoolWithoutThreads, ComputesAloneWhereProcessesAreLimited) {
    EXPECT_EQ(in_a_child([] {
                  const rlimit none{1, 1};
                  if (setrlimit(RLIMIT_NPROC, &none) != 0) return 1;
                  // The limit is not root's.
                  if (geteuid() == 0 && (setgroups(0, nullptr) != 0 || setuid(65534) != 0)) return 2;
                  bool refused = false;
                  try {
                      std::thread([] {}).join();
                  } catch (const std::system_error &) {
                      refused = true;
                  }
                  if (!refused) return 3;
                  return sum_of_100() == 4950 ? 0 : 4;
              }),
              0);
}

#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
TEST(ThreadPoolWithoutThreads, ComputesOnWhatThereIsWhereAddressesAreLimited) {
    EXPECT_EQ(in_a_child([] {
                  std::ifstream file("/proc/self/statm");
                  rlim_t pages = 0;
                  file >> pages;
                  // Room for the stack of a thread or two.
                  const rlim_t bytes = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{20} << 20);
                  const rlimit tight{bytes, bytes};
                  if (setrlimit(RLIMIT_AS, &tight) != 0) return 1;
                  return sum_of_100() == 4950 ? 0 : 2;
              }),
              0);
}
#endif

TEST(ThreadPoolWithoutThreads, ComputesInAChildOfAProcessWhoseThreadsItHasNot) {
    EXPECT_EQ(sum_of_100(), 4950);
    EXPECT_EQ(in_a_child([] { return sum_of_100() == 4950 ? 0 : 1; }), 0);
}

// ---- what the machine gives

class PlayedMachine : public testing::Test {
protected:
    void SetUp() override {
        root_ = std::filesystem::temp_directory_path() / ("lorica_machine_" + std::to_string(getpid()));
        std::filesystem::create_directories(root_);
    }
    void TearDown() override { std::filesystem::remove_all(root_); }
    void write(const std::string & path, const std::string & text) {
        std::filesystem::create_directories((root_ / path).parent_path());
        std::ofstream(root_ / path) << text;
    }
    CgroupLimits limits() const { return read_cgroup_limits(root_.string()); }

    std::filesystem::path root_;
};

constexpr int64_t mebibyte = int64_t{1} << 20;

TEST_F(PlayedMachine, LimitsNothingWithoutControlGroups) {
    EXPECT_EQ(limits().processors, 0);
    EXPECT_EQ(limits().memory, -1);
}

TEST_F(PlayedMachine, ReadsVersion2UpToTheRoot) {
    write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup rw,nosuid - cgroup2 cgroup2 rw,nsdelegate\n");
    write("proc/self/cgroup", "0::/pod/box\n");
    write("sys/fs/cgroup/pod/box/cpu.max", "max 100000\n");
    write("sys/fs/cgroup/pod/box/memory.max", "max\n");
    write("sys/fs/cgroup/pod/cpu.max", "250000 100000\n");
    write("sys/fs/cgroup/pod/memory.max", std::to_string(1000 * mebibyte) + "\n");
    write("sys/fs/cgroup/pod/memory.current", std::to_string(700 * mebibyte) + "\n");
    write("sys/fs/cgroup/pod/memory.stat", "anon 1\ninactive_file " + std::to_string(300 * mebibyte) +
                                               "\nactive_file " + std::to_string(100 * mebibyte) + "\n");
    EXPECT_EQ(limits().processors, 2.5);
    EXPECT_EQ(limits().memory, 700 * mebibyte);
}

TEST_F(PlayedMachine, ReadsVersion2InsideOfAContainer) {
    write("proc/self/mountinfo", "30 23 0:26 / /sys/fs/cgroup ro - cgroup2 cgroup ro\n");
    write("proc/self/cgroup", "0::/\n");
    write("sys/fs/cgroup/cpu.max", "50000 100000\n");
    write("sys/fs/cgroup/memory.max", std::to_string(512 * mebibyte) + "\n");
    write("sys/fs/cgroup/memory.current", std::to_string(600 * mebibyte) + "\n");
    EXPECT_EQ(limits().processors, 0.5);
    EXPECT_EQ(limits().memory, 0);
}

TEST_F(PlayedMachine, ReadsVersion1WhereTheMountShowsAPart) {
    write("proc/self/mountinfo",
          "31 23 0:27 /docker/abc /sys/fs/cgroup/cpu,cpuacct ro - cgroup cgroup rw,cpu,cpuacct\n"
          "32 23 0:28 /docker/abc /sys/fs/cgroup/memory ro - cgroup cgroup rw,memory\n");
    write("proc/self/cgroup", "5:memory:/docker/abc\n4:cpu,cpuacct:/docker/abc\n1:name=systemd:/docker/abc\n");
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_quota_us", "150000\n");
    write("sys/fs/cgroup/cpu,cpuacct/cpu.cfs_period_us", "100000\n");
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", std::to_string(2048 * mebibyte) + "\n");
    write("sys/fs/cgroup/memory/memory.usage_in_bytes", std::to_string(1024 * mebibyte) + "\n");
    write("sys/fs/cgroup/memory/memory.stat", "total_inactive_file " + std::to_string(24 * mebibyte) + "\n");
    EXPECT_EQ(limits().processors, 1.5);
    EXPECT_EQ(limits().memory, 1048 * mebibyte);
}

TEST_F(PlayedMachine, NoQuotaAndNoLimitAreNone) {
    write("proc/self/mountinfo",
          "31 23 0:27 / /sys/fs/cgroup/cpu rw - cgroup cgroup rw,cpu\n"
          "32 23 0:28 / /sys/fs/cgroup/memory rw - cgroup cgroup rw,memory\n");
    write("proc/self/cgroup", "5:memory:/\n4:cpu:/\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_quota_us", "-1\n");
    write("sys/fs/cgroup/cpu/cpu.cfs_period_us", "100000\n");
    write("sys/fs/cgroup/memory/memory.limit_in_bytes", "9223372036854771712\n");
    EXPECT_EQ(limits().processors, 0);
    EXPECT_EQ(limits().memory, -1);
}

TEST(Machine, LimitsOfTheProcessCount) {
    EXPECT_EQ(in_a_child([] {
                  const int64_t before = available_memory();
                  const rlimit data{rlim_t{1} << 30, rlim_t{1} << 30};
                  if (setrlimit(RLIMIT_DATA, &data) != 0) return 1;
                  const int64_t after = available_memory();
                  return after < before && after <= 1024 * mebibyte && after > 0 ? 0 : 2;
              }),
              0);
}

TEST(Machine, AddressesOfAMappedFileAreNotCountedTwice) {
    EXPECT_EQ(in_a_child([] {
                  std::ifstream file("/proc/self/statm");
                  rlim_t pages = 0;
                  file >> pages;
                  const rlim_t bytes = pages * static_cast<rlim_t>(sysconf(_SC_PAGESIZE)) + (rlim_t{100} << 20);
                  const rlimit limit{bytes, bytes};
                  if (setrlimit(RLIMIT_AS, &limit) != 0) return 1;
                  const int64_t free = available_memory(), with_mapped = available_memory(50 * mebibyte);
                  if (free > 100 * mebibyte || free < 50 * mebibyte) return 2;
                  return with_mapped > free && with_mapped <= free + 51 * mebibyte ? 0 : 3;
              }),
              0);
}

TEST(Machine, WhatIsSetAsideIsNotThere) {
    // What others take and give back meanwhile is not to be seen as this.
    int64_t before = 0, less = 0, after = 0;
    for (int attempt = 0; attempt < 100; ++attempt) {
        before = available_memory();
        set_reserved_memory(before / 2);
        less = available_memory();
        set_reserved_memory(0);
        after = available_memory();
        if (after > before - before / 16 && after < before + before / 16) break;
    }
    EXPECT_LT(less, before * 3 / 4);
    set_reserved_memory(int64_t{1} << 60);
    EXPECT_EQ(available_memory(), 0);
    set_reserved_memory(0);
}

#endif

}  // namespace
}  // namespace lorica
