// Backward of every operation is the derivative of its forward.
//
// Each test takes the gradient of a random linear functional of the outputs, J = sum w_k y_k, once by the backward
// operation (its dy is w) and once by finite differences, element by element, and compares the two vectors.
// Norms, rope, activations and rows: backend_gradient_rows_test.cpp.
#include "support/finite_differences.h"

namespace lorica::test {
namespace {

constexpr double tolerance = gradient_tolerance;

// ---- attention

struct Attention {
    AttentionShape shape;
    std::vector<Segment> segments;
    int64_t n_q, n_kv;
    Values q, k, v, o, lse;

    Attention(AttentionShape attention_shape, std::vector<Segment> list)
        : shape(attention_shape), segments(std::move(list)), n_q(0), n_kv(0) {
        for (const Segment & segment : segments) {
            n_q = std::max<int64_t>(n_q, segment.q_begin + segment.q_len);
            n_kv = std::max<int64_t>(n_kv, segment.kv_begin + segment.kv_len);
        }
        q = normal(1, n_q * q_cols());
        k = normal(2, n_kv * kv_cols());
        v = normal(3, n_kv * kv_cols());
        o.resize(n_q * q_cols());
        lse.resize(n_q * shape.n_head);
    }
    int64_t q_cols() const { return int64_t{shape.n_head} * shape.head_dim; }
    int64_t kv_cols() const { return int64_t{shape.n_head_kv} * shape.head_dim; }

