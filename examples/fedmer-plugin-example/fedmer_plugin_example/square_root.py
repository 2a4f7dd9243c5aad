"""A rule between FedAvg, where large clients decide, and one client, one vote."""

from collections.abc import Sequence

from fedmer.contracts import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary
from fedmer.plugins.aggregators.fed_avg import FedAvg


class SquareRoot(FedAvg):
    r"""FedAvg with clients weighed by the square root of their examples.

    .. math:: w^{t+1} = \sum_i \frac{n_i^p}{\sum_j n_j^p} w_i^{t+1}, \qquad p = \frac{1}{2}

    Args:
        power: :math:`p`; 1 is FedAvg, 0 gives every client the same weight.

    Raises:
        InputError: ``power`` is negative.
    """

    def __init__(self, power: float = 0.5) -> None:
        if not power >= 0:
            raise InputError(f"power is {power}; expected 0 or more.")
        self.power = power

    def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
        return {summary.client: summary.examples**self.power for summary in summaries}
