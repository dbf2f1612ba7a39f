#include <algorithm>
#include <iterator>

#include "api/api.h"
#include "api/handles.h"
#include "gguf/gguf_writer.h"
#include "model/arch/architectures.h"

using lorica::api::guarded;
using lorica::api::require;

struct lorica_architecture {
    explicit lorica_architecture(const lorica::Architecture & architecture)
        : tensors(lorica::tensors_of(architecture)) {
        std::ranges::move(lorica::classifier_tensors_of(architecture), std::back_inserter(tensors));
        for (const lorica::TensorSpec & tensor : tensors) {
            row_orders.push_back(lorica::rows_in_huggingface(tensor.order));
        }
    }

    std::vector<lorica::TensorSpec> tensors;
    std::vector<std::vector<int64_t>> row_orders;  // of each; empty: as they are
};

namespace {

lorica_tensor_kind kind_of(lorica::TensorSpec::Kind kind) {
    switch (kind) {
        case lorica::TensorSpec::embedding: return LORICA_TENSOR_EMBEDDING;
        case lorica::TensorSpec::linear: return LORICA_TENSOR_LINEAR;
        case lorica::TensorSpec::norm: return LORICA_TENSOR_NORM;
        case lorica::TensorSpec::bias: return LORICA_TENSOR_BIAS;
        case lorica::TensorSpec::classifier: return LORICA_TENSOR_CLASSIFIER;
        case lorica::TensorSpec::head: break;
    }
    return LORICA_TENSOR_HEAD;
}

}  // namespace

lorica_status lorica_architecture_of_model(const lorica_model * model, lorica_architecture ** out) {
    return guarded([&] {
        require(model, "model");
        require(out, "out");
        *out = new lorica_architecture(model->model->architecture());
    });
}

lorica_status lorica_architecture_of_metadata(const lorica_gguf_writer * writer, lorica_architecture ** out) {
    return guarded([&] {
        require(writer, "writer");
        require(out, "out");
        const std::vector<std::byte> bytes = lorica::api::metadata_of(*writer);
        const auto file = lorica::GgufFile::from_memory("the metadata", bytes);
        *out = new lorica_architecture(lorica::describe(file));
    });
}

void lorica_architecture_free(lorica_architecture * architecture) { delete architecture; }

int32_t lorica_architecture_n_tensors(const lorica_architecture * architecture) {
    return architecture ? static_cast<int32_t>(architecture->tensors.size()) : 0;
}

lorica_status lorica_architecture_get_tensor(const lorica_architecture * architecture, int32_t i,
                                             lorica_architecture_tensor * out) {
    return guarded([&] {
        require(architecture, "architecture");
        const auto n = static_cast<int32_t>(architecture->tensors.size());
        if (i < 0 || i >= n) {
            lorica::fail(LORICA_ERROR_INVALID_ARGUMENT, "tensor ", i, " does not exist; there are ", n);
        }
        const lorica::TensorSpec & tensor = architecture->tensors[static_cast<size_t>(i)];
        lorica_architecture_tensor info{sizeof(lorica_architecture_tensor)};
        info.kind = kind_of(tensor.kind);
        info.layer = tensor.layer;
        info.name = tensor.gguf.c_str();
        info.hf_name = tensor.hf.c_str();
        info.rows = tensor.rows;
        info.cols = tensor.cols;
        const std::vector<int64_t> & order = architecture->row_orders[static_cast<size_t>(i)];
        info.row_order = order.empty() ? nullptr : order.data();
        info.conv1d = tensor.conv1d;
        info.is_optional = tensor.is_optional;
        lorica::api::write_struct(info, "out", out);
    });
}
