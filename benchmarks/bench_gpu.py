"""The paper's full experiment on one device: seconds, peak memory, and how far from the floor.

    python benchmarks/bench_gpu.py --save                  # 24 rounds of 50 local epochs
    python benchmarks/bench_gpu.py --rounds 2 --epochs 5   # a part of it, scaled up to the whole
    python benchmarks/bench_gpu.py --features 8 --hidden 16 --clients 3 --rounds 1 --epochs 1

SDT with attention scores at width 1024 (79.8 million parameters) on a corpus of IEMOCAP's size and
dimensions, NWay over 20 clients, Distance over the largest ten, batches of 16, a new Adam every
round: ``experiments/iemocap_paper.yaml``. The floor is the floating-point operations that real
turns need, divided by the rate of a large product at the same precision, and the bytes that Adam,
the gradients and the weights move in a step, divided by the rate of a large copy. It is meant for
a GPU; without one it runs on the CPU, at sizes that suit it.
"""

import argparse
import statistics
import sys
from collections.abc import Mapping

import torch
from lightning_fabric import Fabric

from benchmarks.bench_step import operations
from benchmarks.machine import (
    machine,
    matrix_rate,
    options_parser,
    refuse_if_busy,
    save,
    synchronise,
    timed,
)
from fedmer.client import EmotionClient
from fedmer.data.client_data import ClientData
from fedmer.data.synthetic import synthetic_corpus
from fedmer.datamodule import FederatedDataModule
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop, RoundReport
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.attention_score import AttentionScore
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.partitioners.n_way import NWay
from fedmer.plugins.selectors.top_volume import TopVolume
from fedmer.steps import LocalTraining

ROUNDS, EPOCHS = 24, 50
WIDTHS = {"text": 1024, "audio": 1582, "visual": 342}
PRECISIONS: Mapping[str, tuple[str, str]] = {
    "float32": ("32-true", "highest"),
    "TF32": ("32-true", "high"),
    "bfloat16": ("bf16-mixed", "highest"),
}
"""Name -> Lightning's precision, and how torch multiplies float32."""


def federation(options: argparse.Namespace, precision: str) -> FederatedLoop:
    """The paper's federation at some sizes, its global network on the device."""
    lightning, products = PRECISIONS[precision]
    torch.set_float32_matmul_precision(products)
    fabric = Fabric(accelerator="auto", devices=1, precision=lightning)  # type: ignore[arg-type]
    widths = {name: options.features or width for name, width in WIDTHS.items()}
    data = FederatedDataModule(NWay(options.clients), holdout=0.0)
    data._corpus = synthetic_corpus(dialogues=options.dialogues, features=widths)
    data.setup("fit")

    def network() -> SDT:
        torch.manual_seed(0)
        score = AttentionScore(renorm=False)
        return SDT(data.shape, options.hidden, 8, dropout=0.5, attention_score=score)

    rule = Distance(0.1, gamma=0.0, epsilon=0.001)
    training = LocalTraining(epochs=options.epochs, batch_size=16)
    client = EmotionClient(network(), SelfDistillation(temperature=1.0))
    trainer = LocalTrainer(client, data.clients, rule, training, fabric)
    chosen = TopVolume(online=0.8, fraction=0.5)
    server = network().to(fabric.device)
    return FederatedLoop(server, rule, chosen, Inline(), trainer, seed=0, rounds=options.rounds)


def steps_and_operations(
    data: ClientData, loop: FederatedLoop, epochs: int, hidden: int
) -> tuple[int, float]:
    """Steps of one client's round, and what real turns need in them."""
    lengths = [len(excerpt) for excerpt in data.train]
    shape = loop.trainer.client.network.shape
    return -(-len(lengths) // 16) * epochs, operations(shape, hidden, lengths) * epochs


def product_rate(precision: str, device: torch.device) -> float:
    """Floating-point operations a second of a large product at a precision."""
    lightning, products = PRECISIONS[precision]
    torch.set_float32_matmul_precision(products)
    kind = torch.bfloat16 if lightning == "bf16-mixed" else torch.float32
    return matrix_rate(8192 if device.type == "cuda" else 1024, kind)


def copy_rate(device: torch.device) -> float:
    """Bytes a second of a large copy, read and written."""
    one = torch.empty(2**28 if device.type == "cuda" else 2**24, device=device)
    other = torch.empty_like(one)
    measure = timed(lambda: other.copy_(one))
    measure()
    return 2 * one.numel() * one.element_size() / min(measure() for _ in range(10))


def moved_bytes(parameters: int) -> float:
    """Bytes that a step moves at least, in float32.

    Weights are read forward and backward, gradients written, and Adam reads weight, gradient and
    two moments and writes three of them.
    """
    return 4.0 * parameters * (2 + 1 + 7)


def measure(precision: str, options: argparse.Namespace) -> str:
    """One line of the table."""
    loop = federation(options, precision)
    device = loop.trainer.fabric.device
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats()
    reports: list[RoundReport] = []
    for number in range(options.rounds):
        synchronise()
        reports.append(loop.run_round(number))
        print(f"{precision}: round {number + 1} took {reports[-1].seconds:.1f} s", file=sys.stderr)
    each = statistics.median(report.seconds for report in reports)
    taken = sum(report.seconds for report in reports)
    scale = ROUNDS * EPOCHS / (options.rounds * options.epochs)
    memory = "not asked"
    if device.type == "cuda":
        memory = f"{torch.cuda.max_memory_allocated() / 2**30:.1f} GB"
    parameters = sum(p.numel() for p in loop.state.network.parameters())
    steps, needed = 0, 0.0
    for report in reports:
        for summary in report.summaries:
            data = loop.trainer.data[summary.client]
            count, flops = steps_and_operations(data, loop, options.epochs, options.hidden)
            steps, needed = steps + count, needed + flops
    arithmetic = needed / product_rate(precision, device)
    traffic = steps * moved_bytes(parameters) / copy_rate(device)
    loss = reports[-1].train_loss
    return (
        f"| {precision} | {parameters / 1e6:.1f} M | {len(reports)} x {options.epochs} "
        f"| {each:.2f} | {1e3 * taken / steps:.1f} | {taken * scale:.0f} "
        f"| {arithmetic * scale:.0f} + {traffic * scale:.0f} "
        f"| {100 * (arithmetic + traffic) / taken:.0f} % | {memory} | {loss:.3f} |"
    )


def main() -> None:
    parser = options_parser(__doc__, "gpu.md")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--epochs", type=int, default=EPOCHS, help="Local epochs a round.")
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--dialogues", type=int, default=151)
    parser.add_argument("--hidden", type=int, default=1024)
    parser.add_argument("--features", type=int, help="Dimensions of every modality.")
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    options = parser.parse_args()
    refuse_if_busy(options.busy)
    lines = [
        f"{options.clients} clients, {options.dialogues} dialogues, width {options.hidden}. The "
        f"whole is {ROUNDS} rounds of {EPOCHS} local epochs; where fewer were run, scaled up.",
        "",
        "| precision | parameters | rounds x epochs | seconds a round, median | ms a step "
        "| the whole, s | floor, s: arithmetic + memory | of the floor's rate | peak memory "
        "| loss, last round |",
        "|---|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    for precision in options.precisions:
        lines.append(measure(precision, options))
        print(lines[-1], file=sys.stderr)
    text = "\n".join([*lines, "", machine()])
    print(text)
    if options.save:
        save("gpu.md", "The paper's full experiment on one device", text)


if __name__ == "__main__":
    main()
