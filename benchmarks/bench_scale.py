"""How a round's time and memory grow with clients, dialogue length, width and modalities.

    python benchmarks/bench_scale.py --save
    python benchmarks/bench_scale.py --axes clients --short --busy

Every point is a fresh process that trains two rounds of FedAvg with SDT and reports the second
round's seconds and its peak memory. Exponents are slopes of a straight line through the points in
log-log. Then ten thousand virtual clients, of which a hundred take part in a round, against a
hundred; how long splits take to deal dialogues out to ten thousand; and the one round of a head in
closed form, against clients, a client's turns and features.
"""

import argparse
import json
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
import torch

from benchmarks.machine import RESULTS, machine, options_parser, peak, refuse_if_busy, save
from benchmarks.workloads import clients as make_clients
from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import CorpusShape
from fedmer.data.synthetic import synthetic_corpus
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.analytic import Analytic
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.networks.window import Window
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.partitioners.dirichlet import Dirichlet
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.ridge_sums import RidgeSums
from fedmer.steps import LocalTraining

WIDTHS = {"text": 32, "audio": 16, "visual": 8}
BASE = {"clients": 20, "cohort": 20, "turns": 40, "hidden": 64, "modalities": 3}
AXES: Mapping[str, Sequence[int]] = {
    "clients": (10, 100, 1000, 10_000),
    "turns": (10, 30, 110, 250, 500),
    "hidden": (64, 128, 256, 512, 1024),
    "modalities": (1, 2, 3),
}


CLOSED_BASE = {"clients": 10, "turns": 20, "features": 512}
CLOSED: Mapping[str, Sequence[int]] = {
    "clients": (10, 100, 1000),
    "turns": (20, 200, 2000),
    "features": (256, 512, 1024, 2048, 4096),
}


def closed_form(clients: int, turns: int, features: int) -> dict[str, float]:
    """Seconds of the round and of its server's step, and megabytes at the most."""
    torch.set_num_threads(1)
    shape = CorpusShape({"text": features}, classes=6, speakers=2)
    data = make_clients(clients, dialogues=2, turns=turns, shape=shape, pool=200)
    rule = Analytic()
    client = EmotionClient(Window(shape, window=0, means=False), SelfDistillation())
    trainer = LocalTrainer(client, data, rule, LocalTraining())
    network = Window(shape, window=0, means=False)
    loop = FederatedLoop(network, rule, All(), Inline(), trainer, seed=0)
    whole = loop.run_round(0).seconds
    began = time.perf_counter()
    rule.finish(loop.state, RidgeSums.unpack(loop.state.tensors))
    server = time.perf_counter() - began
    return {"round": whole, "client": (whole - server) / clients, "server": server} | {
        "memory": peak()
    }


def point(axis: str, value: int) -> dict[str, int | str]:
    """The sizes of one point: all as usual but one."""
    sizes = {**BASE, axis: value}
    if axis == "clients":
        sizes |= {"cohort": value, "pool": 200, "turns": 10}
    return sizes


def measure(
    clients: int,
    cohort: int,
    turns: int,
    hidden: int,
    modalities: int,
    rule: str = "FedAvg",
    pool: int | None = None,
) -> dict[str, float]:
    """Seconds of the second round, and megabytes at the most, of this process."""
    torch.set_num_threads(1)
    shape = CorpusShape(dict(list(WIDTHS.items())[:modalities]), classes=6, speakers=2)
    data = make_clients(clients, dialogues=2, turns=turns, shape=shape, pool=pool)

    def network() -> SDT:
        return SDT(shape, hidden=hidden, heads=4)

    aggregator: Aggregator = Distance() if rule == "Distance" else FedAvg()
    client = EmotionClient(network(), SelfDistillation())
    trainer = LocalTrainer(client, data, aggregator, LocalTraining())
    chosen = Uniform(min(1.0, cohort / clients))
    # A spool that soon is full: what a large cohort leaves is not to be held in memory.
    loop = FederatedLoop(network(), aggregator, chosen, Inline(spool_gb=0.02), trainer, seed=0)
    seconds = [loop.run_round(number).seconds for number in range(2)]
    return {"round": seconds[1], "memory": peak()}


def partition(clients: int) -> dict[str, float]:
    """Seconds that every split of twice as many dialogues over clients takes, by its name."""
    corpus = synthetic_corpus(dialogues=int(clients * 2.6), features={"text": 2})
    train = corpus.part("train")
    splits: dict[str, Partitioner] = {
        "Dialogue": Dialogue(clients),
        "Dirichlet": Dirichlet(clients, alpha=0.5),
        "NWay": NWay(clients),
        "VirtualSpeaker": VirtualSpeaker(clients),
    }
    seconds = {}
    for name, split in splits.items():
        began = time.perf_counter()
        split.split(corpus, train, 0)
        seconds[name] = time.perf_counter() - began
    return seconds


