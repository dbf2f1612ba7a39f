#include "ceiling.h"

#include "machine.h"

#ifdef LORICA_HAVE_ONEDNN

#include "common/bf16.h"
#include "common/random.h"

#include <dlfcn.h>

#include <algorithm>
#include <chrono>
#include <oneapi/dnnl/dnnl.hpp>
#include <stdexcept>
#include <thread>

namespace lorica::bench {

namespace {

using dnnl::memory;

// C[m, n] = A[m, k] B[k, n] in pieces of `rows` rows.
struct Matmul {
    dnnl::matmul primitive;
    memory a, b, c;
    int64_t pieces;

    void run(dnnl::stream & stream) const {
        for (int64_t i = 0; i < pieces; ++i) {
            primitive.execute(stream, {{DNNL_ARG_SRC, a}, {DNNL_ARG_WEIGHTS, b}, {DNNL_ARG_DST, c}});
        }
        stream.wait();
    }
};

struct Product {
    std::string name;
    int64_t m, n, k, count, runs;
    Matmul matmul;

    double operations() const { return 2.0 * static_cast<double>(m) * static_cast<double>(n) * static_cast<double>(k); }
};

}  // namespace

// oneDNN brings an OpenMP runtime, which counts its threads for each calling thread.
void set_openmp_threads(int n) {
    if (void * set = dlsym(RTLD_DEFAULT, "omp_set_num_threads")) reinterpret_cast<void (*)(int)>(set)(n);
}

// For so long its threads spin after a product, and would take the processors from what is measured next.
constexpr auto openmp_spins = std::chrono::milliseconds(20);

struct Ceiling::Impl {
    dnnl::engine engine{dnnl::engine::kind::cpu, 0};
    dnnl::stream stream{engine};
    memory::data_type type;
    int n_threads;
    std::vector<Product> products;
    memory a, c;  // of the largest product; shared by all

    Impl(const std::vector<LinearShape> & linears, int64_t tokens, CeilingType ceiling_type, int n_threads)
        : type(ceiling_type == CeilingType::bf16 ? memory::data_type::bf16 : memory::data_type::f32),
          n_threads(n_threads) {
        set_openmp_threads(n_threads);
        int64_t widest = 0;
        for (const LinearShape & linear : linears) widest = std::max({widest, linear.in, linear.out});
        a = memory({{tokens, widest}, type, memory::format_tag::ab}, engine);
        c = memory({{tokens, widest}, type, memory::format_tag::ab}, engine);
        fill(a, 1);
        double all = 0;
        for (const LinearShape & linear : linears) {
            all += 4.0 * static_cast<double>(tokens * linear.in * linear.out * linear.count);
        }
        constexpr double budget = 1.5e12;
        for (const LinearShape & linear : linears) {
            const auto wanted = static_cast<int64_t>(static_cast<double>(linear.count) * std::min(1.0, budget / all));
            const int64_t runs = std::max<int64_t>(1, wanted);
            add(linear.name, tokens, linear.out, linear.in, linear.count, runs);
            add(linear.name + " dx", tokens, linear.in, linear.out, linear.count, runs);
        }
    }

    void fill(memory & values, uint64_t seed) const {
        const size_t size = values.get_desc().get_size();
        if (type == memory::data_type::bf16) {
            auto * data = static_cast<uint16_t *>(values.get_data_handle());
            for (size_t i = 0; i < size / 2; ++i) data[i] = Bf16(random_uniform(seed, i) - 0.5f).bits;
        } else {
            auto * data = static_cast<float *>(values.get_data_handle());
            for (size_t i = 0; i < size / 4; ++i) data[i] = random_uniform(seed, i) - 0.5f;
        }
    }

