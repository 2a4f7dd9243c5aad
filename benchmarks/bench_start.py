"""How long a command takes until it says something, or until the first client trains.

    python benchmarks/bench_start.py --save

Every repeat is a fresh process; the first of each warms the disk's cache and is dropped.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence

from benchmarks.machine import machine, options_parser, refuse_if_busy, save

COMMANDS: Mapping[str, Sequence[str]] = {
    "fedmer --help": ("--help",),
    "fedmer plugins": ("plugins",),
    "fedmer fit, until the first client trains": ("fit",),
}
FIRST_CLIENT = """
import os, sys
from fedmer import __main__, local

def begin(*arguments):
    os._exit(0)

local.LocalTrainer.work = begin
sys.exit(__main__.main(sys.argv[1:]))
"""
"""Runs a command of fedmer, and ends the process where its first client would train."""


def seconds(arguments: Sequence[str]) -> float:
    """Of one fresh process."""
    fit = arguments[0] == "fit"
    program = ["-c", FIRST_CLIENT] if fit else ["-m", "fedmer"]
    with tempfile.TemporaryDirectory() as folder:
        where = ["--runs", folder] if fit else []
        began = time.perf_counter()
        subprocess.run(
            [sys.executable, *program, *arguments, *where],
            check=True,
            capture_output=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        return time.perf_counter() - began


def main() -> None:
    parser = options_parser(__doc__, "start.md")
    parser.add_argument("--repeats", type=int, default=5)
    options = parser.parse_args()
    refuse_if_busy(options.busy)
    lines = ["| command | seconds, median | from | to |", "|---|--:|--:|--:|"]
    for title, arguments in COMMANDS.items():
        taken = [seconds(arguments) for _ in range(options.repeats + 1)][1:]
        lines.append(
            f"| {title} | {statistics.median(taken):.2f} | {min(taken):.2f} | {max(taken):.2f} |"
        )
        print(lines[-1], file=sys.stderr)
    text = "\n".join([*lines, "", machine()])
    print(text)
    if options.save:
        save("start.md", "Start-up", text)


if __name__ == "__main__":
    main()