def in_a_fresh_process(**sizes: int | str) -> dict[str, float]:
    command = [sys.executable, __file__, "--point", json.dumps(sizes)]
    done = subprocess.run(command, check=True, capture_output=True, text=True, cwd=Path.cwd())
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    return found


def exponent(values: Sequence[float], costs: Sequence[float]) -> float:
    """Slope of log cost over log value, by least squares."""
    return float(np.polyfit(np.log(values), np.log(costs), 1)[0])


def draw(found: Mapping[str, Sequence[tuple[int, dict[str, float]]]]) -> None:
    """results/scale.png: a panel an axis, seconds a round and megabytes."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panels = plt.subplots(1, len(found), figsize=(4 * len(found), 3.2), squeeze=False)
    for panel, (axis, points) in zip(panels[0], found.items(), strict=True):
        values = [value for value, _ in points]
        for what, colour, label in (
            ("round", "tab:blue", "seconds a round"),
            ("memory", "tab:orange", "peak memory, MB"),
        ):
            costs = [cost[what] for _, cost in points]
            slope = exponent(values, costs)
            panel.loglog(values, costs, "o-", color=colour, label=f"{label}, exponent {slope:.2f}")
        panel.set_xlabel(axis)
        panel.grid(alpha=0.3, which="both")
        panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "scale.png", dpi=130)


def main() -> None:
    parser = options_parser(__doc__, "scale.md and scale.png")
    parser.add_argument("--axes", nargs="+", choices=AXES, default=list(AXES))
    parser.add_argument("--short", action="store_true", help="only the two smallest of every axis")
    parser.add_argument("--point", type=json.loads, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.point:
        make = closed_form if "features" in options.point else measure
        print(json.dumps(make(**options.point)))
        return
    refuse_if_busy(options.busy)
    found = {}
    lines = [
        "| axis | value | seconds a round | peak memory |",
        "|---|--:|--:|--:|",
    ]
    slopes = ["| axis | exponent of time | of memory |", "|---|--:|--:|"]
    for axis in options.axes:
        values = AXES[axis][:2] if options.short else AXES[axis]
        points = [(value, in_a_fresh_process(**point(axis, value))) for value in values]
        found[axis] = points
        for value, cost in points:
            lines.append(f"| {axis} | {value} | {cost['round']:.2f} | {cost['memory']:.0f} MB |")
            print(lines[-1], file=sys.stderr)
        time_slope = exponent(values, [cost["round"] for _, cost in points])
        memory_slope = exponent(values, [cost["memory"] for _, cost in points])
        slopes.append(f"| {axis} | {time_slope:.2f} | {memory_slope:.2f} |")
    many = ["| rule | clients | cohort | seconds a round | peak memory |", "|---|--:|--:|--:|--:|"]
    for rule in ("FedAvg", "Distance"):
        for clients in (100, 200) if options.short else (100, 10_000):
            sizes = {**BASE, "clients": clients, "cohort": 100, "turns": 10, "pool": 200}
            cost = in_a_fresh_process(**sizes, rule=rule)
            many.append(
                f"| {rule} | {clients} | 100 | {cost['round']:.2f} | {cost['memory']:.0f} MB |"
            )
            print(many[-1], file=sys.stderr)
    closed = [
        "| closed form: axis | value | seconds a client | of the server | peak memory |",
        "|---|--:|--:|--:|--:|",
    ]
    for axis, values in CLOSED.items():
        for value in values[:2] if options.short else values:
            cost = in_a_fresh_process(**{**CLOSED_BASE, axis: value})
            closed.append(
                f"| {axis} | {value} | {cost['client']:.4f} | {cost['server']:.2f} | "
                f"{cost['memory']:.0f} MB |"
            )
            print(closed[-1], file=sys.stderr)
    count = 20 if options.short else 10_000
    splits = [f"| split over {count} clients | seconds |", "|---|--:|"]
    splits += [f"| {name} | {seconds:.1f} |" for name, seconds in partition(count).items()]
    text = "\n".join([*lines, "", *slopes, "", *many, "", *closed, "", *splits, "", machine()])
    print(text)
    if options.save:
        save("scale.md", "How a round grows", text)
        draw(found)


if __name__ == "__main__":
    main()
