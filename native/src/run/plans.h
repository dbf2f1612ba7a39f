// The plans of a model's programs, each derived once.
#pragma once

#include <map>
#include <memory>
#include <tuple>

#include "model/model.h"
#include "model/schedule.h"

namespace lorica {

class Plans {
public:
    // Lives as long as this does. The program outlives both.
    const BlockPlan & of(const Program & program, const TrainedSites & sites, const Wanted & wanted);

private:
    std::map<std::tuple<const Program *, TrainedSites, Wanted>, std::unique_ptr<const BlockPlan>> plans_;
};

// What any run of a model's programs asks of a device's workspace; the caller adds how much of it and what for.
WorkspaceShape workspace_shape(const Model & model);

}  // namespace lorica
