// Attention on the cuda device over as many tokens as a step of training has, packed, with matrices that lie as a
// session lays them out. The threads of the CPU that play a GPU take one small head; a GPU takes those of an 8B model.
#include "common/error.h"
#include "support/backend_tensors.h"

#include <gtest/gtest.h>

#include <cstdlib>

namespace lorica::test {
namespace {

struct Result {
    Values o, lse, dq, dk, dv;
};

Result run(const std::string & device, Dtype act, const AttentionShape & shape, std::span<const Segment> segments,
           int64_t n, const Result * forward) {
    const auto backend = make_backend(device, act, 0);
    const Formats formats = backend->formats();
    const int64_t q_cols = int64_t{shape.n_head} * shape.head_dim, kv_cols = int64_t{shape.n_head_kv} * shape.head_dim;
    backend->reserve({.max_tokens = n,
                      .max_sequence_length = n,
                      .max_features = q_cols,
                      .n_head = shape.n_head,
                      .n_head_kv = shape.n_head_kv,
                      .head_dim = shape.head_dim,
                      .training = true});
    auto matrix = [&](int64_t cols) { return DeviceMatrix(*backend, formats.act, n, cols, cols); };
    DeviceMatrix q = matrix(q_cols), k = matrix(kv_cols), v = matrix(kv_cols), o = matrix(q_cols), d_o = matrix(q_cols);
    DeviceMatrix dq = matrix(q_cols), dk = matrix(kv_cols), dv = matrix(kv_cols);
    DeviceMatrix lse(*backend, formats.hidden, n, shape.n_head, shape.n_head);
    // Both sides see numbers that bf16 has.
    auto write = [](DeviceMatrix & to, const Values & values) { to.write(rounded(Dtype::bf16, values)); };
    write(q, normal(1, n * q_cols));
    write(k, normal(2, n * kv_cols));
    write(v, normal(3, n * kv_cols));
    write(d_o, normal(4, n * q_cols));
    Result result;
    backend->attention(q.view(), k.view(), v.view(), segments, shape, o.view(), lse.view());
    result.o = o.read();
    result.lse = lse.read();
    if (forward) {
        o.write(forward->o);
        lse.write(forward->lse);
    }
    backend->attention_backward(q.view(), k.view(), v.view(), o.view(), lse.view(), d_o.view(), segments, shape,
                                dq.view(), dk.view(), dv.view());
    result.dq = dq.read();
    result.dk = dk.read();
    result.dv = dv.read();
    return result;
}

TEST(CudaAttention, OfTwoThousandPackedTokensIsThatOfTheReference) {
    const char * chosen = std::getenv("LORICA_TEST_DEVICES");
    const std::string device = chosen && std::string(chosen).starts_with("cuda") ? chosen : "cuda";
    if (!chosen) {
        try {
            make_backend(device, Dtype::bf16, 0);
        } catch (const Error & error) {
            GTEST_SKIP() << error.what();
        }
    }
    const bool played = std::getenv("LORICA_CUDA_LIBRARY") != nullptr;
    const std::vector<Segment> segments{{0, 1500, 0, 1500}, {1500, 548, 1500, 548}};
    for (const MaskSpec & mask : {MaskSpec{}, MaskSpec{511, 0}}) {
        SCOPED_TRACE(testing::Message() << "back " << mask.back);
        const AttentionShape shape =
            played ? AttentionShape{1, 1, 64, 0.125, mask} : AttentionShape{32, 8, 128, 0.09, mask};
        const Result expected = run("reference", Dtype::f64, shape, segments, 2048, nullptr);
        const Result actual = run(device, Dtype::bf16, shape, segments, 2048, &expected);
        EXPECT_LE(relative_error(actual.o, expected.o), 0.01);
        EXPECT_LE(relative_error(actual.lse, expected.lse), 1e-4);
        EXPECT_LE(relative_error(actual.dq, expected.dq), 0.015);
        EXPECT_LE(relative_error(actual.dk, expected.dk), 0.015);
        EXPECT_LE(relative_error(actual.dv, expected.dv), 0.01);
    }
}

}  // namespace
}  // namespace lorica::test
