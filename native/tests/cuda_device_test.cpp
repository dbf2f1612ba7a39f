// Which device is taken, and what is said where there is none. The library is the one that runs CUDA's kernels on the
// CPU; it plays the machines that are named here (see cuda_on_cpu/cuda_on_cpu.cpp).
#include "backend/cuda_loader.h"
#include "support/c_structs.h"
#include "support/expect_error.h"
#include "support/training.h"

#include <gtest/gtest.h>
#include <lorica/lorica.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace lorica {
namespace {

using namespace test;
using testing::AllOf;
using testing::HasSubstr;
using testing::StartsWith;

class CudaDevice : public testing::Test {
protected:
    void SetUp() override {
        library(LORICA_CUDA_ON_CPU_LIBRARY);
        setenv("LORICA_PCI_DEVICES", "/what/is/on/the/bus/is/not/known", 1);
    }
    void TearDown() override {
        unsetenv("LORICA_CUDA_LIBRARY");
        unsetenv("LORICA_PCI_DEVICES");
        unsetenv("LORICA_CUDA_ON_CPU_MACHINE");
        lorica_cuda_set_library(nullptr);
    }
    static void library(const std::string & path) { setenv("LORICA_CUDA_LIBRARY", path.c_str(), 1); }
    static void machine(const std::string & words) { setenv("LORICA_CUDA_ON_CPU_MACHINE", words.c_str(), 1); }

