#!/usr/bin/env python3
"""Compute the golden bits (tests/golden/README.md) in many builds, and compare.

    bits.py [--json] [BUILD...]

A build is an architecture, a compiler and a level of optimization: x86_64-g++-O0, aarch64-clang++-O3, … Without
arguments: all that can be made here, AArch64 ones by a cross compiler and run by qemu. They go to build-bits/.

    bits.py                             all of them
    bits.py x86_64-g++-O3 --json        one, for a program to read
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import platform
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests/golden/bits.json"
OPTIMIZATION = {"O0": "Debug", "O3": "Release"}
PARTS = 8  # of the cases of one instruction set, computed side by side; each is told when it is done
WAYS = ("1 thread", "2 threads", "4 threads", "alone", "step by step")
EMULATOR = ["qemu-aarch64", "-L", "/usr/aarch64-linux-gnu"]


def architectures():
    return ["aarch64"] if platform.machine() == "aarch64" else [platform.machine(), "aarch64"]


def names_of_builds():
    compilers = ("g++", "clang++")
    return [f"{a}-{c}-{o}" for a in architectures() for c in compilers for o in OPTIMIZATION]


def run(*command):
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    if result.returncode != 0:
        sys.exit(f"bits: {' '.join(map(str, command))} failed\n{result.stdout}{result.stderr}")


def make(name):
    """The build's folder, with the program in it."""
    architecture, compiler, level = name.split("-")
    build = ROOT / "build-bits" / name
    print(f"{name}: building", file=sys.stderr, flush=True)
    options = [f"-DCMAKE_BUILD_TYPE={OPTIMIZATION[level]}", f"-DCMAKE_CXX_COMPILER={compiler}"]
    if architecture != platform.machine():
        if compiler == "g++":
            options[-1] = f"-DCMAKE_CXX_COMPILER={architecture}-linux-gnu-g++"
        options += ["--preset", architecture]
    else:
        options += ["-G", "Ninja"]
    run("cmake", "-S", ROOT, "-B", build, *options)
    run("cmake", "--build", build, "--target", "golden_bits")
    return build


def compute(name, build, isa, part):
    """What the program says of a part of an instruction set's cases; nothing where this machine lacks it."""
    emulator = EMULATOR if name.split("-")[0] != platform.machine() else []
    command = [
        *emulator,
        build / "tests/golden_bits",
        GOLDEN,
        "--isa",
        isa,
        "--part",
        f"{part}/{PARTS}",
        "--json",
    ]
    begin = time.monotonic()
    result = subprocess.run(command, capture_output=True, text=True)
    sys.stderr.write(result.stderr)
    try:
        outcome = json.loads(result.stdout)[isa] or {}
    except (ValueError, KeyError):
        sys.exit(f"bits: {name}, {isa}: the program ended with {result.returncode} and no report")
    print(f"{name} {isa} {part}/{PARTS}: {time.monotonic() - begin:.0f} s", file=sys.stderr, flush=True)
    return outcome


def row_of(name, isa, outcomes):
    """The parts together."""
    row = {"build": name, "isa": isa}
    if all(outcomes):
        for key in ("cases", "different"):
            row[key] = sum(outcome[key] for outcome in outcomes)
        ways = [way for way in WAYS if any(way in outcome["results"] for outcome in outcomes)]
        row["results"] = {way: sum(outcome["results"].get(way, 0) for outcome in outcomes) for way in ways}
    return row


def main():
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("builds", nargs="*", metavar="BUILD", help=", ".join(names_of_builds()))
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    unknown = set(arguments.builds) - set(names_of_builds())
    if unknown:
        parser.error(f"no build {', '.join(sorted(unknown))}; there are {', '.join(names_of_builds())}")

    rows = []
    for name in arguments.builds or names_of_builds():
        build = make(name)
        isas = re.findall(r"FOURFOLD_ISA\((\w+)\)", (build / "generated/kernels/isas.inc").read_text())
        with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
            tasks = {
                isa: [pool.submit(compute, name, build, isa, part + 1) for part in range(PARTS)]
                for isa in isas
            }
            rows += [row_of(name, isa, [task.result() for task in tasks[isa]]) for isa in isas]
        if not arguments.json:
            print_table(rows[-len(isas) :], header=len(rows) == len(isas))

    compared = [row for row in rows if "cases" in row]
    total = {
        "cases": min((row["cases"] for row in compared), default=0),
        "results": sum(sum(row["results"].values()) for row in compared),
        "different": sum(row["different"] for row in compared),
    }
    if arguments.json:
        print(json.dumps({"rows": rows, **total}, indent=2))
    else:
        print(f"\n{total['cases']:,} cases, {total['results']:,} results in {len(compared)} runs, ", end="")
        print(f"{total['different']} cases different")
    return 0 if total["cases"] > 0 and total["different"] == 0 else 1


def print_table(rows, header):
    line = "{:19}{:14}{:>8}" + "{:>14}" * len(WAYS) + "{:>11}"
    if header:
        print(line.format("build", "isa", "cases", *WAYS, "different"))
    for row in rows:
        if "cases" in row:
            counts = [row["cases"], *(row["results"].get(way, 0) for way in WAYS), row["different"]]
            print(line.format(row["build"], row["isa"], *(f"{count:,}" for count in counts)), flush=True)
        else:
            print(f"{row['build']:19}{row['isa']:14}  not on this machine: not compared", flush=True)


if __name__ == "__main__":
    sys.exit(main())
