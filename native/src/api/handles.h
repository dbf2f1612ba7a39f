// What the opaque handles of lorica.h are. Handles share ownership of what they are made from, so that no order of
// *_free calls can leave one with a dangling pointer.
#pragma once

#include <atomic>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "adapter/adapter.h"
#include "common/cancel.h"
#include "generate/context.h"
#include "model/model.h"
#include "train/session.h"

struct lorica_model {
    std::shared_ptr<const lorica::Model> model;
    std::string device, device_detail, device_reason;
};

struct lorica_adapter {
    std::shared_ptr<lorica::Adapter> adapter;
    std::vector<std::string> tensor_names;
};

namespace lorica::api {

// Adapters and their factors as C gives them; factors may be NULL. Errors: INVALID_ARGUMENT.
std::vector<Adapter::Part> adapter_parts(const lorica_adapter * const * adapters, const double * factors,
                                         int32_t n_adapters);

// What a file of the writer would begin with.
std::vector<std::byte> metadata_of(const lorica_gguf_writer & writer);

}  // namespace lorica::api

struct lorica_session {
    lorica::Session session;
    std::shared_ptr<const lorica::Model> model;
    std::atomic<bool> cancelled = false;
};

struct lorica_kv_cache {
    lorica::Context context;
    std::shared_ptr<const lorica::Model> model;
    std::atomic<bool> cancelled = false;
};

namespace lorica::api {

// Runs what reads a model's weights, which may be stopped by the flag. Errors: CANCELLED, IO when its file was cut.
template <typename Compute> void compute(const Model & model, const std::atomic<bool> & cancelled, Compute && body) {
    model.file().check_not_cut();
    {
        const CancelScope scope(cancelled);
        check_cancelled();
        std::forward<Compute>(body)();
    }
    model.file().check_not_cut();
}

}  // namespace lorica::api
