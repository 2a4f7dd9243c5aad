"""What a round costs beside a bare loop over the same batches, and beside other frameworks.

    python benchmarks/bench_round.py --save
    sh benchmarks/peers/setup.sh && python benchmarks/bench_round.py --peers --save
    python benchmarks/bench_round.py --workloads MLP --cohorts 4x2x20 --rounds 2 --repeats 2 --busy

FedAvg over small clients, one local epoch of one batch, Adam. The bare loop does forward, backward
and Adam on the same batches and nothing else; ratios to it are paired, ways alternate, and the
first turn of each is dropped. Other frameworks take the same steps in fresh processes; their final
weights are compared with fedmer's. Peak memory and start-up are those of a fresh process.
"""

import argparse
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.federations import WAYS, federation
from benchmarks.machine import RESULTS, machine, options_parser, peak, ratio, refuse_if_busy, save
from benchmarks.peers import installed, run_peer
from benchmarks.workloads import WORKLOADS, Cohort, build
from fedmer.errors import InputError
from fedmer.plugins.executors.inline import Inline


@dataclass
class Row:
    """What was measured of one way.

    Args:
        seconds: Of a round, each repeat.
        first: Seconds of the first round of all.
        start: Seconds from a process's start to its first round.
        memory: Megabytes of a process at the most.
    """

    seconds: list[float] = field(default_factory=list)
    first: float = 0.0
    start: float = 0.0
    memory: float = 0.0


