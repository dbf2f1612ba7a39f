// What happens before the first step, and whether a token costs the same in long sequences and large data sets.
#include <fcntl.h>
#include <unistd.h>

#include <algorithm>
#include <cstdio>
#include <map>
#include <numeric>

#include "commands.h"
#include "common/error.h"
#include "engine.h"
#include "machine.h"

namespace lorica::bench {

namespace {

TokenizerHandle load_tokenizer(const std::string & path) {
    lorica_tokenizer * tokenizer = nullptr;
    check(lorica_tokenizer_load(path.c_str(), &tokenizer));
    return TokenizerHandle(tokenizer);
}

// Prompts and responses of n examples, one text after another. The pairs are those of the example file, then every
// prompt with another response, so that few examples are the same.
struct Texts {
    std::string bytes;
    std::vector<int64_t> offsets{0};

    explicit Texts(int n_examples) {
        const std::vector<std::string> pairs = example_texts();
        const size_t n_pairs = pairs.size() / 2;
        for (size_t i = 0; i < static_cast<size_t>(n_examples); ++i) {
            const size_t prompt = i % n_pairs, response = (i + i / n_pairs) % n_pairs;
            add("### Instruction:\n" + pairs[2 * prompt] + "\n\n### Response:\n");
            add(pairs[2 * response + 1]);
        }
    }

    void add(const std::string & text) {
        bytes += text;
        offsets.push_back(static_cast<int64_t>(bytes.size()));
    }
};

struct Tokenized {
    std::vector<int32_t> ids;
    std::vector<int64_t> offsets;  // text i is [offsets[i], offsets[i + 1])

    size_t n_examples() const { return offsets.size() / 2; }
    size_t length(size_t example) const {
        return static_cast<size_t>(offsets[2 * example + 2] - offsets[2 * example]) + 2;
    }
};

Tokenized tokenize(const lorica_tokenizer * tokenizer, const Texts & texts, int n_threads) {
    const auto n_texts = static_cast<int64_t>(texts.offsets.size()) - 1;
    Tokenized result{std::vector<int32_t>(texts.bytes.size()), std::vector<int64_t>(texts.offsets.size())};
    check(lorica_tokenizer_encode_batch(tokenizer, texts.bytes.data(), texts.offsets.data(), nullptr, n_texts,
                                        n_threads, result.ids.data(), static_cast<int64_t>(result.ids.size()),
                                        result.offsets.data()));
    if (result.offsets.back() > static_cast<int64_t>(result.ids.size())) {
        result.ids.resize(static_cast<size_t>(result.offsets.back()));
        check(lorica_tokenizer_encode_batch(tokenizer, texts.bytes.data(), texts.offsets.data(), nullptr, n_texts,
                                            n_threads, result.ids.data(), static_cast<int64_t>(result.ids.size()),
                                            result.offsets.data()));
    }
    return result;
}

// Examples by micro-batch: the longest first, each into the fullest that still has room (best fit decreasing).
std::vector<std::vector<size_t>> pack(const Tokenized & data, size_t capacity) {
    std::vector<size_t> order(data.n_examples());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return data.length(a) > data.length(b); });
    std::vector<std::vector<size_t>> batches;
    std::multimap<size_t, size_t> by_room;
    for (const size_t example : order) {
        const size_t length = data.length(example);
        if (length > capacity) continue;
        const auto place = by_room.lower_bound(length);
        size_t batch = batches.size(), room = capacity;
        if (place == by_room.end()) {
            batches.emplace_back();
        } else {
            room = place->first;
            batch = place->second;
            by_room.erase(place);
        }
        batches[batch].push_back(example);
        by_room.emplace(room - length, batch);
    }
    return batches;
}

