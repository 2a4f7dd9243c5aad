"""Analytic, a head in closed form, from sums over clients and in one round."""

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal

import torch
from torch import Tensor, nn

from fedmer.contracts.aggregator import Aggregator, Clear, ClientRound, ServerState
from fedmer.contracts.network import Network
from fedmer.data.batch import Batch
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Weights
from fedmer.plugins.aggregators._prototypes import embedding_at
from fedmer.ridge_sums import RidgeSums, packed_size

SITE = "fused"
_RIDGE = "ridge"
_MEMBERS = "members"
_SIGNS = "signs"
_BLOCK = 2**23
"""Numbers of embeddings that a client holds together."""
_MATRICES = 5
"""Whole Gram matrices that the server holds at the same time, at most."""


class Analytic(Aggregator):
    r"""The head of a frozen network in closed form: one round, and the same whatever the split.

    With :math:`z` the ``fused`` embedding of a labelled utterance and a constant 1, and :math:`y`
    its emotion as a unit vector, a client sends two means over its :math:`n_i` labelled utterances,
    the upper triangle of the first only. Weighed by :math:`n_i` as any update, they make the sums

    .. math::

        A = \sum_i n_i \Big(\frac{1}{n_i} \sum z z^\top\Big), \qquad
        B = \sum_i n_i \Big(\frac{1}{n_i} \sum z y^\top\Big)

    They tell the utterances' number, their classes' means and shares, and the covariance within
    classes, and so two heads, each the one that all utterances pooled would give, to the rounding
    of double precision:

    * 'discriminant' is regularised linear discriminant analysis, see
      :meth:`RidgeSums.discriminant`: its logits are log-probabilities, on which training can go on;
    * 'ridge' is ridge regression of :math:`y` on :math:`z`, :math:`(A + \lambda I)^{-1} B` with a
      constant that is not shrunk. E. Fanì et al., "Accelerating Heterogeneous Federated Learning
      with Closed-form Classifiers" (Fed3R), ICML 2024, arXiv 2402.02989; R. He et al., "AFL", CVPR
      2025, arXiv 2405.16240.

    On validation the first is the better one of the two on all corpora that were measured, by 1 to
    4 points of weighted F1.

    The network is the one that the run begins with, and no client trains it: give one that knows
    something without training, such as :class:`~fedmer.plugins.networks.window.Window`. Utterances
    are weighed by the class weights of the loss (``--loss.class_weights global``), scaled to a mean
    of
    1. The server keeps the sums, as :class:`~fedmer.ridge_sums.RidgeSums`, and whose utterances are
    in them. The run ends when all clients' are: after one round in which all take part, and else
    later rounds add those who were not in the cohort before. A run that goes on from a checkpoint
    with
    other clients in ``without`` adds and removes in one more round, exactly: a client that is
    removed sends its sums again, to be subtracted.

    A Gram matrix of fewer utterances than features tells what the features were. Only
    :class:`~fedmer.plugins.privacy.secure_sum.SecureSum` hides it from the server; but sums before
    and after one client came or left differ by that client's.

    Embeddings wider than ``most_features`` are sketched: each is added, with a random sign, to one
    of so many sums, which keeps products in expectation (K. Weinberger et al., "Feature Hashing for
    Large Scale Multitask Learning", ICML 2009).

    Args:
        head: Which of the two.
        ridge: :math:`\lambda`, 0 or more; by default chosen from the sums by the generalised
            cross-validation of ridge regression, see :meth:`RidgeSums.choose`.
        prior: What power of the classes' shares 'discriminant' predicts under: 1 is as they are, 0
            equal ones. Weighted F1 is best between them.
        most_features: Width beyond which embeddings are sketched.
        without: Ids of the clients whose utterances the sums shall not have.

    Raises:
        InputError: A value is out of range.
    """

    def __init__(
        self,
        head: Literal["discriminant", "ridge"] = "discriminant",
        ridge: float | None = None,
        prior: float = 0.5,
        most_features: int = 4096,
        without: Sequence[int] = (),
    ) -> None:
        if ridge is not None and not 0 <= ridge < float("inf"):
            raise InputError(f"ridge is {ridge}; expected a finite number, 0 or more.")
        if not 0 <= prior < float("inf"):
            raise InputError(f"prior is {prior}; expected a finite number, 0 or more.")
        if most_features < 1:
            raise InputError(f"most_features is {most_features}; expected at least 1.")
        self.head = head
        self.prior = prior
        self.ridge = ridge
        self.most_features = most_features
        self.without = sorted(set(without))

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ("examples", "sizes")

    def trains(self, received: Broadcast) -> bool:
        return False

    def finished(self, state: ServerState) -> bool:
        return _RIDGE in state.tensors and not self._signs(state).any()

    def broadcast(self, state: ServerState) -> Broadcast:
        weights = super().broadcast(state).weights
        if self.finished(state):
            return Broadcast(state.round, weights, {_RIDGE: state.tensors[_RIDGE]})
        return Broadcast(state.round, weights, {_SIGNS: self._signs(state)})

    def attach(self, context: ClientRound, batches: Iterable[Batch]) -> Weights:
        if _RIDGE in context.received.tensors:
            return {}
        head = linear_head(context.client.network)
        device = head.weight.device
        sketch = Sketch.of(head.in_features, self.most_features, device)
        width = min(head.in_features, self.most_features) + 1
        sums = RidgeSums.nothing(width, head.out_features, device)
        signs = context.received.tensors.get(_SIGNS)
        sign = 1 if signs is None else int(signs[context.id])
        if sign == 0:
            return sums.pack()
        turns = 0
        for rows, labels in _blocks(context, batches, _BLOCK // head.in_features + 1):
            weights = _turn_weights(context.client.class_weights, labels)
            z = rows.double() if sketch is None else sketch(rows.double())
            sums += RidgeSums.of(z, labels, head.out_features, weights)
            turns += len(labels)
        return (sums * (sign / turns)).pack()

    def step(
        self,
        state: ServerState,
        summaries: Sequence[Summary],
        weights: Mapping[int, float],
        mean: Weights | None,
    ) -> None:
        if mean is None:
            return
        turns = sum(summary.examples for summary in summaries)
        sums = RidgeSums.unpack(mean) * turns
        if _RIDGE in state.tensors:
            # Subtracted, since then rounding leaves nothing of what was one client's alone.
            sums = RidgeSums.unpack(state.tensors) - sums * -1
        signs = self._signs(state).tolist()
        members = set(_members(state))
        members |= {summary.client for summary in summaries if signs[summary.client] > 0}
        members -= {summary.client for summary in summaries if signs[summary.client] < 0}
        state.tensors[_MEMBERS] = torch.tensor(sorted(members), dtype=torch.int64)
        self.finish(state, sums)

    @torch.no_grad()
    def finish(self, state: ServerState, sums: RidgeSums) -> None:
        """Keep sums in the server's state, and put the head that they give into its network.

        Raises:
            InputError: Features are linearly dependent, and the ridge is too small.
        """
        ridge = sums.choose() if self.ridge is None else self.ridge
        if self.head == "ridge":
            solution = sums.solve(ridge)
        else:
            solution = sums.discriminant(ridge, self.prior)
        state.tensors |= {**sums.pack(), _RIDGE: torch.tensor(ridge, dtype=torch.float64)}
        head = linear_head(state.network)
        rows, used = solution[:-1], sums.used()
        sketch = Sketch.of(head.in_features, self.most_features, head.weight.device)
        if sketch is not None:
            rows, used = sketch.back(rows), sketch.back(used.double()[:, None])[:, 0] != 0
        # What was zero on every utterance may be an output that has yet to learn something.
        head.weight.copy_(torch.where(used, rows.T, head.weight))
        head.bias.copy_(solution[-1])

    def _signs(self, state: ServerState) -> Tensor:
        """``(clients,)`` int8: 1 for those who join the sums, -1 for those who leave them, else 0.

        Raises:
            InputError: ``without`` names a client that there is not, or all of them.
        """
        count = len(state.sizes)
        if count == 0:
            return torch.zeros(0)  # a model by itself, with nobody to join it
        unknown = [client for client in self.without if not 0 <= client < count]
        if unknown:
            raise InputError(
                f"aggregator.without names client {unknown[0]}; expected ids from 0 to {count - 1}."
            )
        if self.without and len(self.without) == count:
            raise InputError("aggregator.without names all clients; leave at least one in.")
        signs = torch.ones(count, dtype=torch.int8)
        signs[self.without] = 0
        signs[_members(state)] -= 1
        return signs

    def check(self, network: nn.Module) -> None:
        """Refuse a network for which there is no head in closed form, or no memory.

        Raises:
            InputError: As the sentence says.
        """
        features = min(linear_head(network).in_features, self.most_features)
        needed = 8 * (_MATRICES * features**2 + packed_size(features))
        there = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
        if needed > there:
            raise InputError(
                f"A Gram matrix of {features} features takes {needed / 1e9:.0f} GB to solve, and "
                f"this machine has {there / 1e9:.0f} GB; lower aggregator.most_features, above "
                "which features are sketched, or use a narrower network."
            )


class Sketch:
    """A sparse random projection: every feature, with a sign, is added to one of ``width`` sums.

    Args:
        features: How many there are.
        width: How many are left.
        device: Where.
    """

    def __init__(self, features: int, width: int, device: torch.device) -> None:
        random = torch.Generator().manual_seed(0)
        self.width = width
        self._place = torch.randint(width, (features,), generator=random).to(device)
        sign = 2 * torch.randint(2, (features,), generator=random) - 1
        self._sign = sign.double().to(device)

    @classmethod
    def of(cls, features: int, most: int, device: torch.device) -> "Sketch | None":
        """One, where there are more features than ``most``."""
        return cls(features, most, device) if features > most else None

    def __call__(self, rows: Tensor) -> Tensor:
        """``(N, width)`` of ``(N, features)``."""
        sums = rows.new_zeros(len(rows), self.width)
        return sums.index_add_(1, self._place, rows * self._sign)

    def back(self, weights: Tensor) -> Tensor:
        """``(features, C)`` weights that say of features what ``(width, C)`` say of their sums."""
        return weights[self._place] * self._sign[:, None]


def linear_head(network: nn.Module) -> nn.Linear:
    """The layer that makes a network's logits of its ``fused`` embeddings.

    Raises:
        InputError: It has none.
    """
    found = network.linear_head if isinstance(network, Network) else None
    if found is None or found.bias is None:
        raise InputError(
            f"{type(network).__name__} has no linear layer with a bias from its '{SITE}' "
            "embeddings to the emotions, so that there is no head in closed form; use another "
            "network, such as Window."
        )
    return found


def _blocks(
    context: ClientRound, batches: Iterable[Batch], most: int
) -> Iterator[tuple[Tensor, Tensor]]:
    """Embeddings and labels of the labelled utterances, about ``most`` at a time."""
    waiting: list[tuple[Tensor, Tensor]] = []

    def joined() -> tuple[Tensor, Tensor]:
        rows, labels = zip(*waiting, strict=True)
        return torch.cat(rows), torch.cat(labels)

    for batch in batches:
        rows = embedding_at(context.client(batch), SITE)
        waiting.append((rows[batch.labelled], batch.labels[batch.labelled]))
        if sum(len(labels) for _, labels in waiting) >= most:
            yield joined()
            waiting = []
    if waiting:
        yield joined()


def _members(state: ServerState) -> list[int]:
    """Ids of the clients whose utterances are in the sums."""
    found: list[int] = state.tensors.get(_MEMBERS, torch.zeros(0)).tolist()
    return found


def _turn_weights(classes: Tensor | None, labels: Tensor) -> Tensor | None:
    """``(N,)`` weights of utterances; their mean over everybody's is 1 if the classes' are inverse
    frequencies."""
    if classes is None:
        return None
    return classes[labels] / (classes > 0).sum()
