// Stands in for libFuzzer: puts the given files, and those in the given folders, through the fuzzing entry once.
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>

extern "C" int LLVMFuzzerTestOneInput(const uint8_t * data, size_t size);

namespace {

int n_files = 0;

void replay(const std::filesystem::path & path) {
    std::ifstream file(path, std::ios::binary);
    const std::string data((std::istreambuf_iterator<char>(file)), {});
    std::printf("%s: %zu bytes\n", path.c_str(), data.size());
    std::fflush(stdout);  // the last line names the culprit of a crash
    LLVMFuzzerTestOneInput(reinterpret_cast<const uint8_t *>(data.data()), data.size());
    ++n_files;
}

}  // namespace

int main(int argc, char ** argv) {
    for (int i = 1; i < argc; ++i) {
        if (std::filesystem::is_directory(argv[i])) {
            for (const auto & entry : std::filesystem::recursive_directory_iterator(argv[i])) {
                if (entry.is_regular_file()) {
                    replay(entry.path());
                }
            }
        } else {
            replay(argv[i]);
        }
    }
    std::printf("%d files replayed\n", n_files);
    return n_files > 0 ? 0 : 2;
}
