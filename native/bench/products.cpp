// Matrix products alone: oneDNN's, and the engine's on quantized weights.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <optional>

#include "backend/backend.h"
#include "ceiling.h"
#include "commands.h"
#include "common/bf16.h"
#include "common/random.h"
#include "engine.h"
#include "machine.h"

namespace lorica::bench {

namespace {

// Memory of a backend, as a matrix of small random values.
class Buffer {
public:
    Buffer(Backend & backend, Dtype type, int64_t rows, int64_t cols)
        : backend_(backend), view_{nullptr, type, rows, cols, cols} {
        view_.data = backend.allocate(view_.n_bytes());
        for (int64_t i = 0; i < rows * cols; ++i) {
            // A repeated stretch is as good as fresh values, and drawn sooner.
            const float value = random_uniform(1, static_cast<uint64_t>(i % 65521)) - 0.5f;
            if (type == Dtype::bf16) {
                view_.as<Bf16>()[i] = Bf16(value);
            } else {
                view_.as<float>()[i] = value;
            }
        }
    }
    ~Buffer() { backend_.release(view_.data); }
    Buffer(const Buffer &) = delete;
    Buffer & operator=(const Buffer &) = delete;

    Matrix rows(int64_t n) const { return view_.slice_rows(0, n); }

private:
    Backend & backend_;
    Matrix view_;
};

struct OwnedWeight {
    std::vector<std::byte> blocks;
    Weight weight;

    OwnedWeight(ggml_type type, int64_t out, int64_t in)
        : blocks(random_blocks(type, out, in, 1 / std::sqrt(float(in)), 1)) {
        weight = {type, out, in, ggml_row_size(type, in), blocks.data()};
    }
};

// Layers that the transformer runs as one operation, because they share their input.
struct Group {
    std::string name;
    std::vector<LinearShape> layers;
    bool into_residual;  // y is the residual stream, f32

    double operations(int64_t m) const {
        double sum = 0;
        for (const LinearShape & layer : layers) sum += 2.0 * static_cast<double>(m * layer.in * layer.out);
        return sum;
    }
};

std::vector<Group> groups_of(const Shape & shape) {
    const std::vector<LinearShape> l = shape.linears;
    return {{"qkv", {l[0], l[1], l[2]}, false},
            {"o", {l[3]}, true},
            {"gate_up", {l[4], l[5]}, false},
            {"down", {l[6]}, true}};
}

// The engine's products of one group and weight type.
class OwnProducts {
public:
    OwnProducts(Backend & backend, const Group & group, ggml_type type, int64_t m)
        : backend_(backend),
          act_(backend.formats().act),
          hidden_(backend.formats().hidden),
          x_(backend, act_, m, group.layers[0].in),
          dx_(backend, group.into_residual ? act_ : hidden_, m, group.layers[0].in),
          group_(group) {
        for (const LinearShape & layer : group.layers) {
            weights_.emplace_back(type, layer.out, layer.in);
            y_.push_back(std::make_unique<Buffer>(backend, group.into_residual ? hidden_ : act_, m, layer.out));
            dy_.push_back(std::make_unique<Buffer>(backend, act_, m, layer.out));
        }
    }

    void forward(int64_t m) {
        std::vector<LinearForward> layers;
        for (size_t i = 0; i < weights_.size(); ++i) {
            const Matrix y = y_[i]->rows(m);
            layers.push_back({&weights_[i].weight, {}, {}, group_.into_residual ? y : Matrix{}, y});
        }
        backend_.linear(x_.rows(m), layers);
    }

