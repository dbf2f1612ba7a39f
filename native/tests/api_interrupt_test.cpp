// The C ABI where something comes between: a model's file changes, another thread cancels.
#include <gmock/gmock.h>
#include <lorica/lorica.h>

#include <atomic>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <thread>
#include <vector>

#include "support/c_structs.h"
#include "support/temp_dir.h"
#include "support/test_model.h"
#include "support/training.h"

namespace lorica {
namespace {

using testing::HasSubstr;

template <typename T, void (*release)(T *)> struct Release {
    void operator()(T * handle) const { release(handle); }
};
template <typename T, void (*release)(T *)> using Handle = std::unique_ptr<T, Release<T, release>>;

void check(lorica_status status) { ASSERT_EQ(status, LORICA_OK) << lorica_last_error(); }

lorica_batch c_batch(const test::Batch & batch) {
    auto view = test::defaults(lorica_batch_default);
    view.tokens = batch.tokens.data();
    view.labels = batch.labels.data();
    view.sequence_lengths = batch.sequence_lengths.data();
    view.n_tokens = static_cast<int32_t>(batch.tokens.size());
    view.n_sequences = static_cast<int32_t>(batch.sequence_lengths.size());
    return view;
}

class ApiInterrupt : public testing::Test {
protected:
    void load(const test::TestModel & shape, bool use_mmap, const char * device = "cpu") {
        path_ = test::write_test_model(dir_ / "model.gguf", shape);
        auto params = test::defaults(lorica_model_default_params);
        params.device = device;
        params.n_threads = 2;
        params.use_mmap = use_mmap;
        lorica_model * model = nullptr;
        check(lorica_model_load(path_.c_str(), &params, &model));
        model_.reset(model);
        auto adapter_params = test::defaults(lorica_adapter_default_params);
        adapter_params.rank = 4;
        lorica_adapter * adapter = nullptr;
        check(lorica_adapter_create(model, &adapter_params, &adapter));
        adapter_.reset(adapter);
        auto train_params = test::defaults(lorica_session_default_params);
        train_params.max_tokens = 512;
        lorica_session * train = nullptr;
        check(lorica_session_create(model, adapter, &train_params, &train));
        train_.reset(train);
        lorica_kv_cache * context = nullptr;
        check(lorica_kv_cache_create(model, nullptr, 4096, &context));
        context_.reset(context);
    }

    lorica_status forward_backward(lorica_batch_result * result = nullptr) {
        const test::Batch batch = test::random_batch(7, {60, 40}, 300);
        const lorica_batch view = c_batch(batch);
        lorica_batch_result own{sizeof(lorica_batch_result)};
        return lorica_session_forward_backward(train_.get(), &view, result ? result : &own);
    }

    lorica_status evaluate() {
        const test::Batch batch = test::random_batch(7, {60, 40}, 300);
        const lorica_batch view = c_batch(batch);
        lorica_batch_result own{sizeof(lorica_batch_result)};
        return lorica_session_evaluate(train_.get(), &view, nullptr, &own);
    }

    lorica_status eval(int32_t n_tokens) {
        const std::vector<int32_t> tokens(static_cast<size_t>(n_tokens), 5);
        std::vector<float> logits(300);
        return lorica_kv_cache_eval(context_.get(), tokens.data(), n_tokens, false, logits.data());
    }

