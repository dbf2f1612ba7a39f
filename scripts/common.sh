# Sourced by the other scripts: where things are, what this system can build with, and steps with logs.
# shellcheck shell=bash

checkout=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)
build=$checkout/build
native_build=$checkout/native/build
program=$checkout/java/lorica-cli/target/lorica # a folder: lorica-cli.jar, lib/
spark_module=$checkout/java/lorica-spark/target/spark # a folder: lorica-spark.jar, lib/, spark.classpath
jobs=$(nproc)

die() {
    printf '%s: %s\n' "$(basename "$0")" "$*" >&2
    exit 1
}

# ---- what to build with

in_devroot() { [ -e /etc/lorica-devroot ]; }

java_release() { # the major version of a JDK, from the file that every JDK has: no JVM is started
    local home=${JAVA_HOME:-none} # not empty: many systems have a /bin/javac
    if [ ! -x "$home/bin/javac" ]; then
        home=$(readlink -f "$(command -v javac)") || return 0
        home=${home%/bin/javac}
    fi
    sed -n 's/^JAVA_VERSION="\([0-9]*\).*/\1/p' "$home/release" 2>/dev/null || true
}

# Homes of the JDKs of this machine that the program runs on, but the one that builds it.
other_jdks() {
    local home mine release
    mine=$(readlink -f "${JAVA_HOME:-$(dirname "$(readlink -f "$(command -v javac)")")/..}")
    for home in /usr/lib/jvm/*/; do
        home=$(readlink -f "$home")
        [ -x "$home/bin/java" ] && [ "$home" != "$mine" ] || continue
        release=$(JAVA_HOME=$home java_release)
        [ "${release:-0}" -lt 17 ] || echo "$home"
    done | sort -u
}

has_headers() {
    local header
    for header in "$@"; do printf '#if !__has_include(<%s>)\n#error missing\n#endif\n' "$header"; done |
        "${CXX:-g++}" -E -x c++ - >/dev/null 2>&1
}

ggml_version() { sed -n 's|^ *set(LORICA_GGML_VERSION \([0-9.]*\))$|\1|p' "$checkout/cmake/ggml.cmake"; }

host_lacks() { # names what is missing to build on this system as it is; nothing when nothing is
    local found minimum ggml
    found=$("${CXX:-g++}" -dumpversion 2>/dev/null || echo 0)
    [ "${found%%.*}" -ge 13 ] || echo "g++ 13"
    minimum=3.28
    found=$(cmake --version 2>/dev/null | sed -n '1s/^cmake version //p')
    [ "$(printf '%s\n' $minimum "${found:-0}" | sort -V | head -n1)" = $minimum ] || echo "cmake $minimum"
    found=$(java_release)
    [ "${found:-0}" -ge 21 ] || echo "JDK 21" # javac 17 cannot read the Parquet library; what comes out runs on 17
    command -v mvn >/dev/null || echo maven
    ggml=$(ggml_version)
    if ! has_headers ggml.h gguf.h || ! pkg-config --atleast-version="$ggml" ggml 2>/dev/null; then echo "ggml $ggml"; fi
    has_headers hwy/highway.h || echo highway
    has_headers gtest/gtest.h gmock/gmock.h || echo googletest
}

can_fetch() { # libraries that are not installed can be built from their repositories
    GIT_TERMINAL_PROMPT=0 timeout 10 git ls-remote --exit-code \
        "$(sed -n 's/^ *GIT_REPOSITORY //p' "$checkout/cmake/ggml.cmake")" "refs/tags/v$(ggml_version)" >/dev/null 2>&1
}

# Whether the build is to be done in the Debian 13 root; says what is missing here when that decides it.
# LORICA_TOOLCHAIN=host or =devroot decides without looking.
wants_devroot() {
    local lacks
    case ${LORICA_TOOLCHAIN:-auto} in
        host) return 1 ;;
        devroot) return 0 ;;
        auto)
            lacks=$(host_lacks | paste -sd, | sed 's/,/, /g')
            case $lacks in
                '') return 1 ;;
                *g++* | *cmake* | *JDK* | *maven*) ;;
                *) ! can_fetch || return 1 ;;
            esac
            echo "This system lacks $lacks: using a Debian 13 root for it (scripts/devroot.sh)." >&2
            ;;
        *) die "LORICA_TOOLCHAIN is '$LORICA_TOOLCHAIN': it may be auto, host or devroot" ;;
    esac
}

# Goes on where the build works: here, or in the Debian 13 root, where the calling script then starts again.
use_toolchain() { # use_toolchain "$@"
    if in_devroot || ! wants_devroot; then return 0; fi
    exec "$checkout/scripts/devroot.sh" "$checkout/scripts/$(basename "$0")" "$@"
}

# ---- steps

# step NAME TITLE COMMAND…: one line on the screen with the seconds it took, the rest in build/logs/NAME.log, whose end
# is shown when the command fails. A function stops at its first command that fails, as the script would, where step itself
# is not part of a condition: bash forgets about set -e in all that a condition calls.
step() {
    local log=$build/logs/$1.log title=$2 started=$SECONDS
    shift 2
    mkdir -p "$build/logs"
    printf '%-44s' "$title"
    (
        exec 3>&1 >"$log" 2>&1 </dev/null
        trap 'step_ended $?' EXIT
        "$@"
    )
}

# shellcheck disable=SC2317 # called by the trap in step
step_ended() {
    if [ "$1" = 0 ]; then
        printf '%4d s\n' $((SECONDS - started)) >&3
    else
        printf '%4d s  FAILED\n' $((SECONDS - started)) >&3
        tail -n 60 "$log" >&3
        printf 'The whole log is %s\n' "$log" >&3
    fi
}

# ---- formatting

clang_format_version=19 # of another one the result may differ

native_sources() { # the hand-written ones, each ended by a zero byte
    find "$checkout/native" -path "$checkout/native/build*" -prune -o -type f ! -name 'unicode_data.*' \
        \( -name '*.h' -o -name '*.cpp' -o -name '*.cu' -o -name '*.cuh' \) -print0
}

# ---- building

# A hash of the names and contents of everything that the program is built from.
program_fingerprint() {
    (
        cd "$checkout" || return
        find cmake native/CMakeLists.txt native/lorica.map native/include native/src native/portable pom.xml java/*/pom.xml java/*/src/main \
            -type f -print0 | LC_ALL=C sort -z | xargs -0 sha256sum | sha256sum
    )
}

processor() { # what this machine's can do
    sed -n -E 's/^(flags|Features)[^:]*: *//p' /proc/cpuinfo 2>/dev/null | head -n1
}

