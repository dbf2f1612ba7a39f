#!/usr/bin/env python3
"""Reckons the speed-up of training on Spark from what was measured: scripts/spark-cost.sh calls it.

    scripts/spark_cost.py MEASURED.jsonl SECONDS-OF-A-STEP-ON-CPU ON-GPU

A step of N machines takes C + S(N): C seconds until a machine has its own gradients, and of Spark
    S(N) = job + per_byte * (P + G) + driver * N * G + (2 P + N G) / bandwidth
with P bytes of parameters, which go out once and on between the machines while they come in (torrent), and G bytes of gradients of
each machine, which all come in at the driver. `job` is an empty job; `per_byte` and `driver` (seconds for each byte of copying on every
machine, and of decoding and adding on the driver) are fitted to the measured rows of one and two executors on one machine, where there
is no network but that machine's own memory. The speed-up is N C / (C + S(N)): machines bring their own micro-batches.
"""

import json
import sys


def main():
    if len(sys.argv) != 4:
        sys.exit("usage: " + __doc__.splitlines()[2].strip())
    with open(sys.argv[1], encoding="utf-8") as lines:
        rows = [json.loads(line) for line in lines]
    steps = [float(argument) for argument in sys.argv[2:]]
    job = {row["executors"]: row["seconds"] for row in rows if row["megabytes"] == 0}
    print("measured, on one machine: median (least to most) of 9 steps without gradients")
    print("executors  gradients      format   parameters  one's gradients   seconds")
    for row in rows:
        name = row["format"] + (" packed" if row["compressed"] else "")
        print(
            f"{row['executors']:9}  {row['megabytes']:6.1f} MB  {name:>12}  {row['parameter_bytes'] / 1e6:7.1f} MB"
            f"  {row['gradient_bytes'] / 1e6:12.1f} MB   {row['seconds']:.3f} ({row['least']:.3f} to {row['most']:.3f})"
        )
    kinds = sorted({(row["format"], row["compressed"]) for row in rows if row["megabytes"] > 0})
    fitted = {}
    for kind in kinds:
        # least squares of seconds - job over x = P + G (on each machine) and y = N G (on the driver)
        own = [row for row in rows if row["megabytes"] > 0 and (row["format"], row["compressed"]) == kind]
        sxx = sxy = syy = sxt = syt = 0.0
        for row in own:
            x = row["parameter_bytes"] + row["gradient_bytes"]
            y = row["executors"] * row["gradient_bytes"]
            t = row["seconds"] - job[row["executors"]]
            sxx, sxy, syy, sxt, syt = sxx + x * x, sxy + x * y, syy + y * y, sxt + x * t, syt + y * t
        determinant = sxx * syy - sxy * sxy
        a, b = (sxt * syy - syt * sxy) / determinant, (syt * sxx - sxt * sxy) / determinant
        if min(a, b) < 0:
            a, b = (0.0, syt / syy) if a < 0 else (sxt / sxx, 0.0)
        fitted[kind] = a, b
    print("\nmodel against what was measured, on one machine")
    worst = 0.0
    for row in rows:
        if row["megabytes"] == 0:
            continue
        a, b = fitted[row["format"], row["compressed"]]
        reckoned = (
            job[row["executors"]]
            + a * (row["parameter_bytes"] + row["gradient_bytes"])
            + b * row["executors"] * row["gradient_bytes"]
        )
        worst = max(worst, abs(reckoned / row["seconds"] - 1))
    print(f"the largest difference is {100 * worst:.0f} %")
    for what, seconds in zip(("CPU", "GPU"), steps):
        for gigabits in (1, 10):
            print(f"\nspeed-up, {what} steps of {seconds:g} s, {gigabits} GbE; in brackets Spark's and the network's share")
            print("gradients        format " + "".join(f"{n:>14}" for n in (2, 4, 8, 16, 32, 64)))
            sizes = sorted({row["megabytes"] for row in rows if row["megabytes"] > 0})
            for size in sizes:
                for kind in kinds:
                    row = next(
                        r for r in rows if r["megabytes"] == size and (r["format"], r["compressed"]) == kind
                    )
                    a, b = fitted[kind]
                    p, g = row["parameter_bytes"], row["gradient_bytes"]
                    line = f"{size:6.1f} MB  {kind[0] + (' packed' if kind[1] else ''):>12} "
                    for n in (2, 4, 8, 16, 32, 64):
                        spark = max(job.values()) + a * (p + g) + b * n * g + (2 * p + n * g) * 8 / (gigabits * 1e9)
                        line += f"{n * seconds / (seconds + spark):8.1f} ({100 * spark / (seconds + spark):2.0f}%)"
                    print(line)


if __name__ == "__main__":
    main()
