"""What a round costs beside a bare loop over the same batches, and beside peers.

    python benchmarks/bench_round.py --save
    python benchmarks/bench_round.py --workloads MLP --clients 4 --rounds 2 --repeats 2 --busy

FedAvg over small clients, one local epoch, Adam. The bare loop does forward, backward and Adam on
the same batches and nothing else; ratios to it are paired, ways alternate, and the first turn of
each is dropped. Peers run in environments of their own, which ``benchmarks/peers/setup.sh`` makes;
they take the same steps, and their final weights are compared with fedmer's. Peak memory and
start-up are those of a fresh process.
"""

import argparse
import resource
import sys
import time
from collections.abc import Callable

import torch

from benchmarks.machine import (
    interleave,
    machine,
    peak_memory,
    ratio,
    refuse_if_busy,
    save,
    timed,
)
from benchmarks.workloads import WORKLOADS, build, clients
from fedmer.client import EmotionClient
from fedmer.data.batch import collate
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.local import LocalTrainer, LocalTraining
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.base import Executor
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.selectors.all import All

BATCH = 16
EXECUTORS: dict[str, Callable[[], Executor]] = {
    "Inline": Inline,
    "Workers(2)": lambda: Workers(2),
    "Stacked": lambda: Stacked(clients=32),
}


def bare(name: str, data: list[ClientData], rounds: int) -> Callable[[], None]:
    """Local training alone: every client's batch, made once, and a new Adam, on one network."""
    client = EmotionClient(build(name), SelfDistillation())
    batches = [collate(own.train) for own in data]

    def run() -> None:
        client.train()
        for _ in range(rounds):
            for batch in batches:
                optimizer = client.configure_optimizers()
                optimizer.zero_grad()
                torch.autograd.backward(client.training_step(batch, 0))
                optimizer.step()

    return run


def federation(name: str, data: list[ClientData], executor: Executor) -> FederatedLoop:
    client = EmotionClient(build(name), SelfDistillation())
    trainer = LocalTrainer(client, data, FedAvg(), LocalTraining(batch_size=BATCH))
    return FederatedLoop(build(name), FedAvg(), All(), executor, trainer, seed=0)


def ours(name: str, data: list[ClientData], executor: Executor, rounds: int) -> Callable[[], None]:
    loop, numbers = federation(name, data, executor), iter(range(10**9))

    def run() -> None:
        for _ in range(rounds):
            loop.run_round(next(numbers))

    return run


def measure(name: str, count: int, options: argparse.Namespace) -> list[str]:
    """The lines of one workload."""
    data = clients(count)
    ways = {"bare loop": timed(bare(name, data, options.rounds))}
    started: list[Executor] = []
    for title, make in EXECUTORS.items():
        executor = make()
        try:
            ways[title] = timed(ours(name, data, executor, options.rounds))
            started.append(executor)
        except InputError as error:
            print(f"{name}: {error}", file=sys.stderr)
    seconds = interleave(ways, options.repeats)
    for executor in started:
        executor.close()
    weights = sum(parameter.numel() for parameter in build(name).parameters())
    lines = []
    for title, took in seconds.items():
        arguments = ["--memory", title, "--workloads", name, "--clients", str(count)]
        lines.append(
            f"| {name}, {weights / 1e3:.0f} k | {count} | {title} "
            f"| {1e3 * sorted(took)[len(took) // 2] / options.rounds:.1f} "
            f"| {ratio(took, seconds['bare loop'])} | {peak_memory(__file__, arguments):.0f} MB |"
        )
        print(lines[-1], file=sys.stderr)
    return lines


def memory_of(way: str, name: str, count: int) -> float:
    """Megabytes of this process and its workers at the most, after two rounds."""
    data = clients(count)
    if way == "bare loop":
        bare(name, data, 2)()
    else:
        executor = EXECUTORS[way]()
        ours(name, data, executor, 2)()
        executor.close()
    own, children = (
        resource.getrusage(who).ru_maxrss / 1024
        for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
    )
    return max(own, children)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--clients", type=int, nargs="+", default=[20, 100])
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument(
        "--busy", action="store_true", help="measure on a busy machine all the same"
    )
    parser.add_argument("--memory", help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help="write results/round.md")
    options = parser.parse_args()
    torch.set_num_threads(1)
    if options.memory:
        print(memory_of(options.memory, options.workloads[0], options.clients[0]))
        return
    refuse_if_busy(options.busy)
    began = time.perf_counter()
    lines = [
        f"Clients of two dialogues of 10 to 30 turns, one local epoch, Adam, one thread a client; "
        f"{options.repeats} repeats of {options.rounds} rounds, in turns, after one that warms up.",
        "",
        "| network | clients | way | ms a round, median | ratio to bare, median [quartiles] "
        "| peak memory of a process |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name in options.workloads:
        for count in options.clients:
            lines += measure(name, count, options)
    lines += ["", f"{machine()} It took {(time.perf_counter() - began) / 60:.0f} minutes."]
    text = "\n".join(lines)
    print(text)
    if options.save:
        save("round.md", "What a round costs", text)


if __name__ == "__main__":
    main()
