#include "common/mapped_file.h"

#include "common/error.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

namespace lorica {

MappedFile::MappedFile(const std::string & path) {
    // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    const int fd = ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (fd < 0) {
        fail(LORICA_ERROR_IO, path, ": cannot open: ", std::strerror(errno));
    }
    struct Closer {
        int fd;
        ~Closer() { ::close(fd); }
    } closer{fd};

    struct stat status{};
    if (::fstat(fd, &status) != 0) {
        fail(LORICA_ERROR_IO, path, ": cannot read: ", std::strerror(errno));
    }
    if (!S_ISREG(status.st_mode)) {
        fail(LORICA_ERROR_IO, path,
             S_ISDIR(status.st_mode) ? ": is a directory, a file is needed" : ": is not a regular file");
    }
    if (status.st_size == 0) {
        return;
    }
    const auto size = static_cast<size_t>(status.st_size);
    void * data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, fd, 0);
    if (data == MAP_FAILED) {
        fail(LORICA_ERROR_IO, path, ": cannot map ", size, " bytes: ", std::strerror(errno));
    }
    data_ = static_cast<const std::byte *>(data);
    size_ = size;
}

MappedFile::MappedFile(MappedFile && other) noexcept
    : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}

MappedFile & MappedFile::operator=(MappedFile && other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
}

MappedFile::~MappedFile() {
    if (data_ != nullptr) {
        ::munmap(const_cast<std::byte *>(data_), size_);
    }
}

}  // namespace lorica
