"""The weighted mean of a cohort's updates, whatever order they come in."""

from collections.abc import Mapping, Sequence
from math import isclose

import torch

from fedmer.errors import InputError
from fedmer.messages import Update, Weights
from fedmer.spool import Spool
from fedmer.weights import FlatWeights


class RunningMean:
    r"""A weighted mean that holds one vector, however many updates are added.

    .. math:: m \leftarrow m + \frac{a}{a_1 + \dots + a}\,(w - m)

    so that the mean of equal weights is those weights bit for bit, at a fifth of the time of a sum
    in double precision. After ten thousand updates it is within 1e-5 of the largest number, after
    a hundred within 1e-6. Integer and boolean buffers, such as counts of batches seen, take the
    maximum.

    >>> mean = RunningMean()
    >>> mean.add({"w": torch.tensor([1.0])}, 1.0)
    >>> mean.add({"w": torch.tensor([4.0])}, 2.0)
    >>> mean.result()
    {'w': tensor([3.])}
    """

    def __init__(self) -> None:
        self._mean: FlatWeights | None = None
        self._total = 0.0

    def add(self, weights: Weights, weight: float) -> None:
        """Add one client's weights with its weight >= 0.

        Raises:
            ValueError: They are those of another network than before.
        """
        self._total += weight
        if self._mean is None:
            self._mean = FlatWeights.of(weights)
            return
        if not self._mean.fits(weights):
            raise ValueError("The updates of a cohort have different names or shapes.")
        flat = weights if isinstance(weights, FlatWeights) else FlatWeights.of(weights)
        for kind, mean in self._mean.vectors.items():
            if not kind.is_floating_point:
                torch.maximum(mean, flat.vectors[kind], out=mean)
            elif weight > 0:
                mean.lerp_(flat.vectors[kind], weight / self._total)

    def result(self) -> Weights:
        """The mean; its numbers change if more is added.

        Raises:
            ValueError: The weights added up to nothing.
        """
        if self._mean is None or not self._total > 0:
            raise ValueError("A weighted mean needs weights with a positive sum.")
        return self._mean


class Collector:
    """Takes the cohort's updates in any order and adds them up in the cohort's.

    Where the rule fixes a client's weight from its own summary, updates run into one sum and are
    let go, each as soon as those before it are there; otherwise they wait until all weights are
    known.

    Args:
        cohort: The order of adding.
        limit: Bytes of updates that may wait in memory; the others wait in files.
    """

    def __init__(self, cohort: Sequence[int], limit: float = float("inf")) -> None:
        self._order = iter(cohort)
        self._next = next(self._order, None)
        self._running = RunningMean()
        self._waiting = Spool(limit)
        self._weights: dict[int, float] = {}
        self._left_out: set[int] = set()
        self.empty = True

    def take(self, update: Update, weight: float | None) -> None:
        """Take one client's update; what has to wait is copied.

        Args:
            update: What it sent.
            weight: Its weight up to a common factor, or None if that is not known yet.
        """
        self.empty = False
        if weight is not None:
            self._weights[update.client] = weight
            self._add_waiting()
            if update.client == self._next:
                self._running.add(update.weights, weight)
                self._next = next(self._order, None)
                self._add_waiting()
                return
        self._waiting[update.client] = FlatWeights.of(update.weights)

    def leave_out(self, client: int) -> None:
        """Expect nothing of a client any more."""
        self._left_out.add(client)

    def mean(self, weights: Mapping[int, float]) -> Weights:
        """The mean, by weights up to a common factor.

        Raises:
            InputError: They are not in proportion to those by which updates were added before.
        """
        added = {client: self._weights[client] for client in self._weights if client in weights}
        before, now = sum(added.values()), sum(weights[client] for client in added)
        for client, weight in added.items():
            if not isclose(weight * now, weights[client] * before, rel_tol=1e-9):
                raise InputError(
                    f"Client {client} weighs {weight / before:.6g} by its own summary and "
                    f"{weights[client] / now:.6g} by the whole cohort's; a rule whose weights "
                    "depend on the cohort says streams = False."
                )
        self._weights = {**weights, **self._weights}
        self._add_waiting()
        return self._running.result()

    def _add_waiting(self) -> None:
        while self._next is not None:
            if self._next in self._waiting and self._next in self._weights:
                self._running.add(self._waiting.pop(self._next), self._weights[self._next])
            elif self._next not in self._left_out:
                return
            self._next = next(self._order, None)
