// Structs of the C ABI that grow at their end: what callers compiled against an older or newer lorica.h meet.
#include <gmock/gmock.h>
#include <lorica/lorica.h>

#include <cstddef>
#include <cstring>

#include "support/c_structs.h"
#include "support/temp_dir.h"
#include "support/test_model.h"
#include "support/training.h"

namespace lorica {
namespace {

using test::defaults;
using testing::HasSubstr;

class ApiStructs : public testing::Test {
protected:
    void SetUp() override {
        const std::string path = test::write_test_model(dir_ / "model.gguf", {});
        auto params = defaults(lorica_model_default_params);
        params.device = "cpu";
        ASSERT_EQ(lorica_model_load(path.c_str(), &params, &model_), LORICA_OK) << lorica_last_error();
        auto adapter = defaults(lorica_adapter_default_params);
        adapter.rank = 4;
        ASSERT_EQ(lorica_adapter_create(model_, &adapter, &adapter_), LORICA_OK) << lorica_last_error();
    }
    void TearDown() override {
        lorica_session_free(session_);
        lorica_adapter_free(adapter_);
        lorica_model_free(model_);
    }
    void start(double beta2 = 0.999) {
        auto params = defaults(lorica_session_default_params);
        params.max_tokens = 64;
        params.beta2 = beta2;
        params.seed = 9;
        ASSERT_EQ(lorica_session_create(model_, adapter_, &params, &session_), LORICA_OK) << lorica_last_error();
    }
    lorica_batch batch() const {
        auto view = defaults(lorica_batch_default);
        view.tokens = data_.tokens.data();
        view.labels = data_.labels.data();
        view.sequence_lengths = data_.sequence_lengths.data();
        view.n_tokens = static_cast<int32_t>(data_.tokens.size());
        view.n_sequences = static_cast<int32_t>(data_.sequence_lengths.size());
        return view;
    }
    std::vector<float> gradients() const {
        lorica_adapter_info info{sizeof info};
        EXPECT_EQ(lorica_adapter_get_info(adapter_, &info), LORICA_OK);
        std::vector<float> all(static_cast<size_t>(info.n_params));
        EXPECT_EQ(lorica_session_get_gradients(session_, all.data(), info.n_params), LORICA_OK);
        return all;
    }

