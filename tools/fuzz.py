#!/usr/bin/env python3
"""Run the fuzz targets that `make fuzz` built, as many at once as there are CPUs, and print what each did.

    fuzz.py                      all of them, 60 seconds each
    fuzz.py -s 600 model npy     two of them, ten minutes each
    fuzz.py --json               the same as JSON

A target begins with the seeds and with what former runs kept (build-fuzz/corpus/TARGET), and with the inputs that once
failed (fuzz/regressions/TARGET). What it says is in build-fuzz/TARGET.log. Exits with 1 where a target fails; the input
is in build-fuzz/failures then.
"""

import argparse
import concurrent.futures
import json
import os
import pathlib
import re
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build-fuzz"


def run(target, seconds):
    """What became of one target, as a row of the table."""
    corpus, failures = BUILD / "corpus" / target, BUILD / "failures"
    for folder in (corpus, failures):
        folder.mkdir(parents=True, exist_ok=True)
    command = [
        BUILD / "fuzz" / f"{target}_fuzz",
        f"-max_total_time={seconds}",
        "-timeout=600",
        "-print_final_stats=1",
    ]
    command.append(f"-artifact_prefix={failures}/{target}-")
    dictionary = ROOT / "fuzz" / "dictionaries" / f"{target}.dict"
    if dictionary.exists():
        command.append(f"-dict={dictionary}")
    command.append(corpus)
    regressions = ROOT / "fuzz" / "regressions" / target
    if regressions.exists():
        command.append(regressions)
    log = BUILD / f"{target}.log"
    started = time.monotonic()
    with log.open("w") as out:
        code = subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=False).returncode
    text = log.read_text(errors="replace")
    executions = re.search(r"stat::number_of_executed_units: (\d+)", text)
    coverage = re.findall(r" cov: (\d+) ", text)
    failure = re.search(r"Test unit written to (\S+)", text)
    return {
        "target": target,
        "seconds": round(time.monotonic() - started),
        "executions": int(executions[1]) if executions else 0,
        "edges at first": int(coverage[0]) if coverage else 0,
        "edges": int(coverage[-1]) if coverage else 0,
        "inputs kept": len(list(corpus.iterdir())),
        "failure": "" if code == 0 else failure[1] if failure else f"exit code {code}, see {log}",
    }


def main():
    """Run the targets that are named, or all."""
    built = sorted(path.name.removesuffix("_fuzz") for path in (BUILD / "fuzz").glob("*_fuzz"))
    if not built:
        sys.exit("fuzz.py: no targets are built; `make fuzz` builds and runs them")
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=f"of {', '.join(built)}")
    parser.add_argument("-s", "--seconds", type=int, default=60, help="for each target (60)")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")
    arguments = parser.parse_args()
    for target in arguments.targets:
        if target not in built:
            parser.error(f"unknown target '{target}': one of {', '.join(built)}")
    if arguments.seconds < 1:
        parser.error("--seconds must be at least 1")

    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        rows = list(pool.map(lambda target: run(target, arguments.seconds), arguments.targets or built))
    if arguments.json:
        print(json.dumps(rows, indent=2))
    else:
        print(f"{'target':12} {'seconds':>8} {'executions':>12} {'edges':>16} {'inputs kept':>12}  failure")
        for row in rows:
            edges = f"{row['edges at first']:,} -> {row['edges']:,}"
            kept = f"{row['inputs kept']:,}"
            print(
                f"{row['target']:12} {row['seconds']:>8} {row['executions']:>12,} {edges:>16} {kept:>12}  "
                f"{row['failure'] or 'none'}"
            )
    return 1 if any(row["failure"] or row["executions"] == 0 for row in rows) else 0


if __name__ == "__main__":
    sys.exit(main())
