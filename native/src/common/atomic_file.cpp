#include "common/atomic_file.h"

#include "common/error.h"
#include "common/log.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <charconv>
#include <cstring>
#include <ctime>
#include <filesystem>
#include <utility>

namespace lorica {

namespace {

constexpr size_t buffer_bytes = 1 << 18;

std::string folder_of(const std::string & path) {
    const std::string folder = std::filesystem::path(path).parent_path().string();
    return folder.empty() ? "." : folder;
}

// The new name must survive a power cut as well. The file itself is complete by now, so trouble here is no failure of
// it.
void sync_folder(const std::string & folder) {
    const int fd = ::open(folder.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (fd < 0 || ::fsync(fd) != 0) {
        if (errno != EINVAL && errno != ENOTSUP) {  // file systems that cannot sync folders
            log(LORICA_LOG_WARN, folder, ": cannot sync the folder: ", std::strerror(errno));
        }
    }
    if (fd >= 0) {
        ::close(fd);
    }
}

// A lock of the open file, which ends with it, however the process ends. False when somebody else has it; where the
// file system knows no locks, `otherwise`.
bool lock(int fd, bool otherwise) {
#if defined(F_OFD_SETLK)
    struct flock whole{};
    whole.l_type = F_WRLCK;
    whole.l_whence = SEEK_SET;
    if (::fcntl(fd, F_OFD_SETLK, &whole) == 0) return true;
    return errno != EAGAIN && errno != EACCES && otherwise;
#else
    if (::flock(fd, LOCK_EX | LOCK_NB) == 0) return true;
    return errno != EWOULDBLOCK && otherwise;
#endif
}

// The process in `<base>.tmp-<process>-<number>`, 0 for other names.
pid_t writer_of(std::string_view name, std::string_view base) {
    constexpr std::string_view mark = ".tmp-";
    if (!name.starts_with(base) || !name.substr(base.size()).starts_with(mark)) return 0;
    name.remove_prefix(base.size() + mark.size());
    pid_t process = 0;
    uint64_t number = 0;
    const char * const end = name.data() + name.size();
    const auto first = std::from_chars(name.data(), end, process);
    if (first.ec != std::errc() || first.ptr == end || *first.ptr != '-') return 0;
    const auto second = std::from_chars(first.ptr + 1, end, number);
    return second.ec == std::errc() && second.ptr == end ? process : 0;
}

// What writers of `target` left that were killed. One that is at work holds a lock; numbers of processes alone do not
// tell, since they come again, and are others in a container.
void remove_abandoned(const std::string & target) {
    const std::string folder = folder_of(target), base = std::filesystem::path(target).filename().string();
    DIR * const entries = ::opendir(folder.c_str());
    if (!entries) return;
    while (const dirent * entry = ::readdir(entries)) {
        const pid_t process = writer_of(entry->d_name, base);
        if (process <= 0) continue;
        const bool is_gone = ::kill(process, 0) != 0 && errno == ESRCH;
        const std::string path = folder + "/" + entry->d_name;
        const int fd = ::open(path.c_str(), O_RDWR | O_CLOEXEC | O_NOFOLLOW | O_NONBLOCK);
        if (fd < 0) continue;
        struct stat status{};
        // Between its making and its lock there is a moment.
        const bool is_new = ::fstat(fd, &status) != 0 || std::time(nullptr) - status.st_mtime < 5;
        if (S_ISREG(status.st_mode) && lock(fd, is_gone) && (is_gone || !is_new)) ::unlink(path.c_str());
        ::close(fd);
    }
    ::closedir(entries);
}

}  // namespace

void AtomicFile::io_error(const char * doing, int error) const {
    fail(LORICA_ERROR_IO, path_, ": cannot ", doing, ": ", std::strerror(error), "; the file was left as it was");
}

AtomicFile::AtomicFile(const std::string & path) : path_(path), target_(path) {
    if (path.empty()) {
        fail(LORICA_ERROR_IO, "cannot write a file with an empty name");
    }
    struct stat status{};
    mode_t mode = 0;
    if (::lstat(path.c_str(), &status) == 0 && S_ISLNK(status.st_mode)) {
        std::error_code error;
        target_ = std::filesystem::canonical(path, error).string();
        if (error) {
            fail(LORICA_ERROR_IO, path, ": cannot follow the symbolic link: ", error.message());
        }
    }
    if (::stat(target_.c_str(), &status) == 0) {
        if (!S_ISREG(status.st_mode)) {
            fail(LORICA_ERROR_IO, path, S_ISDIR(status.st_mode) ? ": is a directory" : ": is not a regular file",
                 ", cannot write there");
        }
        mode = status.st_mode & 07777;
    }

    remove_abandoned(target_);
    static std::atomic<uint32_t> counter = 0;
    do {
        temporary_ = target_ + ".tmp-" + std::to_string(::getpid()) + "-" + std::to_string(counter++);
        fd_ = ::open(temporary_.c_str(), O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0666);
    } while (fd_ < 0 && errno == EEXIST);
    if (fd_ < 0) {
        fail(LORICA_ERROR_IO, path, ": cannot create the file in ", folder_of(target_), ": ", std::strerror(errno));
    }
    lock(fd_, true);
    if (mode != 0) {
        // Not owning the old file is no reason to refuse: the new one then has default permissions.
        (void)!::fchmod(fd_, mode);
    }
    try {
        buffer_.reserve(buffer_bytes);
    } catch (...) {  // the destructor does not run for an object whose constructor throws
        ::close(fd_);
        ::unlink(temporary_.c_str());
        throw;
    }
}

AtomicFile::~AtomicFile() {
    if (fd_ >= 0) {
        ::close(fd_);
    }
    if (!temporary_.empty()) {
        ::unlink(temporary_.c_str());
    }
}

void AtomicFile::write_through(const std::byte * data, size_t n) {
    while (n > 0) {
        const ssize_t done = ::write(fd_, data, n);
        if (done < 0 && errno == EINTR) {
            continue;
        }
        if (done <= 0) {
            io_error("write", done < 0 ? errno : EIO);
        }
        data += done;
        n -= static_cast<size_t>(done);
    }
}

void AtomicFile::flush() {
    write_through(buffer_.data(), buffer_.size());
    buffer_.clear();
}

void AtomicFile::write(const void * data, size_t n) {
    const auto * bytes = static_cast<const std::byte *>(data);
    if (buffer_.size() + n > buffer_bytes) {
        flush();
    }
    if (n > buffer_bytes) {
        write_through(bytes, n);
    } else {
        buffer_.insert(buffer_.end(), bytes, bytes + n);
    }
    n_written_ += n;
}

void AtomicFile::write_zeros(uint64_t n) {
    static constexpr std::array<std::byte, 4096> zeros{};
    while (n > 0) {
        const auto chunk = std::min<uint64_t>(n, zeros.size());
        write(zeros.data(), chunk);
        n -= chunk;
    }
}

void AtomicFile::commit() {
    flush();
    if (::fsync(fd_) != 0) {
        io_error("write to disk", errno);
    }
    // Network file systems report a full disk as late as here.
    if (::close(std::exchange(fd_, -1)) != 0) {
        io_error("write to disk", errno);
    }
    if (::rename(temporary_.c_str(), target_.c_str()) != 0) {
        io_error("rename the finished file", errno);
    }
    temporary_.clear();
    sync_folder(folder_of(target_));
}

void require_other_file(const std::string & target, const std::string & source) {
    std::error_code error;
    if (std::filesystem::equivalent(target, source, error)) {
        fail(LORICA_ERROR_INVALID_ARGUMENT, target, " is ", source, " itself, or a link to it; choose another name");
    }
}

}  // namespace lorica
