#include "common/mapped_file.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <atomic>
#include <cerrno>
#include <cstring>
#include <mutex>
#include <utility>
#include <vector>

#include "common/error.h"
#include "common/machine.h"

namespace lorica {

namespace {

// ---- pages that are gone

// What the handler may look at: it can run on any thread at any time, so there are neither locks nor memory that moves.
struct Guarded {
    std::atomic<uintptr_t> begin = 0, end = 0;  // begin 0: nobody's
    std::atomic<bool> cut = false;
};
constexpr size_t most_guarded = 4096;  // more mappings are not guarded
std::array<Guarded, most_guarded> guarded;
std::atomic<size_t> guarded_in_use = 0;  // those behind were never used
std::mutex guarding;

struct sigaction before;
uintptr_t page_bytes = 4096;

// Lets whoever had the signal before us have it: a JVM, which throws an InternalError for its own mapped buffers, or
// the system, which ends the process.
void pass_on(int signal, siginfo_t * info, void * context) {
    if (before.sa_flags & SA_SIGINFO) {
        before.sa_sigaction(signal, info, context);
    } else if (before.sa_handler != SIG_DFL && before.sa_handler != SIG_IGN) {
        before.sa_handler(signal);
    } else {
        // Back at the instruction, it is raised again.
        struct sigaction standard{};
        standard.sa_handler = SIG_DFL;
        sigaction(signal, &standard, nullptr);
    }
}

void on_bus_error(int signal, siginfo_t * info, void * context) {
    const int error = errno;
    const auto address = reinterpret_cast<uintptr_t>(info->si_addr);
    // Only what an instruction did: somebody's kill() has no address.
    if (info->si_code > 0) {
        const size_t n = guarded_in_use.load(std::memory_order_acquire);
        for (size_t i = 0; i < n; ++i) {
            Guarded & entry = guarded[i];
            const uintptr_t begin = entry.begin.load(std::memory_order_acquire);
            if (begin == 0 || address < begin || address >= entry.end.load(std::memory_order_acquire)) continue;
            entry.cut.store(true, std::memory_order_release);
            void * page = reinterpret_cast<void *>(address / page_bytes * page_bytes);
            if (mmap(page, page_bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0) == MAP_FAILED) break;
            errno = error;
            return;
        }
    }
    errno = error;
    pass_on(signal, info, context);
}

// Signals are handled as they were: on the same stack, with the same ones blocked.
void install_handler() {
    page_bytes = static_cast<uintptr_t>(sysconf(_SC_PAGESIZE));
    if (sigaction(SIGBUS, nullptr, &before) != 0) return;
    struct sigaction own = before;
    own.sa_flags |= SA_SIGINFO | SA_ONSTACK;
    own.sa_flags &= ~SA_RESETHAND;
    own.sa_sigaction = on_bus_error;
    sigaction(SIGBUS, &own, &before);
}

Guarded * guard(const void * data, size_t n_bytes) {
    static std::once_flag once;
    std::call_once(once, install_handler);
    const std::lock_guard lock(guarding);
    for (size_t i = 0; i < most_guarded; ++i) {
        Guarded & entry = guarded[i];
        if (entry.begin.load(std::memory_order_relaxed) != 0) continue;
        const auto begin = reinterpret_cast<uintptr_t>(data);
        entry.cut = false;
        entry.end.store((begin + n_bytes + page_bytes - 1) / page_bytes * page_bytes, std::memory_order_release);
        entry.begin.store(begin, std::memory_order_release);
        if (i >= guarded_in_use.load(std::memory_order_relaxed)) guarded_in_use.store(i + 1, std::memory_order_release);
        return &entry;
    }
    return nullptr;
}

// ---- files that change

class File {
public:
    explicit File(int fd) : fd_(fd) {}
    File(const File &) = delete;
    File & operator=(const File &) = delete;
    ~File() {
        if (fd_ >= 0) ::close(fd_);
    }
    int fd() const { return fd_; }
    int release() { return std::exchange(fd_, -1); }

private:
    int fd_;
};

constexpr int64_t sample_places = 64, sample_bytes = 1024;

// FNV-1a over places from the first to the last, read from the file and not through the mapping, whose pages may be
// gone. Short reads change it as well.
uint64_t sample(int fd, size_t size) {
    uint64_t hash = 0xcbf29ce484222325u;
    std::array<unsigned char, sample_bytes> buffer;
    const auto last = static_cast<int64_t>(size) - std::min<int64_t>(static_cast<int64_t>(size), sample_bytes);
    for (int64_t place = 0; place < sample_places; ++place) {
        // Not last * place: files are large.
        const int64_t at =
            last / (sample_places - 1) * place + last % (sample_places - 1) * place / (sample_places - 1);
        const ssize_t n = ::pread(fd, buffer.data(), buffer.size(), at);
        for (ssize_t i = 0; i < n; ++i) hash = (hash ^ buffer[static_cast<size_t>(i)]) * 0x100000001b3u;
        hash = (hash ^ static_cast<uint64_t>(n)) * 0x100000001b3u;
    }
    return hash;
}

int64_t modified(const struct stat & status) {
#if defined(__APPLE__)
    const timespec time = status.st_mtimespec;
#else
    const timespec time = status.st_mtim;
#endif
    return static_cast<int64_t>(time.tv_sec) * 1'000'000'000 + time.tv_nsec;
}

}  // namespace

struct MappedFile::Watch {
    std::string path;
    File file;  // of the very file that is mapped, whatever its name means by now
    int64_t modified;
    uint64_t sample;
    Guarded * guarded;
};

MappedFile::MappedFile(const std::string & path, bool read) {
    // O_NONBLOCK: opening a FIFO that nobody writes to would wait for ever.
    File file(::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK));
    if (file.fd() < 0) {
        fail(LORICA_ERROR_IO, path, ": cannot open: ", std::strerror(errno));
    }
    struct stat status{};
    if (::fstat(file.fd(), &status) != 0) {
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
    if (read) {
        const int64_t available = available_memory();
        if (status.st_size > available) {
            fail(LORICA_ERROR_OUT_OF_MEMORY, path, ": has ", (size >> 20) + 1, " MiB, and ", available >> 20,
                 " MiB of memory are available to read it into; let it be mapped");
        }
        void * data = ::mmap(nullptr, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (data == MAP_FAILED) {
            fail(LORICA_ERROR_OUT_OF_MEMORY, path, ": cannot allocate ", size, " bytes: ", std::strerror(errno));
        }
        data_ = static_cast<const std::byte *>(data);
        size_ = size;
        for (size_t done = 0; done < size;) {
            const ssize_t n = ::pread(file.fd(), static_cast<std::byte *>(data) + done,
                                      std::min(size - done, size_t{1} << 30), static_cast<off_t>(done));
            if (n < 0 && errno == EINTR) continue;
            if (n <= 0) {
                const std::string reason = n < 0 ? std::strerror(errno) : "it became shorter meanwhile";
                ::munmap(data, size);
                fail(LORICA_ERROR_IO, path, ": cannot read: ", reason);
            }
            done += static_cast<size_t>(n);
        }
        ::mprotect(data, size, PROT_READ);
        return;
    }
    void * data = ::mmap(nullptr, size, PROT_READ, MAP_SHARED, file.fd(), 0);
    if (data == MAP_FAILED) {
        fail(LORICA_ERROR_IO, path, ": cannot map ", size, " bytes: ", std::strerror(errno));
    }
    data_ = static_cast<const std::byte *>(data);
    size_ = size;
    const uint64_t of_places = sample(file.fd(), size);
    watch_.reset(new Watch{path, File(file.release()), modified(status), of_places, guard(data, size)});
}

MappedFile::MappedFile(MappedFile && other) noexcept
    : data_(std::exchange(other.data_, nullptr)),
      size_(std::exchange(other.size_, 0)),
      watch_(std::move(other.watch_)) {}

MappedFile & MappedFile::operator=(MappedFile && other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(watch_, other.watch_);
    return *this;
}

MappedFile::~MappedFile() {
    if (data_ == nullptr) return;
    if (watch_ && watch_->guarded) {
        const std::lock_guard lock(guarding);
        watch_->guarded->begin.store(0, std::memory_order_release);
    }
    ::munmap(const_cast<std::byte *>(data_), size_);
}

bool MappedFile::is_cut() const {
    return watch_ && watch_->guarded && watch_->guarded->cut.load(std::memory_order_acquire);
}

void MappedFile::check_unchanged() const {
    if (!watch_) return;
    struct stat status{};
    const int fd = watch_->file.fd();
    std::string change;
    if (::fstat(fd, &status) != 0) {
        fail(LORICA_ERROR_IO, watch_->path, ": cannot read: ", std::strerror(errno));
    } else if (static_cast<size_t>(status.st_size) != size_) {
        change = "it had " + std::to_string(size_) + " bytes and has " + std::to_string(status.st_size);
    } else if (modified(status) != watch_->modified) {
        change = "it was written to";
    } else if (is_cut()) {
        change = "a part of it was missing for a while";
    } else if (sample(fd, size_) != watch_->sample) {
        change = "other bytes are in it";
    } else {
        return;
    }
    fail(LORICA_ERROR_MISMATCH, watch_->path, ": the file has changed since it was opened: ", change,
         "; what was computed since then may be wrong. Start again, with a file that stays as it is, or have it read "
         "into "
         "memory (use_mmap false)");
}

}  // namespace lorica
