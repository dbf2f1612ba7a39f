// Files that change while they are mapped.
#include "common/mapped_file.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <setjmp.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <functional>
#include <thread>

#include "support/expect_error.h"
#include "support/temp_dir.h"

namespace lorica {
namespace {

using test::expect_error;
using test::TempDir;
using testing::HasSubstr;

constexpr size_t n_bytes = 1 << 20;

std::string write_file(const std::string & path, char filling = 'a') {
    std::ofstream(path, std::ios::binary) << std::string(n_bytes, filling);
    return path;
}

size_t sum_of(const MappedFile & file) {
    size_t sum = 0;
    for (const std::byte byte : file.bytes()) sum += static_cast<size_t>(byte);
    return sum;
}

// Writes over a part of a file in place, and sets its time back.
void overwrite(const std::string & path, int64_t at, const std::string & text, bool hide) {
    struct stat before{};
    ASSERT_EQ(::stat(path.c_str(), &before), 0);
    std::this_thread::sleep_for(std::chrono::milliseconds(20));  // the clock of a file system is coarse
    std::fstream file(path, std::ios::binary | std::ios::in | std::ios::out);
    file.seekp(at);
    file << text;
    file.close();
    const timespec times[2] = {before.st_atim, before.st_mtim};
    if (hide) {
        ASSERT_EQ(::utimensat(AT_FDCWD, path.c_str(), times, 0), 0);
    }
}

int in_a_child(const std::function<int()> & body) {
    const pid_t child = fork();
    if (child == 0) _exit(body());
    int status = 0;
    waitpid(child, &status, 0);
    return WIFEXITED(status) ? WEXITSTATUS(status) : 256 + WTERMSIG(status);
}

// ---- SIGBUS that is not ours. First of all, since the handler is installed with the first mapping of a process, and
// children have what their parent had.

void * cut_mapping(const std::string & path) {
    const int fd = ::open(path.c_str(), O_RDONLY);
    void * data = ::mmap(nullptr, n_bytes, PROT_READ, MAP_SHARED, fd, 0);
    std::filesystem::resize_file(path, 0);
    return data;
}

sigjmp_buf back;

TEST(MappedFile, AnotherMappingsErrorGoesToTheHandlerThatWasThere) {
    TempDir dir;
    const std::string own = write_file(dir / "own"), other = write_file(dir / "other");
    EXPECT_EQ(in_a_child([&] {
                  struct sigaction action{};
                  action.sa_flags = SA_SIGINFO;
                  action.sa_sigaction = [](int, siginfo_t * info, void *) { siglongjmp(back, info->si_addr ? 1 : 2); };
                  if (sigaction(SIGBUS, &action, nullptr) != 0) return 10;
                  const MappedFile file(own);
                  const auto * data = static_cast<const volatile char *>(cut_mapping(other));
                  const int jumped = sigsetjmp(back, 1);
                  if (jumped == 0) return 20 + data[0];
                  if (jumped != 1) return 30;
                  // And our own still works.
                  std::filesystem::resize_file(own, 0);
                  return sum_of(file) == 0 && file.is_cut() ? 0 : 40;
              }),
              0);
}

TEST(MappedFile, AnotherMappingsErrorEndsTheProcessWhereNobodyHandlesIt) {
    TempDir dir;
    const std::string own = write_file(dir / "own"), other = write_file(dir / "other");
    EXPECT_EQ(in_a_child([&] {
                  signal(SIGBUS, SIG_DFL);  // GoogleTest and sanitizers have handlers of their own
                  const MappedFile file(own);
                  return static_cast<const volatile char *>(cut_mapping(other))[0] + 1;
              }),
              256 + SIGBUS);
}

TEST(MappedFile, ASignalThatSomebodySendsIsHandedOn) {
    TempDir dir;
    const std::string own = write_file(dir / "own");
    EXPECT_EQ(in_a_child([&] {
                  static volatile sig_atomic_t seen = 0;
                  signal(SIGBUS, [](int) { seen = 1; });
                  const MappedFile file(own);
                  raise(SIGBUS);
                  return seen == 1 ? 0 : 1;
              }),
              0);
}

// ---- and ours

TEST(MappedFile, WhatIsCutOffReadsAsZerosAndIsNoticed) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    EXPECT_EQ(sum_of(file), n_bytes * 'a');
    EXPECT_FALSE(file.is_cut());
    file.check_unchanged();

    std::filesystem::resize_file(dir / "file", 4096);
    EXPECT_EQ(sum_of(file), 4096u * 'a');
    EXPECT_TRUE(file.is_cut());
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("had 1048576 bytes and has 4096"), [&] { file.check_unchanged(); });
}

TEST(MappedFile, ManyThreadsMayMeetTheCutAtOnce) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    std::filesystem::resize_file(dir / "file", 0);
    std::vector<std::thread> threads;
    std::atomic<size_t> sum = 0;
    for (int i = 0; i < 8; ++i) threads.emplace_back([&] { sum += sum_of(file); });
    for (std::thread & thread : threads) thread.join();
    EXPECT_EQ(sum, 0u);
    EXPECT_TRUE(file.is_cut());
}

TEST(MappedFile, NoticesWhatIsWrittenInPlace) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    overwrite(dir / "file", 5000, "other", false);
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("it was written to"), [&] { file.check_unchanged(); });
}

TEST(MappedFile, NoticesOtherBytesWhereTheTimeIsTheSame) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    overwrite(dir / "file", static_cast<int64_t>(n_bytes) - 20, "other", true);
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("other bytes"), [&] { file.check_unchanged(); });
}

TEST(MappedFile, NoticesThatAPartWasMissingForAWhile) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    struct stat before{};
    ASSERT_EQ(::stat((dir / "file").c_str(), &before), 0);
    std::filesystem::resize_file(dir / "file", n_bytes / 2);
    EXPECT_EQ(sum_of(file), n_bytes / 2 * 'a');
    std::filesystem::resize_file(dir / "file", n_bytes);
    {
        std::fstream stream(dir / "file", std::ios::binary | std::ios::in | std::ios::out);
        stream << std::string(n_bytes, 'a');
    }
    const timespec times[2] = {before.st_atim, before.st_mtim};
    ASSERT_EQ(::utimensat(AT_FDCWD, (dir / "file").c_str(), times, 0), 0);
    expect_error(LORICA_ERROR_MISMATCH, HasSubstr("missing for a while"), [&] { file.check_unchanged(); });
}

TEST(MappedFile, AFileReplacedByAnotherOfItsNameIsUnchanged) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"));
    std::filesystem::rename(write_file(dir / "new", 'b'), dir / "file");
    EXPECT_EQ(sum_of(file), n_bytes * 'a');
    file.check_unchanged();
    std::filesystem::remove(dir / "file");
    file.check_unchanged();
}

TEST(MappedFile, WhatWasReadIntoMemoryStays) {
    TempDir dir;
    const MappedFile file(write_file(dir / "file"), true);
    EXPECT_FALSE(file.is_mapped());
    overwrite(dir / "file", 0, "other", false);
    std::filesystem::resize_file(dir / "file", 10);
    EXPECT_EQ(sum_of(file), n_bytes * 'a');
    EXPECT_FALSE(file.is_cut());
    file.check_unchanged();
}

}  // namespace
}  // namespace lorica
