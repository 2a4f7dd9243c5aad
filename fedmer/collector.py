"""Takes a cohort's updates in any order, and gives their mean, or all of them."""

from collections.abc import Mapping, Sequence
from math import isclose

from fedmer.cohort_updates import CohortUpdates
from fedmer.errors import InputError
from fedmer.messages import Update, Weights
from fedmer.running_mean import ClientWeight, RunningMean
from fedmer.spool import Spool
from fedmer.weights import FlatWeights


class Collector:
    """Takes the cohort's updates in any order and adds them up in the cohort's.

    Where the rule fixes a client's weight from its own summary, updates run into one sum and are
    let go, each as soon as those before it are there; otherwise they wait until all weights are
    known.

    Args:
        cohort: The order of adding.
        limit: Bytes of updates that may wait in memory; the others wait in files.
        class_axes: Name -> axis of the parameters that have a row a class.
    """

    def __init__(
        self,
        cohort: Sequence[int],
        limit: float = float("inf"),
        class_axes: Mapping[str, int] | None = None,
    ) -> None:
        self._cohort = cohort
        self._order = iter(cohort)
        self._next = next(self._order, None)
        self._running = RunningMean(class_axes)
        self._waiting = Spool(limit)
        self._weights: dict[int, ClientWeight] = {}
        self._left_out: set[int] = set()
        self.empty = True

    def take(self, update: Update, weight: ClientWeight | None) -> None:
        """Take one client's update; what has to wait is copied.

        Args:
            update: What it sent.
            weight: Its weight, or None if that is not known yet.
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

    def mean(self, weights: Mapping[int, ClientWeight], received: Weights | None = None) -> Weights:
        """The mean of what was taken.

        Args:
            weights: Of every client whose update was taken.
            received: What the cohort began with; see :meth:`RunningMean.result`.

        Raises:
            InputError: They are not in proportion to those by which updates were added before.
        """
        added = {c: by.whole for c, by in self._weights.items() if c in weights}
        before, now = sum(added.values()), sum(weights[client].whole for client in added)
        for client, weight in added.items():
            if not isclose(weight * now, weights[client].whole * before, rel_tol=1e-9):
                raise InputError(
                    f"Client {client} weighs {weight / before:.6g} by its own summary and "
                    f"{weights[client].whole / now:.6g} by the whole cohort's; a rule whose "
                    "weights depend on the cohort says streams = False."
                )
        self._weights = {**weights, **self._weights}
        self._add_waiting()
        return self._running.result(received)

    def updates(self) -> CohortUpdates:
        """All that was taken, where no weight was known when it was."""
        return CohortUpdates({c: self._waiting[c] for c in self._cohort if c in self._waiting})

    def _add_waiting(self) -> None:
        while self._next is not None:
            if self._next in self._waiting and self._next in self._weights:
                self._running.add(self._waiting.pop(self._next), self._weights[self._next])
            elif self._next not in self._left_out:
                return
            self._next = next(self._order, None)
