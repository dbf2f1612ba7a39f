// derive() on random programs: what is derived as backward against finite differences of what is derived as forward, in
// f64, for random trained layers, kept and recomputed.
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <list>
#include <numeric>

#include "common/random.h"
#include "model/describe.h"
#include "run/executor.h"
#include "support/finite_differences.h"
#include "support/recording_backend.h"

namespace lorica {
namespace {

using namespace test;

constexpr int64_t n_embd = 16, n_tokens = 7;

// ---- random programs

class Draw {
public:
    explicit Draw(uint64_t seed) : seed_(derive_seed(seed, 77)) {}
    uint32_t below(uint32_t n) { return random_u32(seed_, i_++) % n; }
    bool coin() { return below(2) == 1; }

private:
    uint64_t seed_, i_ = 0;
};

class RandomBlock {
public:
    RandomBlock(Block & block, Draw & draw) : b_(block), draw_(draw) {}

    // One to three sublayers, of which parallel ones read one norm, or norms of one value.
    Value make(Value x) {
        const uint32_t n = 1 + draw_.below(3);
        for (uint32_t i = 0; i < n; ++i) {
            switch (draw_.below(7)) {
                case 0: x = add(attention(norm(x)), n_embd, x); break;
                case 1: x = add(feed_forward(norm(x)), 24, x); break;
                case 2: {  // parallel, one norm
                    const Value n1 = norm(x);
                    const Value o = attention(n1), h = feed_forward(n1);
                    x = add(h, 24, add(o, n_embd, x));
                    break;
                }
                case 3: {  // parallel, a norm each; the first sum comes before the second norm's reader
                    const Value n1 = norm(x), n2 = norm(x);
                    const Value mid = add(attention(n1), n_embd, x);
                    x = add(feed_forward(n2), 24, mid);
                    break;
                }
                case 4: {  // a chain of three sums, the last of which reads the second norm
                    const Value n1 = norm(x);
                    const Value a = add(attention(n1), n_embd, x);
                    const Value c = add(n1, n_embd, a);
                    x = add(feed_forward(norm(a)), 24, c);
                    break;
                }
                case 6:  // products read the stream and add to its gradient
                    x = add(feed_forward(x), 24, x, false);
                    break;
                case 5: {  // the stream is what a norm leaves (BERT)
                    const Value s = add(attention(x), n_embd, x, false);
                    const Value a = b_.norm(s, layer_or_rms());
                    const Value t = add(feed_forward(a), 24, a, false);
                    x = b_.norm(t, layer_or_rms());
                    break;
                }
            }
        }
        return x;
    }

private:
    std::string name(const char * kind) { return kind + std::to_string(n_++); }
    NormOf layer_or_rms() {
        const std::string n = name("norm");
        return draw_.coin() ? Rms(n, n, 1e-5) : Layer(n, n, 1e-5).bias(draw_.coin());
    }
    Linear layer(int64_t out) {
        const std::string n = name("linear");
        return Linear(n, n, out).bias(draw_.below(3) == 0);
    }
    Value norm(Value x) { return b_.norm(x, layer_or_rms()); }

    // x + linear(y), or x + norm(linear(y)).
    Value add(Value y, int64_t, Value x, bool may_be_norm = true) {
        if (may_be_norm && draw_.below(4) == 0) {
            const Value z = b_.linear(y, layer(n_embd));
            return b_.norm(z, layer_or_rms(), plus(x));
        }
        return b_.linear(y, layer(n_embd), plus(x));
    }