    static DeviceChoice automatic(Dtype act = Dtype::bf16) { return choose_device("auto", act); }
    static void expect_no_gpu(const testing::Matcher<std::string> & reason, const std::string & remedy) {
        const DeviceChoice choice = automatic();
        EXPECT_EQ(choice.device, "cpu");
        EXPECT_THAT(choice.reason, AllOf(StartsWith("no GPU: "), reason));
        expect_error(LORICA_ERROR_DEVICE, AllOf(StartsWith("no GPU: "), reason, HasSubstr("; " + remedy)),
                     [] { make_backend("cuda", Dtype::bf16, 0); });
    }
};

TEST_F(CudaDevice, AutoTakesTheGpuThatWorks) {
    machine("NVIDIA H100/9.0/81920");
    const DeviceChoice choice = automatic();
    EXPECT_EQ(choice.device, "cuda:0");
    EXPECT_EQ(choice.reason, "the first GPU");

    lorica_device_info info{sizeof(lorica_device_info)};
    ASSERT_EQ(lorica_device_probe(nullptr, &info), LORICA_OK) << lorica_last_error();
    EXPECT_STREQ(info.name, "cuda:0");
    EXPECT_STREQ(info.detail, "NVIDIA H100, compute capability 9.0, bf16, wgmma");
    EXPECT_STREQ(info.reason, "the first GPU");
    EXPECT_NEAR(static_cast<double>(info.available_memory), 81920.0 * (1 << 20), 1 << 20);
}

TEST_F(CudaDevice, AutoPassesOverGpusThatDoNotWorkAndSaysWhy) {
    machine(
        "Tesla T4/7.5/16384,NVIDIA A100/8.0/40960/busy,NVIDIA L4/8.9/24576/no-code,NVIDIA H100/9.0/81920/wrong-numbers,"
        "NVIDIA B200/10.0/184320");
    const DeviceChoice choice = automatic();
    EXPECT_EQ(choice.device, "cuda:4");
    EXPECT_THAT(choice.reason, HasSubstr("not cuda:0, Tesla T4: compute capability 7.5, and the kernels need 8.0"));
    EXPECT_THAT(choice.reason,
                HasSubstr("not cuda:1, NVIDIA A100: it cannot be opened: CUDA-capable device(s) is/are busy"));
    EXPECT_THAT(choice.reason,
                HasSubstr("not cuda:2, NVIDIA L4: the GPU library holds no code for compute capability 8.9"));
    EXPECT_THAT(choice.reason, HasSubstr("not cuda:3, NVIDIA H100: a first kernel computed wrong numbers"));

    machine("Tesla T4/7.5/16384");
    EXPECT_EQ(automatic().device, "cpu");
    EXPECT_THAT(automatic().reason, HasSubstr("not cuda:0, Tesla T4: compute capability 7.5"));
    expect_error(LORICA_ERROR_DEVICE, HasSubstr("cuda:0, Tesla T4: compute capability 7.5"),
                 [] { make_backend("cuda", Dtype::bf16, 0); });
}

TEST_F(CudaDevice, AutoTakesTheCpuForAPrecisionThatTheGpuLacks) {
    machine("NVIDIA H100/9.0/81920");
    const DeviceChoice choice = automatic(Dtype::f64);
    EXPECT_EQ(choice.device, "cpu");
    EXPECT_THAT(choice.reason, AllOf(StartsWith("not cuda:0, NVIDIA H100: "), HasSubstr("bf16")));
}

TEST_F(CudaDevice, AnotherDeviceIsTakenAsItIsNamed) {
    for (const char * device : {"cpu", "cuda:3", "reference", "abacus"}) {
        EXPECT_EQ(choose_device(device, Dtype::bf16).device, device);
        EXPECT_EQ(choose_device(device, Dtype::bf16).reason, "");
    }
}

TEST_F(CudaDevice, ANumberThatIsTooLargeSaysHowManyThereAre) {
    machine("NVIDIA H100/9.0/81920,NVIDIA H100/9.0/81920");
    expect_error(LORICA_ERROR_DEVICE,
                 testing::StrEq("there is no device \"cuda:2\": this machine has 2 GPUs, the last is \"cuda:1\""),
                 [] { make_backend("cuda:2", Dtype::bf16, 0); });
    machine("NVIDIA H100/9.0/81920");
    expect_error(LORICA_ERROR_DEVICE,
                 testing::StrEq("there is no device \"cuda:1\": this machine has 1 GPU, \"cuda:0\""),
                 [] { make_backend("cuda:1", Dtype::bf16, 0); });
    for (const char * device : {"cuda:", "cuda:x", "cuda:-1", "cuda:1 ", "cuda:99999999999"}) {
        expect_error(LORICA_ERROR_INVALID_ARGUMENT, HasSubstr("a GPU is \"cuda\" or \"cuda:N\""),
                     [&] { make_backend(device, Dtype::bf16, 0); });
    }
}

TEST_F(CudaDevice, AMissingDriverIsNamed) {
    machine("driver=0");
    expect_no_gpu(HasSubstr("no NVIDIA driver (libcuda.so.1 not found)"),
                  "install an NVIDIA driver that runs CUDA 13.0");
}

TEST_F(CudaDevice, AMachineWithoutAGpuIsNotToldToInstallADriver) {
    machine("driver=0");
    const TempDir bus;
    setenv("LORICA_PCI_DEVICES", bus.path().c_str(), 1);
    expect_no_gpu(HasSubstr("this machine has no NVIDIA GPU"), "nothing is to be done");
    const std::filesystem::path device = bus / "0000:01:00.0";
    std::filesystem::create_directory(device);
    std::ofstream(device / "vendor") << "0x10de\n";
    std::ofstream(device / "class") << "0x040300\n";  // the sound of one
    expect_no_gpu(HasSubstr("this machine has no NVIDIA GPU"), "nothing is to be done");
    std::ofstream(device / "class") << "0x030200\n";
    expect_no_gpu(HasSubstr("no NVIDIA driver"), "install an NVIDIA driver");
}

TEST_F(CudaDevice, AnOldDriverIsNamedWithBothVersions) {
    machine("driver=12040,NVIDIA H100/9.0/81920");
    expect_no_gpu(HasSubstr("the NVIDIA driver runs CUDA up to 12.4, and this library is built with 13.0"),
                  "update the NVIDIA driver");

    lorica_cuda_info info{sizeof(lorica_cuda_info)};
    ASSERT_EQ(lorica_cuda_probe(&info), LORICA_OK);
    EXPECT_EQ(info.driver_version, 12040);
    EXPECT_EQ(info.runtime_version, 13000);
    EXPECT_EQ(info.n_devices, 0);
    EXPECT_STREQ(info.remedy, "update the NVIDIA driver");
}

TEST_F(CudaDevice, AMachineWithoutGpusSaysSo) {
    machine("no-gpu");
    setenv("CUDA_VISIBLE_DEVICES", "7", 1);
    expect_no_gpu(HasSubstr("the NVIDIA driver shows no GPU (CUDA_VISIBLE_DEVICES is \"7\")"),
                  "change CUDA_VISIBLE_DEVICES");
    unsetenv("CUDA_VISIBLE_DEVICES");
    expect_no_gpu(HasSubstr("the NVIDIA driver shows no GPU"), "see what nvidia-smi says");
}

TEST_F(CudaDevice, ALibraryThatIsNotThereIsNoReasonToFail) {
    library("/nowhere/liblorica-cuda.so");
    expect_no_gpu(
        testing::AnyOf(HasSubstr("libcuda.so.1 not found"), HasSubstr("/nowhere/liblorica-cuda.so is not there")), "");
}

TEST_F(CudaDevice, ABrokenLibraryIsNamed) {
    const TempDir dir;
    const std::string path = dir / "liblorica-cuda.so";
    std::ofstream(path) << "not a library";
    library(path);
    expect_no_gpu(AllOf(HasSubstr("the GPU library cannot be opened"), HasSubstr(path)), "install it anew");
}

TEST_F(CudaDevice, ALibraryOfAnotherReleaseIsRefused) {
    library(LORICA_CUDA_OTHER_RELEASE_LIBRARY);
    expect_no_gpu(HasSubstr("belongs to another release than this library"), "install both from the same one");
}

TEST_F(CudaDevice, AnotherLibraryIsNoBackend) {
    library("libm.so.6");
    expect_no_gpu(HasSubstr("is no CUDA backend of Lorica: it lacks lorica_cuda_make_backend"), "install it anew");
}

TEST_F(CudaDevice, ALibraryThatAProgramNamesIsUsedUnlessTheEnvironmentNamesAnother) {
    unsetenv("LORICA_CUDA_LIBRARY");
    machine("NVIDIA H100/9.0/81920");
    ASSERT_EQ(lorica_cuda_set_library(LORICA_CUDA_ON_CPU_LIBRARY), LORICA_OK);
    EXPECT_EQ(automatic().device, "cuda:0");
    library("/nowhere/liblorica-cuda.so");
    EXPECT_EQ(automatic().device, "cpu");
}

TEST_F(CudaDevice, TheDescriptionOfAGpuSaysWhatIsWrongWithIt) {
    machine("NVIDIA H100/9.0/81920,Tesla T4/7.5/16384");
    lorica_cuda_info info{sizeof(lorica_cuda_info)};
    ASSERT_EQ(lorica_cuda_probe(&info), LORICA_OK);
    EXPECT_EQ(info.n_devices, 2);
    EXPECT_STREQ(info.problem, "");

    lorica_cuda_device_info device{sizeof(lorica_cuda_device_info)};
    ASSERT_EQ(lorica_cuda_device_probe(0, &device), LORICA_OK);
    EXPECT_STREQ(device.name, "NVIDIA H100");
    EXPECT_STREQ(device.pci_bus_id, "00000000:65:00.0");
    EXPECT_EQ(device.compute_major, 9);
    EXPECT_EQ(device.total_memory, int64_t{81920} << 20);
    EXPECT_EQ(device.free_memory, int64_t{81920} << 20);
    EXPECT_STREQ(device.problem, "");

    ASSERT_EQ(lorica_cuda_device_probe(1, &device), LORICA_OK);
    EXPECT_STREQ(device.name, "Tesla T4");
    EXPECT_THAT(device.problem, HasSubstr("compute capability 7.5"));
    EXPECT_THAT(device.remedy, HasSubstr("use another GPU"));
    EXPECT_EQ(lorica_cuda_device_probe(2, &device), LORICA_ERROR_DEVICE);
    EXPECT_EQ(lorica_cuda_device_probe(-1, &device), LORICA_ERROR_INVALID_ARGUMENT);
}

TEST_F(CudaDevice, AModelSaysWhichDeviceItIsOnAndWhy) {
    machine("NVIDIA H100/9.0/81920");
    const TempDir dir;
    const std::string path = write_test_model(dir / "model.gguf", TestModel{});
    const auto describe = [&](const char * device) {
        auto params = test::defaults(lorica_model_default_params);
        params.device = device;
        lorica_model * model = nullptr;
        EXPECT_EQ(lorica_model_load(path.c_str(), &params, &model), LORICA_OK) << lorica_last_error();
        lorica_model_info info{sizeof(lorica_model_info)};
        lorica_model_get_info(model, &info);
        const std::string text = std::string(info.device) + "|" + info.device_detail + "|" + info.device_reason;
        lorica_model_free(model);
        return text;
    };
    EXPECT_EQ(describe("auto"), "cuda:0|NVIDIA H100, compute capability 9.0, bf16, wgmma|the first GPU");
    EXPECT_EQ(describe("cuda"), "cuda:0|NVIDIA H100, compute capability 9.0, bf16, wgmma|");
    machine("no-gpu");
    EXPECT_THAT(describe("auto"), testing::MatchesRegex("cpu\\|.*\\|no GPU: the NVIDIA driver shows no GPU"));
}

// The weights are on the device already, so they are not asked for a second time.
TEST_F(CudaDevice, ThePlanUsesTheFreeMemoryOfTheDevice) {
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 512;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    machine("Small/8.6/64,Large/8.6/4096");
    const auto plan = [&](const char * device) {
        SessionConfig config;
        config.max_tokens = 64;
        const auto model = load(path, device, Dtype::bf16);
        const auto adapter = Adapter::create(model, {});
        return Session::plan(*model, adapter.get(), config);
    };
    const MemoryPlan small = plan("cuda:0"), large = plan("cuda:1");
    EXPECT_GT(small.weights, 8 << 20);
    EXPECT_NEAR(static_cast<double>(small.available), 64 << 20, 1 << 20);
    EXPECT_NEAR(static_cast<double>(large.available), 4096.0 * (1 << 20), 1 << 20);
}

// What no kernel reads is expanded, before the first step as the plan says, and not during it.
TEST_F(CudaDevice, ThePlanCountsWeightsThatAreExpanded) {
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 256;
    shape.type = GGML_TYPE_TQ2_0;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    machine("NVIDIA A100/8.0/256");
    const auto model = load(path, "cuda", Dtype::bf16);
    EXPECT_GT(model->device_bytes(), 6 * model->weight_bytes());
    SessionConfig config;
    config.max_tokens = 64;
    const auto adapter = Adapter::create(model, {});
    const MemoryPlan plan = Session::plan(*model, adapter.get(), config);
    EXPECT_EQ(plan.weights, model->device_bytes());
    EXPECT_NEAR(static_cast<double>(plan.available), 256 << 20, 1 << 20);

    Session session(adapter, config);
    const int64_t free = model->device().available_memory();
    session.forward_backward(random_batch(5, {40}, shape.n_vocab).view());
    EXPECT_EQ(model->device().available_memory(), free);
}

TEST_F(CudaDevice, AModelThatDoesNotFitIsRefusedBeforeItIsCopied) {
    const TempDir dir;
    TestModel shape;
    shape.n_embd = shape.n_ff = 512;
    const std::string path = write_test_model(dir / "model.gguf", shape);
    machine("Tiny/8.6/6");
    expect_error(LORICA_ERROR_OUT_OF_MEMORY,
                 AllOf(HasSubstr("the weights take"), HasSubstr("MiB on cuda:0, which has 5 MiB free"),
                       HasSubstr("device \"cpu\"")),
                 [&] { load(path, "cuda", Dtype::bf16); });
}

}  // namespace
}  // namespace lorica
