// The commands of lorica-bench. Each prints a table to stderr and returns what goes to stdout as JSON.
#pragma once

#include "json.h"
#include "options.h"

namespace lorica::bench {

Json run_steps(const Options & options);    // steps.cpp
Json run_ceiling(const Options & options);  // products.cpp
Json run_gemm(const Options & options);
Json run_decode(const Options & options);  // decode.cpp
Json run_merge(const Options & options);   // merge.cpp
Json run_start(const Options & options);   // start.cpp
Json run_scaling(const Options & options);
Json run_trace(const Options & options);  // trace.cpp

}  // namespace lorica::bench
