"""A training step of SDT: packed, as fedmer has it, against the plain padded network.

    python benchmarks/bench_step.py --save
    python benchmarks/bench_step.py --hidden 16 --repeats 2 --busy        # a quick look

Forward, loss, backward and Adam on batches of 16 dialogues with IEMOCAP's lengths and dimensions.
Both networks have the same weights and see the same batches; steps alternate. The floor is the
floating-point operations that real turns need, divided by the rate of a large matrix product on
this machine; no step can be faster, and most of it is what the wider networks approach.
"""

import argparse
import sys
from collections.abc import Sequence

import torch

from benchmarks.machine import (
    RESULTS,
    interleave,
    machine,
    matrix_rate,
    options_parser,
    peak,
    peak_memory,
    ratio,
    refuse_if_busy,
    save,
    timed,
)
from benchmarks.padded_sdt import PaddedSDT
from fedmer.contracts.network import Network
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.networks.sdt import SDT

IEMOCAP = CorpusShape({"text": 1024, "audio": 1582, "visual": 342}, classes=6, speakers=2)
MEAN, DEVIATION, SHORTEST, LONGEST = 49.2, 19.0, 8, 110
"""Turns of IEMOCAP's dialogues; drawn so, two fifths of a batch of 16 are padding, as measured."""


def iemocap_batch(dialogues: int, seed: int, shape: CorpusShape = IEMOCAP) -> Batch:
    """Random features in dialogues of IEMOCAP's lengths."""
    random = torch.Generator().manual_seed(seed)
    lengths = (MEAN + DEVIATION * torch.randn(dialogues, generator=random)).round()
    lengths = lengths.clamp(SHORTEST, LONGEST).long()
    context = torch.arange(int(lengths.max())) < lengths[:, None]
    size = context.shape
    return Batch(
        features={
            name: torch.randn(*size, width, generator=random) * context[..., None]
            for name, width in shape.features.items()
        },
        present={name: context.clone() for name in shape.features},
        context=context,
        labelled=context.clone(),
        labels=torch.randint(shape.classes, size, generator=random) * context,
        roles=torch.randint(2, size, generator=random) * context,
        positions=torch.arange(size[1]).expand(size) * context,
    )


def operations(shape: CorpusShape, hidden: int, lengths: list[int]) -> float:
    """Floating-point operations of a step on real turns: forward, and twice that backward.

    The features themselves need no gradient, so that their projection is done twice and not three
    times.
    """
    modalities, turns = len(shape.features), sum(lengths)
    pairs = modalities**2
    rows = pairs * 7 * hidden**2 + modalities * modalities * hidden**2 + modalities * hidden**2
    rows += (modalities + 1) * hidden * shape.classes
    attention = 2 * pairs * hidden * sum(length**2 for length in lengths)
    project = sum(shape.features.values()) * hidden * turns
    return 2.0 * (3 * (rows * turns + attention) + 2 * project)


class Stepper:
    """Steps of Adam over batches, again and again."""

    def __init__(self, network: Network, batches: list[Batch]) -> None:
        self.network, self.batches = network.train(), batches
        self.loss = SelfDistillation()
        self.optimizer = torch.optim.Adam(network.parameters(), lr=1e-4, fused=True)

    def __call__(self) -> None:
        for batch in self.batches:
            self.optimizer.zero_grad()
            loss = self.loss(self.network(batch), batch)
            torch.autograd.backward(loss)
            self.optimizer.step()


def networks(hidden: int) -> dict[str, Network]:
    torch.manual_seed(0)
    packed = SDT(IEMOCAP, hidden=hidden, heads=8, dropout=0.5)
    return {"padded": PaddedSDT(packed), "packed": packed}


def draw(found: Sequence[tuple[str, float, float, float]]) -> None:
    """results/step.png: milliseconds of a step, padded and packed, and the floor."""
    import matplotlib

    matplotlib.use("Agg")
    import matplotlib.pyplot as plt

    figure, panel = plt.subplots(figsize=(6.4, 3.2))
    colours = {"padded": "tab:grey", "packed (fedmer)": "tab:blue", "floor": "tab:green"}
    for place, (name, colour) in enumerate(colours.items()):
        heights = [row[1 + place] for row in found]
        places = [number + 0.28 * (place - 1) for number in range(len(found))]
        bars = panel.bar(places, heights, width=0.26, color=colour, label=name)
        panel.bar_label(bars, [f"{height:.0f}" for height in heights], fontsize=6)
    panel.set_xticks(range(len(found)), [row[0] for row in found], fontsize=7)
    panel.set_yscale("log")
    panel.set_ylabel("ms a step")
    panel.legend(fontsize=7)
    figure.tight_layout()
    figure.savefig(RESULTS / "step.png", dpi=130)


def main() -> None:
    parser = options_parser(__doc__, "step.md and step.png")
    parser.add_argument("--hidden", type=int, nargs="+", default=[128, 256, 1024])
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--batches", type=int, default=2)
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--memory", choices=("padded", "packed"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    batches = [iemocap_batch(16, seed) for seed in range(options.batches)]
    if options.memory:
        torch.set_num_threads(1)
        Stepper(networks(options.hidden[0])[options.memory], batches)()
        print(peak())
        return
    refuse_if_busy(options.busy)
    turns = sum(sum(batch.lengths) for batch in batches)
    padding = 1 - turns / sum(batch.context.numel() for batch in batches)
    lines = [
        f"Batches of 16 dialogues, {turns / options.batches:.0f} turns and {100 * padding:.0f} % "
        f"padding; dropout 0.5; {options.repeats} repeats of {options.batches} batches.",
        "",
        "| hidden | threads | padded, ms a step | packed | padded / packed, median [quartiles] "
        "| floor | of the floor's rate | peak memory padded | packed |",
        "|--:|--:|--:|--:|--:|--:|--:|--:|--:|",
    ]
    found = []
    for hidden in options.hidden:
        memory = {
            way: peak_memory(__file__, ["--memory", way, "--hidden", str(hidden)])
            for way in ("padded", "packed")
        }
        for threads in options.threads:
            torch.set_num_threads(threads)
            rate = matrix_rate()
            ways = {
                way: timed(Stepper(network, batches)) for way, network in networks(hidden).items()
            }
            seconds = interleave(ways, options.repeats)
            each = {
                way: 1e3 * sorted(took)[len(took) // 2] / options.batches
                for way, took in seconds.items()
            }
            needed = sum(operations(IEMOCAP, hidden, b.lengths) for b in batches)
            floor = 1e3 * needed / rate / options.batches
            lines.append(
                f"| {hidden} | {threads} | {each['padded']:.0f} | {each['packed']:.0f} "
                f"| {ratio(seconds['padded'], seconds['packed'])} | {floor:.0f} "
                f"| {100 * floor / each['packed']:.0f} % "
                f"| {memory['padded']:.0f} MB | {memory['packed']:.0f} MB |"
            )
            print(lines[-1], file=sys.stderr)
            name = f"hidden {hidden},\n{threads} thread" + "s" * (threads > 1)
            found.append((name, each["padded"], each["packed"], floor))
    text = "\n".join([*lines, "", machine()])
    print(text)
    if options.save:
        save("step.md", "A training step", text)
        draw(found)


if __name__ == "__main__":
    main()
