"""The federations that benchmarks train: networks of three sizes, clients of equal make."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import nn

from fedmer.contracts.network import Network, NetworkOutput
from fedmer.data.batch import Batch, Excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.networks.sdt import SDT

SHAPE = CorpusShape({"text": 128, "audio": 64, "visual": 32}, classes=6, speakers=2)


class MLP(Network):
    """Two layers over a turn's features, 39 thousand parameters: what is left is overhead."""

    def __init__(self, shape: CorpusShape, hidden: int = 168) -> None:
        super().__init__(shape)
        self.first = nn.Linear(sum(shape.features.values()), hidden)
        self.second = nn.Linear(hidden, shape.classes)

    def forward(self, batch: Batch) -> NetworkOutput:
        rows = torch.cat(list(batch.features.values()), dim=-1)
        fused = self.first(rows).relu()
        return NetworkOutput(self.second(fused), {}, {"fused": fused})


WORKLOADS: Mapping[str, Callable[[], Network]] = {
    "MLP": lambda: MLP(SHAPE),
    "Transformer": lambda: EarlyFusion(SHAPE, hidden=148, heads=4, layers=2, dropout=0.0),
    "SDT": lambda: SDT(SHAPE, hidden=64, heads=4, dropout=0.0),
}
"""Name -> network, the same weights at every call."""


def build(name: str) -> Network:
    """A network of a workload; dropout is off, so that others can be compared weight by weight."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        return WORKLOADS[name]()


@dataclass(frozen=True)
class Cohort:
    """The clients of one row of a table.

    Args:
        clients: How many.
        dialogues: Of each.
        turns: Mean length of a dialogue.
    """

    clients: int
    dialogues: int = 2
    turns: int = 20

    def __str__(self) -> str:
        return f"{self.clients} x {self.dialogues} x {self.turns}"

    @classmethod
    def of(cls, text: str) -> "Cohort":
        """That of its text, as in 20x2x20."""
        return cls(*map(int, text.replace(" ", "").split("x")))

    def data(self) -> list[ClientData]:
        """What they hold."""
        return clients(self.clients, self.dialogues, self.turns)


def clients(
    count: int,
    dialogues: int = 2,
    turns: int = 20,
    shape: CorpusShape = SHAPE,
    pool: int | None = None,
) -> list[ClientData]:
    """Clients of a few dialogues, whose lengths vary by half, with random features and labels.

    Args:
        count: How many clients.
        dialogues: Of each.
        turns: Mean length.
        shape: Modalities and their dimensions.
        pool: How many different dialogues there are, which virtual clients share; by default each
            client has its own.
    """
    random = torch.Generator().manual_seed(1)

    def excerpt(name: str) -> Excerpt:
        length = int(torch.randint(turns // 2, turns + turns // 2 + 1, (), generator=random))
        return Excerpt(
            dialogue=name,
            turns=torch.arange(length),
            features={
                modality: torch.randn(length, width, generator=random)
                for modality, width in shape.features.items()
            },
            present={modality: torch.ones(length, dtype=torch.bool) for modality in shape.features},
            labels=torch.randint(shape.classes, (length,), generator=random),
            labelled=torch.ones(length, dtype=torch.bool),
            roles=torch.arange(length) % 2,
            positions=torch.arange(length),
        )

    conversations = [excerpt(str(number)) for number in range(pool or count * dialogues)]
    return [
        ClientData(
            f"client {i}",
            [conversations[(i * dialogues + d) % len(conversations)] for d in range(dialogues)],
        )
        for i in range(count)
    ]