def measure(workload: str, cohort: Cohort, options: argparse.Namespace) -> dict[str, Row]:
    """Every way over one workload and its clients, in turns."""
    ways: dict[str, Callable[[int], None]] = {}
    rows: dict[str, Row] = {}
    for title, make in WAYS.items():
        try:
            ways[title] = make(workload, cohort)
        except InputError as error:
            print(f"{workload}: {error}", file=sys.stderr)
            continue
        first = _seconds(ways[title], 1)
        rows[title] = Row(first=first, **_fresh(title, workload, cohort))
    rounds = max(2, options.rounds * 20 // cohort.clients)
    peers = installed() if options.peers else {}
    for repeat in range(options.repeats + 1):
        for title, run in ways.items():
            took = _seconds(run, rounds)
            if repeat:
                rows[title].seconds.append(took / rounds)
        for title, peer in peers.items() if repeat else ():
            found = run_peer(peer, workload, cohort, rounds + 1)
            row = rows.setdefault(title, Row())
            row.seconds.append(statistics.mean(found.rounds))
            row.first, row.start, row.memory = found.first, found.start, found.memory
            if repeat == 1:
                apart = _apart(found.weights, workload, cohort, rounds + 1)
                ends = f"{title} ends {apart:.1e} of the way from fedmer"
                if apart > 0.01:
                    raise SystemExit(f"{workload}, {cohort}: {ends}: other work.")
                print(f"{workload}, {cohort}: {ends}", file=sys.stderr)
    return rows


def _seconds(run: Callable[[int], None], rounds: int) -> float:
    began = time.perf_counter()
    run(rounds)
    return time.perf_counter() - began


def _apart(theirs: dict[str, Tensor], workload: str, cohort: Cohort, rounds: int) -> float:
    """How far from fedmer's weights others end, as a part of the way that those went.

    Not the largest difference: where a gradient is zero but for rounding, as that of a bias of keys
    is, Adam makes whole steps of the rounding.
    """
    loop = federation(workload, cohort, Inline())
    for number in range(rounds):
        loop.run_round(number)
    start, own = build(workload).state_dict(), loop.state.network.state_dict()
    apart = torch.stack([(own[name] - theirs[name]).double().norm() for name in own]).norm()
    way = torch.stack([(own[name] - start[name]).double().norm() for name in own]).norm()
    return float(apart / way)


def _fresh(title: str, workload: str, cohort: Cohort) -> dict[str, float]:
    """Start-up and peak memory of a process of its own."""
    command = [sys.executable, __file__, "--fresh", title, "--began", str(time.time())]
    command += ["--workloads", workload, "--cohorts", str(cohort)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path.cwd())
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def be_fresh(options: argparse.Namespace) -> None:
    """Train two rounds, and print when the first began and how much memory was needed."""
    run = WAYS[options.fresh](options.workloads[0], options.cohorts[0])
    start = time.time() - options.began
    run(2)
    children = multiprocessing.active_children()
    memory = max(peak(pid) for pid in ("self", *(child.pid or "self" for child in children)))
    print(json.dumps({"start": start, "memory": memory}))


def table(found: dict[tuple[str, Cohort], dict[str, Row]]) -> list[str]:
    """The figures as Markdown."""
    lines = [
        "| network | clients x dialogues x turns | way | ms a round, median "
        "| ratio to bare, median [quartiles] | first round, ms | start-up, s "
        "| peak memory of a process |",
        "|---|--:|---|--:|--:|--:|--:|--:|",
    ]
    for (workload, cohort), rows in found.items():
        weights = sum(parameter.numel() for parameter in build(workload).parameters())
        for title, row in rows.items():
            lines.append(
                f"| {workload}, {weights / 1e3:.0f} k | {cohort} | {title} "
                f"| {1e3 * statistics.median(row.seconds):.1f} "
                f"| {ratio(row.seconds, rows['bare loop'].seconds)} | {1e3 * row.first:.0f} "
                f"| {row.start:.1f} | {row.memory:.0f} MB |"
            )
    return lines


def draw(found: dict[tuple[str, Cohort], dict[str, Row]], path: Path) -> None:
    """A panel a workload and cohort: ratios to the bare loop."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    across = len({cohort for _, cohort in found})
    down = len(found) // across
    size = (3.2 * across, 2.2 * down + 0.4)
    figure, panels = plt.subplots(down, across, figsize=size, squeeze=False)
    for number, ((workload, cohort), rows) in enumerate(found.items()):
        panel = panels.flat[number]
        base = rows["bare loop"].seconds
        ratios = [
            statistics.median(a / b for a, b in zip(row.seconds, base, strict=True))
            for row in rows.values()
        ]
        bars = panel.barh(list(rows), ratios, color="tab:blue")
        panel.bar_label(bars, [f"{value:.2f}" for value in ratios], fontsize=7, padding=2)
        panel.axvline(1, color="black", linewidth=0.8)
        panel.set_xscale("log")
        panel.set_xlim(0.4, 2.5 * max(ratios))
        panel.minorticks_off()
        ticks = [tick for tick in (0.5, 1, 2, 5, 10, 20) if tick < 2.5 * max(ratios)]
        panel.set_xticks(ticks, list(map(str, ticks)))
        panel.invert_yaxis()
        panel.set_title(f"{workload}, {cohort}", fontsize=9)
        panel.set_xlabel("time of a round / bare loop", fontsize=8)
        panel.tick_params(labelsize=7)
        if number % across:
            panel.set_yticks(range(len(rows)), [""] * len(rows))
    figure.tight_layout()
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = options_parser(__doc__, "round.md and round.png")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument(
        "--cohorts",
        type=Cohort.of,
        nargs="+",
        default=[Cohort(20), Cohort(100), Cohort(20, 6, 49)],
        help="clients x dialogues x turns, as in 20x2x20",
    )
    parser.add_argument(
        "--rounds", type=int, default=20, help="Of twenty clients; as many clients of more."
    )
    parser.add_argument("--peers", action="store_true", help="other frameworks, where installed")
    parser.add_argument("--page", default="round", help="Name of the page and the plot.")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--began", type=float, help=argparse.SUPPRESS)
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.fresh:
        be_fresh(options)
        return
    refuse_if_busy(options.busy)
    began = time.perf_counter()
    found = {}
    for workload in options.workloads:
        for cohort in options.cohorts:
            found[workload, cohort] = measure(workload, cohort, options)
            print("\n".join(table(found)), file=sys.stderr)
    text = "\n".join(
        [
            "FedAvg, one local epoch of one batch, Adam, one thread a client; dialogues' lengths "
            f"vary by half; {options.repeats} repeats of {options.rounds} rounds of 20 clients (of "
            "more clients fewer rounds, two at least), in turns.",
            "",
            *table(found),
            "",
            f"{machine()} It took {(time.perf_counter() - began) / 60:.0f} minutes.",
        ]
    )
    print(text)
    if options.save:
        save(f"{options.page}.md", "What a round costs", text)
        draw(found, RESULTS / f"{options.page}.png")


if __name__ == "__main__":
    main()