    test::TempDir dir_;
    test::Batch data_ = test::random_batch(3, {20, 12}, 300);
    lorica_model * model_ = nullptr;
    lorica_adapter * adapter_ = nullptr;
    lorica_session * session_ = nullptr;
};

TEST_F(ApiStructs, ASizeThatWasNotSetIsRefusedByName) {
    lorica_model_info info{};
    EXPECT_EQ(lorica_model_get_info(model_, &info), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_THAT(lorica_last_error(), HasSubstr("out.struct_size is 0; set it to sizeof"));
    lorica_session_params params{};
    EXPECT_EQ(lorica_session_default_params(&params), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_EQ(lorica_session_create(model_, adapter_, &params, &session_), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_THAT(lorica_last_error(), HasSubstr("params.struct_size"));
    params.struct_size = size_t{1} << 40;  // what was on the stack
    EXPECT_EQ(lorica_session_create(model_, adapter_, &params, &session_), LORICA_ERROR_INVALID_ARGUMENT);

    start();
    lorica_batch_result result{};
    const lorica_batch view = batch();
    EXPECT_EQ(lorica_session_forward_backward(session_, &view, &result), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_THAT(gradients(), testing::Each(0.0f)) << "nothing was computed";
    lorica_optimizer_step_params step{};
    EXPECT_EQ(lorica_session_optimizer_step(session_, &step, nullptr), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_THAT(lorica_last_error(), HasSubstr("params.struct_size"));
}

TEST_F(ApiStructs, ACallerOfAnOlderHeaderGetsDefaultsForWhatItDoesNotKnowAndNothingBehindItsStruct) {
    // It knows the model's device and precision and nothing behind.
    lorica_model_params older;
    std::memset(&older, 0x55, sizeof older);
    older.struct_size = offsetof(lorica_model_params, n_threads);
    ASSERT_EQ(lorica_model_default_params(&older), LORICA_OK);
    EXPECT_STREQ(older.device, "auto");
    EXPECT_EQ(older.n_threads, 0x55555555);
    EXPECT_EQ(older.struct_size, offsetof(lorica_model_params, n_threads));
    older.device = "cpu";
    lorica_model * model = nullptr;
    ASSERT_EQ(lorica_model_load((dir_ / "model.gguf").c_str(), &older, &model), LORICA_OK) << lorica_last_error();

    lorica_model_info info;
    std::memset(&info, 0x55, sizeof info);
    info.struct_size = offsetof(lorica_model_info, device);
    ASSERT_EQ(lorica_model_get_info(model, &info), LORICA_OK);
    EXPECT_STREQ(info.architecture, "llama");
    EXPECT_EQ(info.n_layer, 0x55555555);
    lorica_model_free(model);
}

TEST_F(ApiStructs, ACallerOfANewerHeaderIsRefusedOnlyForValuesThatThisLibraryDoesNotKnow) {
    struct Newer {
        lorica_model_info info;
        int64_t later[4] = {1, 2, 3, 4};
    } newer;
    newer.info.struct_size = sizeof newer;
    ASSERT_EQ(lorica_model_get_info(model_, &newer.info), LORICA_OK);
    EXPECT_THAT(newer.later, testing::Each(0));
    EXPECT_EQ(newer.info.n_layer, 2);

    struct NewerParams {
        lorica_adapter_params params;
        int64_t later = 0;
    } params;
    params.params.struct_size = sizeof params;
    ASSERT_EQ(lorica_adapter_default_params(&params.params), LORICA_OK);
    lorica_adapter * adapter = nullptr;
    EXPECT_EQ(lorica_adapter_create(model_, &params.params, &adapter), LORICA_OK) << lorica_last_error();
    lorica_adapter_free(adapter);
    params.later = 7;
    EXPECT_EQ(lorica_adapter_create(model_, &params.params, &adapter), LORICA_ERROR_UNSUPPORTED);
    EXPECT_THAT(lorica_last_error(), HasSubstr(lorica_version()));
}

// As a float it would be 1.
TEST_F(ApiStructs, HyperParametersArriveAsTheyWereGiven) { start(0.9999999); }

// ---- gradients as one array

TEST_F(ApiStructs, GradientsOfAllTensorsAreOneArrayInTheirOrder) {
    start();
    const lorica_batch view = batch();
    lorica_batch_result result{sizeof result};
    ASSERT_EQ(lorica_session_forward_backward(session_, &view, &result), LORICA_OK) << lorica_last_error();
    const std::vector<float> all = gradients();
    std::vector<float> one_by_one;
    for (int32_t i = 0; i < lorica_adapter_n_tensors(adapter_); ++i) {
        lorica_adapter_tensor tensor{sizeof tensor};
        ASSERT_EQ(lorica_adapter_tensor_info(adapter_, i, &tensor), LORICA_OK);
        std::vector<float> values(static_cast<size_t>(tensor.rows * tensor.cols));
        ASSERT_EQ(lorica_session_get_gradient(session_, i, values.data(), tensor.rows * tensor.cols), LORICA_OK);
        one_by_one.insert(one_by_one.end(), values.begin(), values.end());
    }
    EXPECT_EQ(all, one_by_one);

    const auto n = static_cast<int64_t>(all.size());
    ASSERT_EQ(lorica_session_add_gradients(session_, all.data(), n), LORICA_OK);
    std::vector<float> twice = all;
    for (float & value : twice) value *= 2;
    EXPECT_EQ(gradients(), twice);
    ASSERT_EQ(lorica_session_set_gradients(session_, all.data(), n), LORICA_OK);
    EXPECT_EQ(gradients(), all);
    EXPECT_EQ(lorica_session_set_gradients(session_, all.data(), n - 1), LORICA_ERROR_INVALID_ARGUMENT);
    EXPECT_THAT(lorica_last_error(), HasSubstr("elements, not"));
}

// Dropout is that of the number, whatever was computed before and in whichever session.
TEST_F(ApiStructs, AMicroBatchOfOneNumberHasTheSameDropoutWheneverItIsComputed) {
    lorica_adapter_free(adapter_);
    auto params = defaults(lorica_adapter_default_params);
    params.rank = 4;
    params.dropout = 0.3;
    ASSERT_EQ(lorica_adapter_create(model_, &params, &adapter_), LORICA_OK);
    for (int32_t i = 0; i < lorica_adapter_n_tensors(adapter_); ++i) {  // B is zero at first
        lorica_adapter_tensor tensor{sizeof tensor};
        ASSERT_EQ(lorica_adapter_tensor_info(adapter_, i, &tensor), LORICA_OK);
        const std::vector<float> values = test::exact_values(static_cast<uint64_t>(i), tensor.rows * tensor.cols, 0.1);
        ASSERT_EQ(lorica_adapter_set_tensor(adapter_, i, values.data(), tensor.rows * tensor.cols), LORICA_OK);
    }
    const auto losses = [&](const std::vector<int64_t> & numbers) {
        lorica_session_free(session_);
        session_ = nullptr;
        start();
        std::map<int64_t, double> by_number;
        for (const int64_t number : numbers) {
            lorica_batch view = batch();
            view.number = number;
            lorica_batch_result result{sizeof result};
            EXPECT_EQ(lorica_session_forward_backward(session_, &view, &result), LORICA_OK) << lorica_last_error();
            by_number[number] = result.loss_sum;
        }
        return by_number;
    };
    const auto forwards = losses({0, 1, 2, 3});
    EXPECT_EQ(forwards, losses({3, 1, 0, 2}));
    EXPECT_NE(forwards.at(0), forwards.at(1));
    EXPECT_EQ(losses({2}).at(2), forwards.at(2));
    // Without a number it is one more than the last.
    EXPECT_EQ(losses({2, -1}).at(-1), forwards.at(3));
    EXPECT_EQ(losses({-1}).at(-1), forwards.at(0));
}

}  // namespace
}  // namespace lorica
