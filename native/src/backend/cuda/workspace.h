// Device memory for the inside of operations: reserved once, taken piece by piece, given back when the Mark ends.
#pragma once

#include "backend/cuda/launch.h"
#include "common/error.h"

#include <cstddef>

namespace lorica::cuda {

class Workspace {
public:
    Workspace() = default;
    Workspace(const Workspace &) = delete;
    Workspace & operator=(const Workspace &) = delete;
    ~Workspace() { cudaFree(memory_); }

    void reserve(size_t n_bytes) {
        if (n_bytes <= size_) return;
        cudaFree(memory_);
        memory_ = nullptr;
        size_ = 0;
        memory_ = allocate(n_bytes, "workspace");
        size_ = n_bytes;
    }

    std::byte * begin() const { return static_cast<std::byte *>(memory_); }

    template <typename T> T * take(int64_t count) {
        const size_t begin = position_;
        position_ += static_cast<size_t>(round_up(count * static_cast<int64_t>(sizeof(T)), alignment));
        if (position_ > size_) {
            fail(LORICA_ERROR_INTERNAL, "the GPU workspace of ", size_, " bytes is too small by ", position_ - size_,
                 " bytes: reserve() was called with a smaller shape");
        }
        return reinterpret_cast<T *>(static_cast<std::byte *>(memory_) + begin);
    }

    class Mark {
    public:
        explicit Mark(Workspace & workspace) : workspace_(workspace), position_(workspace.position_) {}
        Mark(const Mark &) = delete;
        Mark & operator=(const Mark &) = delete;
        ~Mark() { workspace_.position_ = position_; }

    private:
        Workspace & workspace_;
        size_t position_;
    };

    static constexpr int64_t alignment = 256;

private:
    void * memory_ = nullptr;
    size_t size_ = 0, position_ = 0;
};

}  // namespace lorica::cuda
