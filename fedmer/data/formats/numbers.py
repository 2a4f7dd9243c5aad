"""Features in the precision that networks are trained in."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError

LARGEST = 1e38
"""A third of the largest float32."""


def single_precision(values: NDArray[Any], where: str) -> NDArray[np.float32]:
    """Numbers as float32; NaN and infinity stay, for whoever knows which rows count.

    Differences have to fit too, since features are standardised in this precision.

    Args:
        values: Of any shape.
        where: File, dialogue and key, for the sentence.

    Raises:
        InputError: A number is finite, but beyond :data:`LARGEST`.

    >>> single_precision(np.array([1e39]), "x.npz: 'text'")
    Traceback (most recent call last):
    fedmer.errors.InputError: x.npz: 'text' holds 1e+39, which is beyond what float32 can do sums \
with (1e+38); scale the features.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        single = values.astype(np.float32, copy=False)
        lost = np.isfinite(values) & ~(np.abs(single) <= LARGEST)
    if lost.any():
        raise InputError(
            f"{where} holds {values[lost][0]:.4g}, which is beyond what float32 can do sums with "
            f"({LARGEST:g}); scale the features."
        )
    return single
