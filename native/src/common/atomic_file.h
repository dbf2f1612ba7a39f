// A file that is either written whole or not at all.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace lorica {

// Writes to a temporary name in the same folder; commit() syncs it and renames it over the target. Until then, and
// after any failure, the file that was there stays as it was, and the destructor removes the temporary. That of a
// process that was killed, `<target>.tmp-<process>-<number>`, is removed by the next writer of the same target.
//
//     AtomicFile file(path);
//     file.write(data, n);
//     file.commit();
class AtomicFile {
public:
    // A symbolic link is followed, an existing file's permissions are kept. Errors, here and below: IO with path and
    // errno.
    explicit AtomicFile(const std::string & path);
    AtomicFile(const AtomicFile &) = delete;
    AtomicFile & operator=(const AtomicFile &) = delete;
    ~AtomicFile();

    void write(const void * data, size_t n);
    void write_zeros(uint64_t n);
    uint64_t n_written() const { return n_written_; }
    void commit();

private:
    void flush();
    void write_through(const std::byte * data, size_t n);
    [[noreturn]] void io_error(const char * doing, int error) const;

    std::string path_;    // as the caller named it, for messages
    std::string target_;  // with a symbolic link resolved
    std::string temporary_;
    int fd_ = -1;
    std::vector<std::byte> buffer_;
    uint64_t n_written_ = 0;
};

// INVALID_ARGUMENT when the two names, through whatever links, are one file.
void require_other_file(const std::string & target, const std::string & source);

}  // namespace lorica
