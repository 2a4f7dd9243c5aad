"""What rounds of the Gaussian mechanism cost together, by the library dp-accounting."""

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor

from fedmer.errors import InputError

KINDS = ("all", "fixed", "poisson")
FEW_ORDERS = (1.5, 2.5, 3.5, 4.5, *range(2, 64), 128.0, 256.0)
"""Of Renyi divergences, those that take a third of the time of all; what they say holds as well."""
_LARGEST = 1e6
"""A multiplier that leaves nothing but noise."""


@dataclass(frozen=True)
class Rounds:
    """Some rounds alike; or some steps of one client, whose dialogues are then what its clients are
    to a federation, and its batches the cohorts.

    Args:
        kind: How cohorts were drawn, of :data:`KINDS`; 'all' also where the draw hides nothing.
        clients: How many there were.
        cohort: How many took part in the mean.
        multiplier: Deviation of the noise over what one client can add.
        messages: How many messages a client was hidden in by such noise each round: its update, its
            summary.
        count: How many rounds.
    """

    kind: str
    clients: int
    cohort: float
    multiplier: float
    messages: int = 1
    count: int = 1

    def row(self) -> list[float]:
        """As numbers, for a tensor."""
        kind = float(KINDS.index(self.kind))
        return [kind, self.clients, self.cohort, self.multiplier, self.messages, self.count]

    @classmethod
    def of_row(cls, row: Sequence[float]) -> "Rounds":
        """The inverse of :meth:`row`."""
        kind, clients, cohort, multiplier, messages, count = row
        return cls(KINDS[int(kind)], int(clients), cohort, multiplier, int(messages), int(count))


def unpack(spent: Tensor | None) -> tuple[Rounds, ...]:
    """What :func:`pack` made a tensor of.

    Raises:
        InputError: It is something else.
    """
    if spent is None:
        return ()
    try:
        found = tuple(map(Rounds.of_row, spent.tolist()))
    except (ValueError, TypeError, IndexError, OverflowError):
        found = (Rounds("all", 0, 0, 0.0),)
    if not all(one.multiplier > 0 and 0 < one.cohort <= one.clients for one in found):
        raise InputError(
            "The checkpoint does not say what its rounds have spent of privacy.target_epsilon; use "
            "another one."
        )
    return found


def pack(rounds: Sequence[Rounds]) -> Tensor:
    """``(n, 6)`` float64."""
    return torch.tensor([one.row() for one in rounds], dtype=torch.float64)


def and_one(rounds: tuple[Rounds, ...], more: Rounds) -> tuple[Rounds, ...]:
    """With one more round.

    >>> one = Rounds("all", 4, 4, 1.0)
    >>> [rounds.count for rounds in and_one(and_one((), one), one)]
    [2]
    """
    if rounds and replace(rounds[-1], count=more.count) == more:
        return (*rounds[:-1], replace(more, count=rounds[-1].count + more.count))
    return (*rounds, more)


@lru_cache(maxsize=1024)
def epsilon_of(
    rounds: tuple[Rounds, ...], delta: float, orders: tuple[float, ...] | None = None
) -> float:
    """The epsilon of rounds one after the other, each chosen in knowledge of those before.

    The neighbour of a federation is the same one in which one client has nothing to send. By Renyi
    divergences, so it may be some percent above the least that holds.

    Args:
        rounds: The rounds.
        delta: The probability that goes with it.
        orders: Of the divergences; by default those of dp-accounting.

    Raises:
        InputError: dp-accounting is not installed.
    """
    if not rounds:
        return 0.0
    kinds = {one.kind for one in rounds}
    if "fixed" not in kinds:
        return _epsilon(rounds, delta, orders)
    # Without what the draw hides it holds too, and may be less: the theorem for fixed cohorts is
    # for another client in the place of one, who changes a sum by twice the bound.
    found = [_epsilon(tuple(replace(one, kind="all") for one in rounds), delta, orders)]
    if kinds == {"fixed"}:
        found.append(_epsilon(rounds, delta, orders))
    return min(found)


def _epsilon(rounds: tuple[Rounds, ...], delta: float, orders: tuple[float, ...] | None) -> float:
    total: Any = 0.0
    for one in rounds:
        every, divergences = _divergences(replace(one, messages=1, count=1), orders)
        total = total + one.count * one.messages * divergences
    with _quiet():
        return float(_library().rdp.compute_epsilon(every, total, delta)[0])


@lru_cache(maxsize=1024)
def _divergences(one: Rounds, orders: tuple[float, ...] | None) -> tuple[Any, Any]:
    """The orders, and one round's Renyi divergence of each: the part that takes time."""
    library = _library()
    relation = library.NeighboringRelation.REPLACE_SPECIAL
    if one.kind == "fixed":
        relation = library.NeighboringRelation.REPLACE_ONE
    accountant = library.rdp.RdpAccountant(orders, relation)
    with _quiet():
        accountant.compose(_event(library, one))
    return accountant.orders, accountant.rdp


def least_multiplier(
    rounds: Callable[[float], tuple[Rounds, ...]],
    target: float,
    delta: float,
    orders: tuple[float, ...] | None = None,
) -> float:
    """The least noise, to a thousandth, by which rounds stay within an epsilon.

    Args:
        rounds: Multiplier -> the rounds.
        target: The epsilon.
        delta: Of both.
        orders: As :func:`epsilon_of` has it.

    Raises:
        InputError: No noise is enough.
    """
    low, high = 0.0, 1.0
    while epsilon_of(rounds(high), delta, orders) > target:
        low, high = high, 2 * high
        if high > _LARGEST:
            raise InputError(
                f"privacy.target_epsilon is {target:g}, which no noise reaches at a delta of "
                f"{delta:g}; raise one of them."
            )
    while high - low > 1e-3 * high:
        middle = (low + high) / 2
        if middle > 0 and epsilon_of(rounds(middle), delta, orders) <= target:
            high = middle
        else:
            low = middle
    return math.ceil(high * 1e6) / 1e6


def _event(library: Any, one: Rounds) -> Any:
    multiplier = one.multiplier / 2 if one.kind == "fixed" else one.multiplier
    event = library.GaussianDpEvent(multiplier)
    if one.kind == "poisson":
        return library.PoissonSampledDpEvent(one.cohort / one.clients, event)
    if one.kind == "fixed":
        return library.SampledWithoutReplacementDpEvent(one.clients, int(one.cohort), event)
    return event


def _library() -> Any:
    try:
        import dp_accounting
        import dp_accounting.rdp
    except ImportError as error:
        raise InputError(
            "Differential privacy needs dp-accounting, which is not installed; install "
            "fedmer[privacy]."
        ) from error
    return dp_accounting


@contextmanager
def _quiet() -> Iterator[None]:
    """Without a warning for each order that did not converge, which only leaves that order out."""
    log = logging.getLogger("absl")
    before = log.level
    log.setLevel(logging.ERROR)
    try:
        yield
    finally:
        log.setLevel(before)