    Value attention(Value x) {
        const int32_t n_head = 2, n_head_kv = draw_.coin() ? 1 : 2, head_dim = 8;
        Value q, k, v;
        if (draw_.coin()) {
            const Value qkv = b_.linear(x, layer((n_head + 2 * n_head_kv) * head_dim));
            std::tie(q, k, v) = three(b_.split(qkv, int64_t{n_head} * head_dim, int64_t{n_head_kv} * head_dim,
                                               int64_t{n_head_kv} * head_dim));
        } else {
            std::tie(q, k, v) =
                three(b_.linear(x, layer(n_head * head_dim), layer(n_head_kv * head_dim), layer(n_head_kv * head_dim)));
        }
        if (draw_.below(3) == 0) {
            q = b_.norm(q, layer_or_rms().per_head(n_head));
            k = b_.norm(k, layer_or_rms().per_head(n_head_kv));
        }
        if (draw_.below(4) != 0) {
            RopeSpec rope;
            rope.head_dim = head_dim;
            rope.halves = draw_.coin();
            for (uint32_t i = 0; i < 1 + draw_.below(4); ++i) rope.inverse_frequency.push_back(1.0 / (1 + i));
            rope.magnitude = draw_.coin() ? 1 : 1.25;
            if (draw_.below(4) == 0) {
                RopeSpec of_q = rope;
                of_q.temperature = draw_.coin() ? 0 : 0.5;
                q = b_.rope(of_q, q);
                k = b_.rope(rope, k);
            } else {
                const auto [qr, kr] = b_.rope(rope, q, k);
                q = qr;
                k = kr;
            }
        }
        AttentionSpec spec{n_head, n_head_kv, head_dim, 1 / std::sqrt(8.0)};
        if (draw_.below(3) == 0) spec.mask.back = 2;
        if (draw_.below(4) == 0) spec.mask.ahead = MaskSpec::all;
        if (draw_.below(3) == 0) spec.softcap = 3;
        return b_.attention(q, k, v, spec);
    }

    Value feed_forward(Value x) {
        const Act act = draw_.coin() ? Act::silu : Act::gelu_tanh;
        switch (draw_.below(3)) {
            case 0: {
                const auto [gate, up] = b_.linear(x, layer(24), layer(24));
                return b_.gated(act, gate, up);
            }
            case 1: {
                const Value both = b_.linear(x, layer(48));
                const auto [gate, up] = b_.split(both, int64_t{24}, int64_t{24});
                return b_.gated(act, gate, up);
            }
            default: {
                const Value up = b_.linear(x, layer(24));
                return b_.activation(act, up);
            }
        }
    }
    static std::tuple<Value, Value, Value> three(const std::array<Value, 3> & v) { return {v[0], v[1], v[2]}; }

    Block & b_;
    Draw & draw_;
    int n_ = 0;
};

Program random_program(uint64_t seed) {
    Draw draw(seed);
    Shape shape;
    shape.n_layer = 1;
    shape.n_embd = n_embd;
    Describe d(shape);
    d.layers("", "", [&](Block & b, Value x, int32_t) { return RandomBlock(b, draw).make(x); });
    return d.done().kinds[0];
}

// ---- a program with weights, adapters and memory

class Model1 final : public AttachedSites {
public:
    Model1(const Program & program, uint64_t seed) : program(program), seed_(derive_seed(seed, 5)) {
        for (const LinearSpec & linear : program.linears) {
            const std::vector<float> & w = random(linear.out * linear.in, 1 / std::sqrt(static_cast<float>(linear.in)));
            weights.linears.push_back({GGML_TYPE_F32, linear.out, linear.in,
                                       sizeof(float) * static_cast<size_t>(linear.in),
                                       reinterpret_cast<const std::byte *>(w.data())});
            weights.biases.push_back(linear.bias ? Vector(random(linear.out, 0.3f).data()) : Vector{});
        }
        for (const NormSpec & norm : program.norms) {
            std::vector<float> & w = random(norm.n, 0.2f);
            for (float & value : w) value += 1;
            weights.norms.push_back(w.data());
            weights.norm_biases.push_back(norm.bias ? Vector(random(norm.n, 0.3f).data()) : Vector{});
        }
    }

    void name_in(Recording & recording) const {
        for (const std::vector<float> & values : kept_)
            recording.name_memory(values.data(), values.size() * sizeof(float), "weight");
        for (const Trained & t : trained) {
            for (const Values * values : {&t.a, &t.b, &t.factors})
                recording.name_memory(values->data(), values->size() * sizeof(double), "parameter");
        }
        for (const TrainedVector & v : vectors)
            recording.name_memory(v.value.data(), v.value.size() * sizeof(double), "vector");
    }

