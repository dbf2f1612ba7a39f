// A whole file mapped read-only and shared, so that processes using the same model share its pages.
#pragma once

#include <cstddef>
#include <span>
#include <string>

namespace lorica {

class MappedFile {
public:
    MappedFile() = default;
    // Errors: IO. An empty file maps to no bytes. The file must not shrink while it is mapped: reading a page that has
    // gone raises SIGBUS. Files replaced by rename, as lorica writes them, keep their old pages.
    explicit MappedFile(const std::string & path);
    MappedFile(MappedFile && other) noexcept;
    MappedFile & operator=(MappedFile && other) noexcept;
    ~MappedFile();

    std::span<const std::byte> bytes() const { return {data_, size_}; }

private:
    const std::byte * data_ = nullptr;
    size_t size_ = 0;
};

}  // namespace lorica