    test::TempDir dir_;
    std::string path_;
    Handle<lorica_model, lorica_model_free> model_;
    Handle<lorica_adapter, lorica_adapter_free> adapter_;
    Handle<lorica_session, lorica_session_free> train_;
    Handle<lorica_kv_cache, lorica_kv_cache_free> context_;
};

TEST_F(ApiInterrupt, AModelWhoseFileIsCutFailsAndTheProcessLivesOn) {
    load({}, true);
    check(forward_backward());
    check(lorica_model_check(model_.get()));
    std::filesystem::resize_file(path_, 4096);
    EXPECT_EQ(forward_backward(), LORICA_ERROR_IO);
    EXPECT_THAT(lorica_last_error(), HasSubstr("cut off"));
    EXPECT_EQ(eval(10), LORICA_ERROR_IO);
    EXPECT_EQ(lorica_model_check(model_.get()), LORICA_ERROR_MISMATCH);
    EXPECT_EQ(lorica_merge(model_.get(), adapter_.get(), (dir_ / "merged.gguf").c_str(), nullptr), LORICA_ERROR_IO);
    EXPECT_FALSE(std::filesystem::exists(dir_ / "merged.gguf"));
}

TEST_F(ApiInterrupt, AStateIsNotSavedOnceTheModelsFileHasChanged) {
    load({}, true);
    check(lorica_session_save_state(train_.get(), (dir_ / "state").c_str()));
    std::filesystem::remove(dir_ / "state");
    std::this_thread::sleep_for(std::chrono::milliseconds(20));
    {
        std::fstream file(path_, std::ios::binary | std::ios::in | std::ios::out);
        file.seekp(-100, std::ios::end);
        file << "rubbish";
    }
    EXPECT_EQ(lorica_session_save_state(train_.get(), (dir_ / "state").c_str()), LORICA_ERROR_MISMATCH);
    EXPECT_THAT(lorica_last_error(), HasSubstr("has changed since it was opened"));
    EXPECT_FALSE(std::filesystem::exists(dir_ / "state"));
}

TEST_F(ApiInterrupt, AModelThatWasReadIntoMemoryTrainsOnAndMergesAsIfNothingHadHappened) {
    load({}, true);
    lorica_batch_result mapped{sizeof mapped}, read{sizeof read};
    check(forward_backward(&mapped));
    check(lorica_merge(model_.get(), adapter_.get(), (dir_ / "mapped.gguf").c_str(), nullptr));
    load({}, false);
    std::filesystem::resize_file(path_, 0);
    check(forward_backward(&read));
    EXPECT_EQ(mapped.loss_sum, read.loss_sum);
    check(lorica_model_check(model_.get()));
    check(lorica_merge(model_.get(), adapter_.get(), (dir_ / "read.gguf").c_str(), nullptr));
    std::ifstream one(dir_ / "mapped.gguf"), other(dir_ / "read.gguf");
    const std::string a(std::istreambuf_iterator<char>(one), {}), b(std::istreambuf_iterator<char>(other), {});
    EXPECT_TRUE(a == b);
}

// ---- cancelling

TEST_F(ApiInterrupt, ACancelledCallFailsUntilItIsAllowedAgain) {
    load({}, true);
    lorica_session_cancel(train_.get(), true);
    EXPECT_EQ(forward_backward(), LORICA_ERROR_CANCELLED);
    EXPECT_EQ(evaluate(), LORICA_ERROR_CANCELLED);
    lorica_session_cancel(train_.get(), false);
    check(lorica_session_zero_gradients(train_.get()));
    check(forward_backward());

    lorica_kv_cache_cancel(context_.get(), true);
    EXPECT_EQ(eval(10), LORICA_ERROR_CANCELLED);
    EXPECT_EQ(lorica_kv_cache_n_past(context_.get()), 0);
    lorica_kv_cache_cancel(context_.get(), false);
    check(eval(10));
    EXPECT_EQ(lorica_kv_cache_n_past(context_.get()), 10);
}

TEST_F(ApiInterrupt, ALongPromptEndsSoonAfterItIsCancelled) {
    test::TestModel shape;
    shape.n_layer = 12;
    shape.n_embd = 256;
    shape.n_ff = 1024;
    shape.n_ctx = 4096;
    load(shape, true);
    const auto now = [] { return std::chrono::steady_clock::now(); };
    const auto begin = now();
    check(eval(2048));
    const auto whole = now() - begin;
    check(lorica_kv_cache_truncate(context_.get(), 0));

    // Where the machine is busy, one of the two threads may be kept from its work for as long as all takes.
    bool soon = false;
    for (int attempt = 0; attempt < 30 && !soon; ++attempt) {
        std::chrono::steady_clock::time_point cancelled;
        std::thread other([&] {
            std::this_thread::sleep_for(whole / 10);
            cancelled = now();
            lorica_kv_cache_cancel(context_.get(), true);
        });
        const lorica_status status = eval(2048);
        const auto late = now();
        other.join();
        if (status == LORICA_ERROR_CANCELLED) {
            EXPECT_LT(lorica_kv_cache_n_past(context_.get()), 2048);
            soon = late - cancelled < whole / 3;
        } else {
            check(status);
        }
        lorica_kv_cache_cancel(context_.get(), false);
        check(lorica_kv_cache_truncate(context_.get(), 0));
    }
    EXPECT_TRUE(soon);

    // What is computed afterwards is what it would have been.
    const std::vector<int32_t> tokens(32, 5);
    std::vector<float> after(300), fresh(300);
    check(lorica_kv_cache_eval(context_.get(), tokens.data(), 32, false, after.data()));
    lorica_kv_cache * context = nullptr;
    check(lorica_kv_cache_create(model_.get(), nullptr, 64, &context));
    const Handle<lorica_kv_cache, lorica_kv_cache_free> owner(context);
    check(lorica_kv_cache_eval(context, tokens.data(), 32, false, fresh.data()));
    EXPECT_EQ(after, fresh);
}

TEST_F(ApiInterrupt, CancelledGradientsAreOfNoUseAndZeroedOnesAreWhatTheyWere) {
    load({}, true);
    check(forward_backward());
    const int32_t n = lorica_adapter_n_tensors(adapter_.get());
    const auto gradients = [&] {
        std::vector<std::vector<float>> all;
        for (int32_t i = 0; i < n; ++i) {
            lorica_adapter_tensor tensor{sizeof(lorica_adapter_tensor)};
            EXPECT_EQ(lorica_adapter_tensor_info(adapter_.get(), i, &tensor), LORICA_OK);
            all.emplace_back(static_cast<size_t>(tensor.rows * tensor.cols));
            EXPECT_EQ(lorica_session_get_gradient(train_.get(), i, all.back().data(), tensor.rows * tensor.cols),
                      LORICA_OK);
        }
        return all;
    };
    const auto expected = gradients();
    std::atomic<bool> over = false;
    std::thread other([&] {
        while (!over) {
            lorica_session_cancel(train_.get(), true);
            std::this_thread::sleep_for(std::chrono::microseconds(300));
            lorica_session_cancel(train_.get(), false);
            std::this_thread::sleep_for(std::chrono::microseconds(300));
        }
        lorica_session_cancel(train_.get(), false);
    });
    int cancelled = 0;
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::minutes(2);  // the other thread may come late
    for (int i = 0; cancelled < 20 && (i < 200 || cancelled == 0) && std::chrono::steady_clock::now() < deadline; ++i) {
        cancelled += forward_backward() == LORICA_ERROR_CANCELLED;
    }
    over = true;
    other.join();
    EXPECT_GT(cancelled, 0);
    check(lorica_session_zero_gradients(train_.get()));
    check(forward_backward());
    EXPECT_EQ(gradients(), expected);
}

}  // namespace
}  // namespace lorica