    struct Trained {
        int16_t linear;
        Values a, b, m, da, db, dm, factors, slopes;
    };
    // What is trained besides: vectors and whole weights by where they are.
    struct TrainedVector {
        Adapter::Kind kind;
        int16_t number;
        Values value, gradient;
    };
    void train_vector(Adapter::Kind kind, int16_t number) {
        const auto i = static_cast<size_t>(number);
        const bool of_norm = kind == Adapter::Kind::norm_weight || kind == Adapter::Kind::norm_bias;
        const int64_t n = of_norm                           ? program.norms[i].n
                          : kind == Adapter::Kind::weight   ? program.linears[i].out * program.linears[i].in
                          : kind == Adapter::Kind::scale_in ? program.linears[i].in
                                                            : program.linears[i].out;
        vectors.push_back({kind, number, doubles(n, 0.3), Values(static_cast<size_t>(n))});
        if (kind != Adapter::Kind::bias && kind != Adapter::Kind::norm_bias && kind != Adapter::Kind::weight) {
            for (double & value : vectors.back().value) value += 1;
        }
    }
    const TrainedVector * find(Adapter::Kind kind, int16_t number) const {
        for (const TrainedVector & v : vectors) {
            if (v.kind == kind && v.number == number) return &v;
        }
        return nullptr;
    }

    void train(int16_t linear, bool dora) {
        const LinearSpec & spec = program.linears[static_cast<size_t>(linear)];
        Trained t{linear, doubles(2 * spec.in, 0.3), doubles(spec.out * 2, 0.3)};
        if (dora) {
            t.factors = doubles(spec.out, 0.2);
            for (double & f : t.factors) f += 1;
        }
        t.slopes.resize(t.factors.size());
        t.da.resize(t.a.size());
        t.db.resize(t.b.size());
        t.dm.resize(t.factors.size());
        trained.push_back(std::move(t));
    }
    TrainedSites sites() const {
        TrainedSites sites;
        sites.linears.resize(program.linears.size());
        for (const Trained & t : trained) {
            sites.linears[static_cast<size_t>(t.linear)] =
                t.factors.empty() ? TrainedSites::lora : TrainedSites::lora | TrainedSites::dora;
        }
        for (const TrainedVector & v : vectors) {
            const auto i = static_cast<size_t>(v.number);
            switch (v.kind) {
                case Adapter::Kind::scale_in: sites.linears[i] |= TrainedSites::scale_in; break;
                case Adapter::Kind::scale_out: sites.linears[i] |= TrainedSites::scale_out; break;
                case Adapter::Kind::bias: sites.linears[i] |= TrainedSites::bias; break;
                case Adapter::Kind::weight: sites.linears[i] |= TrainedSites::weight; break;
                default: sites.norms.resize(program.norms.size()); sites.norms[i] = TrainedSites::weight;
            }
        }
        return sites;
    }

    Lora lora(int32_t, int16_t linear) const override {
        for (const Trained & t : trained) {
            if (t.linear != linear) continue;
            Lora lora;
            lora.a = t.a.data();
            lora.b = t.b.data();
            lora.da = const_cast<double *>(t.da.data());
            lora.db = const_cast<double *>(t.db.data());
            lora.rank = 2;
            lora.scale = 0.7;
            return lora;
        }
        return {};
    }
    // The gradient of m where a factor is m itself.
    DoraRows dora(int32_t, int16_t linear) const override {
        for (const Trained & t : trained) {
            if (t.linear != linear) continue;
            DoraRows rows{};
            rows.strength = 1;
            rows.factors = const_cast<double *>(t.factors.data());
            for (size_t i = 0; i < t.factors.size(); ++i) const_cast<Values &>(t.slopes)[i] = 1 / t.factors[i];
            rows.slopes = const_cast<double *>(t.slopes.data());
            rows.magnitudes = rows.factors;
            return rows;
        }
        return {};
    }
    void * magnitude_gradients(int32_t, int16_t linear) const override {
        for (const Trained & t : trained) {
            if (t.linear == linear && !t.dm.empty()) return const_cast<double *>(t.dm.data());
        }
        return const_cast<double *>(scales(linear).gradient.data());
    }
    const TrainedVector & scales(int16_t linear) const {
        const TrainedVector * out = find(Adapter::Kind::scale_out, linear);
        return out ? *out : *find(Adapter::Kind::scale_in, linear);
    }
    DoraRows factors(int32_t, int16_t linear) const override {
        static Values ones(64, 1.0);
        DoraRows rows{};
        rows.strength = 1;
        rows.magnitudes = rows.factors = const_cast<double *>(scales(linear).value.data());
        rows.slopes = ones.data();
        return rows;
    }
    TrainedTensor tensor(int32_t, Adapter::Kind kind, int16_t number) const override {
        const TrainedVector * v = find(kind, number);
        return v ? TrainedTensor{v->value.data(), const_cast<double *>(v->gradient.data())} : TrainedTensor{};
    }

