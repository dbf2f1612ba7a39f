// The harness of the tests that run operations on every backend present and compare them with the f64 reference.
//
// A test describes an operation once (inputs, outputs, call) and execute() runs it on the reference and on the backend
// under test. Inputs are rounded to the formats of the backend under test on both sides, so that only arithmetic
// differs. Of each run it is checked that
//   - the results agree: norm-wise, and element by element, so that one wrong element in a large matrix is seen;
//   - "=" writes every element (outputs start as NaN), and nothing outside of the views, NaN too, is touched or used;
//   - a second run, and a run with 2 threads, give the same bytes.
// LORICA_TEST_DEVICES (comma-separated: "cpu,cuda:0") chooses the devices and makes a missing one a failure.
#pragma once

#include "common/error.h"
#include "support/backend_tensors.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <deque>
#include <functional>
#include <optional>
#include <sstream>

namespace lorica::test {

struct Target {
    std::string device;
    Dtype act;

    std::unique_ptr<Backend> make(int32_t n_threads) const { return make_backend(device, act, n_threads); }
    double tolerance() const { return act == Dtype::bf16 ? 2e-2 : 1e-5; }
};

inline void PrintTo(const Target & target, std::ostream * out) {
    *out << target.device << (target.act == Dtype::bf16 ? " bf16" : " f32");
}

inline std::vector<Target> targets() {
    const char * chosen = std::getenv("LORICA_TEST_DEVICES");
    std::stringstream devices(chosen ? chosen : "reference,cpu,cuda");
    std::vector<Target> found;
    for (std::string device; std::getline(devices, device, ',');) {
        const size_t before = found.size();
        for (const Dtype act : {Dtype::f32, Dtype::bf16}) {
            try {
                make_backend(device, act, 1);
                found.push_back({device, act});
            } catch (const Error &) {
                // Not in this build or on this machine.
            }
        }
        if (chosen && found.size() == before) {
            found.push_back({device, Dtype::f32});  // its tests fail with make_backend's message
        }
    }
    return found;
}

// What an operand is to the backend: decides its format.
enum class Role { hidden, act, param, f32 };

struct Output {
    std::string name;
    Values values;
    std::vector<std::byte> bytes;
};

// One execution of an operation on one backend.
class Execution {
public:
    // rounding: the formats of the backend under test.
    Execution(Backend & backend, Formats rounding) : backend(backend), rounding_(rounding) {}

    // A matrix that the operation reads.
    Matrix input(Role role, int64_t rows, int64_t cols, const Values & values) {
        DeviceMatrix & matrix = add(role, rows, cols);
        matrix.write(rounded(format(rounding_, role), values));
        return matrix.view();
    }
    // One that it writes: "=".
    Matrix output(const std::string & name, Role role, int64_t rows, int64_t cols) {
        return report(name, add(role, rows, cols));
    }
    // One that it reads and writes: in place, or "+=".
    Matrix in_out(const std::string & name, Role role, int64_t rows, int64_t cols, const Values & values) {
        DeviceMatrix & matrix = add(role, rows, cols);
        matrix.write(rounded(format(rounding_, role), values));
        return report(name, matrix);
    }
    void output_number(const std::string & name, double value) {
        numbers_.push_back({name, {value}, encode(Dtype::f64, {value})});
    }
    const int32_t * integers(const std::vector<int32_t> & values) {
        return integers_.emplace_back(backend, values).data();
    }

    std::vector<Output> outputs() {
        std::vector<Output> outputs = numbers_;
        for (const auto & [name, matrix] : reported_) {
            outputs.push_back({name, matrix->read(), matrix->read_bytes()});
        }
        for (const DeviceMatrix & matrix : matrices_) {
            EXPECT_TRUE(matrix.surroundings_are_intact()) << "written outside of a matrix by " << backend.name();
        }
        return outputs;
    }

