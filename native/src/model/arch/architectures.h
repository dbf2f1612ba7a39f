// The architectures that are known, by the name that GGUF files give them. A new one is a file here and a line in the
// list.
#pragma once

#include "model/arch/reader.h"
#include "model/describe.h"

//      function, name in general.architecture
#define LORICA_ARCHITECTURES(X) \
    X(llama, "llama")           \
    X(qwen2, "qwen2")           \
    X(qwen3, "qwen3")           \
    X(gemma, "gemma")           \
    X(gemma2, "gemma2")         \
    X(gemma3, "gemma3")         \
    X(phi3, "phi3")             \
    X(mistral3, "mistral3")     \
    X(granite, "granite")       \
    X(smollm3, "smollm3")       \
    X(olmo2, "olmo2")           \
    X(gpt2, "gpt2")             \
    X(falcon, "falcon")         \
    X(gptneox, "gptneox")       \
    X(bert, "bert")

namespace lorica {

#define LORICA_DECLARE(function, name) Architecture function(const Reader & file);
LORICA_ARCHITECTURES(LORICA_DECLARE)
#undef LORICA_DECLARE

// Errors: UNSUPPORTED for an architecture that is not in the list or a variant that is not computed, FORMAT for values
// that are missing or contradict each other.
Architecture describe(const GgufFile & file);

// "llama, …"
std::string architecture_names();

}  // namespace lorica
