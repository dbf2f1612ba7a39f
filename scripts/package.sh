#!/usr/bin/env bash
# Makes what a person installs, for this kind of machine, in build/package:
#
#   lorica-VERSION-linux-x86_64.tar.gz   unpack it anywhere and call bin/lorica: a Java runtime of its own is inside
#   lorica_VERSION_amd64.deb             the same files below /usr/lib/lorica, with /usr/bin/lorica
#
#   scripts/package.sh [--portable]
#
# Both bring completion for bash, zsh and fish, and manual pages made from the help texts. The same sources give the same bytes.
# What is made here runs where the C library is at least that of the system it was made on; the last lines say which one that is.
# --portable makes what is released, which runs with glibc 2.34: Debian 12, Ubuntu 22.04, RHEL 9, Amazon Linux 2023. It compiles ggml and
# Highway, from their repositories or from the folders LORICA_GGML_SOURCE and LORICA_HIGHWAY_SOURCE, and needs a JDK that runs there too, in
# LORICA_RUNTIME_JDK: Debian's asks for Debian's C library, Temurin's for one of 2012.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

case $#${1-} in
    0) ;;
    1--portable) export LORICA_PORTABLE=ON ;;
    *) die "takes no argument but --portable" ;;
esac
use_toolchain "$@"
jlink=${LORICA_RUNTIME_JDK:+$LORICA_RUNTIME_JDK/bin/}jlink
export LORICA_CPU_TARGETS=all
command -v unzip >/dev/null || die "needs unzip"
command -v "$jlink" >/dev/null || die "needs jlink, which is part of a JDK${LORICA_RUNTIME_JDK:+, and is not in $LORICA_RUNTIME_JDK}"
build_program

# Of everything that lies in an archive: the time of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git -C "$checkout" log -1 --format=%ct 2>/dev/null || date +%s)}
export SOURCE_DATE_EPOCH
version=$(sed -n '0,/<version>/s|.*<version>\(.*\)</version>.*|\1|p' "$checkout/pom.xml")
case $(uname -m) in
    x86_64) platform=linux-x86_64 debian=amd64 architecture=i386:x86-64 ;;
    aarch64) platform=linux-arm64 debian=arm64 architecture=aarch64 ;;
    *) die "packages are made on x86-64 and arm64, not on $(uname -m)" ;;
esac
out=$build/package
name=lorica-$version-$platform
home=$out/$name

# ---- the files

lay_out() {
    rm -rf "$home" &&
        mkdir -p "$home/bin" "$home/lib" &&
        cp -R "$program/lorica-cli.jar" "$program/lib" "$home/lib/" &&
        strip_libraries &&
        make_runtime &&
        cp "$checkout/LICENSE" "$home/" &&
        write_readme >"$home/README.md" &&
        write_launcher >"$home/bin/lorica" &&
        chmod 755 "$home/bin/lorica" &&
        share_classes &&
        document
}

# The native libraries without what only a debugger reads, in their jar, with the time that they had there, by which JavaCPP tells builds apart.
strip_libraries() {
    local jar folder=$out/native time parts
    for jar in "$home"/lib/lib/lorica-native-*.jar; do
        rm -rf "$folder" && mkdir -p "$folder" && (cd "$folder" && jar --extract --file "$jar") || return
        time=$(find "$folder" -name '*.so*' -printf '%Ts\n' | sort | tail -n1)
        parts=(-C "$folder" dev)
        [ ! -e "$folder/module-info.class" ] || parts+=(-C "$folder" module-info.class) # that of a GPU has none
        find "$folder" -name '*.so*' -exec strip --strip-unneeded {} + &&
            jar --create --file "$jar.tmp" --manifest "$folder/META-INF/MANIFEST.MF" \
                --date "$(date -u -d "@$time" +%FT%TZ)" "${parts[@]}" &&
            mv "$jar.tmp" "$jar" || return
    done
    rm -rf "$folder"
}

