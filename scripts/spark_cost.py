#!/usr/bin/env python3
"""Shows what scripts/spark-cost.sh measured, and reckons the speed-up of training on Spark from it.

    scripts/spark_cost.py MEASURED.jsonl

A step of N machines takes C + S(N): C seconds until a machine has its own gradients, and of Spark
    S(N) = job + machine * (P + G) + driver * N * G + (2 P + N G) / bandwidth
with P bytes of parameters, which go out once and on between the machines while they come in (torrent), and G bytes of gradients of
each machine, which all come in at the driver. `job` is an empty job; `machine` and `driver` (seconds for each byte of copying on every
machine, and of taking in, decoding and adding on the driver) are fitted to the measured rows of one and two executors on one machine,
where there is no network but that machine's own memory. The speed-up is N C / (C + S(N)): machines bring their own micro-batches. Where a
machine is quick, it takes more of them to a step: the last column has how many of 512 tokens leave a tenth of a step to Spark.

The end is an error when Spark's share of a step of 1.1B with 16 micro-batches of 512 tokens for each of two executors is not below 2 %.
"""

import json
import math
import os
import statistics
import sys

MACHINES = (2, 4, 8, 16, 32, 64)
PARTS = ("broadcast", "start", "fetch", "unpack", "pack", "return", "sum")
MICRO_BATCHES = 16
MOST = 0.02


def kind(row):
    return row["format"] + (" packed" if row["compressed"] else "")


def show_ways(rows):
    print(
        "Where the milliseconds of a step without gradients go: medians. The driver broadcasts parameters; tasks start;\n"
        "executors fetch, unpack them and pack gradients; these return; the driver decodes and adds them."
    )
    print("executors  gradients       format       bytes" + "".join(f"{part:>11}" for part in PARTS) + "        all")
    for row in rows:
        print(
            f"{row['executors']:9}  {row['megabytes']:6.1f} MB {kind(row):>12}  {row['gradient_bytes'] / 1e6:7.2f} MB"
            + "".join(f"{1e3 * row[part]:11.1f}" for part in PARTS)
            + f"  {1e3 * row['seconds']:9.1f} ({1e3 * row['least']:.0f} to {1e3 * row['most']:.0f})"
        )


def solved(sums):
    sxx, sxy, syy, sxt, syt = sums
    determinant = sxx * syy - sxy * sxy
    if determinant == 0:
        return sxt / sxx, 0.0
    a, b = (sxt * syy - syt * sxy) / determinant, (syt * sxx - sxt * sxy) / determinant
    if min(a, b) < 0:
        a, b = (0.0, syt / syy) if a < 0 else (sxt / sxx, 0.0)
    return a, b


class Fit:
    """Least squares over x = P + G on each machine and y = N G on the driver, each row as its share of what it took."""

    def __init__(self, rows):
        self.job = {row["executors"]: row["seconds"] for row in rows if row["megabytes"] == 0}
        self.of = {}
        for name in sorted({kind(row) for row in rows if row["megabytes"] > 0}):
            sums = [0.0] * 5
            for row in rows:
                if row["megabytes"] == 0 or kind(row) != name:
                    continue
                weight = 1 / row["seconds"]
                x = weight * (row["parameter_bytes"] + row["gradient_bytes"])
                y = weight * row["executors"] * row["gradient_bytes"]
                t = weight * (row["seconds"] - self.job[row["executors"]])
                sums = [s + d for s, d in zip(sums, (x * x, x * y, y * y, x * t, y * t))]
            self.of[name] = solved(sums)

    def seconds(self, name, executors, p, g, bandwidth=None):
        machine, driver = self.of[name]
        job = self.job.get(executors, max(self.job.values()))
        network = 0 if bandwidth is None else (2 * p + executors * g) / bandwidth
        return job + machine * (p + g) + driver * executors * g + network


