// The ceiling: what oneDNN's matmul reaches by itself on the products of a model's forward pass and dx. Its best case:
// operands in one plain type, weights in the layout it likes best, made beforehand, and the faster of two ways to cut
// the rows.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "json.h"
#include "shapes.h"

namespace lorica::bench {

enum class CeilingType { bf16, f32 };

class Ceiling {
public:
    struct Rate {
        std::string name;  // "gate_proj", "gate_proj dx"
        int64_t m, n, k;
        double gflops;
    };

    // Empty where this build has no oneDNN, or where it has no kernel for this type on this processor; `why_not` then
    // says so.
    static std::unique_ptr<Ceiling> make(const std::vector<LinearShape> & linears, int64_t tokens, CeilingType type,
                                         int n_threads, std::string & why_not);
    ~Ceiling();

    // One pass over all products, those that occur many times cut to at most about 1.5e12 operations in all. GFLOP/s of
    // the whole, each product weighted by its count.
    double run();
    // By product.
    std::vector<Rate> run_each();
    // GFLOP/s of one product.
    double run_one(const std::string & name);

    std::string version() const;

private:
    struct Impl;
    explicit Ceiling(std::unique_ptr<Impl> impl);
    std::unique_ptr<Impl> impl_;
};

}  // namespace lorica::bench
