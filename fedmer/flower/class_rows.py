"""Rows of classes in a network's parameters, where these lie one after the other in one vector."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Rows = tuple[tuple[int, int, int, int], ...]
"""Of each parameter that has a row a class: where it begins, and how many numbers lie before the
axis of classes, along it and after it."""


def rows_of(shapes: Iterable[tuple[str, Sequence[int]]], axes: Mapping[str, int]) -> Rows:
    """Where the rows of classes lie in a vector.

    Args:
        shapes: Name and shape of everything in the vector, in its order.
        axes: Name -> axis of classes.

    >>> rows_of([("body", (4,)), ("head", (3, 2))], {"head": 0})
    ((4, 1, 3, 2),)
    """
    found, start = [], 0
    for name, shape in shapes:
        if name in axes:
            axis = axes[name]
            sizes = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
            found.append((start, *sizes))
        start += prod(shape)
    return tuple(found)


def put_rows(
    target: NDArray[np.floating],
    source: NDArray[np.floating],
    classes: Sequence[float],
    rows: Rows,
) -> None:
    """Write the rows of classes of one vector, each times a number, into another.

    Args:
        target: ``(n,)``, changed in place.
        source: ``(n,)``.
        classes: ``(C,)`` numbers.
        rows: Where the rows lie.

    >>> target = np.zeros(5)
    >>> put_rows(target, np.ones(5), [2.0, 3.0], ((1, 1, 2, 2),))
    >>> target.tolist()
    [0.0, 2.0, 2.0, 3.0, 3.0]
    """
    factors = np.asarray(classes, dtype=source.dtype)[None, :, None]
    for start, before, count, after in rows:
        part = slice(start, start + before * count * after)
        target[part] = (source[part].reshape(before, count, after) * factors).reshape(-1)
