// A backend that writes down what it is asked to do and has another one do it.
//
//     const auto recording = std::make_shared<Recording>();
//     const auto model = Model::load(path, [&] { return record(recording, make_backend("cpu", Dtype::bf16, 1)); });
//     recording->name_weights(model->file());
//     …
//     recording->text();
//
// Operands are named by what they hold, never by where they lie: the output of blk.0.attn_q is "blk.0.attn_q", a second
// one "blk.0.attn_q#2", the gradient of it "d(blk.0.attn_q)", and memory that no call has written, or that another
// value has taken since, is "undefined". So the same text means the same operations on the same values in the same
// order, however the memory is laid out.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "backend/backend.h"
#include "gguf/gguf_file.h"

namespace lorica::test {

class Recording {
public:
    // Weights are called what the file calls them. The file outlives the recording.
    void name_weights(const GgufFile & file);
    // Parameters in this memory are called `name`.
    void name_memory(const void * begin, size_t n_bytes, const std::string & name);

    // Forgets the calls so far, not what memory holds.
    void clear();
    // One call per line, without those whose results no later call reads, which n_struck() counts. What goes to the
    // host or into a gradient of a parameter is read.
    std::string text() const;
    size_t n_struck() const;

    // From now on, what a call writes is filled with NaN first, memory for its own use afterwards, and every value
    // after its last read, as the recording so far shows it: the calls to come must be the same ones.
    void fill_with_nan();

private:
    friend class RecordingBackend;

    struct Value {
        std::string base;  // the name but for its number
        size_t last_read = 0;
        bool is_scratch = false;  // what a call leaves in memory for its own use
    };
    struct Region {
        std::byte * begin;
        size_t row_bytes, stride_bytes;
        int64_t rows;
        size_t value;
    };
    struct Part {
        std::string text;
        std::vector<size_t> values;  // newest first
    };
    struct Entry {
        std::vector<Part> parts;
        std::vector<size_t> reads, writes;
        bool is_root = false;
    };

    std::vector<bool> live() const;
    std::vector<Region> find(const Region & region) const;
    void write(const Region & region, size_t value);
    std::string weight_name(const void * data, size_t n_bytes) const;
    std::string parameter_name(const void * data) const;
    void forget(const void * begin, size_t n_bytes);
    void poison_dead();

    const GgufFile * file_ = nullptr;
    struct Named {
        const std::byte *begin, *end;
        std::string name;
    };
    std::vector<Named> named_;
    std::map<const void *, std::string> factors_;  // of DoRA, by the pair whose they are
    std::vector<Value> values_;
    size_t first_value_ = 0;       // since clear()
    std::vector<Region> regions_;  // oldest first
    std::vector<Entry> entries_;
    std::vector<size_t> last_reads_;  // by value, of the recording before fill_with_nan()
    bool fills_ = false;
};

std::unique_ptr<Backend> record(std::shared_ptr<Recording> recording, std::unique_ptr<Backend> backend);

}  // namespace lorica::test