# True when the program was built from exactly these sources and, with LORICA_GPU=ON, has the GPU library.
program_is_current() {
    [ -e "$program/lorica-cli.jar" ] && [ "$(cat "$build/program.stamp" 2>/dev/null)" = "$(program_fingerprint)" ] &&
        { ! wants_gpu || [ -e "$build/program.gpu" ]; } && { ! wants_portable || [ -e "$build/program.portable" ]; } &&
        { [ ! -e "$build/program.native" ] || { [ "${LORICA_CPU_TARGETS:-}" != all ] && [ "$(cat "$build/program.native")" = "$(processor)" ]; }; }
}

# Where somebody just wants the program it is compiled for this machine's instruction set alone, and sooner (LORICA_CPU_TARGETS=native in
# native/CMakeLists.txt); where it is tested or packed for all of them, and from then on.
cpu_targets() {
    local cache=$native_build/CMakeCache.txt
    if [ -n "${LORICA_CPU_TARGETS:-}" ]; then
        echo "$LORICA_CPU_TARGETS"
    elif [ -e "$cache" ]; then
        sed -n 's/^LORICA_CPU_TARGETS:[A-Z]*=//p' "$cache"
    else
        echo native
    fi
}

# LORICA_GPU=ON builds the program with liblorica-cuda.so in it, which needs nvcc and takes minutes; CUDAARCHS=90a, or the number
# of another compute capability, builds it for one GPU alone and is quicker.
wants_gpu() { [ "${LORICA_GPU:-OFF}" = ON ]; }
case ${LORICA_GPU:-OFF} in ON | OFF) ;; *) die "LORICA_GPU is '$LORICA_GPU': it may be ON or OFF" ;; esac

