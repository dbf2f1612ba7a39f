#!/usr/bin/env python3
"""Compares builds of lorica-bench step by step: whole training steps, taking turns, so that what else the machine does falls
on all of them alike. Prints the ratio of each build's step to the first one's, the median of the pairs.

    scripts/bench_builds.py --shape s135 --steps 20 /tmp/before/lorica-bench native/build/lorica-bench

--neighbours 2 measures beside two programs that compute without a pause.

Where the builds need the Debian 13 root: scripts/devroot.sh python3 scripts/bench_builds.py …
"""

import argparse
import json
import os
import statistics
import subprocess
import sys


class Build:
    """One lorica-bench, waiting for requests."""

    def __init__(self, program, options):
        self.name = program
        self.seconds = []
        self.process = subprocess.Popen(
            [program, "steps", "--no-ceiling", "--on-request", *options],
            # The threads of builds that had OpenMP's would spin while it is another build's turn.
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"})
        self.answer()  # that it is ready

    def step(self):
        self.process.stdin.write("step\n")
        self.process.stdin.flush()
        return self.answer()["seconds"]

    def answer(self):
        line = self.process.stdout.readline()
        if not line:
            sys.exit(f"{self.name} ended before its step was done")
        return json.loads(line)

    def end(self):
        self.process.stdin.close()
        self.process.stdout.read()
        self.process.wait()


def neighbour():
    """A program that wants a processor all the time. It ends with this one: its input is closed then."""
    endless = "import os, threading\nthreading.Thread(target=lambda: (os.read(0, 1), os._exit(0))).start()\nwhile True: pass"
    return subprocess.Popen([sys.executable, "-c", endless], stdin=subprocess.PIPE)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20, help="of each build (20)")
    parser.add_argument("--shape", default="s135", help="of the model, as lorica-bench names it (s135)")
    parser.add_argument("--type", default="q4_0", help="of its weights (q4_0)")
    parser.add_argument("--neighbours", type=int, default=0, help="programs that compute beside it (0)")
    parser.add_argument("builds", nargs="+", metavar="LORICA_BENCH")
    arguments = parser.parse_args()
    options = ["--shape", arguments.shape, "--type", arguments.type]
    builds = [Build(program, options) for program in arguments.builds]
    for build in builds:
        build.step()  # warms up
    neighbours = [neighbour() for _ in range(arguments.neighbours)]
    for turn in range(arguments.steps):
        for build in builds if turn % 2 == 0 else reversed(builds):
            build.seconds.append(build.step())
    for one in neighbours:
        one.kill()
    for build in builds:
        ratios = [own / first for own, first in zip(build.seconds, builds[0].seconds)]
        low, _, high = statistics.quantiles(ratios, n=4)
        print(f"{build.name}: median step {statistics.median(build.seconds):.3f} s, "
              f"ratio {statistics.median(ratios):.3f} (quartiles {low:.3f} to {high:.3f})")
        build.end()


if __name__ == "__main__":
    main()