# Java with the modules that the program and its libraries need: what `jdeps -s` names, and elliptic curves for TLS, which are found by
# name. What Jackson and snakeyaml could do with java.desktop, java.sql and java.xml is not used.
make_runtime() {
    "$jlink" --add-modules java.base,java.logging,java.net.http,jdk.crypto.ec,jdk.httpserver,jdk.jfr,jdk.unsupported --output "$home/runtime" \
        --strip-debug --no-header-files --no-man-pages --compress zip-6 --vm server --generate-cds-archive
}

write_launcher() {
    cat <<'SH'
#!/bin/sh
# Lorica, with the Java runtime beside it. LORICA_JAVA_OPTS has options for Java, such as -Xmx4g.
self=$(readlink -f "$0")
home=${self%/bin/lorica}
# Java reads arguments and file names in the encoding of the locale, and everything here is UTF-8.
[ "$(locale charmap 2>/dev/null)" = UTF-8 ] || export LC_ALL=C.UTF-8
# shellcheck disable=SC2086 # several options
exec "$home/runtime/bin/java" -XX:+UseSerialGC -Xshare:auto \
    "-XX:SharedArchiveFile=$home/lib/lorica.jsa" ${LORICA_JAVA_OPTS-} -jar "$home/lib/lorica-cli.jar" "$@"
SH
}

# The classes of all commands, which completion is made of, laid out as they are in memory: the program starts sooner.
share_classes() {
    dated "$home" && # Java compares the times of the jars
        "$home/runtime/bin/java" -XX:+UseSerialGC "-XX:ArchiveClassesAtExit=$home/lib/lorica.jsa" \
        -jar "$home/lib/lorica-cli.jar" completion bash >/dev/null && [ -s "$home/lib/lorica.jsa" ]
}

