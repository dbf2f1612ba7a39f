// Fuzzing entry for everything that reads GGUF files. With clang:
//
//   cmake -S native -B build-fuzz -DCMAKE_CXX_COMPILER=clang++ -DLORICA_SANITIZE=address,undefined,fuzzer-no-link
//   cmake --build build-fuzz --target gguf_fuzz && build-fuzz/gguf_fuzz corpus/
//
// With another compiler, gguf_fuzz replays the files and folders given on its command line (replay_main.cpp).
#include "common/error.h"
#include "gguf/gguf_file.h"
#include "support/c_structs.h"
#include "support/damaged_gguf.h"
#include "support/temp_dir.h"

#include <sys/mman.h>
#include <unistd.h>

#include <cstdint>
#include <cstdlib>

namespace {

// The base that adapters are loaded for.
const lorica_model * base_model() {
    static const lorica_model * const model = [] {
        const lorica::test::TempDir dir;
        const lorica::test::GoodFiles good(dir.path().string());
        auto params = lorica::test::defaults(lorica_model_default_params);
        params.device = "cpu";
        params.n_threads = 1;
        lorica_model * loaded = nullptr;
        if (lorica_model_load(good.model.c_str(), &params, &loaded) != LORICA_OK) {
            std::abort();
        }
        return loaded;
    }();
    return model;
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size) {
    try {
        lorica::GgufFile::from_memory("input", {reinterpret_cast<const std::byte *>(data), size});
    } catch (const lorica::Error &) {
    }

    // A file without a disk.
    const int fd = ::memfd_create("input.gguf", MFD_CLOEXEC);
    if (fd >= 0 && ::write(fd, data, size) == static_cast<ssize_t>(size)) {
        for (const auto & result :
             lorica::test::load_as_everything("/proc/self/fd/" + std::to_string(fd), base_model())) {
            if (result.status == LORICA_ERROR_INTERNAL) {
                std::abort();
            }
        }
    }
    ::close(fd);
    return 0;
}