    void forward(Backend & backend, bool keep_lse = true) {
        backend.attention(matrix(q, n_q, q_cols()), matrix(k, n_kv, kv_cols()), matrix(v, n_kv, kv_cols()), segments,
                          shape, matrix(o, n_q, q_cols()), keep_lse ? matrix(lse, n_q, shape.n_head) : Matrix{});
    }
};

TEST(Mask, VisibleAndSeeingAreOneRelation) {
    constexpr int32_t all = MaskSpec::all;
    for (const Segment & segment : {Segment{0, 9, 0, 9}, {3, 5, 2, 11}, {0, 1, 0, 7}, {0, 1, 0, 1}}) {
        for (const MaskSpec mask : {MaskSpec{}, {2, 0}, {0, 0}, {all, all}, {2, 2}, {3, 1}, {0, all}, {100, 100}}) {
            for (int32_t query = 0; query < segment.q_len; ++query) {
                const int32_t place = query + segment.kv_len - segment.q_len;
                for (int32_t key = 0; key < segment.kv_len; ++key) {
                    const bool seen = place - key <= mask.back && key - place <= mask.ahead;
                    const auto [first_key, end_key] = mask.visible(segment, query);
                    const auto [first_query, end_query] = mask.seeing(segment, key);
                    EXPECT_EQ(key >= first_key && key < end_key, seen) << query << ' ' << key;
                    EXPECT_EQ(query >= first_query && query < end_query, seen) << query << ' ' << key;
                }
            }
        }
    }
}

TEST(BackendGradient, AttentionThroughQueriesKeysAndValues) {
    const auto backend = reference();
    constexpr int32_t all = MaskSpec::all;
    struct Case {
        int32_t n_head, n_head_kv;
        std::vector<Segment> segments;
        MaskSpec mask = {};
        double softcap = 0;
    };
    const std::vector<Segment> behind_a_prefix{{0, 4, 0, 7}, {4, 3, 7, 6}};
    for (const auto & [n_head, n_head_kv, segments, mask, softcap] :
         {Case{1, 1, packed({1, 2, 7, 33})}, Case{4, 2, packed({1, 2, 7, 33})}, Case{3, 1, packed({1, 2, 7, 33})},
          Case{2, 1, packed({1, 7, 12}), {3, 0}}, Case{2, 1, packed({2, 9}), {all, all}},
          Case{2, 2, packed({2, 12}), {2, 2}}, Case{2, 1, packed({1, 9}), {}, 1.5}, Case{4, 2, behind_a_prefix},
          Case{2, 1, behind_a_prefix, {2, 0}, 0.8}}) {
        SCOPED_TRACE(testing::Message() << n_head << '/' << n_head_kv << " heads, " << segments.size()
                                        << " segments, back " << mask.back << ", ahead " << mask.ahead << ", cap "
                                        << softcap);
        Attention attention({n_head, n_head_kv, 6, 0.4, mask, softcap}, segments);
        Values w = normal(4, attention.o.size());
        auto objective = [&] {
            attention.forward(*backend, false);
            return dot(w, attention.o);
        };
        attention.forward(*backend);
        // "=": what was there before must not matter.
        Values dq(attention.q.size(), NAN), dk(attention.k.size(), NAN), dv(attention.v.size(), NAN);
        const int64_t n = attention.n_q, q_cols = attention.q_cols(), n_kv = attention.n_kv,
                      kv_cols = attention.kv_cols();
        backend->attention_backward(
            matrix(attention.q, n, q_cols), matrix(attention.k, n_kv, kv_cols), matrix(attention.v, n_kv, kv_cols),
            matrix(attention.o, n, q_cols), matrix(attention.lse, n, n_head), matrix(w, n, q_cols), attention.segments,
            attention.shape, matrix(dq, n, q_cols), matrix(dk, n_kv, kv_cols), matrix(dv, n_kv, kv_cols));
        EXPECT_LE(relative_error(dq, finite_differences(attention.q, objective)), tolerance);
        EXPECT_LE(relative_error(dk, finite_differences(attention.k, objective)), tolerance);
        EXPECT_LE(relative_error(dv, finite_differences(attention.v, objective)), tolerance);
    }
}

TEST(BackendGradient, AttentionIsSoftmaxOfScaledCausalScores) {
    // Written a second time, head by head, without running maximum or kept statistics.
    const auto backend = reference();
    Attention attention({4, 2, 6, 0.4}, packed({1, 2, 7}));
    attention.forward(*backend);
    for (const Segment & segment : attention.segments) {
        for (int i = segment.q_begin; i < segment.q_begin + segment.q_len; ++i) {
            for (int head = 0; head < 4; ++head) {
                double sum = 0;
                Values o(6);
                for (int j = segment.kv_begin; j <= i; ++j) {
                    double score = 0;
                    for (int d = 0; d < 6; ++d) {
                        score += 0.4 * attention.q[i * 24 + head * 6 + d] * attention.k[j * 12 + head / 2 * 6 + d];
                    }
                    sum += std::exp(score);
                    for (int d = 0; d < 6; ++d) {
                        o[d] += std::exp(score) * attention.v[j * 12 + head / 2 * 6 + d];
                    }
                }
                EXPECT_NEAR(attention.lse[i * 4 + head], std::log(sum), 1e-12);
                for (int d = 0; d < 6; ++d) {
                    EXPECT_NEAR(attention.o[i * 24 + head * 6 + d], o[d] / sum, 1e-12);
                }
            }
        }
    }
}

TEST(BackendGradient, AttentionWithALongerCacheGivesTheLastRowsOfTheWhole) {
    const auto backend = reference();
    const AttentionShape shape{4, 2, 6, 0.4};
    Attention whole(shape, packed({20}));
    whole.forward(*backend);
    for (const int32_t n_new : {1, 5, 20}) {
        Attention tail(shape, {{0, n_new, 0, 20}});
        tail.q.assign(whole.q.end() - n_new * whole.q_cols(), whole.q.end());
        tail.k = whole.k;
        tail.v = whole.v;
        tail.forward(*backend);
        EXPECT_EQ(tail.o, Values(whole.o.end() - n_new * whole.q_cols(), whole.o.end())) << n_new;
    }
}

// ---- linear layers

struct Layer {
    QuantizedWeight blocks;
    Weight weight;
    Values a, b, da, db, u, residual, y, dy;
    int64_t rank;
    Dropout dropout;
    double scale = 1.7;

