#!/usr/bin/env python3
"""What `lorica serve` takes to start, and what it generates for one client and for many at once.

    scripts/bench_serve.py --model smollm2-135m-instruct-q4_1.gguf [--streams 16] [--tokens 64] [--rounds 3]

Prints, in lines of JSON: seconds from the start of the program's JVM to its first answer of /health, whatever it says, and to the
first that says ok, least and median of the rounds; then tokens per second of all streams together, the best of the rounds, for one stream and for many, which take turns.
Nothing but Python's own library is needed. What else the machine does is in the numbers.
"""

import argparse
import http.client
import json
import os
import re
import signal
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", required=True)
    parser.add_argument("--streams", type=int, default=16)
    parser.add_argument("--tokens", type=int, default=64, help="of each stream")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--end", default="<|im_end|>", help="the token that ends a text, which is kept from coming")
    parser.add_argument("--port", type=int, default=8391)
    parser.add_argument("--command", default=str(HERE / "lorica"), help="the program; with spaces, its first arguments")
    parser.add_argument("serve", nargs="*", help="more options of serve, behind --")
    return parser.parse_args()


class Server:
    """A `lorica serve` of its own process group."""

    def __init__(self, options, log):
        self.port = options.port
        command = options.command.split() + ["serve", "--model", options.model, "--port", str(options.port)]
        command += ["--parallel", str(max(options.streams, 8)), "--ctx-size", "512"] + options.serve
        self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT, start_new_session=True)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        os.killpg(self.process.pid, signal.SIGTERM)
        self.process.wait(30)

    def get(self, path, body=None):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        try:
            if body is None:
                connection.request("GET", path)
            else:
                connection.request("POST", path, json.dumps(body), {"Content-Type": "application/json"})
            answer = connection.getresponse()
            text = answer.read()
            if answer.status != 200:
                raise RuntimeError(f"{path}: {answer.status} {text[:200]}")
            return text
        finally:
            connection.close()

    def await_health(self):
        """The times at which it answers at all, and that it is ready (of the system's clock)."""
        end, answered = time.time() + 120, None
        while time.time() < end:
            if self.process.poll() is not None:
                raise RuntimeError("the server has ended; its output is above")
            try:
                connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)
                connection.request("GET", "/health")
                status = connection.getresponse().status
                connection.close()
                answered = answered or time.time()
                if status == 200:
                    return answered, time.time()
            except (OSError, http.client.HTTPException):
                pass
            time.sleep(0.005)
        raise RuntimeError("no good answer of /health in two minutes")

    def jvm_start(self):
        """When its JVM was started (proc(5)); where that is not told, when the first program of the group was."""
        ticks = os.sysconf("SC_CLK_TCK")
        uptime = float(Path("/proc/uptime").read_text().split()[0])
        started = []
        for stat in Path("/proc").glob("[0-9]*/stat"):
            try:
                found = re.match(r"(\d+) \((.*)\) (.*)", stat.read_text(), re.S)
            except OSError:
                continue
            fields = found.group(3).split()
            if int(fields[2]) == self.process.pid and found.group(2) == "java":
                started.append(time.time() - uptime + int(fields[19]) / ticks)
        return min(started) if started else None

    def stream(self, number, tokens):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=600)
        body = {"prompt": f"Story number {number}: once upon a time", "max_tokens": tokens, "temperature": 1, "seed": number,
                "stream": True, "stream_options": {"include_usage": True}, "logit_bias": {str(self.eos): -100}}
        connection.request("POST", "/v1/completions", json.dumps(body), {"Content-Type": "application/json"})
        answer = connection.getresponse()
        generated = 0
        for line in answer:
            if line.startswith(b"data: {"):
                usage = json.loads(line[6:]).get("usage")
                generated = usage["completion_tokens"] if usage else generated
        connection.close()
        return generated

    def rate(self, streams, tokens, first):
        """Tokens per second of all together."""
        counts = [0] * streams

        def one(i):
            counts[i] = self.stream(first + i, tokens)

        threads = [threading.Thread(target=one, args=(i,)) for i in range(streams)]
        begin = time.time()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        if 0 in counts:
            raise RuntimeError("a stream brought no tokens")
        return sum(counts) / (time.time() - begin)


def main():
    options = arguments()
    starts = []
    for _ in range(options.rounds):
        with Server(options, sys.stderr) as server:
            times = server.await_health()
            began = server.jvm_start()
            if began is not None:
                starts.append([at - began for at in times])
    for what, seconds in zip(["seconds to /health", "seconds to its ok"], zip(*starts)):
        print(json.dumps({what: round(min(seconds), 3), "median": round(statistics.median(seconds), 3)}))
    with Server(options, sys.stderr) as server:
        server.await_health()
        server.eos = json.loads(server.get("/tokenize", {"prompt": options.end, "add_special_tokens": False}))["tokens"][0]
        server.rate(1, 8, 0)
        one, many = [], []
        for i in range(options.rounds):
            one.append(server.rate(1, options.tokens, 100 * i))
            many.append(server.rate(options.streams, options.tokens, 100 * i + 1))
        print(json.dumps({
            "tokens per second, 1 stream": round(max(one), 1),
            f"{options.streams} streams": round(max(many), 1),
            "times": round(max(many) / max(one), 2),
        }))


if __name__ == "__main__":
    main()
