// Folders of src/ include one another in one direction: api > train, generate, write > run > adapter > model > backend
// > gguf, tokenizer > common. A folder that is not in the list is not known to be anywhere in it.
#include <gtest/gtest.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <string>

namespace lorica {
namespace {

const std::map<std::string, std::set<std::string>> & arrows() {
    static const std::map<std::string, std::set<std::string>> may_include{
        {"common", {}},
        {"gguf", {"common"}},
        {"tokenizer", {"gguf", "common"}},
        {"backend", {"gguf", "common"}},
        {"model", {"backend", "gguf", "common"}},
        {"adapter", {"model", "backend", "gguf", "common"}},
        {"run", {"adapter", "model", "backend", "gguf", "common"}},
        {"train", {"run", "adapter", "model", "backend", "gguf", "common"}},
        {"generate", {"run", "adapter", "model", "backend", "gguf", "common"}},
        {"write", {"adapter", "model", "backend", "gguf", "common"}},
        {"api", {"train", "generate", "write", "run", "adapter", "model", "backend", "tokenizer", "gguf", "common"}}};
    return may_include;
}

TEST(IncludeArrows, EachFolderIncludesOnlyThoseBelowIt) {
    const std::filesystem::path source = LORICA_REPOSITORY "/native/src";
    size_t n_files = 0;
    for (const auto & entry : std::filesystem::recursive_directory_iterator(source)) {
        const std::string extension = entry.path().extension();
        if (extension != ".cpp" && extension != ".h" && extension != ".cu" && extension != ".cuh") continue;
        ++n_files;
        const std::string folder = *entry.path().lexically_relative(source).begin();
        ASSERT_TRUE(arrows().contains(folder)) << folder << " has no place among the folders";
        std::ifstream file(entry.path());
        for (std::string line; std::getline(file, line);) {
            const std::string start = "#include \"";
            if (!line.starts_with(start)) continue;
            const size_t slash = line.find('/', start.size());
            if (slash == std::string::npos) continue;
            const std::string other = line.substr(start.size(), slash - start.size());
            if (!arrows().contains(other)) continue;  // a folder of its own: "cpu/…" and the like
            EXPECT_TRUE(other == folder || arrows().at(folder).contains(other)) << entry.path() << ": " << line;
        }
    }
    EXPECT_GT(n_files, 100u);
}

TEST(IncludeArrows, TheArrowsGoInNoCircle) {
    std::set<std::string> placed;
    for (size_t before = 0;;) {
        for (const auto & [folder, others] : arrows()) {
            bool all = true;
            for (const std::string & other : others) all = all && placed.contains(other);
            if (all) placed.insert(folder);
        }
        if (placed.size() == before) break;
        before = placed.size();
    }
    EXPECT_EQ(placed.size(), arrows().size());
}

}  // namespace
}  // namespace lorica
