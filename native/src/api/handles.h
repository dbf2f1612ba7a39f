// What the opaque handles of lorica.h are. Handles share ownership of what they are made from, so that no order of *_free calls
// can leave one with a dangling pointer.
#pragma once

#include <memory>
#include <string>

#include "adapter/adapter.h"
#include "generate/context.h"
#include "model/model.h"
#include "train/session.h"

struct lorica_model {
    std::shared_ptr<const lorica::Model> model;
    std::string device, device_detail;
};

struct lorica_adapter {
    std::shared_ptr<lorica::Adapter> adapter;
    std::vector<std::string> tensor_names;
};

struct lorica_train {
    lorica::Session session;
};

struct lorica_context {
    lorica::Context context;
};