    Backend & backend;

private:
    static Dtype format(const Formats & formats, Role role) {
        switch (role) {
            case Role::hidden: return formats.hidden;
            case Role::act: return formats.act;
            case Role::param: return formats.param;
            case Role::f32: break;
        }
        return Dtype::f32;
    }
    // Parameters are dense; every other matrix gets a stride of its own that is no round number. With the environment
    // variable LORICA_TEST_ALIGNED every row begins at a multiple of 16 bytes, as a session's do.
    DeviceMatrix & add(Role role, int64_t rows, int64_t cols) {
        const bool dense = role == Role::param || role == Role::f32;
        const auto number = static_cast<int64_t>(matrices_.size());
        const int64_t padding = dense                                ? 0
                                : std::getenv("LORICA_TEST_ALIGNED") ? 7 - (cols + 7) % 8 + 8 * number
                                                                     : 3 + 2 * number;
        return matrices_.emplace_back(backend, format(backend.formats(), role), rows, cols, cols + padding);
    }
    Matrix report(const std::string & name, DeviceMatrix & matrix) {
        reported_.emplace_back(name, &matrix);
        return matrix.view();
    }

    Formats rounding_;
    std::deque<DeviceMatrix> matrices_;  // a deque keeps addresses
    std::deque<DeviceArray<int32_t>> integers_;
    std::vector<std::pair<std::string, DeviceMatrix *>> reported_;
    std::vector<Output> numbers_;
};

using Operation = std::function<void(Execution &)>;

inline std::vector<Output> execute(Backend & backend, const Formats & rounding, const Operation & operation) {
    Execution run(backend, rounding);
    operation(run);
    return run.outputs();
}

// least_rms: what the expected root mean square counts as at least.
inline void expect_close(const Output & actual, const Output & expected, double tolerance, double least_rms) {
    ASSERT_EQ(actual.values.size(), expected.values.size());
    double squares = 0, error_squares = 0;
    for (size_t i = 0; i < expected.values.size(); ++i) {
        squares += expected.values[i] * expected.values[i];
        error_squares += (actual.values[i] - expected.values[i]) * (actual.values[i] - expected.values[i]);
    }
    const auto n = static_cast<double>(expected.values.size());
    const double rms = std::max(least_rms, std::sqrt(squares / n));
    EXPECT_LE(std::sqrt(error_squares / n), tolerance * rms) << actual.name << ", rms " << rms;
    for (size_t i = 0; i < actual.values.size(); ++i) {
        // Negated, so that NaN fails too.
        if (!(std::abs(actual.values[i] - expected.values[i]) <=
              tolerance * (5 * rms + std::abs(expected.values[i])))) {
            ADD_FAILURE() << actual.name << ": element " << i << " of " << actual.values.size() << " is "
                          << actual.values[i] << ", expected " << expected.values[i] << " (rms " << rms << ")";
            return;
        }
    }
}

inline void expect_parity(const Target & target, const WorkspaceShape & workspace, const Operation & operation,
                          double least_rms = 0) {
    const auto one_thread = target.make(1), two_threads = target.make(2),
               reference = make_backend("reference", Dtype::f64, 1);
    one_thread->reserve(workspace);
    two_threads->reserve(workspace);
    const Formats rounding = one_thread->formats();

    const std::vector<Output> expected = execute(*reference, rounding, operation);
    std::vector<Output> actual;
    try {
        actual = execute(*one_thread, rounding, operation);
    } catch (const Error & error) {
        // A GPU's backend says in one line which operations it has no kernels for yet; the CPU has them all.
        if (error.status() != LORICA_ERROR_UNSUPPORTED || target.device.rfind("cuda", 0) != 0) throw;
        GTEST_SKIP() << error.what();
    }
    const std::vector<Output> again = execute(*one_thread, rounding, operation);
    const std::vector<Output> threaded = execute(*two_threads, rounding, operation);
    for (size_t i = 0; i < expected.size(); ++i) {
        expect_close(actual[i], expected[i], target.tolerance(), least_rms);
        EXPECT_TRUE(again[i].bytes == actual[i].bytes) << actual[i].name << " differs in a second run";
        EXPECT_TRUE(threaded[i].bytes == actual[i].bytes) << actual[i].name << " differs with 2 threads";
    }
}

inline std::string target_name(const testing::TestParamInfo<Target> & info) {
    std::string name = info.param.device + (info.param.act == Dtype::bf16 ? "_bf16" : "_f32");
    std::replace(name.begin(), name.end(), ':', '_');
    return name;
}

// Elements [begin, end) of v.
inline Values part(const Values & v, int64_t begin, int64_t end) { return {v.begin() + begin, v.begin() + end}; }

struct Extent {
    int64_t rows, cols;
};
constexpr Extent extents[] = {{1, 64}, {2, 96}, {5, 160}, {31, 256}, {64, 576}, {100, 768}, {257, 64}, {3, 45}, {1, 1}};

}  // namespace lorica::test
