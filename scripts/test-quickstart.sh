#!/usr/bin/env bash
# Tests scripts/quickstart.sh: with a hub that is not there, against a server on this machine that plays one, and with --offline after that.
#
#   scripts/test-quickstart.sh            two steps of each: which model it takes, what it says, its last lines
#   scripts/test-quickstart.sh --whole    whole runs: the answer to "Who is Mr. Collins?" names a clergyman or a cousin, in under
#                                         four minutes. SMOLLM2=FILE is the SmolLM2-135M-Instruct GGUF that the server has; without
#                                         it only the small model is asked.
set -euo pipefail
# shellcheck source=scripts/common.sh
source "$(dirname "${BASH_SOURCE[0]}")/common.sh"

whole=false
case ${1-} in
    '') ;;
    --whole) whole=true ;;
    *) die "there is no option $1; there is --whole" ;;
esac
work=$(mktemp -d)
server=
trap '[ -z "$server" ] || kill "$server"; rm -rf "$work"' EXIT
export HF_HUB_CACHE=$work/cache
unset HF_HUB_OFFLINE HF_TOKEN HF_HUB_DOWNLOAD_TIMEOUT

failed=0
expect() { # expect LOG PATTERN…: each is in the log
    local log=$1 pattern
    shift
    for pattern in "$@"; do
        grep -qE -- "$pattern" "$log" || {
            echo "there is no \"$pattern\" in:"
            sed 's/^/    /' "$log"
            failed=1
        }
    done
}
quickstart() { # quickstart NAME OPTION…: what it says goes to $work/NAME
    local name=$1 started=$SECONDS options=(--output "$work/adapter" --overwrite)
    shift
    [ $whole = true ] || options+=(--max-steps 2 --warmup-steps 0 --max-samples 8)
    "$checkout/scripts/quickstart.sh" "${options[@]}" "$@" >"$work/$name" 2>&1 || {
        echo "quickstart $name failed"
        failed=1
    }
    # Three commands, and nothing behind them.
    tail -n 4 "$work/$name" >"$work/last"
    expect "$work/last" '^Next:$' 'lorica chat --model .* --adapter ' 'lorica eval --model .* --adapter ' 'lorica train --model .* --data '
    expect "$work/$name" '^It was to learn .* by heart'
    printf 'quickstart %s: %d s\n' "$name" $((SECONDS - started))
    [ $whole = true ] || return 0
    sed -n '/^After:/,/^$/p' "$work/$name" | tee "$work/answer"
    expect "$work/answer" 'clergyman|cousin'
    [ $((SECONDS - started)) -lt 240 ] || { echo "that is more than four minutes"; failed=1; }
}

export HF_ENDPOINT=http://localhost:9 # nobody is there
quickstart unreachable
expect "$work/unreachable" 'localhost cannot be reached' 'Taking the small model in models/' 'austen-7m-q4_0'
# The server knows one repository, with the file whose name is asked for.
if [ $whole = false ] || [ -n "${SMOLLM2-}" ]; then
    python3 - "${SMOLLM2:-$checkout/models/austen-7m-q4_0.gguf}" >"$work/port" <<'PYTHON' &
import hashlib, http.server, json, sys

contents = open(sys.argv[1], "rb").read()
commit, name = "0" * 40, "SmolLM2-135M-Instruct-Q4_K_M.gguf"
repository = "bartowski/SmolLM2-135M-Instruct-GGUF"


class Hub(http.server.BaseHTTPRequestHandler):
    def do_HEAD(self):
        self.answer(False)

    def do_GET(self):
        self.answer(True)

    def answer(self, whole):
        listing = json.dumps({"sha": commit, "siblings": [{"rfilename": name}]}).encode()
        bodies = {
            f"/api/models/{repository}/revision/main": listing,
            f"/{repository}/resolve/main/{name}": contents,
            f"/{repository}/resolve/{commit}/{name}": contents,
        }
        body = bodies.get(self.path)
        self.send_response(404 if body is None else 200)
        body = body or b""
        self.send_header("Content-Length", str(len(body)))
        self.send_header("X-Repo-Commit", commit)
        self.send_header("ETag", '"' + hashlib.sha256(body).hexdigest() + '"')
        self.end_headers()
        if whole:
            self.wfile.write(body)

    def log_message(self, *_):
        pass


server = http.server.ThreadingHTTPServer(("localhost", 0), Hub)
print(server.server_address[1], flush=True)
server.serve_forever()
PYTHON
    server=$!
    until [ -s "$work/port" ]; do
        kill -0 "$server"
        sleep 0.1
    done
    HF_ENDPOINT=http://localhost:$(cat "$work/port")
    export HF_ENDPOINT
    quickstart online
    expect "$work/online" 'downloading SmolLM2-135M-Instruct-Q4_K_M.gguf' 'hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M'
    # What was downloaded once is taken from the cache where downloads are forbidden.
    if [ $whole = false ]; then
        quickstart cached --offline
        expect "$work/cached" 'hf:bartowski/SmolLM2-135M-Instruct-GGUF:Q4_K_M'
        ! grep -E 'downloading|Taking the small' "$work/cached" || failed=1
    fi
fi
[ $failed = 0 ]