write_readme() {
    cat <<MD
# Lorica $version

Fine-tunes quantized language models: a GGUF file goes in, a LoRA adapter comes out that llama.cpp and Hugging Face PEFT load.

    bin/lorica train --model llama.gguf --data questions.json --output my-adapter
    bin/lorica generate --model llama.gguf --adapter my-adapter -i "Who is he?"

\`bin/lorica COMMAND --help\` explains a command; \`share/man\` has the same as manual pages, \`share/bash-completion\`, \`share/zsh\` and
\`share/fish\` have completion. Nothing else is needed: a Java runtime is in \`runtime\` (its licences in \`runtime/legal\`).
MD
}

document() {
    local share=$home/share
    mkdir -p "$share/bash-completion/completions" "$share/zsh/site-functions" "$share/fish/vendor_completions.d"
    "$home/bin/lorica" completion bash >"$share/bash-completion/completions/lorica"
    "$home/bin/lorica" completion zsh >"$share/zsh/site-functions/_lorica"
    "$home/bin/lorica" completion fish >"$share/fish/vendor_completions.d/lorica.fish"
    "$home/bin/lorica" man-pages "$share/man/man1"
}

# ---- the archives

dated() { find "$1" -exec touch --no-dereference --date "@$SOURCE_DATE_EPOCH" {} +; }

pack_tar() {
    dated "$home"
    tar --create --sort=name --owner=0 --group=0 --numeric-owner --mtime "@$SOURCE_DATE_EPOCH" -C "$out" "$name" |
        gzip -n -9 >"$out/$name.tar.gz.tmp"
    mv "$out/$name.tar.gz.tmp" "$out/$name.tar.gz"
}

pack_deb() {
    local root=$out/deb file=$out/lorica_${version/-/\~}_$debian.deb
    rm -rf "$root"
    mkdir -p "$root/DEBIAN" "$root/usr/lib/lorica" "$root/usr/bin" "$root/usr/share/doc/lorica"
    cp -R "$home/bin" "$home/lib" "$home/runtime" "$root/usr/lib/lorica/"
    cp -R "$home/share/." "$root/usr/share/"
    mkdir -p "$root/usr/share/zsh/vendor-completions"
    mv "$root/usr/share/zsh/site-functions/_lorica" "$root/usr/share/zsh/vendor-completions/"
    rmdir "$root/usr/share/zsh/site-functions"
    gzip -n -9 "$root"/usr/share/man/man1/*.1
    cp "$checkout/LICENSE" "$root/usr/share/doc/lorica/copyright"
    ln -s ../lib/lorica/bin/lorica "$root/usr/bin/lorica"
    cat >"$root/DEBIAN/control" <<CONTROL
Package: lorica
Version: ${version/-/\~}
Architecture: $debian
Maintainer: Lorica <lorica@localhost>
Section: science
Priority: optional
Installed-Size: $(du -k -s "$root" | cut -f1)
Depends: libc6 (>= $(library_needs)), libgcc-s1, libstdc++6
Description: fine-tunes quantized language models
 A GGUF file goes in, a LoRA adapter comes out that llama.cpp and Hugging Face
 PEFT load. A Java runtime is inside.
CONTROL
    dated "$root"
    dpkg-deb --root-owner-group -Zgzip --build "$root" "$file.tmp"
    mv "$file.tmp" "$file"
    rm -rf "$root"
}

# The newest version of the C library that a native library here asks for.
library_needs() { needs | cut -d' ' -f1 | sort -uV | tail -n1; }

# Each version of the C library that a file here asks for, and the file: a line "2.34 FILE".
needs() {
    local folder=$out/needs jar file
    if [ ! -d "$folder" ]; then
        for jar in "$home"/lib/lib/*.jar; do
            mkdir -p "$folder/${jar##*/}"
            unzip -qqo "$jar" '*.so' '*.so.*' -d "$folder/${jar##*/}" 2>/dev/null || [ $? = 11 ] # 11: it has none
        done
    fi
    # Jars that are for all systems and processors have files of others in them.
    (cd "$out" && find needs "$name/runtime" -type f \( -name '*.so' -o -name '*.so.*' -o -path '*/runtime/bin/*' \) -print) |
        grep -viE '/[^/]*(freebsd|sunos|solaris|musl|android)[^/]*/' |
        while IFS= read -r file; do
            [ "$(objdump -f "$out/$file" 2>/dev/null | sed -n 's/^architecture: \([^,]*\),.*/\1/p')" = "$architecture" ] || continue
            objdump -T "$out/$file" | grep -oE 'GLIBC_2\.[0-9]+' | sort -u | sed "s|GLIBC_\(.*\)|\1 $file|"
        done
}

# As the test "glibc" for the native library alone; here with the Java runtime and all other libraries too.
check_needs() {
    local limit version file above=0
    if wants_portable; then
        limit=$(sed -n 's/^set(LORICA_GLIBC_LIMIT \([0-9.]*\) .*/\1/p' "$checkout/native/portable/CMakeLists.txt")
    else
        limit=$(sed -n 's/.*set(LORICA_GLIBC_LIMIT \([0-9.]*\) .*/\1/p' "$checkout/native/CMakeLists.txt")
    fi
    while read -r version file; do
        if [ "$(printf '%s\n' "$version" "$limit" | sort -V | tail -n1)" != "$limit" ]; then
            echo "glibc $version is asked for by $file"
            above=1
        fi
    done < <(needs)
    [ $above = 0 ] || die "glibc $limit is to do; what asks for more in the folder runtime comes with the JDK (LORICA_RUNTIME_JDK)"
    echo "glibc $(library_needs) is needed, $limit may be"
}

mkdir -p "$out"
step package-files "The program with a Java runtime" lay_out
rm -rf "$out/needs"
step package-needs "What they need of the C library" check_needs
step package-tar "$name.tar.gz" pack_tar
step package-deb "lorica_${version/-/\~}_$debian.deb" pack_deb
printf 'In %s:\n' "$out"
(cd "$out" && du -h --apparent-size -- *.tar.gz *.deb)
printf 'They need a C library of version %s or newer.\n' "$(library_needs)"
used=$(sed -n 's/^set(LORICA_BUILT_WITH_GGML \(.*\))$/\1/p' "$native_build/versions.cmake")
[ "$used" = "$(ggml_version)" ] || printf 'They have ggml %s inside, and %s is what Lorica is tested with.\n' "$used" "$(ggml_version)"
rm -rf "$out/needs"
