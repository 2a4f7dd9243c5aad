"""What rules have in common whose server looks at every update."""

from collections.abc import Sequence
from math import floor

from fedmer.contracts.aggregator import Clear, ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary
from fedmer.plugins.aggregators.fed_avg import FedAvg


class EveryUpdate(FedAvg):
    """FedAvg whose server joins the updates by looking at each.

    All clients weigh the same, since how many utterances a client claims cannot be checked.
    """

    sees_updates = True

    @property
    def reads(self) -> tuple[Clear, ...]:
        return ()

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        return {summary.client: 1.0 for summary in summaries}


class SomeBad(EveryUpdate):
    """A rule that is told how many clients may be bad.

    Args:
        bad: The largest share of a cohort that may be bad, in [0, 0.5).

    Raises:
        InputError: ``bad`` is out of range.
    """

    def __init__(self, bad: float = 0.2) -> None:
        if not 0 <= bad < 0.5:
            raise InputError(f"bad is {bad}; expected a share of the clients in [0, 0.5).")
        self.bad = bad

    def count_bad(self, clients: int, needed: tuple[int, int] = (2, 1)) -> int:
        """How many of some clients may be bad.

        Args:
            clients: How many there are.
            needed: ``a`` and ``b``, where the rule stands ``f`` bad ones among ``a f + b``.

        Raises:
            InputError: The rule does not stand that many.
        """
        # A share such as 0.29 of 100 clients is 29 of them, not the 28.999... of its binary digits.
        count = floor(self.bad * clients + 1e-9)
        factor, rest = needed
        if count and clients < factor * count + rest:
            raise InputError(
                f"aggregator.bad is {self.bad:g}, which is {count} of the {clients} clients of "
                f"this round, and {self.name} stands that many among {factor * count + rest} or "
                f"more; lower it to less than {1 / factor:.2g}, or let more clients take part."
            )
        return count
