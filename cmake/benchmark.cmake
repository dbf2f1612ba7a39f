# Google Benchmark, for native/bench. Not fetched: without it there are no benchmarks and nothing else is missing.
find_package(benchmark 1.7 CONFIG QUIET)
