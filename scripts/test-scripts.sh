#!/usr/bin/env bash
# Tests what the scripts share, in seconds: a step ends at its first failure, shows its log, and ends the script that called it. And
# what gpu-check.sh says of programs that stand for those which need a GPU.
# Takes no arguments.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

for script in "$checkout"/scripts/*.sh "$checkout/scripts/lorica"; do bash -n "$script"; done

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
cat >"$work/steps.sh" <<SH
set -euo pipefail
source "$checkout/scripts/common.sh"
build=$work
good() { echo fine; }
bad() { echo begun; false; echo went on; }
piped() { false | cat; echo went on; }
dies() { die "no such thing"; }
step good "A good one" good
"\$@"
echo the script went on
SH
failed=0
check() { # check WANTED COMMAND…: the script fails, and what it says has WANTED, and nothing behind the failure
    local wanted=$1 said status=0
    shift
    said=$(bash "$work/steps.sh" "$@" 2>&1) || status=$?
    if [ $status = 0 ] || ! grep -q "$wanted" <<<"$said" || grep -q 'went on' <<<"$said" || ! grep -q '^A good one .* [0-9]* s$' <<<"$said"; then
        printf 'status %s of: %s\n%s\n' $status "$*" "$said"
        failed=1
    fi
}
check 'A bad one .* s  FAILED' step bad "A bad one" bad
check begun step bad "A bad one" bad
check 'A pipe .* s  FAILED' step piped "A pipe" piped
check 'no such thing' step dies "One that dies" dies
check 'The whole log is' step none "No such command" no-such-command

# build_program: Java is compiled beside the native library and not again after it, or, where that failed, in the step that shows why.
cat >"$work/build.sh" <<SH
set -euo pipefail
source "$checkout/scripts/common.sh"
build=$work/program native_build=$work/none
program_is_current() { false; }
build_native() { sleep 0.1; echo "native \$LORICA_CPU_TARGETS"; }
run_maven() { echo "maven \$*" | tee -a "$work/said"; [ "\$1" != "\${fails:-}" ]; }
archive_classes() { :; }
program_built() { echo built >>"$work/said"; }
build_program
SH
built() { # built STATUS WANTED: with this status, after runs of Maven that have the words of WANTED, one run a line
    local status=0 wanted=$2 said
    : >"$work/said"
    LORICA_CPU_TARGETS=native LORICA_GPU=OFF LORICA_PORTABLE=OFF bash "$work/build.sh" >/dev/null 2>&1 || status=$?
    said=$(sed -E 's/^maven ([a-z]+).*(-Dmaven\.main\.skip=true).*/\1 \2/; s/^maven ([a-z]+).*/\1/' "$work/said")
    if [ $status != "$1" ] || [ "$said" != "$wanted" ]; then
        printf 'build_program: status %s, not %s, of\n%s\n' $status "$1" "$said"
        failed=1
    fi
}
built 0 "compile
package -Dmaven.main.skip=true
built"
fails=compile built 0 "compile
package
built"
fails=package built 1 "compile
package -Dmaven.main.skip=true"

# Without JAVA_HOME too, Java is found, and what it is: the program starts as it does with one.
if command -v javac >/dev/null; then
    [ -n "$(unset JAVA_HOME && java_release)" ] || { echo "no release of the JDK in PATH was found"; failed=1; }
    mkdir -p "$work/build" && echo host >"$work/build/program.toolchain"
    in_devroot && echo devroot >"$work/build/program.toolchain"
    said=$( (unset JAVA_HOME && build=$work/build program=$work && run_program --version) 2>&1) || true
    grep -q 'lorica-cli.jar' <<<"$said" || { echo "without JAVA_HOME: $said"; failed=1; }
fi

# gpu-check.sh: losses that differ fail, and the same ones pass; what the GPU lacks is left out, and so is what the budget has no time for.
programs=$work/programs
mkdir "$programs" "$work/path"
for name in backend_parity_test backend_parity_rows_test cuda_session_test cuda_attention_test; do
    cat >"$programs/$name" <<'SH'