# LORICA_PORTABLE=ON builds the program with a native library that runs on older systems (native/portable), in build/portable.
wants_portable() { [ "${LORICA_PORTABLE:-OFF}" = ON ]; }
case ${LORICA_PORTABLE:-OFF} in ON | OFF) ;; *) die "LORICA_PORTABLE is '$LORICA_PORTABLE': it may be ON or OFF" ;; esac

if command -v ninja >/dev/null; then export CMAKE_GENERATOR=${CMAKE_GENERATOR:-Ninja}; fi

# LORICA_GGML_SOURCE and LORICA_HIGHWAY_SOURCE are folders with their sources, for where their repositories cannot be reached, and where the
# system's packages are not to be taken.
source_options() {
    source_options=(-UFETCHCONTENT_SOURCE_DIR_GGML -UFETCHCONTENT_SOURCE_DIR_HIGHWAY)
    [ -z "${LORICA_GGML_SOURCE:-}" ] || source_options[0]=-DFETCHCONTENT_SOURCE_DIR_GGML=$(realpath "$LORICA_GGML_SOURCE")
    [ -z "${LORICA_HIGHWAY_SOURCE:-}" ] || source_options[1]=-DFETCHCONTENT_SOURCE_DIR_HIGHWAY=$(realpath "$LORICA_HIGHWAY_SOURCE")
}

of_tests=(-DLORICA_TESTS=ON -DLORICA_CUDA=AUTO) # what the build folder is for beside the program

# shellcheck disable=SC2120 # options are passed by test-sanitized.sh
configure_native() { # configure_native [CMAKE_OPTION…]
    # A build folder of another system's compiler or libraries is of no use.
    local system
    system=$(sed -n 's/^PRETTY_NAME=//p' /etc/os-release 2>/dev/null || uname -sr)
    if [ -e "$native_build/CMakeCache.txt" ] && [ "$(cat "$native_build/system" 2>/dev/null)" != "$system" ]; then
        rm -rf "$native_build"
    fi
    mkdir -p "$native_build"
    echo "$system" >"$native_build/system"
    source_options
    cmake -S "$checkout/native" -B "$native_build" "-DLORICA_WERROR=${LORICA_WERROR:-OFF}" "-DLORICA_CPU_TARGETS=${LORICA_CPU_TARGETS:-all}" \
        "${source_options[@]}" "${of_tests[@]}" "$@"
}

build_native() { # build_native TARGET…
    # shellcheck disable=SC2119
    configure_native && cmake --build "$native_build" -j"$jobs" --target "$@"
}

build_gpu() {
    cmake -S "$checkout/native" -B "$build/gpu" -DLORICA_CUDA=ON -DLORICA_TESTS=OFF &&
        cmake --build "$build/gpu" -j"$jobs" --target lorica_cuda
}

build_portable() {
    local sysroot
    ! wants_gpu || die "LORICA_PORTABLE and LORICA_GPU go not together yet: the GPU library is built for this system alone"
    sysroot=$("$checkout/scripts/sysroot.sh")
    source_options
    cmake -S "$checkout/native/portable" -B "$build/portable" "-DLORICA_BUILD=$native_build" "-DLORICA_SYSROOT=$sysroot" "${source_options[@]}" &&
        cmake --build "$build/portable" -j"$jobs" --target lorica
}

