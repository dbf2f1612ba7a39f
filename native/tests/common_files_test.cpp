// Atomic files and their checksum.
#include "common/atomic_file.h"
#include "common/crc32c.h"
#include "common/random.h"
#include "support/expect_error.h"
#include "support/raw_gguf.h"
#include "support/temp_dir.h"

#include <gmock/gmock.h>
#include <sys/stat.h>
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