def show_model(rows, fit):
    worst = 0.0
    for row in rows:
        if row["megabytes"] > 0:
            reckoned = fit.seconds(kind(row), row["executors"], row["parameter_bytes"], row["gradient_bytes"])
            worst = max(worst, abs(reckoned / row["seconds"] - 1))
    print(f"\nThe model next to these: off by {100 * worst:.0f} % at most")


def show_speed_ups(rows, fit, steps):
    for what, seconds in steps:
        for gigabits in (1, 10):
            print(f"\nSpeed-up, {what}: {seconds:.2f} s for a machine's gradients, {gigabits} GbE; in brackets the share of Spark and the network")
            print("gradients        format " + "".join(f"{n:>14}" for n in MACHINES) + "   micro-batches for a tenth, on 8")
            for size in sorted({row["megabytes"] for row in rows if row["megabytes"] > 0}):
                for name in fit.of:
                    row = next(r for r in rows if r["megabytes"] == size and kind(r) == name)
                    line = f"{size:6.1f} MB  {name:>12} "
                    for n in MACHINES:
                        spark = fit.seconds(
                            name, n, row["parameter_bytes"], row["gradient_bytes"], gigabits * 1e9 / 8
                        )
                        line += f"{n * seconds / (seconds + spark):8.1f} ({100 * spark / (seconds + spark):2.0f}%)"
                        if n == 8:
                            enough = math.ceil(9 * spark / (seconds / MICRO_BATCHES))
                    print(f"{line} {enough:13}")


def show_steps(rows, fit):
    """Whole steps, next to the model; the least of what a step of 16 micro-batches takes on two executors, and Spark's share of it."""
    print("\nWhole steps of 1.1B, rank 16, all linear layers, each executor with one core of this machine")
    print("executors  micro-batches of each   tokens of each   a step   gradients   Spark   share   the model's Spark")
    for row in rows:
        spark = row["seconds"] - row["computing"]
        print(
            f"{row['executors']:9}  {row['micro_batches']:21}  {row['micro_batches'] * row['tokens']:15}"
            f"  {row['seconds']:5.2f} s  {row['computing']:8.2f} s {spark:5.2f} s  {100 * spark / row['seconds']:4.1f} %"
            f"  {fit.seconds('f32', row['executors'], row['sent'], row['received'] / row['executors']):17.2f} s"
        )
    of = {n: [row for row in rows if row["executors"] == n] for n in (1, 2)}
    median = {n: statistics.median(row["seconds"] for row in of[n]) for n in of}
    computing = statistics.median(row["computing"] for row in of[2])
    print(f"two executors do {2 * median[1] / median[2]:.2f} times the tokens of one in a second")
    scale = MICRO_BATCHES / of[2][0]["micro_batches"]
    spark = statistics.median(row["seconds"] - row["computing"] for row in of[2])
    share = spark / (spark + scale * computing)
    print(
        f"at {MICRO_BATCHES} x 512 tokens for each of two executors, Spark has {100 * share:.2f} % of a step"
        + ("" if scale == 1 else f", reckoned from {of[2][0]['micro_batches']} micro-batches")
    )
    return scale * computing, share


def main():
    if len(sys.argv) != 2:
        sys.exit("usage: " + __doc__.splitlines()[2].strip())
    with open(sys.argv[1], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    ways = [row for row in rows if row["kind"] == "way"]
    fit = Fit(ways)
    show_ways(ways)
    show_model(ways, fit)
    computing, share = show_steps([row for row in rows if row["kind"] == "step"], fit)
    gpu = float(os.environ.get("LORICA_COST_GPU_SECONDS", "0.2"))
    show_speed_ups(ways, fit, (("CPU steps as measured", computing), ("GPU steps, not measured", gpu)))
    if share >= MOST:
        sys.exit(f"\nSpark has {100 * share:.2f} % of a step, which was to be below {100 * MOST:.0f} %")


if __name__ == "__main__":
    main()
