"""Clients, batches and messages that the tests of rules start from."""

import dataclasses
from collections.abc import Mapping, Sequence

import torch
from hypothesis import settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.optim import Optimizer

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator, ClientRound, ServerState
from fedmer.contracts.network import NetworkOutput
from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED, CorpusShape
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.networks.sdt import SDT
from fedmer.running_mean import ClientWeight, RunningMean

SHAPE = CorpusShape({"text": 3}, classes=4, speakers=2)
quick = settings(max_examples=25, deadline=None)
few = settings(max_examples=10, deadline=None)
SEEDS = st.integers(0, 1000)
NOTHING = torch.zeros(())
"""A supervised loss beside which a rule's own term can be seen."""


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def client(seed: int) -> EmotionClient:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SDT(SHAPE, hidden=4, heads=1, dropout=0.0, attention_score=None)
    return EmotionClient(network, SelfDistillation()).eval()


def batch_of(seed: int, labelled: float = 0.7, size: tuple[int, int] = (2, 5)) -> Batch:
    """All utterances there, some labelled; any label outside M."""
    random = generator(seed)
    context = torch.ones(size, dtype=torch.bool)
    return Batch(
        features={"text": torch.randn(*size, 3, generator=random)},
        present={"text": context},
        context=context,
        labelled=torch.rand(size, generator=random) < labelled,
        labels=torch.randint(0, SHAPE.classes, size, generator=random),
        roles=torch.zeros(size, dtype=torch.int64),
        positions=torch.arange(size[1]).expand(size),
    )


def masked(batch: Batch) -> Batch:
    """As it comes from a corpus: no label outside M."""
    return dataclasses.replace(batch, labels=batch.labels.masked_fill(~batch.labelled, UNLABELLED))


def prototypes(seed: int, width: int = 3, site: str = "fused") -> dict[str, Tensor]:
    """Random prototypes of which some are known, and one surely is."""
    random = generator(seed)
    known = torch.rand(SHAPE.classes, generator=random) < 0.5
    known[seed % SHAPE.classes] = True
    return {
        f"prototypes.{site}": torch.randn(SHAPE.classes, width, generator=random),
        f"known.{site}": known,
    }


def said(seed: int, size: tuple[int, int], width: int = 3, offset: float = 0.0) -> NetworkOutput:
    random = generator(seed + 1)
    return NetworkOutput(
        logits=torch.randn(*size, SHAPE.classes, generator=random),
        embeddings={
            "fused": (torch.randn(*size, width, generator=random) + offset).requires_grad_()
        },
    )


def received(tensors: Mapping[str, Tensor], seed: int = 0) -> ClientRound:
    """A client that got these tensors and no weights in round 1."""
    return ClientRound(client(seed), Broadcast(1, None, tensors))


def small_network() -> nn.Module:
    """Two parameters, (1, 2) in one tensor, and a floating and an integer buffer."""
    network = nn.Linear(2, 1, bias=False)
    with torch.no_grad():
        network.weight.copy_(torch.tensor([[1.0, 2.0]]))
    network.register_buffer("level", torch.tensor(0.0))
    network.register_buffer("seen", torch.tensor(0))
    return network


def small_update(weight: tuple[float, float], level: float = 0.0, seen: int = 0) -> Weights:
    """What a client that trained a :func:`small_network` sends."""
    return {
        "weight": torch.tensor([weight], dtype=torch.float32),
        "level": torch.tensor(level, dtype=torch.float32),
        "seen": torch.tensor(seen),
    }


def join(
    rule: Aggregator,
    state: ServerState,
    optimizer: Optimizer,
    cohort: Sequence[tuple[Summary, Weights]],
) -> dict[int, float]:
    """The server's half of a round of a rule whose updates run into one sum; its weights."""
    summaries, mean = [summary for summary, _ in cohort], RunningMean()
    for summary, update in cohort:
        mean.add(update, ClientWeight(rule.weigh([summary], state)[summary.client]))
    found = rule.weigh(summaries, state)
    weights = {client: weight / sum(found.values()) for client, weight in found.items()}
    optimizer.zero_grad()
    rule.step(state, summaries, weights, mean.result())
    optimizer.step()
    return weights
