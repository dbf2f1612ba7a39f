// Merging an adapter into a model: seconds, and memory, which must not grow with the model.
#include <cstdio>
#include <filesystem>

#include "commands.h"
#include "engine.h"
#include "machine.h"

namespace lorica::bench {

Json run_merge(const Options & options) {
    ModelChoice choice(options);
    const int rank = options.number("rank", 16);
    const std::string targets = options.text("targets", "all-linear"), type = options.text("merge-type", "f16");
    const std::string given = options.text("output", "");
    options.check_all_read();
    choice.prepare();
    const std::string output = given.empty() ? choice.path + ".merged" : given;

    const int64_t before = resident_bytes();
    const bool reset = reset_peak_resident_bytes();
    const ModelHandle model = choice.load();
    const AdapterHandle adapter = random_adapter(model.get(), targets, rank);
    auto params = defaults(lorica_write_default_params);
    params.type = type.c_str();
    params.n_threads = choice.n_threads;
    const double seconds =
        seconds_of([&] { check(lorica_merge(model.get(), adapter.get(), output.c_str(), &params)); });
    const int64_t peak = reset ? peak_resident_bytes() : 0;
    const auto bytes = static_cast<int64_t>(std::filesystem::file_size(output));
    if (given.empty()) std::filesystem::remove(output);

    const auto mib = [](int64_t n) { return static_cast<double>(n) / (1 << 20); };
    std::fprintf(stderr,
                 "%s, adapter of rank %d on %s, merged to %s: %.1f MiB written in %.1f s, peak memory %.1f MiB\n",
                 choice.name.c_str(), rank, targets.c_str(), type.c_str(), mib(bytes), seconds, mib(peak));
    return Json()
        .set("model", describe(choice, model.get()))
        .set("rank", rank)
        .set("targets", targets)
        .set("type", type)
        .set("bytes", bytes)
        .set("seconds", seconds)
        .set("before_bytes", before)
        .set("peak_resident_bytes", peak);
}

}  // namespace lorica::bench
