// The engine through its public interface, with errors as exceptions and handles that free themselves.
#pragma once

#include <lorica/lorica.h>

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "json.h"
#include "options.h"
#include "shapes.h"

namespace lorica::bench {

// Throws lorica::Error with the engine's message.
void check(lorica_status status);

template <auto Free> struct Freed {
    void operator()(auto * handle) const { Free(handle); }
};
using ModelHandle = std::unique_ptr<lorica_model, Freed<lorica_model_free>>;
using AdapterHandle = std::unique_ptr<lorica_adapter, Freed<lorica_adapter_free>>;
using TrainHandle = std::unique_ptr<lorica_session, Freed<lorica_session_free>>;
using ContextHandle = std::unique_ptr<lorica_kv_cache, Freed<lorica_kv_cache_free>>;
using TokenizerHandle = std::unique_ptr<lorica_tokenizer, Freed<lorica_tokenizer_free>>;
using GgufHandle = std::unique_ptr<lorica_gguf, Freed<lorica_gguf_free>>;

// What most commands take: --model FILE, or --shape NAME --architecture A --type TYPE in --cache FOLDER; --device D;
// --threads N;
// --precision P.
struct ModelChoice {
    std::string path, name, device;
    lorica_precision precision = LORICA_PRECISION_AUTO;
    int n_threads = 0;

    explicit ModelChoice(const Options & options);
    // Writes the model of random weights if it is not there yet; to be called once all options have been checked.
    void prepare();
    ModelHandle load() const;

private:
    std::string shape_, architecture_, type_, cache_;
};

// The GPU of a choice, to be asked about memory and rates; null for a CPU, of which machine.h knows.
std::unique_ptr<Backend> open_gpu(const ModelChoice & choice);

lorica_model_info info_of(const lorica_model * model);
Json describe(const ModelChoice & choice, const lorica_model * model);

// --targets, --rank, --tokens, --sequence-length, --recomputation auto|on|off.
struct TrainChoice {
    std::vector<std::string> targets;
    int rank, tokens, sequence_length;
    lorica_recomputation recomputation = LORICA_RECOMPUTATION_AUTO;

    TrainChoice(const Options & options, const std::string & default_targets, int default_tokens, int default_length);
};

// A struct of lorica.h with its size, filled with defaults.
template <typename Struct> Struct defaults(lorica_status (*fill)(Struct *)) {
    Struct result{sizeof(Struct)};
    check(fill(&result));
    return result;
}

struct Training {
    AdapterHandle adapter;
    TrainHandle session;
    lorica_memory_plan plan{sizeof(lorica_memory_plan)};

    Training(const lorica_model * model, const TrainChoice & choice);
    // Forward, backward and optimizer.
    lorica_batch_result step(const lorica_batch & batch);
};

// An adapter on `targets` whose B is not zero; its values do not matter for speed.
AdapterHandle random_adapter(const lorica_model * model, const std::string & targets, int rank);

Json describe(const lorica_memory_plan & plan);

// A packed batch that owns its arrays. Sequences of random tokens, every position trained.
class Batch {
public:
    static Batch random(int n_tokens, int sequence_length, int n_vocab);

    void add_sequence(const std::vector<int32_t> & tokens, size_t n_untrained = 0);
    lorica_batch view() const;
    size_t size() const { return tokens_.size(); }

private:
    std::vector<int32_t> tokens_, labels_, lengths_;
};

}  // namespace lorica::bench