    Matmul make(int64_t m, int64_t n, int64_t k, int64_t pieces, memory plain) {
        const int64_t rows = (m + pieces - 1) / pieces;
        const memory::desc a_desc({rows, k}, type, memory::format_tag::ab),
            c_desc({rows, n}, type, memory::format_tag::ab);
        const memory::desc any({k, n}, type, memory::format_tag::any);
        const dnnl::matmul::primitive_desc chosen(engine, a_desc, any, c_desc);
        const std::string implementation = chosen.impl_info_str();
        if (implementation.starts_with("ref")) throw dnnl::error(dnnl_unimplemented, "it has only a slow reference");
        memory b(chosen.weights_desc(), engine);
        dnnl::reorder(plain, b).execute(stream, plain, b);
        stream.wait();
        return {dnnl::matmul(chosen), memory(a_desc, engine, a.get_data_handle()), b,
                memory(c_desc, engine, c.get_data_handle()), pieces};
    }

    void add(const std::string & name, int64_t m, int64_t n, int64_t k, int64_t count, int64_t runs) {
        memory plain({{k, n}, type, memory::format_tag::ab}, engine);
        fill(plain, 2);
        Matmul whole = make(m, n, k, 1, plain);
        Matmul quarters = make(m, n, k, m % 4 == 0 && m >= 1024 ? 4 : 1, plain);
        const auto best = [&](const Matmul & matmul) {
            matmul.run(stream);
            return std::min(seconds_of([&] { matmul.run(stream); }), seconds_of([&] { matmul.run(stream); }));
        };
        const bool cut = best(quarters) < best(whole);
        products.push_back({name, m, n, k, count, runs, cut ? std::move(quarters) : std::move(whole)});
    }

    double seconds(const Product & product) {
        set_openmp_threads(n_threads);
        const double seconds = seconds_of([&] {
            for (int64_t i = 0; i < product.runs; ++i) product.matmul.run(stream);
        });
        std::this_thread::sleep_for(openmp_spins);
        return seconds / static_cast<double>(product.runs);
    }
};

std::unique_ptr<Ceiling> Ceiling::make(const std::vector<LinearShape> & linears, int64_t tokens, CeilingType type,
                                       int n_threads, std::string & why_not) {
    try {
        return std::unique_ptr<Ceiling>(new Ceiling(std::make_unique<Impl>(linears, tokens, type, n_threads)));
    } catch (const dnnl::error & error) {
        why_not = std::string("oneDNN cannot multiply ") + (type == CeilingType::bf16 ? "bf16" : "f32") +
                  " here: " + error.what();
        return nullptr;
    }
}

double Ceiling::run() {
    double operations = 0, seconds = 0;
    for (const Product & product : impl_->products) {
        operations += product.operations() * static_cast<double>(product.count);
        seconds += impl_->seconds(product) * static_cast<double>(product.count);
    }
    return operations / seconds * 1e-9;
}

std::vector<Ceiling::Rate> Ceiling::run_each() {
    std::vector<Rate> rates;
    for (const Product & p : impl_->products) {
        rates.push_back({p.name, p.m, p.n, p.k, p.operations() / impl_->seconds(p) * 1e-9});
    }
    return rates;
}

double Ceiling::run_one(const std::string & name) {
    for (const Product & p : impl_->products) {
        if (p.name == name) {
            return p.operations() / seconds_of_one([&] { p.matmul.run(impl_->stream); }) * 1e-9;
        }
    }
    throw std::out_of_range("no product is called " + name);
}

std::string Ceiling::version() const {
    const dnnl_version_t * version = dnnl::version();
    return "oneDNN " + std::to_string(version->major) + "." + std::to_string(version->minor) + "." +
           std::to_string(version->patch);
}

}  // namespace lorica::bench

#else

namespace lorica::bench {

struct Ceiling::Impl {};

std::unique_ptr<Ceiling> Ceiling::make(const std::vector<LinearShape> &, int64_t, CeilingType, int,
                                       std::string & why_not) {
    why_not = "built without oneDNN: configure with -DONEDNN_ROOT=FOLDER";
    return nullptr;
}

double Ceiling::run() { return 0; }
std::vector<Ceiling::Rate> Ceiling::run_each() { return {}; }
double Ceiling::run_one(const std::string &) { return 0; }
std::string Ceiling::version() const { return ""; }

}  // namespace lorica::bench

#endif

namespace lorica::bench {

Ceiling::Ceiling(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Ceiling::~Ceiling() = default;

}  // namespace lorica::bench
