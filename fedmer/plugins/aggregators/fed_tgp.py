"""FedTGP, where the server trains the class prototypes."""

from collections.abc import Mapping, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.contracts.aggregator import Clear, ServerState
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators.fed_proto import SITE, FedProto
from fedmer.prototypes import Prototypes, PrototypeSet, stack_clients
from fedmer.seeds import derive

_GENERATOR = "generator."


class FedTGP(FedProto):
    r"""FedProto whose server learns class prototypes that stand apart.

    J. Zhang et al., "FedTGP: Trainable Global Prototypes with Adaptive-Margin-Enhanced Contrastive
    Learning for Data and Model Heterogeneity in Federated Learning", AAAI 2024. Clients do what
    they do in :class:`~fedmer.plugins.aggregators.fed_proto.FedProto`. The server keeps a generator
    :math:`F`, a table of one vector a class followed by linear, ReLU and linear layers, and trains
    it each round on the prototypes :math:`C_i^k` of the cohort to lower the mean over them of

    .. math::

        -\log \frac{\exp(-(d(C_i^k, F_k) + \delta))}
                   {\exp(-(d(C_i^k, F_k) + \delta)) + \sum_{j \ne k} \exp(-d(C_i^k, F_j))}, \quad
        \delta = \min\Big(\max_k \min_{j \ne k} d(\bar C^k, \bar C^j),\, m\Big)

    with the Euclidean distance :math:`d`, the plain mean :math:`\bar C^k` over the cohort's clients
    that hold class :math:`k`, and :math:`m` for ``margin``. Then :math:`F_k` is the prototype of
    class :math:`k`. Only classes that some client has held so far take part; the others stay
    unknown. The generator's start is the same in every run, and each of its steps sees all
    prototypes at once, where the authors draw batches.

    Args:
        strength: The factor lambda of clients' prototype term, 0 or more.
        inference: Predict by the nearest global 'prototype', as the authors do, or by the network's
            'head'. Before there are prototypes, the head predicts.
        server_epochs: Steps of the generator a round, at least 1.
        server_lr: Learning rate of the generator, above 0.
        margin: The largest margin, 0 or more.
        min_count: A class of which a client has fewer utterances than this counts as one that it
            does not hold.

    Raises:
        InputError: A value is out of range.

    >>> held = torch.tensor([4, 4])
    >>> prototypes = Prototypes(torch.tensor([[0.0, 0.0], [3.0, 4.0]]), held > 0, held)
    >>> cohort = [Summary(0, examples=8, tensors=PrototypeSet({SITE: prototypes}).pack())]
    >>> state = ServerState(nn.Linear(1, 1))
    >>> FedTGP().step(state, cohort, {}, None)
    >>> PrototypeSet.unpack(state.tensors)[SITE].means.shape
    torch.Size([2, 2])
    """

    def __init__(
        self,
        strength: float = 1.0,
        inference: Literal["prototype", "head"] = "prototype",
        server_epochs: int = 100,
        server_lr: float = 0.1,
        margin: float = 100.0,
        min_count: int = 1,
    ) -> None:
        super().__init__(strength, inference, min_count)
        if server_epochs < 1:
            raise InputError(f"server_epochs is {server_epochs}; expected at least 1.")
        if not server_lr > 0:
            raise InputError(f"server_lr is {server_lr}; expected a number above 0.")
        if not margin >= 0:
            raise InputError(f"margin is {margin}; expected 0 or more.")
        self.server_epochs = server_epochs
        self.server_lr = server_lr
        self.margin = margin

    @property
    def sums(self) -> tuple[str, ...]:
        # The generator learns from each client's prototypes, and not from their mean.
        return ()

    @property
    def reads_masked(self) -> tuple[Clear, ...]:
        return self.reads

    def broadcast(self, state: ServerState) -> Broadcast:
        return Broadcast(state.round, None, PrototypeSet.unpack(state.tensors).pack())

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        local, held = stack_clients([PrototypeSet.unpack(s.tensors) for s in summaries], SITE)
        old = PrototypeSet.unpack(state.tensors).get(SITE)
        known = held.any(dim=0) if old is None else old.known | held.any(dim=0)
        margin = adaptive_margin(local, held, self.margin)
        generator = self._generator(state, local)
        optimizer = torch.optim.SGD(generator.parameters(), lr=self.server_lr)
        rows, labels = local[held], held.nonzero()[:, 1]
        for _ in range(self.server_epochs):
            optimizer.zero_grad()
            loss = separation(rows, labels, generator(), known, margin)
            torch.autograd.backward(loss)
            optimizer.step()
        for name, value in generator.state_dict().items():
            state.tensors[_GENERATOR + name] = value.detach().clone()
        with torch.no_grad():
            learnt = Prototypes(generator() * known[:, None], known)
        state.tensors |= PrototypeSet({SITE: learnt}).pack()

    def _generator(self, state: ServerState, local: Tensor) -> "Generator":
        _, classes, width = local.shape
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(0, "FedTGP"))
            generator = Generator(classes, width)
        saved = {
            name.removeprefix(_GENERATOR): value
            for name, value in state.tensors.items()
            if name.startswith(_GENERATOR)
        }
        if saved:
            generator.load_state_dict(saved)
        return generator.to(local.device)


class Generator(nn.Module):
    """Makes a prototype of every class, ``(C, D)``, from a table of one vector a class."""

    def __init__(self, classes: int, width: int) -> None:
        super().__init__()
        self.table = nn.Embedding(classes, width)
        self.inner = nn.Linear(width, width)
        self.outer = nn.Linear(width, width)

    def forward(self) -> Tensor:
        prototypes: Tensor = self.outer(self.inner(self.table.weight).relu())
        return prototypes


def adaptive_margin(local: Tensor, held: Tensor, largest: float) -> float:
    """How far the cohort's mean prototypes lie apart: the largest of their nearest distances.

    Args:
        local: ``(N, C, D)``, every client's prototypes.
        held: ``(N, C)`` bool.
        largest: What the margin never exceeds.

    Returns:
        0 if fewer than two classes are held.

    >>> local = torch.tensor([[[0.0, 0.0], [3.0, 4.0], [3.0, 5.0], [9.0, 9.0]]])
    >>> adaptive_margin(local, torch.tensor([[True, True, True, False]]), largest=100.0)
    5.0
    """
    holders = held.any(dim=0)
    if holders.sum() < 2:
        return 0.0
    means = (local * held[..., None]).sum(dim=0) / held.sum(dim=0).clamp(min=1)[:, None]
    means = means[holders]
    apart = (means[:, None] - means).norm(dim=-1).fill_diagonal_(torch.inf)
    return min(float(apart.amin(dim=1).max()), largest)


def separation(
    rows: Tensor, labels: Tensor, prototypes: Tensor, known: Tensor, margin: float
) -> Tensor:
    """The generator's loss: cross-entropy of minus the distances, with a margin.

    Args:
        rows: ``(M, D)``, clients' prototypes.
        labels: ``(M,)`` int64, their classes.
        prototypes: ``(C, D)``, what the generator makes.
        known: ``(C,)`` bool; the others take no part.
        margin: Added to the distance to the class of the utterance.
    """
    apart = torch.cdist(rows, prototypes, compute_mode="donot_use_mm_for_euclid_dist")
    apart = apart + margin * F.one_hot(labels, len(prototypes))
    return F.cross_entropy((-apart).masked_fill(~known, -torch.inf), labels)