    Values doubles(int64_t n, double size) {
        Values values(static_cast<size_t>(n));
        const uint64_t own = derive_seed(seed_, stream_++);
        for (size_t i = 0; i < values.size(); ++i) values[i] = size * random_normal(own, i);
        return values;
    }

    const Program & program;
    ProgramWeights weights;
    std::vector<Trained> trained;
    std::vector<TrainedVector> vectors;

private:
    std::vector<float> & random(int64_t n, float size) {
        const Values wide = doubles(n, size);
        return kept_.emplace_back(wide.begin(), wide.end());
    }
    uint64_t seed_, stream_ = 0;
    std::list<std::vector<float>> kept_;
};

// One pass over 7 tokens in two segments.
class Pass {
public:
    Pass(Model1 & model, const Wanted & wanted, std::shared_ptr<Recording> recording = nullptr)
        : model_(model), plan_(derive(model.program, model.sites(), wanted)), backend_(reference()) {
        if (recording) backend_ = record(std::move(recording), std::move(backend_));
        const Layout layout(plan_, backend_->formats(), n_tokens, 2);
        kept_ = fresh(layout.kept_bytes());
        temporary_ = fresh(layout.temporary_bytes());
        slots_ = layout.place(kept_.data(), temporary_.data());
        const auto place = [&](Slot::Place where, Values & values) {
            values.assign(static_cast<size_t>(n_tokens * n_embd), std::nan(""));
            slots_.place(plan_, where, matrix(values, n_tokens, n_embd));
        };
        place(Slot::input, x);
        place(Slot::output, y);
        place(Slot::d_output, dy);
        place(Slot::d_input, dx_);
        place(Slot::twin, twin);
        shares_gradient_ = std::none_of(plan_.slots.begin(), plan_.slots.end(),
                                        [](const Slot & slot) { return slot.place == Slot::d_input; });
    }

    void forward() { run(plan_.forward, bound(slots_.forward), *backend_); }
    void backward() { run(plan_.backward, bound(slots_.backward), *backend_); }
    const Values & dx() const { return shares_gradient_ ? dy : dx_; }
    const BlockPlan & plan() const { return plan_; }
    // Of another layer in between.
    void forget_temporary() { std::memset(temporary_.data(), 0xff, temporary_.size() * sizeof(double)); }

    Values x, y, dy, twin;

private:
    static std::vector<double> fresh(size_t n_bytes) { return std::vector<double>(n_bytes / 8 + 8, std::nan("")); }
    Bound bound(std::span<const Matrix> slots) const {
        static const std::vector<int32_t> positions{0, 1, 2, 3, 0, 1, 2};
        static const std::vector<Segment> segments = packed({4, 3});
        Bound b{model_.program, model_.weights, plan_, slots, n_tokens, 0};
        b.adapter = &model_;
        b.positions = positions.data();
        b.segments = segments;
        return b;
    }

