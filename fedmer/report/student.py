"""How sure a mean over seeds is."""

import math
from collections.abc import Sequence
from statistics import stdev

_QUANTILES = (12.71, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262)
"""Student's t at 97.5 %, for 1 to 9 degrees of freedom; beyond, the normal's 1.96 is near."""


def half_width(values: Sequence[float]) -> float | None:
    """Half of the 95 % interval of their mean, by Student's t; None for a single value.

    >>> half_width([1.0, 2.0, 3.0])
    2.4843...
    """
    degrees = len(values) - 1
    if degrees < 1:
        return None
    factor = _QUANTILES[degrees - 1] if degrees <= len(_QUANTILES) else 1.96
    return factor * stdev(values) / math.sqrt(len(values))
