"""A step with the gradient of each dialogue, clipped and with noise, against a plain step.

    python benchmarks/bench_privacy.py --save
    python benchmarks/bench_privacy.py --networks EarlyFusion --hidden 16 --repeats 2 --busy

A client's part of a round of one step of Adam on 16 dialogues with IEMOCAP's lengths and
dimensions, all of which have a part in the step; plain and with ``--privacy DPSGD``, in turns.
"""

import sys
from collections.abc import Callable

import torch

from benchmarks.bench_step import IEMOCAP, iemocap_batch
from benchmarks.machine import (
    interleave,
    machine,
    options_parser,
    ratio,
    refuse_if_busy,
    save,
    timed,
)
from fedmer.client import EmotionClient
from fedmer.contracts.network import Network
from fedmer.contracts.privacy import Privacy
from fedmer.data.batch import Batch, Excerpt
from fedmer.data.client_data import ClientData
from fedmer.local import LocalTrainer
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.networks.late_fusion import LateFusion
from fedmer.plugins.networks.mult import MulT
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.privacy.dpsgd import DPSGD
from fedmer.steps import LocalTraining

NETWORKS: dict[str, type[Network]] = {
    kind.__name__: kind for kind in (SDT, EarlyFusion, LateFusion, MulT)
}


def excerpts(batch: Batch) -> list[Excerpt]:
    """The dialogues of a batch, without padding."""

    def cut(rows: torch.Tensor, place: int) -> torch.Tensor:
        return rows[place, : batch.lengths[place]].clone()

    return [
        Excerpt(
            dialogue=str(place),
            turns=torch.arange(length),
            features={name: cut(rows, place) for name, rows in batch.features.items()},
            present={name: cut(rows, place) for name, rows in batch.present.items()},
            labels=cut(batch.labels, place),
            labelled=cut(batch.labelled, place),
            roles=cut(batch.roles, place),
            positions=cut(batch.positions, place),
        )
        for place, length in enumerate(batch.lengths)
    ]


def part(
    kind: type[Network], hidden: int, data: ClientData, *privacy: Privacy
) -> Callable[[], object]:
    """One client's part of a round."""
    torch.manual_seed(0)
    client = EmotionClient(kind(IEMOCAP, hidden=hidden), SelfDistillation(calibration="none"))
    trainer = LocalTrainer(client, [data], FedAvg(), LocalTraining(), privacy=privacy)
    received = Broadcast(0, trainer.weights.clone())
    return lambda: trainer.fit(0, received)


def main() -> None:
    parser = options_parser(__doc__, "privacy.md")
    parser.add_argument("--networks", nargs="+", choices=list(NETWORKS), default=list(NETWORKS))
    parser.add_argument("--hidden", type=int, nargs="+", default=[64, 256])
    parser.add_argument("--repeats", type=int, default=7)
    options = parser.parse_args()
    refuse_if_busy(options.busy)
    torch.set_num_threads(1)
    data = ClientData("one", excerpts(iemocap_batch(16, 0)))
    lines = [
        f"16 dialogues in a step, 1 thread; {options.repeats} repeats.",
        "",
        "| network | hidden | dialogues go | plain, ms a step | DPSGD | DPSGD / plain, median "
        "[quartiles] |",
        "|---|--:|---|--:|--:|--:|",
    ]
    for name in options.networks:
        for hidden in options.hidden:
            kind = NETWORKS[name]
            ways = {
                "plain": timed(part(kind, hidden, data)),
                "DPSGD": timed(part(kind, hidden, data, DPSGD(multiplier=1.0))),
            }
            seconds = interleave(ways, options.repeats)
            plain, private = (1e3 * sorted(took)[len(took) // 2] for took in seconds.values())
            lines.append(
                f"| {name} | {hidden} | {'together' if kind.stackable else 'one by one'} "
                f"| {plain:.0f} | {private:.0f} | {ratio(seconds['DPSGD'], seconds['plain'])} |"
            )
            print(lines[-1], file=sys.stderr)
    text = "\n".join([*lines, "", machine()])
    print(text)
    if options.save:
        save("privacy.md", "Gradients dialogue by dialogue", text)


if __name__ == "__main__":
    main()
