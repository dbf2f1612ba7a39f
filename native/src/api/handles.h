// What the opaque handles of lorica.h are. Handles share ownership of what they are made from, so that no order of
// *_free calls can leave one with a dangling pointer.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "adapter/adapter.h"
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
std::vector<Adapter::Part> adapter_parts(const lorica_adapter * const * adapters, const float * factors,
                                         int32_t n_adapters);

}  // namespace lorica::api

struct lorica_train {
    lorica::Session session;
};

struct lorica_context {
    lorica::Context context;
};
