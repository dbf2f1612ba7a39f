#!/usr/bin/env bash
# Formats every source: C++ and CUDA with clang-format (.clang-format), Java with palantir-java-format through Maven.
# Takes no arguments. scripts/test.sh checks that nothing is left to do.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# = 0 ] || die "takes no arguments; it formats every source"
use_toolchain "$@"
clang-format --version 2>/dev/null | grep -q "version $clang_format_version\." || die "this needs clang-format $clang_format_version"
native_sources | xargs -0 clang-format -i
run_maven -q -Pspark spotless:apply
