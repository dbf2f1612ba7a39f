#include "run/plans.h"

#include <algorithm>

namespace lorica {

const BlockPlan & Plans::of(const Program & program, const TrainedSites & sites, const Wanted & wanted) {
    auto & plan = plans_[{&program, sites, wanted}];
    if (!plan) plan = std::make_unique<const BlockPlan>(derive(program, sites, wanted));
    return *plan;
}

WorkspaceShape workspace_shape(const Model & model) {
    WorkspaceShape shape;
    shape.max_features = model.shape().n_embd;
    shape.n_vocab = model.architecture().has_head() ? model.shape().n_vocab : 0;
    std::vector<RopeSpec> ropes;
    for (const Program & kind : model.architecture().kinds) {
        for (const LinearSpec & linear : kind.linears)
            shape.max_features = std::max({shape.max_features, linear.in, linear.out});
        for (const AttentionSpec & attention : kind.attentions) {
            shape.n_head = std::max(shape.n_head, attention.n_head);
            shape.n_head_kv = std::max(shape.n_head_kv, attention.n_head_kv);
            shape.head_dim = std::max(shape.head_dim, attention.head_dim);
        }
        for (const Node & node : kind.nodes) {
            if (node.op == Op::linear) shape.max_shared = std::max<int32_t>(shape.max_shared, node.n_out);
        }
        for (const RopeSpec & rope : kind.ropes) {
            if (std::find(ropes.begin(), ropes.end(), rope) == ropes.end()) ropes.push_back(rope);
        }
    }
    shape.n_ropes = std::max<int32_t>(1, static_cast<int32_t>(ropes.size()));
    return shape;
}

}  // namespace lorica