    Layer(Backend & backend, ggml_type type, int64_t out, int64_t in, int64_t n_tokens, int64_t lora_rank,
          Dropout lora_dropout, bool with_residual, uint64_t seed)
        : blocks(type, out, in, seed), weight(blocks.on(backend)), rank(lora_rank), dropout(lora_dropout) {
        a = normal(seed + 1, rank * in);
        b = normal(seed + 2, out * rank);
        da = normal(seed + 3, rank * in);
        db = normal(seed + 4, out * rank);
        u.resize(n_tokens * rank);
        if (with_residual) {
            residual = normal(seed + 5, n_tokens * out);
        }
        y.resize(n_tokens * out);
        dy = normal(seed + 6, n_tokens * out);
    }
    Lora lora() { return rank ? Lora{a.data(), b.data(), da.data(), db.data(), rank, scale, dropout} : Lora{}; }
    Matrix u_matrix(int64_t n_tokens) { return rank ? matrix(u, n_tokens, rank) : Matrix{}; }
    LinearForward forward(int64_t n_tokens) {
        return {&weight, lora(), u_matrix(n_tokens),
                residual.empty() ? Matrix{} : matrix(residual, n_tokens, weight.out), matrix(y, n_tokens, weight.out)};
    }
    LinearBackward backward(int64_t n_tokens) {
        return {&weight, lora(), u_matrix(n_tokens), matrix(dy, n_tokens, weight.out)};
    }
};

struct LayerPlan {
    ggml_type type;
    int64_t out, rank;
    Dropout dropout;
    bool residual;
};

void check_linear_gradients(const std::vector<LayerPlan> & plans, int64_t n_tokens, int64_t in) {
    const auto backend = reference();
    Values x = normal(50, n_tokens * in);
    std::vector<Layer> layers;
    for (const LayerPlan & plan : plans) {
        layers.emplace_back(*backend, plan.type, plan.out, in, n_tokens, plan.rank, plan.dropout, plan.residual,
                            100 * (layers.size() + 1));
    }
    auto objective = [&] {
        std::vector<LinearForward> forward;
        for (Layer & layer : layers) {
            forward.push_back(layer.forward(n_tokens));
        }
        backend->linear(matrix(x, n_tokens, in), forward);
        double sum = 0;
        for (const Layer & layer : layers) {
            sum += dot(layer.dy, layer.y);
        }
        return sum;
    };
    objective();

    std::vector<Values> da_before, db_before;
    std::vector<LinearBackward> backward;
    for (Layer & layer : layers) {
        da_before.push_back(layer.da);
        db_before.push_back(layer.db);
        backward.push_back(layer.backward(n_tokens));
    }
    Values dx(n_tokens * in, NAN);
    backend->linear_backward(matrix(x, n_tokens, in), backward, false, matrix(dx, n_tokens, in));

    EXPECT_LE(relative_error(dx, finite_differences(x, objective)), tolerance);
    for (size_t i = 0; i < layers.size(); ++i) {
        SCOPED_TRACE("layer " + std::to_string(i));
        Layer & layer = layers[i];
        EXPECT_LE(relative_error(minus(layer.da, da_before[i]), finite_differences(layer.a, objective)), tolerance);
        EXPECT_LE(relative_error(minus(layer.db, db_before[i]), finite_differences(layer.b, objective)), tolerance);
    }

    // Without dx, the adapters' gradients are the same, and added once more.
    std::vector<Values> da_once, db_once;
    for (Layer & layer : layers) {
        da_once.push_back(layer.da);
        db_once.push_back(layer.db);
    }
    backend->linear_backward(matrix(x, n_tokens, in), backward, false, Matrix{});
    for (size_t i = 0; i < layers.size(); ++i) {
        if (layers[i].rank) {
            EXPECT_LE(relative_error(minus(layers[i].da, da_once[i]), minus(da_once[i], da_before[i])), 1e-14);
            EXPECT_LE(relative_error(minus(layers[i].db, db_once[i]), minus(db_once[i], db_before[i])), 1e-14);
        }
    }
}

TEST(BackendGradient, LinearWithoutAdapter) { check_linear_gradients({{GGML_TYPE_F32, 7, 0, {}, false}}, 3, 10); }

TEST(BackendGradient, LinearWithLoraOfRank1To8) {
    for (int64_t rank = 1; rank <= 8; ++rank) {
        SCOPED_TRACE(rank);
        check_linear_gradients({{GGML_TYPE_F32, 9, rank, {}, rank % 2 == 0}}, 4, 12);
    }
}

TEST(BackendGradient, LinearWithDropout) {
    check_linear_gradients({{GGML_TYPE_F32, 9, 3, {0.3f, 42}, false}}, 6, 12);
    check_linear_gradients({{GGML_TYPE_F32, 9, 3, {0.9f, 43}, true}}, 6, 12);
}

TEST(BackendGradient, ThreeLayersThatShareTheirInput) {
    check_linear_gradients({{GGML_TYPE_F16, 8, 2, {0.25f, 7}, false},
                            {GGML_TYPE_F32, 4, 0, {}, false},
                            {GGML_TYPE_F32, 6, 5, {0.5f, 8}, true}},
                           5, 16);
    check_linear_gradients({{GGML_TYPE_F32, 8, 0, {}, false}, {GGML_TYPE_F32, 8, 4, {}, false}}, 5, 16);
}

TEST(BackendGradient, LinearOnQuantizedWeights) {
    for (const ggml_type type :
         {GGML_TYPE_F16, GGML_TYPE_BF16, GGML_TYPE_Q4_0, GGML_TYPE_Q4_1, GGML_TYPE_Q8_0, GGML_TYPE_MXFP4}) {
        SCOPED_TRACE(ggml_type_name(type));
        check_linear_gradients({{type, 5, 2, {0.1f, 9}, true}}, 3, 32);
    }
    for (const ggml_type type : {GGML_TYPE_Q4_K, GGML_TYPE_Q6_K, GGML_TYPE_IQ2_XXS}) {
        SCOPED_TRACE(ggml_type_name(type));
        check_linear_gradients({{type, 3, 1, {}, false}}, 2, 256);
    }
}

// A weight, bias and adapter that are all trained; the adapter is gated, dx is added to what is there.
TEST(BackendGradient, LinearThroughItsWeightBiasAndGatedAdapter) {
    const auto backend = reference();
    const int64_t n_tokens = 5, in = 6, out = 4, rank = 4;
    Values w = normal(1, out * in), bias = normal(2, out), a = normal(3, rank * in), b = normal(4, out * rank);
    Values x = normal(5, n_tokens * in), y(n_tokens * out), u(n_tokens * rank), dy = normal(6, n_tokens * out);
    std::vector<float> gate{0, 0, 0, 1, 1, 0, 0.5f, -2, 1, 1};
    const Weight weight{GGML_TYPE_F64, out, in, in * sizeof(double), reinterpret_cast<const std::byte *>(w.data())};
    Lora lora{a.data(), b.data(), nullptr, nullptr, rank, 0.7, {0.3f, 9}};
    lora.gate = {gate.data(), Dtype::f32, n_tokens, 2, 2};
    const auto objective = [&] {
        LinearForward layer{&weight, lora, matrix(u, n_tokens, rank), {}, matrix(y, n_tokens, out)};
        layer.bias = {bias.data(), Dtype::f64};
        backend->linear(matrix(x, n_tokens, in), {&layer, 1});
        return dot(dy, y);
    };
    objective();
    // Where the gate is shut, only the base layer is left.
    for (int64_t o = 0; o < out; ++o) {
        EXPECT_NEAR(y[o], std::inner_product(w.begin() + o * in, w.begin() + (o + 1) * in, x.begin(), bias[o]), 1e-14);
    }

    const Values dx_before = normal(7, n_tokens * in);
    Values dx = dx_before, dw(out * in), dbias(out), da(rank * in), db(out * rank);
    lora.da = da.data();
    lora.db = db.data();
    const LinearBackward layer{&weight,   lora,        matrix(u, n_tokens, rank), matrix(dy, n_tokens, out),
                               dw.data(), dbias.data()};
    backend->linear_backward(matrix(x, n_tokens, in), {&layer, 1}, true, matrix(dx, n_tokens, in));
    EXPECT_LE(relative_error(minus(dx, dx_before), finite_differences(x, objective)), tolerance);
    EXPECT_LE(relative_error(dw, finite_differences(w, objective)), tolerance);
    EXPECT_LE(relative_error(dbias, finite_differences(bias, objective)), tolerance);
    EXPECT_LE(relative_error(da, finite_differences(a, objective)), tolerance);
    EXPECT_LE(relative_error(db, finite_differences(b, objective)), tolerance);
}

TEST(BackendGradient, LinearMultipliesByTheWeightThatTheBlocksSay) {
    const auto backend = reference();
    const int64_t n_tokens = 3, in = 64, out = 6;
    Layer layer(*backend, GGML_TYPE_Q4_0, out, in, n_tokens, 0, {}, true, 5);
    Values x = normal(1, n_tokens * in);
    const Values w = layer.blocks.values();
    backend->linear(matrix(x, n_tokens, in), std::vector{layer.forward(n_tokens)});
    for (int64_t t = 0; t < n_tokens; ++t) {
        for (int64_t o = 0; o < out; ++o) {
            const double expected = std::inner_product(w.begin() + o * in, w.begin() + (o + 1) * in, x.begin() + t * in,
                                                       layer.residual[t * out + o]);
            EXPECT_NEAR(layer.y[t * out + o], expected, 1e-12);
        }
    }
}

TEST(BackendGradient, ResidualMayBeTheOutputItself) {
    const auto backend = reference();
    const int64_t n_tokens = 3, in = 12, out = 6;
    Layer layer(*backend, GGML_TYPE_F32, out, in, n_tokens, 2, {0.2f, 3}, true, 5);
    Values x = normal(1, n_tokens * in);
    backend->linear(matrix(x, n_tokens, in), std::vector{layer.forward(n_tokens)});

    LinearForward aliased = layer.forward(n_tokens);
    aliased.y = aliased.residual;
    backend->linear(matrix(x, n_tokens, in), std::vector{aliased});
    EXPECT_EQ(layer.residual, layer.y);
}

TEST(BackendGradient, DropoutKeepsItsShareAndTheExpectation) {
    // y = dropout(x) A^T with x = A = 1 counts the kept elements, each worth 1 / (1 - p).
    const auto backend = reference();
    const int64_t n_tokens = 200, in = 100;
    for (const float p : {0.05f, 0.5f}) {
        Layer layer(*backend, GGML_TYPE_F32, 1, in, n_tokens, 1, {p, 11}, false, 5);
        layer.a.assign(in, 1);
        Values x(n_tokens * in, 1);
        backend->linear(matrix(x, n_tokens, in), std::vector{layer.forward(n_tokens)});
        const double mean = std::accumulate(layer.u.begin(), layer.u.end(), 0.0) / (n_tokens * in);
        const double deviation = std::sqrt(p / (1 - p) / (n_tokens * in));
        EXPECT_NEAR(mean, 1, 4 * deviation) << p;
        EXPECT_NE(mean, 1) << p;
    }
}

// ---- loss

TEST(BackendGradient, LinearCrossEntropy) {
    const auto backend = reference();
    for (const ggml_type type : {GGML_TYPE_F32, GGML_TYPE_Q8_0, GGML_TYPE_Q4_1}) {
        SCOPED_TRACE(ggml_type_name(type));
        const int64_t n = 5, in = 32, n_vocab = 37;
        const std::vector<int32_t> labels{0, 36, 17, 17, 4};
        const QuantizedWeight blocks(type, n_vocab, in, 1);
        const Weight head = blocks.on(*backend);
        Values x = normal(2, n * in), nll(n), dx(n * in, NAN);

        backend->linear_cross_entropy(matrix(x, n, in), {&head}, labels.data(), nll.data(), matrix(dx, n, in));
        const Values nll_with_gradient = nll;
        const Values expected = finite_differences(x, [&] {
            backend->linear_cross_entropy(matrix(x, n, in), {&head}, labels.data(), nll.data(), Matrix{});
            return std::accumulate(nll.begin(), nll.end(), 0.0);
        });
        EXPECT_LE(relative_error(dx, expected), tolerance);

        // Against the definition, from the logits, which are f32.
        std::vector<float> logits(n * n_vocab);
        backend->logits(matrix(x, n, in), {&head}, logits.data());
        for (int64_t t = 0; t < n; ++t) {
            double sum = 0;
            for (int64_t c = 0; c < n_vocab; ++c) {
                sum += std::exp(static_cast<double>(logits[t * n_vocab + c]));
            }
            EXPECT_NEAR(nll_with_gradient[t], std::log(sum) - logits[t * n_vocab + labels[t]], 1e-6);
        }
    }
}

TEST(BackendGradient, CrossEntropyOfScaledAndCappedLogitsThroughATrainedHead) {
    const auto backend = reference();
    const int64_t n = 4, in = 6, n_vocab = 11;
    const std::vector<int32_t> labels{0, 10, 3, 3};
    const std::vector<float> row_weights{1, -0.5f, 0, 2};
    for (const LogitSpec logits : {LogitSpec{}, {0.25, 0}, {1, 2.5}, {0.5, 1.5}}) {
        SCOPED_TRACE(testing::Message() << "scale " << logits.scale << ", cap " << logits.cap);
        Values w = normal(1, n_vocab * in), x = normal(2, n * in), nll(n), dx(n * in, NAN), dw(n_vocab * in, 1);
        const Weight weight{GGML_TYPE_F64, n_vocab, in, in * sizeof(double),
                            reinterpret_cast<const std::byte *>(w.data())};
        const Head head{&weight, logits, row_weights.data(), dw.data()};
        backend->linear_cross_entropy(matrix(x, n, in), head, labels.data(), nll.data(), matrix(dx, n, in));
        const auto objective = [&] {
            backend->linear_cross_entropy(matrix(x, n, in), {&weight, logits}, labels.data(), nll.data(), {});
            double sum = 0;
            for (int64_t t = 0; t < n; ++t) sum += row_weights[t] * nll[t];
            return sum;
        };
        EXPECT_LE(relative_error(dx, finite_differences(x, objective)), tolerance);
        EXPECT_LE(relative_error(minus(dw, Values(n_vocab * in, 1)), finite_differences(w, objective)), tolerance);

        std::vector<float> z(n * n_vocab);
        backend->logits(matrix(x, n, in), {&weight, logits}, z.data());
        const double product = logits.scale * std::inner_product(x.begin(), x.begin() + in, w.begin(), 0.0);
        EXPECT_NEAR(z[0], logits.cap == 0 ? product : logits.cap * std::tanh(product / logits.cap), 1e-6);
    }
}

TEST(BackendGradient, CrossEntropyOfSeveralLabelsThroughATrainedHead) {
    const auto backend = reference();
    ASSERT_TRUE(backend->has_many_labels());
    const int64_t n = 3, in = 6, n_vocab = 11;
    const int32_t n_labels = 4;
    const std::vector<int32_t> labels{0, 2, 3, 10, 1, 4, 5, 6, 0, 7, 9, 10};
    // Of the second row the weights cancel, as those of a reverse divergence nearly do.
    const std::vector<float> row_weights{1, -0.5f, 0, 2, 0.5f, -0.25f, -0.5f, 0.25f, -1, 3, 0.125f, -0.5f};
    for (const LogitSpec logits : {LogitSpec{}, {0.5, 1.5}}) {
        Values w = normal(1, n_vocab * in), x = normal(2, n * in), nll(n * n_labels), dx(n * in, NAN);
        Values dw(n_vocab * in, 1);
        const Weight weight{GGML_TYPE_F64, n_vocab, in, in * sizeof(double),
                            reinterpret_cast<const std::byte *>(w.data())};
        Head head{&weight, logits, row_weights.data(), dw.data()};
        head.n_labels = n_labels;
        backend->linear_cross_entropy(matrix(x, n, in), head, labels.data(), nll.data(), matrix(dx, n, in));
        Head alone{&weight, logits};
        alone.n_labels = n_labels;
        const auto objective = [&] {
            backend->linear_cross_entropy(matrix(x, n, in), alone, labels.data(), nll.data(), {});
            double sum = 0;
            for (size_t i = 0; i < nll.size(); ++i) sum += row_weights[i] * nll[i];
            return sum;
        };
        EXPECT_LE(relative_error(dx, finite_differences(x, objective)), tolerance);
        EXPECT_LE(relative_error(minus(dw, Values(n_vocab * in, 1)), finite_differences(w, objective)), tolerance);
        objective();
        for (size_t i = 0; i < nll.size(); ++i) {
            Values one(n);
            const std::vector<int32_t> same(n, labels[i]);
            backend->linear_cross_entropy(matrix(x, n, in), {&weight, logits}, same.data(), one.data(), {});
            EXPECT_NEAR(nll[i], one[i / n_labels], 1e-12);
        }
    }
}

TEST(BackendGradient, CrossEntropyOfHugeLogitsIsFinite) {
    const auto backend = reference();
    const int64_t in = 4, n_vocab = 9;
    const QuantizedWeight blocks(GGML_TYPE_F32, n_vocab, in, 1);
    const Weight head = blocks.on(*backend);
    Values x{3e5, -2e5, 1e5, 4e5}, nll(1), dx(in);
    const int32_t label = 2;
    backend->linear_cross_entropy(matrix(x, 1, in), {&head}, &label, nll.data(), matrix(dx, 1, in));
    EXPECT_TRUE(std::isfinite(nll[0]));
    EXPECT_GE(nll[0], 0);
    EXPECT_TRUE(std::isfinite(dot(dx, dx)));
}

// ---- optimizer

TEST(BackendGradient, SumOfSquares) {
    const auto backend = reference();
    const Values x{3, -4, 12};
    EXPECT_EQ(backend->sum_of_squares(x.data(), 3), 169);
    EXPECT_EQ(backend->sum_of_squares(x.data(), 0), 0);
}

TEST(BackendGradient, FirstAdamwStepIsTheLearningRateBySign) {
    // At step 1 the corrected moments are g and g^2, so that p' = p - lr (wd p + g / (|g| + eps)).
    const auto backend = reference();
    const Values before{0.5, -2, 1e-3}, gradient{4, -0.25, 2e-5};
    Values p = before, m(3), v(3);
    backend->adamw(p.data(), gradient.data(), m.data(), v.data(), 3, {0.1, 0.9, 0.999, 1e-8, 0.01, 0.5, 1});
    for (int i = 0; i < 3; ++i) {
        const double g = 0.5 * gradient[i];
        EXPECT_NEAR(p[i], before[i] - 0.1 * (0.01 * before[i] + g / (std::abs(g) + 1e-8)), 1e-15);
        EXPECT_NEAR(m[i], 0.1 * g, 1e-15);
        EXPECT_NEAR(v[i], 0.001 * g * g, 1e-15);
    }
}

// The numbers are printed by
//   p = torch.tensor([0.5, -1.25, 3.0, 1e-3], dtype=torch.float64, requires_grad=True)
//   o = torch.optim.AdamW([p], lr=0.02, betas=(0.8, 0.95), eps=1e-6, weight_decay=0.1)
//   for k in range(1, 6):
//       p.grad = torch.tensor([k - 3.0, 0.5 * k, -1.0 / k, 1e-6 * k], dtype=torch.float64)
//       o.step()
//       print([f"{x:.17g}" for x in p.tolist()])
//   print([f"{x:.17g}" for x in o.state[p]["exp_avg"].tolist()])
//   print([f"{x:.17g}" for x in o.state[p]["exp_avg_sq"].tolist()])
TEST(BackendGradient, AdamwGivesPyTorchsParameters) {
    const auto backend = reference();
    const double expected[5][4] = {
        {0.51899999000000496, -1.26749996000008, 3.0139999800000199, -0.0090019999999999979},
        {0.53637510430520863, -1.2844916973515526, 3.0263850825891345, -0.0209809307201013},
        {0.54878681430377652, -1.301519460749023, 3.037329628907294, -0.034395877138772332},
        {0.55144169943226773, -1.3187615474699335, 3.0469896838462951, -0.048945312197213459},
        {0.54416530215482939, -1.336290317416611, 3.055498047945242, -0.064439407241996746}};
    const double expected_m[4] = {0.29375999999999991, 1.1553599999999997, -0.25578666666666661,
                                  2.3107199999999995e-06};
    const double expected_v[4] = {0.45327000000000039, 0.65708132812500053, 0.061425138888888939,
                                  2.6283253125000017e-12};

    const double grad_scale = 0.25;
    Values p{0.5, -1.25, 3.0, 1e-3}, m(4), v(4);
    for (int k = 1; k <= 5; ++k) {
        Values gradient{k - 3.0, 0.5 * k, -1.0 / k, 1e-6 * k};
        for (double & g : gradient) {
            g /= grad_scale;
        }
        backend->adamw(p.data(), gradient.data(), m.data(), v.data(), 4, {0.02, 0.8, 0.95, 1e-6, 0.1, grad_scale, k});
        for (int i = 0; i < 4; ++i) {
            EXPECT_NEAR(p[i], expected[k - 1][i], 1e-14 * std::abs(expected[k - 1][i])) << "step " << k;
        }
    }
    for (int i = 0; i < 4; ++i) {
        EXPECT_NEAR(m[i], expected_m[i], 1e-14 * std::abs(expected_m[i]));
        EXPECT_NEAR(v[i], expected_v[i], 1e-14 * std::abs(expected_v[i]));
    }
}

}  // namespace
}  // namespace lorica::test