# build/lorica.jsa: the classes that starting `lorica serve` takes, which are most of what other commands take too, as they are in
# memory (class-data sharing). Java leaves it alone where the jars or Java itself have changed since.
archive_classes() {
    local jar=$program/lorica-cli.jar list=$build/lorica.classes said=$build/logs/class-archive.serve.log java=java server
    [ ! -x "${JAVA_HOME:-none}/bin/java" ] || java=$JAVA_HOME/bin/java
    "$java" -XX:+UseSerialGC "-XX:DumpLoadedClassList=$list" -jar "$jar" serve --model "$checkout/models/austen-7m-q4_0.gguf" --port 0 \
        >"$said" 2>&1 &
    server=$!
    for _ in $(seq 600); do
        if grep -q '^Ctrl-C' "$said" || ! kill -0 $server 2>/dev/null; then break; fi
        sleep 0.1
    done
    kill -TERM $server 2>/dev/null || true
    wait $server || true
    cat "$said"
    grep -q '^Ctrl-C' "$said" || return 1
    # The objects of the heap come into the archive with this collector, and are taken out of it with any.
    "$java" -XX:+UseG1GC -Xshare:dump "-XX:SharedClassListFile=$list" "-XX:SharedArchiveFile=$build/lorica.jsa.new" -cp "$jar" &&
        mv "$build/lorica.jsa.new" "$build/lorica.jsa"
}

# exec.skip: CMake was run already. Maven and the compiler are done before code that is optimized further would be of use.
run_maven() {
    (cd "$checkout" && MAVEN_OPTS="-XX:TieredStopAtLevel=1 -XX:+UseSerialGC ${MAVEN_OPTS:-}" mvn -B -ntp -Dexec.skip "$@")
}

# The Java classes, beside the native library, which only the jars have to wait for; nor do Maven's first downloads. Ctrl-C ends it too.
compile_java() {
    trap - INT
    mkdir -p "$build/logs"
    run_maven compile -Dmaven.test.skip=true -pl java/lorica-cli -am >"$build/logs/java-classes.log" 2>&1 </dev/null
}

# Builds what changed since the last time, nothing otherwise. Callers that run side by side wait for each other.
build_program() {
    local fingerprint classes compiled=() profiles=()
    mkdir -p "$build"
    exec 8>"$build/lock"
    flock 8
    if ! program_is_current; then
        ! wants_gpu || command -v nvcc >/dev/null ||
            die "LORICA_GPU=ON needs nvcc, which is not found: install the CUDA toolkit, 12.8 or newer"
        fingerprint=$(program_fingerprint)
        LORICA_CPU_TARGETS=$(cpu_targets)
        # Neither googletest nor nvcc is looked for.
        [ "$LORICA_CPU_TARGETS" != native ] || of_tests=(-DLORICA_TESTS=OFF -DLORICA_CUDA=OFF)
        if wants_portable; then
            step native-build "Building the native core" build_native lorica_core
            step portable-build "Linking it for older systems" build_portable
            profiles=("-Dnative.build=$build/portable" "-Dnative.sysroot=$("$checkout/scripts/sysroot.sh")")
        elif wants_gpu; then
            step native-build "Building the native library" build_native lorica
        else
            compile_java &
            classes=$!
            step native-build "Building the native library" build_native lorica
            ! wait $classes || compiled=(-Dmaven.main.skip=true) # else the step below says why
        fi
        if wants_gpu; then
            step gpu-build "Compiling the CUDA kernels, some minutes" build_gpu
            profiles=(-Pgpu)
        fi
        step java-build "Building the Java modules" run_maven "${profiles[@]}" package -Dmaven.test.skip=true \
            "${compiled[@]}" -pl java/lorica-cli -am
        rm -f "$build/lorica.jsa"
        (step class-archive "Laying out classes for a sooner start" archive_classes >&2) || rm -f "$build/lorica.jsa" # it starts without
        program_built "$fingerprint" "${profiles[@]}"
    fi
    exec 8>&-
}

# ---- tests of other processors and systems

all_tests() { # the test programs of native/tests, but those of GPUs
    local source
    for source in "$checkout"/native/tests/*_test.cpp; do
        source=${source##*/}
        case $source in cuda_*) ;; *) echo "${source%.cpp}" ;; esac
    done
}