    void backward(int64_t m) {
        std::vector<LinearBackward> layers;
        for (size_t i = 0; i < weights_.size(); ++i) layers.push_back({&weights_[i].weight, {}, {}, dy_[i]->rows(m)});
        backend_.linear_backward(x_.rows(m), layers, false, dx_.rows(m));
    }

private:
    Backend & backend_;
    Dtype act_, hidden_;
    Buffer x_, dx_;
    const Group & group_;
    std::vector<OwnedWeight> weights_;
    std::vector<std::unique_ptr<Buffer>> y_, dy_;
};

// The ceiling's products of one group in one direction, each weighted by its operations.
double ceiling_gflops(Ceiling & ceiling, const Group & group, bool dx) {
    double weights = 0, seconds = 0;
    for (const LinearShape & layer : group.layers) {
        const auto weight = static_cast<double>(layer.in * layer.out);
        weights += weight;
        seconds += weight / ceiling.run_one(layer.name + (dx ? " dx" : ""));
    }
    return weights / seconds;
}

void print_ratio(const std::vector<double> & ratios) {
    if (ratios.empty()) {
        std::fprintf(stderr, "        -");
    } else {
        std::fprintf(stderr, "%9.3f", median(ratios));
    }
}

// Loss and dx of the head in one operation.
Json measure_head(Backend & backend, const Shape & shape, const std::string & type_name, int64_t m, int repetitions,
                  Ceiling * ceiling) {
    const Dtype act = backend.formats().act;
    const OwnedWeight head(parse_type(type_name), shape.n_vocab, shape.n_embd);
    const Buffer x(backend, act, m, shape.n_embd), dx(backend, act, m, shape.n_embd),
        nll(backend, backend.formats().hidden, m, 1);
    std::vector<int32_t> labels;
    for (int64_t i = 0; i < m; ++i) {
        labels.push_back(
            static_cast<int32_t>(random_u32(1, static_cast<uint64_t>(i)) % static_cast<uint32_t>(shape.n_vocab)));
    }
    const double operations = 4.0 * static_cast<double>(m * shape.linears.back().weights());
    const auto run = [&] {
        backend.linear_cross_entropy(x.rows(m), {&head.weight}, labels.data(), nll.rows(m).data, dx.rows(m));
    };
    run();
    std::vector<double> rates, ratios;
    for (int i = 0; i < repetitions; ++i) {
        rates.push_back(operations / seconds_of_one(run) * 1e-9);
        if (!ceiling) continue;
        ratios.push_back(rates.back() * (0.5 / ceiling->run_one("head") + 0.5 / ceiling->run_one("head dx")));
    }
    std::fprintf(stderr, "%-8s %-9s %-8s %9.1f", type_name.c_str(), "head", "both", median(rates));
    print_ratio(ratios);
    std::fputc('\n', stderr);
    return Json()
        .set("layers", "head")
        .set("direction", "loss and dx")
        .set("gflops", summary(rates))
        .set("ratio", summary(ratios));
}

}  // namespace

Json run_ceiling(const Options & options) {
    ModelChoice choice(options);
    const int tokens = options.number("tokens", 2048), repetitions = std::max(1, options.number("repetitions", 5));
    options.check_all_read();
    choice.prepare();
    const ModelHandle model = choice.load();
    const Shape shape = shape_of(choice.name, choice.path);

    Json result;
    result.set("model", describe(choice, model.get())).set("tokens", tokens);
    for (const auto & [type, name] : {std::pair{CeilingType::bf16, "bf16"}, std::pair{CeilingType::f32, "f32"}}) {
        std::string why_not;
        const auto ceiling = Ceiling::make(shape.linears, tokens, type, choice.n_threads, why_not);
        if (!ceiling) {
            std::fprintf(stderr, "%s: %s\n", name, why_not.c_str());
            result[name].set("skipped", why_not);
            continue;
        }
        std::vector<double> all;
        for (int i = 0; i < repetitions; ++i) all.push_back(ceiling->run());
        std::fprintf(stderr, "%s %s, %s products of %d tokens, %d threads: %.1f GFLOP/s (%.1f to %.1f)\n",
                     ceiling->version().c_str(), name, choice.name.c_str(), tokens, choice.n_threads, median(all),
                     *std::min_element(all.begin(), all.end()), *std::max_element(all.begin(), all.end()));
        Json products;
        for (const Ceiling::Rate & rate : ceiling->run_each()) {
            std::fprintf(stderr, "  %-14s %6lld x %6lld x %6lld %9.1f GFLOP/s\n", rate.name.c_str(),
                         static_cast<long long>(rate.m), static_cast<long long>(rate.n), static_cast<long long>(rate.k),
                         rate.gflops);
            products.push(Json()
                              .set("name", rate.name)
                              .set("m", rate.m)
                              .set("n", rate.n)
                              .set("k", rate.k)
                              .set("gflops", rate.gflops));
        }
        result[name].set("library", ceiling->version()).set("gflops", summary(all)).set("products", products);
    }
    return result;
}

Json run_gemm(const Options & options) {
    const Shape shape = named_shape(options.text("shape", "s135"));
    const std::vector<std::string> types = options.list("types", "q4_0,q8_0,q4_k,bf16");
    const int tokens = options.number("tokens", 2048), repetitions = std::max(1, options.number("repetitions", 5));
    int threads = options.number("threads", 0);
    if (threads == 0) threads = n_usable_cores();
    const bool f32 = options.text("precision", "auto") == "f32";
    options.check_all_read();

    const std::unique_ptr<Backend> backend = make_backend("cpu", f32 ? Dtype::f32 : Dtype::bf16, threads);
    WorkspaceShape workspace;
    workspace.max_tokens = tokens;
    workspace.max_sequence_length = tokens;
    workspace.max_features = std::max({shape.n_ff, shape.n_embd, shape.n_head * shape.head_dim});
    workspace.n_vocab = shape.n_vocab;
    workspace.n_head = static_cast<int32_t>(shape.n_head);
    workspace.n_head_kv = static_cast<int32_t>(shape.n_head_kv);
    workspace.head_dim = static_cast<int32_t>(shape.head_dim);
    workspace.training = true;
    backend->reserve(workspace);
    std::string why_not;
    const auto ceiling =
        Ceiling::make(shape.linears, tokens, f32 ? CeilingType::f32 : CeilingType::bf16, threads, why_not);
    if (!ceiling) std::fprintf(stderr, "no ceiling: %s\n", why_not.c_str());

    Json result;
    result.set("shape", shape.name).set("tokens", tokens).set("device", backend->detail()).set("threads", threads);
    result["ceiling"] = ceiling ? Json().set("library", ceiling->version()) : Json().set("skipped", why_not);
    std::fprintf(stderr, "%s, %d tokens, %s\n", shape.name.c_str(), tokens, backend->detail().c_str());
    std::fprintf(stderr, "type     layers    product   GFLOP/s  /oneDNN  share not growing with the rows\n");
    const std::vector<Group> groups = groups_of(shape);
    const int64_t quarter = std::max(1, tokens / 4);
    for (const std::string & type_name : types) {
        const ggml_type type = parse_type(type_name);
        if (shape.n_embd % ggml_blck_size(type) != 0 || shape.n_ff % ggml_blck_size(type) != 0) {
            std::fprintf(stderr, "%-8s rows of %s are no whole number of its blocks\n", type_name.c_str(),
                         shape.name.c_str());
            result["types"][type_name].set("skipped", "rows are no whole number of blocks");
            continue;
        }
        Json & rows = result["types"][type_name];
        for (const Group & group : groups) {
            OwnProducts own(*backend, group, type, tokens);
            for (const bool dx : {false, true}) {
                const auto run = [&](int64_t m) { dx ? own.backward(m) : own.forward(m); };
                run(tokens);
                std::vector<double> rates, ratios, shares;
                for (int i = 0; i < repetitions; ++i) {
                    const double whole = seconds_of_one([&] { run(tokens); }),
                                 part = seconds_of_one([&] { run(quarter); });
                    rates.push_back(group.operations(tokens) / whole * 1e-9);
                    if (ceiling) ratios.push_back(rates.back() / ceiling_gflops(*ceiling, group, dx));
                    // time = fixed + rows * slope: unpacking and packing the weights is what is fixed
                    const double slope = (whole - part) / static_cast<double>(tokens - quarter);
                    shares.push_back(1 - slope * tokens / whole);
                }
                std::fprintf(stderr, "%-8s %-9s %-8s %9.1f", type_name.c_str(), group.name.c_str(),
                             dx ? "dx" : "forward", median(rates));
                print_ratio(ratios);
                std::fprintf(stderr, "%9.3f\n", median(shares));
                rows.push(Json()
                              .set("layers", group.name)
                              .set("direction", dx ? "dx" : "forward")
                              .set("gflops", summary(rates))
                              .set("ratio", summary(ratios))
                              .set("fixed_share", summary(shares)));
            }
        }
        rows.push(measure_head(*backend, shape, type_name, tokens, repetitions, ceiling.get()));
    }
    return result;
}

}  // namespace lorica::bench
