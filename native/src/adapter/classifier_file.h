// The classifier of an adapter in its GGUF file: tensors cls.weight, cls.bias, cls.output.weight and cls.output.bias
// under llama.cpp's names of a model's own, and metadata lorica.classifier.labels and lorica.classifier.problem.
#pragma once

#include <string_view>

#include "adapter/adapter.h"
#include "gguf/gguf_file.h"
#include "gguf/gguf_writer.h"

namespace lorica {

bool is_of_classifier(std::string_view tensor);

// Of a file without one: no outputs. Errors: FORMAT.
ClassifierConfig read_classifier(const GgufFile & file);
void write_classifier(const ClassifierConfig & config, GgufWriter & writer);

}  // namespace lorica