# A test program, or what `filter` leaves of it, in as many parts at a time as there are processors; prints what became of its entries. Of the
# devices the CPU alone: the plain loops to compare with are computed anyway.
test_elsewhere() { # test_elsewhere PROGRAM FILTER EMULATOR…
    local program=$1 filter=$2 parts=() part failed=0 logs
    logs=$build/logs/$(basename "$program")
    shift 2
    rm -f "$logs".[0-9]*
    for ((part = 0; part < jobs; part++)); do
        GTEST_TOTAL_SHARDS=$jobs GTEST_SHARD_INDEX=$part LORICA_TEST_DEVICES=cpu "$@" "$program" "--gtest_filter=$filter" \
            >"$logs.$part" 2>&1 </dev/null &
        parts+=($!)
    done
    for part in "${parts[@]}"; do wait "$part" || failed=1; done
    grep -hvE '^\[( RUN|       OK|-)' "$logs".[0-9]* || true
    sed -n 's/\r$//; s/^\[  \(PASSED\|SKIPPED\|FAILED\) *\] \([0-9]*\) tests\?[.,].*/\1 \2/p' "$logs".[0-9]* |
        awk '{ n[$1] += $2 }
            END { printf "total: %d passed, %d failed, %d skipped\n", n["PASSED"], n["FAILED"], n["SKIPPED"]; exit !n["PASSED"] }' ||
        failed=1 # nothing was run
    return $failed
}

# The module for Apache Spark, which nothing but scripts/spark-local.sh asks for.
build_spark() {
    local fingerprint
    mkdir -p "$build"
    exec 8>"$build/lock"
    flock 8
    fingerprint=$(program_fingerprint)
    if [ "$(cat "$build/spark.stamp" 2>/dev/null)" != "$fingerprint" ] || [ ! -e "$spark_module/lorica-spark.jar" ]; then
        step native-build "Building the native library" build_native lorica >&2
        step spark-build "Building the module for Apache Spark" run_maven -Pspark package -Dmaven.test.skip=true \
            -pl java/lorica-spark -am >&2
        echo "$fingerprint" >"$build/spark.stamp"
    fi
    exec 8>&-
}

program_built() { # program_built FINGERPRINT [MAVEN_OPTION…]: of the sources that it was built from, and with what beside
    rm -f "$build/program.gpu" "$build/program.portable" "$build/program.native"
    [ "${LORICA_CPU_TARGETS:-all}" != native ] || processor >"$build/program.native"
    case "${*:2}" in
        *-Pgpu*) : >"$build/program.gpu" ;;
        *native.sysroot*) : >"$build/program.portable" ;;
    esac
    if in_devroot; then echo devroot; else echo host; fi >"$build/program.toolchain"
    echo "$1" >"$build/program.stamp"
}

# Replaces this process by the program. What was linked against the libraries of the Debian 13 root runs there.
run_program() {
    local java=java arguments=(-XX:+UseSerialGC) command=scripts/lorica release
    if [ "$(cat "$build/program.toolchain")" = devroot ] && ! in_devroot; then
        exec "$checkout/scripts/devroot.sh" "$checkout/scripts/lorica" "$@"
    fi
    # Java reads arguments and file names in the encoding of the locale, and everything here is UTF-8.
    [ "$(locale charmap 2>/dev/null)" = UTF-8 ] || export LC_ALL=C.UTF-8
    # What the program calls itself where it says how to go on.
    [ "$PWD" = "$checkout" ] || command=$checkout/$command
    [ ! -x "${JAVA_HOME:-none}/bin/java" ] || java=$JAVA_HOME/bin/java
    release=$(java_release)
    [ "${release:-0}" -lt 22 ] || arguments+=(--enable-native-access=ALL-UNNAMED)
    [ ! -e "$build/lorica.jsa" ] || arguments+=("-XX:SharedArchiveFile=$build/lorica.jsa" '-Xlog:cds*=off')
    exec "$java" "${arguments[@]}" "-Dlorica.command=$command" -jar "$program/lorica-cli.jar" "$@"
}