Batch batch_of(const Tokenized & data, const std::vector<size_t> & examples, const lorica_tokenizer_info & info) {
    Batch batch;
    for (const size_t example : examples) {
        std::vector<int32_t> tokens;
        if (info.bos >= 0) tokens.push_back(info.bos);
        tokens.insert(tokens.end(), data.ids.begin() + data.offsets[2 * example],
                      data.ids.begin() + data.offsets[2 * example + 2]);
        tokens.push_back(std::max(info.eos, 0));
        const auto prompt = static_cast<size_t>(data.offsets[2 * example + 1] - data.offsets[2 * example]);
        batch.add_sequence(tokens, prompt + 1);
    }
    return batch;
}

lorica_tokenizer_info info_of(const lorica_tokenizer * tokenizer) {
    lorica_tokenizer_info info{sizeof(lorica_tokenizer_info)};
    check(lorica_tokenizer_get_info(tokenizer, &info));
    return info;
}

void drop_from_page_cache(const std::string & path) {
    const int file = open(path.c_str(), O_RDONLY | O_CLOEXEC);
    if (file < 0) fail(LORICA_ERROR_IO, path, " cannot be opened");
    fdatasync(file);
    posix_fadvise(file, 0, 0, POSIX_FADV_DONTNEED);
    close(file);
}

double fill_of(const Tokenized & data, const std::vector<std::vector<size_t>> & batches, size_t capacity) {
    size_t used = 0;
    for (const auto & batch : batches) {
        for (const size_t example : batch) used += data.length(example);
    }
    return static_cast<double>(used) / static_cast<double>(batches.size() * capacity);
}

}  // namespace

Json run_start(const Options & options) {
    ModelChoice choice(options);
    const int n_examples = std::max(1, options.number("examples", 10000));
    const int repetitions = std::max(1, options.number("repetitions", 5));
    const TrainChoice train(options, "all-linear", 2048, 2048);
    const bool cold = options.flag("cold");
    options.check_all_read();
    choice.prepare();
    const Texts texts(n_examples);

    // Everything is done anew in each repetition.
    std::map<std::string, std::vector<double>> phases;
    double fill = 0;
    size_t n_tokens = 0;
    for (int i = 0; i < repetitions; ++i) {
        if (cold) drop_from_page_cache(choice.path);
        const double start = now();
        double last = start;
        const auto phase = [&](const char * name) {
            const double time = now();
            phases[name].push_back(time - last);
            last = time;
        };
        const TokenizerHandle tokenizer = load_tokenizer(choice.path);
        phase("1 load vocabulary");
        const ModelHandle model = choice.load();
        phase("2 load model");
        const Tokenized data = tokenize(tokenizer.get(), texts, choice.n_threads);
        phase("3 tokenize");
        const auto batches = pack(data, static_cast<size_t>(train.tokens));
        if (batches.empty())
            fail(LORICA_ERROR_INVALID_ARGUMENT, "--tokens ", train.tokens, ": no example is that short");
        phase("4 pack");
        Training training(model.get(), train);
        const Batch batch = batch_of(data, batches[0], info_of(tokenizer.get()));
        phase("5 create session");
        phases["until the first step begins"].push_back(last - start);
        training.step(batch.view());
        phase("first step");
        fill = fill_of(data, batches, static_cast<size_t>(train.tokens));
        n_tokens = static_cast<size_t>(data.offsets.back());
    }
    const ModelHandle model = choice.load();
    std::fprintf(stderr, "%s, %d examples of %zu tokens, %d threads, file %s\n", choice.name.c_str(), n_examples,
                 n_tokens, choice.n_threads, cold ? "dropped from the page cache" : "in the page cache");
    Json result;
    result.set("model", describe(choice, model.get()))
        .set("examples", n_examples)
        .set("tokens", n_tokens)
        .set("cold", cold)
        .set("fill", fill);
    for (const auto & [name, seconds] : phases) {
        std::fprintf(stderr, "%-28s %8.3f s\n", name.c_str(), median(seconds));
        result["seconds"].set(name, summary(seconds));
    }
    return result;
}

