"""What choices of clients have in common."""

import math
from collections.abc import Sequence

from fedmer.errors import InputError


def check_share(name: str, value: float) -> None:
    """Refuse a share of the clients that is none, or more than all.

    >>> check_share("fraction", 0)
    Traceback (most recent call last):
    fedmer.errors.InputError: fraction is 0; expected a number in (0, 1].
    """
    if not 0 < value <= 1:
        raise InputError(f"{name} is {value:.12g}; expected a number in (0, 1].")


def check_clients(sizes: Sequence[int]) -> None:
    """Refuse to choose from nobody."""
    if len(sizes) == 0:
        raise InputError("There are no clients to choose from; expected at least one.")


def part_of(fraction: float, clients: int) -> int:
    """``ceil(fraction * clients)``, at least 1, as it would be in exact arithmetic.

    >>> math.ceil(0.28 * 25), part_of(0.28, 25)
    (8, 7)
    """
    return max(1, math.ceil(fraction * clients - 1e-9))