#!/bin/sh
case $* in *--gtest_list_tests*) printf 'Suite.\n  Test\n' ;; *) sleep "${SLOW:-0}"; printf '[  PASSED  ] 1 test.\n' ;; esac
SH
done
cat >"$programs/lorica-bench" <<'SH'
#!/bin/sh
loss=7.5
[ "${LORICA_CUDA_WGMMA:-0}" = 0 ] || loss=${WGMMA_LOSS:-7.51}
[ "${LORICA_CUDA_TMA:-0}" = 0 ] || loss=${TMA_LOSS:-7.51}
printf '{"device": "A GPU, bf16%s", "loss": %s, "tokens_per_second": {"median": 1}, "decode_tokens_per_second": 2}\n' \
    "${INSTRUCTIONS-, wgmma with TMA${LORICA_CUDA_OVERLAP:+, overlapping}}" "$loss"
SH
printf '#!/bin/sh\necho "$*" >>"$SANITIZED"\necho "========= ERROR SUMMARY: 0 errors"\n' >"$work/path/compute-sanitizer"
chmod +x "$programs"/* "$work/path/compute-sanitizer"
export SANITIZED=$work/sanitized LORICA_CUDA_ON_CPU_MACHINE=Hopper/9.0/8192
gpu_check() { # gpu_check STATUS WANTED [ARGUMENT…]: it ends with this status, and its table has each line of WANTED
    local status=0 wanted line
    : >"$SANITIZED"
    PATH=$work/path:$PATH PEERS_PYTHON='' "$checkout/scripts/gpu-check.sh" --build "$programs" --out "$work/gpu" --shapes tiny1b "${@:3}" >/dev/null 2>&1 || status=$?
    wanted=$(grep . <<<"$2")
    [ "$status" = "$1" ] || { printf 'gpu-check.sh %s: status %s, not %s\n' "${*:3}" $status "$1"; failed=1; }
    while IFS= read -r line; do
        grep -qF -- "$line" "$work/gpu/table.md" && continue
        printf 'gpu-check.sh %s: nothing of "%s" in\n' "${*:3}" "$line"
        cat "$work/gpu/table.md"
        failed=1
    done <<<"$wanted"
}
gpu_check 0 '
| tiny1b, loss with and without wgmma | pass | 7.51, 7.5 |
| tiny1b, loss with and without TMA | pass | 7.51, 7.51 |
| tiny1b Q4_K, decoding, overlapping kernels | 2.0 tok/s |
| racecheck of products with TMA | pass |
| synccheck of products with TMA | pass |
'
for tool in racecheck synccheck memcheck; do
    grep -q -- "--tool $tool .*LinearOfManyRows" "$SANITIZED" || { printf 'gpu-check.sh: no %s of products\n' "$tool"; failed=1; }
done
TMA_LOSS=7.52 gpu_check 1 '| tiny1b, loss with and without TMA | FAIL | 7.52, 7.51 |'
WGMMA_LOSS=8 TMA_LOSS=8 gpu_check 1 '| tiny1b, loss with and without wgmma | FAIL | 8, 7.5 |'
INSTRUCTIONS=', wgmma' gpu_check 0 '
| tiny1b Q4_K, 2048 tokens, wgmma with TMA | left out | this GPU or build has no wgmma with TMA |
| tiny1b Q4_K, decoding, overlapping kernels | left out | kernels of this GPU do not overlap |
'
! grep -q 'loss with and without TMA' "$work/gpu/table.md" || { printf 'gpu-check.sh judges a loss that is not there\n'; failed=1; }
SLOW=2 gpu_check 0 '
| operations against the reference | pass |
| whole model: gradients, recorded steps, generation | left out | the time was up |
| racecheck of products with TMA | left out | the time was up |
' --budget 1
[ $failed = 0 ]
