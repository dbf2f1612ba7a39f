// Atomic files and their checksum.
#include "common/atomic_file.h"
#include "common/crc32c.h"
#include "common/random.h"
#include "support/expect_error.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"

#include <fcntl.h>
#include <gmock/gmock.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

namespace lorica {
namespace {

using test::TempDir;
using testing::HasSubstr;

std::string text_of(const std::string & path) {
    const auto data = test::read_file(path);
    return {reinterpret_cast<const char *>(data.data()), data.size()};
}

void write_text(const std::string & path, const std::string & text) { std::ofstream(path) << text; }

size_t n_files(const TempDir & dir) {
    return static_cast<size_t>(std::distance(std::filesystem::directory_iterator(dir.path()), {}));
}

mode_t mode_of(const std::string & path) {
    struct stat status{};
    EXPECT_EQ(::stat(path.c_str(), &status), 0);
    return status.st_mode & 07777;
}

TEST(AtomicFileTest, appears_whole_when_committed) {
    TempDir dir;
    std::string expected;
    AtomicFile file(dir / "out");
    for (size_t n : {0, 1, 100, 300000, 5, 1 << 18, (1 << 18) + 1, 7}) {  // around and past the buffer
        const std::string part(n, static_cast<char>('a' + n % 26));
        file.write(part.data(), part.size());
        expected += part;
    }
    file.write_zeros(10000);
    expected += std::string(10000, '\0');
    EXPECT_EQ(file.n_written(), expected.size());
    EXPECT_FALSE(std::filesystem::exists(dir / "out"));
    file.commit();
    EXPECT_EQ(text_of(dir / "out"), expected);
    EXPECT_EQ(n_files(dir), 1u);
}

TEST(AtomicFileTest, leaves_the_old_file_and_no_temporary_without_commit) {
    TempDir dir;
    write_text(dir / "out", "old");
    {
        AtomicFile file(dir / "out");
        file.write_zeros(1 << 20);
        EXPECT_EQ(n_files(dir), 2u);
    }
    EXPECT_EQ(text_of(dir / "out"), "old");
    EXPECT_EQ(n_files(dir), 1u);
}

TEST(AtomicFileTest, lets_two_writers_of_one_name_finish_in_turn) {
    TempDir dir;
    AtomicFile first(dir / "out"), second(dir / "out");
    first.write("first", 5);
    second.write("second", 6);
    second.commit();
    EXPECT_EQ(text_of(dir / "out"), "second");
    first.commit();
    EXPECT_EQ(text_of(dir / "out"), "first");
}

TEST(AtomicFileTest, removes_what_a_killed_writer_left_and_nothing_else) {
    TempDir dir;
    const pid_t child = ::fork();
    if (child == 0) {
        AtomicFile file(dir / "out");
        ::_exit(0);  // without a destructor, as when it is killed
    }
    ASSERT_EQ(::waitpid(child, nullptr, 0), child);
    ASSERT_EQ(n_files(dir), 1u);
    const std::string elsewhere = dir / "out.tmp-abc-1", another = dir / "other.tmp-1-1", longer = dir / "out.tmp-1-1x";
    for (const std::string & name : {elsewhere, another, longer}) write_text(name, "of somebody");
    {
        AtomicFile at_work(dir / "out");
        EXPECT_EQ(n_files(dir), 4u);  // and that of the child is gone
        AtomicFile second(dir / "out");
        EXPECT_EQ(n_files(dir), 5u);  // the first one's is locked
        at_work.write("1", 1);
        at_work.commit();
    }
    EXPECT_EQ(text_of(dir / "out"), "1");
    EXPECT_EQ(n_files(dir), 4u);
    for (const std::string & name : {elsewhere, another, longer}) EXPECT_TRUE(std::filesystem::exists(name)) << name;
}

TEST(AtomicFileTest, removes_that_of_a_process_whose_number_has_come_again) {
    TempDir dir;
    const std::string left = dir / ("out.tmp-" + std::to_string(::getpid()) + "-77");
    write_text(left, "half");
    AtomicFile first(dir / "out");
    EXPECT_TRUE(std::filesystem::exists(left));  // it could be a moment old
    const timespec long_ago[] = {{1000, 0}, {1000, 0}};
    ASSERT_EQ(::utimensat(AT_FDCWD, left.c_str(), long_ago, 0), 0);
    AtomicFile second(dir / "out");
    EXPECT_FALSE(std::filesystem::exists(left));
}

TEST(AtomicFileTest, names_of_one_file_are_told_from_others) {
    TempDir dir;
    write_text(dir / "a", "a");
    write_text(dir / "b", "a");
    std::filesystem::create_symlink(dir / "a", dir / "link");
    std::filesystem::create_hard_link(dir / "a", dir / "hard");
    std::filesystem::create_directory_symlink(dir.path(), dir / "folder");
    for (const char * name : {"a", "link", "hard", "folder/a", "folder/folder/link", "./a"}) {
        test::expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("choose another name"),
                           [&] { require_other_file(dir / name, dir / "a"); });
    }
    require_other_file(dir / "b", dir / "a");
    require_other_file(dir / "new", dir / "a");
}

TEST(AtomicFileTest, keeps_permissions_and_follows_symbolic_links) {
    TempDir dir;
    write_text(dir / "real", "old");
    ASSERT_EQ(::chmod((dir / "real").c_str(), 0640), 0);
    std::filesystem::create_symlink("real", dir / "link");
    AtomicFile file(dir / "link");
    file.write("new", 3);
    file.commit();
    EXPECT_TRUE(std::filesystem::is_symlink(dir / "link"));
    EXPECT_EQ(text_of(dir / "real"), "new");
    EXPECT_EQ(mode_of(dir / "real"), 0640u);
}

TEST(AtomicFileTest, gives_a_new_file_the_permissions_of_the_umask) {
    TempDir dir;
    const mode_t before = ::umask(027);
    AtomicFile file(dir / "out");
    file.commit();
    ::umask(before);
    EXPECT_EQ(mode_of(dir / "out"), 0640u);
}

TEST(AtomicFileTest, writes_in_the_working_directory) {
    TempDir dir;
    const auto before = std::filesystem::current_path();
    std::filesystem::current_path(dir.path());
    AtomicFile file("out");
    file.write("x", 1);
    file.commit();
    std::filesystem::current_path(before);
    EXPECT_EQ(text_of(dir / "out"), "x");
}

TEST(AtomicFileTest, refuses_targets_that_cannot_be_replaced) {
    TempDir dir;
    std::filesystem::create_symlink("nowhere", dir / "dangling");
    test::expect_error(LORICA_ERROR_IO, HasSubstr("empty name"), [] { AtomicFile(""); });
    test::expect_error(LORICA_ERROR_IO, HasSubstr("is a directory"), [&] { AtomicFile(dir.path()); });
    test::expect_error(LORICA_ERROR_IO, HasSubstr("cannot follow the symbolic link"),
                       [&] { AtomicFile(dir / "dangling"); });
    test::expect_error(LORICA_ERROR_IO, HasSubstr("File name too long"),
                       [&] { AtomicFile(dir / std::string(255, 'n')); });
    EXPECT_EQ(n_files(dir), 1u);
}

TEST(AtomicFileTest, reports_a_target_that_vanished) {
    TempDir dir;
    std::filesystem::create_directory(dir / "sub");
    AtomicFile file(dir / "sub/out");
    file.write("x", 1);
    std::filesystem::remove_all(dir / "sub");
    test::expect_error(LORICA_ERROR_IO, HasSubstr("sub/out: cannot rename the finished file: No such file"),
                       [&] { file.commit(); });
}

TEST(Crc32cTest, gives_the_check_value_of_rfc_3720) {
    EXPECT_EQ(crc32c(0, "123456789", 9), 0xe3069283u);
    EXPECT_EQ(crc32c(0, std::string(32, '\0').data(), 32), 0x8a9136aau);
    EXPECT_EQ(crc32c(0, std::string(32, '\xff').data(), 32), 0x62a8ab43u);
    EXPECT_EQ(crc32c(0, nullptr, 0), 0u);
}

TEST(Crc32cTest, continues_over_any_split) {
    std::string data;
    for (uint64_t i = 0; i < 100; ++i) {
        data += static_cast<char>(random_u32(1, i));
    }
    const uint32_t whole = crc32c(0, data.data(), data.size());
    for (size_t cut = 0; cut <= data.size(); ++cut) {
        EXPECT_EQ(crc32c(crc32c(0, data.data(), cut), data.data() + cut, data.size() - cut), whole) << cut;
    }
}

}  // namespace
}  // namespace lorica
