// A whole file as bytes in memory: mapped read-only and shared, so that processes using the same model share its pages,
// or read into memory of its own.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>

namespace lorica {

class MappedFile {
public:
    MappedFile() = default;
    // read: the file is read into memory, and what happens to it later does not matter. Errors: IO, OUT_OF_MEMORY. An
    // empty file maps to no bytes. Files replaced by rename, as lorica writes them, keep their old pages.
    //
    // A mapped file that shrinks loses pages, and to read one of these raises SIGBUS. The first mapping installs a
    // handler for that signal, which puts a page of zeros in its place and notes that the file was cut; is_cut() tells.
    // Whatever else raises SIGBUS goes to the handler that was there before. So the computation goes on, nothing is
    // unwound, and whoever asked for it can be told afterwards that it is of no use.
    explicit MappedFile(const std::string & path, bool read = false);
    MappedFile(MappedFile && other) noexcept;
    MappedFile & operator=(MappedFile && other) noexcept;
    ~MappedFile();

    std::span<const std::byte> bytes() const { return {data_, size_}; }
    bool is_mapped() const { return watch_ != nullptr; }

    // True when a page was read that the file no longer has.
    bool is_cut() const;
    // Compares size, time of modification and a sample of 64 places with what they were when the file was mapped.
    // Errors: MISMATCH, which says what has changed. Any thread may ask.
    void check_unchanged() const;

private:
    struct Watch;
    const std::byte * data_ = nullptr;
    size_t size_ = 0;
    std::unique_ptr<Watch> watch_;  // of a mapped file that is not empty
};

}  // namespace lorica