    Model1 & model_;
    BlockPlan plan_;
    std::unique_ptr<Backend> backend_;
    std::vector<double> kept_, temporary_;
    PlacedSlots slots_;
    Values dx_;
    bool shares_gradient_ = false;
};

enum class What { loras, factors, vectors, weights, a_single_one };

// IA3's factors on some layers, or biases and norms on some.
void train_vectors(Model1 & model, What what, Draw & draw) {
    const Program & program = model.program;
    if (what == What::a_single_one) {
        const auto last = static_cast<int16_t>(program.linears.size() - 1);
        model.train_vector(draw.coin() ? Adapter::Kind::scale_in : Adapter::Kind::scale_out,
                           draw.coin() ? last : static_cast<int16_t>(draw.below(static_cast<uint32_t>(last) + 1)));
        return;
    }
    for (int16_t i = 0; i < static_cast<int16_t>(program.linears.size()); ++i) {
        if (draw.below(3) == 0) continue;
        if (what == What::factors) {
            model.train_vector(draw.coin() ? Adapter::Kind::scale_in : Adapter::Kind::scale_out, i);
        } else {
            if (program.linears[static_cast<size_t>(i)].bias) model.train_vector(Adapter::Kind::bias, i);
            if (what == What::weights && draw.coin()) model.train_vector(Adapter::Kind::weight, i);
        }
    }
    for (int16_t i = 0; (what == What::vectors || (what == What::weights && draw.coin())) &&
                        i < static_cast<int16_t>(program.norms.size());
         ++i) {
        if (draw.below(3) == 0) continue;
        model.train_vector(Adapter::Kind::norm_weight, i);
        if (program.norms[static_cast<size_t>(i)].bias) model.train_vector(Adapter::Kind::norm_bias, i);
    }
}

void check(uint64_t seed, What what = What::loras) {
    const Program program = random_program(seed);
    Draw draw(seed + 1000000);
    Model1 model(program, seed);
    const auto n_linears = static_cast<uint32_t>(program.linears.size());
    if (what != What::loras) {
        train_vectors(model, what, draw);
        // LoRAs beside what is trained whole.
        for (uint32_t i = 0; (what == What::vectors || what == What::weights) && seed % 2 == 0 && i < n_linears; i += 2)
            model.train(static_cast<int16_t>(i), false);
        if (model.vectors.empty()) return;
    } else
        // Every subset but the empty one; often a single late layer.
        if (draw.below(3) == 0) {
            model.train(static_cast<int16_t>(n_linears - 1 - draw.below(std::min(3u, n_linears))), draw.coin());
        } else {
            for (uint32_t i = 0; i < n_linears; ++i) {
                if (draw.coin()) model.train(static_cast<int16_t>(i), draw.below(3) == 0);
            }
            if (model.trained.empty()) model.train(0, false);
        }
    Wanted wanted;
    wanted.backward = true;
    wanted.dx = draw.coin();
    wanted.twin_out = wanted.dx && reads_twin(program) && draw.coin();
    wanted.recomputed = draw.below(3) == 0;
    wanted.twin_in = reads_twin(program) && draw.coin();

    const auto recording = std::make_shared<Recording>();
    model.name_in(*recording);
    Pass run(model, wanted, recording);
    const Values start = model.doubles(n_tokens * n_embd, 1), weights = model.doubles(n_tokens * n_embd, 1);
    for (const Values * given : {&run.x, &run.dy, &run.twin})
        recording->name_memory(given->data(), given->size() * sizeof(double), "given");
    run.x = start;
    run.forward();
    run.forget_temporary();
    run.dy = weights;
    run.twin = weights;
    run.backward();
    EXPECT_EQ(recording->text().find("=undefined"), std::string::npos)
        << "program " << seed << " reads memory that holds nothing or something else:\n"
        << recording->text();

    const auto loss = [&](const Values & x) {
        Pass again(model, {});
        again.x = x;
        again.forward();
        return dot(again.y, weights);
    };
    const auto expect_derivative = [&](Values & at, const Values & gradient, const std::string & what) {
        const Values direction = model.doubles(static_cast<int64_t>(at.size()), 1), before = at;
        const auto moved = [&](double step) {
            for (size_t i = 0; i < at.size(); ++i) at[i] = before[i] + step * direction[i];
            const double value = loss(&at == &run.x ? at : start);
            at = before;
            return value;
        };
        const double h = at.size() > 100 ? 1e-4 : 1e-3;  // many numbers move far together
        const double difference = (moved(-2 * h) - 8 * moved(-h) + 8 * moved(h) - moved(2 * h)) / (12 * h);
        const double derivative = dot(gradient, direction);
        EXPECT_NEAR(derivative, difference, 1e-6 * (1 + std::abs(difference)))
            << what << " of program " << seed << (wanted.recomputed ? ", recomputed" : "");
    };
    for (Model1::Trained & t : model.trained) {
        const std::string name = program.linears[static_cast<size_t>(t.linear)].names.gguf;
        expect_derivative(t.a, t.da, name + " A");
        expect_derivative(t.b, t.db, name + " B");
        if (!t.factors.empty()) expect_derivative(t.factors, t.dm, name + " m");
    }
    for (Model1::TrainedVector & v : model.vectors)
        expect_derivative(v.value, v.gradient,
                          "vector " + std::to_string(static_cast<int>(v.kind)) + " of " + std::to_string(v.number));
    if (wanted.dx) {
        run.x = start;
        const Values dx = run.dx();
        if (run.plan().leaves_twin) {
            EXPECT_EQ(run.twin, dx) << "program " << seed;
        }
        expect_derivative(run.x, dx, "x");
    }
}

TEST(ScheduleProperty, TheDerivedBackwardOfRandomProgramsIsTheDerivativeOfTheirForward) {
    for (uint64_t seed = 0; seed < 400; ++seed) {
        ASSERT_NO_FATAL_FAILURE(check(seed));
        if (testing::Test::HasFailure()) break;
    }
}

TEST(ScheduleProperty, FactorsOfWhatGoesInOrComesOutHaveTheirDerivatives) {
    for (uint64_t seed = 0; seed < 400; ++seed) {
        ASSERT_NO_FATAL_FAILURE(check(seed, seed % 3 == 0 ? What::a_single_one : What::factors));
        if (testing::Test::HasFailure()) break;
    }
}

TEST(ScheduleProperty, BiasesAndNormsHaveTheirDerivatives) {
    for (uint64_t seed = 0; seed < 400; ++seed) {
        ASSERT_NO_FATAL_FAILURE(check(seed, What::vectors));
        if (testing::Test::HasFailure()) break;
    }
}

TEST(ScheduleProperty, WholeWeightsHaveTheirDerivatives) {
    for (uint64_t seed = 0; seed < 400; ++seed) {
        ASSERT_NO_FATAL_FAILURE(check(seed, What::weights));
        if (testing::Test::HasFailure()) break;
    }
}

// Token by token through a cache, against all tokens at once.
TEST(ScheduleProperty, DecodingOfRandomProgramsIsTheirForward) {
    int n_checked = 0;
    for (uint64_t seed = 0; seed < 400; ++seed) {
        const Program program = random_program(seed);
        // A program of one attention: a cache is of one layer, and a second attention would need another. Nor is there
        // a next token to be seen.
        const bool decodes = program.attentions.size() == 1 && program.attentions[0].mask.ahead == 0;
        if (!decodes) continue;
        ++n_checked;
        Model1 model(program, seed);
        if (seed % 4 == 0) {
            Draw draw(seed);
            train_vectors(model, What::factors, draw);
        } else {
            model.train(0, seed % 3 == 0);
        }
        Pass whole(model, {});
        const Values start = model.doubles(n_tokens * n_embd, 1);
        whole.x = start;
        whole.forward();

        Wanted wanted;
        wanted.cache = true;
        const BlockPlan plan = derive(program, model.sites(), wanted);
        const auto backend = reference();
        const Layout layout(plan, backend->formats(), 1, 2);
        std::vector<double> temporary(layout.temporary_bytes() / 8 + 8, std::nan(""));
        PlacedSlots slots = layout.place(nullptr, temporary.data());
        Values x(n_embd), y(n_embd), k(4 * 16, std::nan("")), v(k);
        const int64_t cols = int64_t{program.attentions[0].n_head_kv} * program.attentions[0].head_dim;
        slots.place(plan, Slot::input, matrix(x, 1, n_embd));
        slots.place(plan, Slot::output, matrix(y, 1, n_embd));
        for (int32_t t = 0; t < 4; ++t) {  // of the first segment
            slots.place(plan, Slot::k_cache, {k.data(), Dtype::f64, 4, cols, cols});
            slots.place(plan, Slot::v_cache, {v.data(), Dtype::f64, 4, cols, cols});
            std::copy_n(start.begin() + t * n_embd, n_embd, x.begin());
            const Segment segment{0, 1, 0, t + 1};
            Bound b{program, model.weights, plan, slots.forward, 1, 0};
            b.adapter = &model;
            b.positions = &t;
            b.segments = {&segment, 1};
            run(plan.forward, b, *backend);
            for (int64_t i = 0; i < n_embd; ++i)
                ASSERT_NEAR(y[static_cast<size_t>(i)], whole.y[static_cast<size_t>(t * n_embd + i)], 1e-9)
                    << "token " << t << " of program " << seed;
        }
    }
    EXPECT_GT(n_checked, 50);
}

}  // namespace
}  // namespace lorica
