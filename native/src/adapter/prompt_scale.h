// By what the embeddings of virtual tokens are multiplied on their way into a model.
#pragma once

#include "model/model.h"

namespace lorica {

// Trained ones stand where transformers' models take embeddings from outside: behind the scale of Gemma, which belongs
// to its table, and before that of Granite.
inline double prompt_scale(const Model & model) {
    return model.shape().architecture == "granite" ? model.architecture().prologue.embeds.front().scale : 1;
}

}  // namespace lorica