Json run_scaling(const Options & options) {
    ModelChoice choice(options);
    const TrainChoice train(options, "all-linear", 4096, 4096);
    const std::vector<std::string> lengths = options.list("lengths", "128,256,512,1024,2048,4096");
    const std::vector<std::string> counts = options.list("examples", "1000,10000,100000");
    const int repetitions = std::max(1, options.number("repetitions", 3));
    options.check_all_read();
    choice.prepare();
    const ModelHandle model = choice.load();
    const Shape shape = shape_of(choice.name, choice.path);
    const int n_vocab = bench::info_of(model.get()).n_vocab;
    Training training(model.get(), train);

    Json result;
    result.set("model", describe(choice, model.get())).set("tokens", train.tokens);
    std::map<int, std::vector<double>> seconds;
    std::map<int, Batch> random;
    for (const std::string & text : lengths) {
        const int length = std::atoi(text.c_str());
        if (length < 2 || length > train.tokens) {
            fail(LORICA_ERROR_INVALID_ARGUMENT, "--lengths: ", text, " is not from 2 to --tokens, ", train.tokens);
        }
        random.emplace(length, Batch::random(train.tokens, length, n_vocab));
    }
    training.step(random.begin()->second.view());
    for (int i = 0; i < repetitions; ++i) {
        for (const auto & [length, batch] : random)
            seconds[length].push_back(seconds_of([&] { training.step(batch.view()); }));
    }
    std::fprintf(stderr, "%s, %d tokens a step\nsequence   us/token  to shortest  operations to shortest\n",
                 choice.name.c_str(), train.tokens);
    const auto operations = [&](int length) {
        const StepOperations o = step_operations(shape, train.tokens, length, train.rank, train.targets);
        return o.weights + o.attention + o.lora + training.plan.recomputed_layers * o.recompute_layer;
    };
    const int shortest = seconds.begin()->first;
    for (const auto & [length, times] : seconds) {
        const double cost = median(times) / train.tokens, relative = median(times) / median(seconds[shortest]);
        const double expected = operations(length) / operations(shortest);
        std::fprintf(stderr, "%8d %10.2f %12.3f %12.3f\n", length, cost * 1e6, relative, expected);
        result["by_sequence_length"].push(Json()
                                              .set("sequence_length", length)
                                              .set("seconds_per_token", cost)
                                              .set("to_shortest", relative)
                                              .set("operations_to_shortest", expected));
    }

    const TokenizerHandle tokenizer = load_tokenizer(choice.path);
    std::fprintf(stderr, "examples  data us/token  step us/token  fill  resident MiB\n");
    for (const std::string & text : counts) {
        const int n = std::atoi(text.c_str());
        if (n < 1) fail(LORICA_ERROR_INVALID_ARGUMENT, "--examples: ", text, " is no number of examples");
        const Texts texts(n);
        std::vector<double> data_costs, step_costs;
        double fill = 0;
        for (int i = 0; i < repetitions; ++i) {
            const double start = now();
            const Tokenized data = tokenize(tokenizer.get(), texts, choice.n_threads);
            const auto batches = pack(data, static_cast<size_t>(train.tokens));
            const double n_tokens = static_cast<double>(data.offsets.back());
            data_costs.push_back((now() - start) / n_tokens);
            fill = fill_of(data, batches, static_cast<size_t>(train.tokens));
            // A full batch from the middle: the first holds the longest examples.
            const Batch batch = batch_of(data, batches[(batches.size() - 1) / 2], info_of(tokenizer.get()));
            step_costs.push_back(seconds_of([&] { training.step(batch.view()); }) / static_cast<double>(batch.size()));
        }
        const int64_t resident = resident_bytes();
        std::fprintf(stderr, "%8d %14.3f %14.2f %5.3f %13.1f\n", n, median(data_costs) * 1e6, median(step_costs) * 1e6,
                     fill, static_cast<double>(resident) / (1024.0 * 1024.0));
        result["by_examples"].push(Json()
                                       .set("examples", n)
                                       .set("data_seconds_per_token", summary(data_costs))
                                       .set("step_seconds_per_token", summary(step_costs))
                                       .set("fill", fill)
                                       .set("resident_bytes", resident));
    }
    return result;
}

}  // namespace lorica::bench
