"""What a round costs beside a bare loop over the same batches.

    python benchmarks/round_overhead.py                     # 20 clients, hidden 128
    python benchmarks/round_overhead.py --repeats 2 --dialogues 40 --hidden 16

Twenty clients train SDT for one local epoch, in three ways that take the same steps on the same
batches: a bare loop of forward, backward and Adam; a round of ``FederatedLoop``, which also copies
weights, sums up and adds up; and a round under Lightning's Trainer, with its hooks. The three
alternate, so that a machine that is busy for a while is busy for all; ratios are paired. Peak
memory is that of a fresh process for each way. One thread.
"""

import argparse
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path

import pytorch_lightning as pl
import torch

from fedmer.client import EmotionClient, adam
from fedmer.data.batch import EpochOrder, collate
from fedmer.data.datamodule import FederatedDataModule
from fedmer.data.synthetic import synthetic_corpus
from fedmer.federated import FederatedModule
from fedmer.local import LocalTrainer, LocalTraining
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.plugins.selectors.all import All
from fedmer.report.noise import filter_noise

REPORT = Path(__file__).parent / "results" / "round_overhead.md"
WAYS = {
    "bare": "bare loop: forward, backward, Adam",
    "loop": "FederatedLoop.run_round",
    "lightning": "a round under Lightning's Trainer",
}


def data_of(options: argparse.Namespace) -> FederatedDataModule:
    """Twenty devices of the synthetic corpus."""
    data = FederatedDataModule(VirtualSpeaker(20))
    data._corpus = synthetic_corpus(dialogues=options.dialogues)
    data.setup("fit")
    return data


def bare_round(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds of local training alone."""
    data = data_of(options)
    clients, client = data.clients, EmotionClient(network(data, options), SelfDistillation())
    orders = [EpochOrder(len(own.train), 0, number) for number, own in enumerate(clients)]

    def run() -> float:
        began = time.perf_counter()
        client.train()
        for own, order in zip(clients, orders, strict=True):
            optimizer = adam(client.network.parameters())
            places = list(order)
            for start in range(0, len(places), 16):
                batch = collate([own.train[i] for i in places[start : start + 16]])
                optimizer.zero_grad()
                client.training_step(batch, 0).backward()
                optimizer.step()
        return time.perf_counter() - began

    return run


def loop_round(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds of a round without a Trainer."""
    data = data_of(options)
    client = EmotionClient(network(data, options), SelfDistillation())
    trainer = LocalTrainer(client, data.clients, FedAvg(), LocalTraining())
    loop = FederatedLoop(network(data, options), FedAvg(), All(), Inline(), trainer, seed=0)
    rounds = iter(range(10**6))
    return lambda: loop.run_round(next(rounds)).seconds


def lightning_round(options: argparse.Namespace) -> Callable[[], float]:
    """Seconds of a round under a Trainer, from the broadcast to the server's step."""
    data = data_of(options)
    module = FederatedModule(
        lambda shape: SDT(shape, hidden=options.hidden), FedAvg(), All(), Inline()
    )

    def run() -> float:
        trainer = pl.Trainer(
            max_epochs=1, accelerator="cpu", logger=False, enable_checkpointing=False,
            enable_progress_bar=False, enable_model_summary=False, limit_val_batches=0,
        )  # fmt: skip
        trainer.fit(module, datamodule=data)
        assert module.report is not None
        return module.report.seconds

    return run


def network(data: FederatedDataModule, options: argparse.Namespace) -> SDT:
    torch.manual_seed(0)
    return SDT(data.shape, hidden=options.hidden)


MAKERS = {"bare": bare_round, "loop": loop_round, "lightning": lightning_round}


def peak_memory(way: str, options: argparse.Namespace) -> float:
    """Megabytes, in a process of its own."""
    command = [sys.executable, __file__, "--memory", way]
    for name in ("hidden", "dialogues"):
        command += [f"--{name}", str(getattr(options, name))]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--hidden", type=int, default=128)
    parser.add_argument("--dialogues", type=int, default=151)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", choices=MAKERS, help=argparse.SUPPRESS)
    parser.add_argument("--save", action="store_true", help=f"write {REPORT.name}")
    options = parser.parse_args()
    filter_noise()
    torch.set_num_threads(1)
    if options.memory:
        MAKERS[options.memory](options)()
        print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
        return
    rounds = {way: make(options) for way, make in MAKERS.items()}
    seconds: dict[str, list[float]] = {way: [] for way in rounds}
    for repeat in range(options.repeats + 1):
        for way, run in rounds.items():
            took = run()
            if repeat:  # the first of each warms up
                seconds[way].append(took)
    lines = [
        f"20 clients, SDT at hidden {options.hidden}, one local epoch, "
        f"{options.dialogues} synthetic dialogues, {options.repeats} repeats, one thread.",
        "",
        "| way | seconds a round, median | ratio to bare, median [quartiles] | peak memory |",
        "|---|---|---|---|",
    ]
    for way, title in WAYS.items():
        ratios = [a / b for a, b in zip(seconds[way], seconds["bare"], strict=True)]
        low, middle, high = statistics.quantiles(ratios, n=4)
        lines.append(
            f"| {title} | {statistics.median(seconds[way]):.2f} "
            f"| {middle:.3f} [{low:.3f}, {high:.3f}] | {peak_memory(way, options):.0f} MB |"
        )
    versions = ", ".join(f"{name} {version(name)}" for name in ("torch", "pytorch-lightning"))
    lines += ["", f"{platform.processor() or platform.machine()}, Python "
              f"{platform.python_version()}, {versions}."]  # fmt: skip
    table = "\n".join(lines)
    print(table)
    if options.save:
        command = "python benchmarks/round_overhead.py " + " ".join(sys.argv[1:])
        REPORT.write_text(f"# What a round costs\n\n`{command.strip()}`\n\n{table}\n")


if __name__ == "__main__":
    main()
