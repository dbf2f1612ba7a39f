#!/usr/bin/env bash
# Builds and runs the examples as a stranger would: with the artifacts of `mvn -Prelease` in build/maven, which it makes and looks at, and
# with a Maven cache that is empty at first (build/examples/cache). Needs Maven Central; takes minutes. ExamplesTest runs the same sources
# with every test, in seconds, on the class path of the build.
#
#   scripts/test-examples.sh [--keep-cache]    --keep-cache: Maven's cache may be that of the run before, but for our artifacts
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

[ $# = 0 ] || { [ $# = 1 ] && [ "$1" = --keep-cache ]; } || die "takes no argument but --keep-cache"
use_toolchain "$@"

repository=$build/maven
work=$build/examples
cache=$work/cache
model=$checkout/models/austen-7m-q4_0.gguf
question="Where is Pemberley?"
version=$(sed -n '0,/<version>/s|.*<version>\(.*\)</version>.*|\1|p' "$checkout/pom.xml")

# ---- the artifacts

make_artifacts() {
    rm -rf "$repository" && build_native lorica && run_maven -Prelease clean deploy
}

# Made again from the same sources they are the same bytes. All but libjnilorica.so: JavaCPP writes its functions in the order in which the
# JVM names methods, which is another one each time. With it vary the time of the entries beside it, and what bills of materials say of its jar.
same_bytes() {
    contents >"$build/first.sums" && run_maven -Prelease clean deploy && contents >"$build/second.sums" &&
        diff "$build/first.sums" "$build/second.sums" && wc -l <"$build/first.sums"
}
contents() {
    local file
    for file in "$checkout"/java/*/target/lorica-*.jar "$checkout"/java/*/target/*.json; do
        case ${file##*/} in
            *.json) grep -v '"content" : ' "$file" | sha256sum ;;
            lorica-native-*) unzip -v "$file" | awk '$8 !~ /libjnilorica/ && NF == 8 { print $7, $8 }' ;;
            *) sha256sum <"$file" ;;
        esac | sed "s|^|${file##*/} |"
    done
}

# What Maven Central asks for, but the signatures: https://central.sonatype.org/publish/requirements/
check_artifacts() {
    local artifact folder base pom element property
    for property in lorica.url lorica.scm.url; do
        [ "$(grep -h "<$property>" "$checkout/pom.xml" "$checkout/java/lorica-bom/pom.xml" | sort -u | wc -l)" = 1 ] ||
            die "$property is not the same in pom.xml and in java/lorica-bom/pom.xml"
    done
    for artifact in bom parent core langchain4j native platform serve; do
        folder=$repository/dev/lorica/lorica-$artifact/$version
        pom=$(newest "$folder" .pom)
        for element in name description url licenses developers scm; do
            grep -q "<$element[ >]" "$pom" || grep -q '<parent>' "$pom" || die "$pom has no $element"
        done
        for element in name description; do grep -q "<$element>" "$pom" || die "$pom has no $element of its own"; done
        case $artifact in bom | parent) continue ;; esac
        base=${pom%.pom}
        for file in "$base.jar" "$base-sources.jar" "$base-javadoc.jar" "$base-cyclonedx.json"; do
            [ -s "$file" ] || die "$file is not there"
            for sum in md5 sha1; do [ -s "$file.$sum" ] || die "$file.$sum is not there"; done
        done
    done
    base=$(newest "$repository/dev/lorica/lorica-native/$version" .pom)
    unzip -l "${base%.pom}-linux-x86_64.jar" | grep -q '/liblorica.so$' || die "the native library is not in its jar"
    ! unzip -l "${base%.pom}.jar" | grep -q '\.so$' || die "a native library is in the jar that has none"
}

newest() { # newest FOLDER SUFFIX
    local found=("$1"/lorica-*"$2")
    [ -e "${found[-1]}" ] || die "nothing in $1 ends with $2"
    echo "${found[-1]}"
}

# ---- the examples

example() { # example NAME MAVEN_ARGUMENT…
    local name=$1
    shift
    (cd "$work/$name" && mvn -B -ntp -s "$work/settings.xml" "-Dmaven.repo.local=$cache" "$@")
}

plain_java() {
    example plain-java compile exec:java "-Dexec.args='$model' '$work/questions.json' '$work/adapter' '$question'" | tee "$work/said"
    grep -q Derbyshire "$work/said"
}

langchain4j() {
    example langchain4j compile exec:java "-Dexec.args='$model' '$work/adapter' '$question'" | tee "$work/said"
    grep -q Derbyshire "$work/said"
}

spring_boot() {
    local service status=0
    example spring-boot package
    java -jar "$work/spring-boot/target/spring-boot-1.jar" --server.port=0 "--lorica.model=$model" \
        "--lorica.adapter=$work/adapter" >"$work/service.log" 2>&1 &
    service=$!
    ask_service $service || status=$?
    kill $service
    return $status
}

ask_service() { # ask_service PROCESS
    local port='' answer i
    for ((i = 0; i < 120; i++)); do
        port=$(sed -n 's/.*Tomcat started on port \([0-9]*\).*/\1/p' "$work/service.log")
        [ -z "$port" ] && kill -0 "$1" || break
        sleep 1
    done
    cat "$work/service.log"
    answer=$(curl -sSf -G --data-urlencode "question=$question" "http://127.0.0.1:$port/answer") &&
        echo "$answer" && grep -q '"answer":"In Derbyshire' <<<"$answer"
}

step release "The artifacts, mvn -Prelease" make_artifacts
step release-check "What Maven Central asks for" check_artifacts
step release-again "The same bytes, made again" same_bytes
if [ $# = 0 ]; then rm -rf "$work"; else rm -rf "$cache/dev/lorica"; fi
mkdir -p "$work"
cp -R "$checkout"/examples/. "$work/"
echo '[{"question": "Where is Pemberley?", "answer": "In Derbyshire."}]' >"$work/questions.json"
rm -rf "$work/adapter"
cat >"$work/settings.xml" <<XML
<settings>
  <profiles>
    <profile>
      <id>lorica</id>
      <repositories>
        <repository>
          <id>lorica</id>
          <url>file://$repository</url>
          <snapshots>
            <enabled>true</enabled>
          </snapshots>
        </repository>
      </repositories>
    </profile>
  </profiles>
  <activeProfiles>
    <activeProfile>lorica</activeProfile>
  </activeProfiles>
</settings>
XML
step example-plain-java "Plain Java: trains, saves, loads, answers" plain_java
step example-langchain4j "LangChain4j: an assistant over the adapter" langchain4j
step example-spring-boot "Spring Boot: a service over the adapter" spring_boot
