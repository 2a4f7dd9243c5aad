"""Rows of classes in a network's parameters, where these lie one after the other in one vector."""

from collections.abc import Iterable, Mapping, Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

Rows = tuple[tuple[int, int, int, int, int], ...]
"""Of each tensor that has a row a class: where it begins, how many numbers lie before the axis of
classes, along it and after it, and the place of its first weight among a node's weights of rows."""


def rows_of(
    shapes: Iterable[tuple[str, Sequence[int]]], axes: Mapping[str, int], sums: Sequence[str] = ()
) -> tuple[Rows, int]:
    """Where the rows of classes lie in a vector, and how many weights those of summaries take.

    The weights of a node are those of each summary, and then, where the rule has such, those that
    all parameters have in common.

    Args:
        shapes: Name and shape of everything in the vector, in its order.
        axes: Name -> axis of classes, of parameters.
        sums: Names of summaries that cross in the sum, if they are there.

    >>> rows_of([("body", (4,)), ("head", (3, 2)), ("means", (3, 5))], {"head": 0}, ["means"])
    (((4, 1, 3, 2, 3), (10, 1, 3, 5, 0)), 3)
    """
    sizes = dict(shapes)
    first, needed = {}, 0
    for name in sums:
        if name in sizes:
            first[name] = needed
            needed += sizes[name][0]
    found, start = [], 0
    for name, shape in sizes.items():
        if name in axes or name in first:
            axis = axes.get(name, 0)
            parts = (prod(shape[:axis]), shape[axis], prod(shape[axis + 1 :]))
            found.append((start, *parts, first.get(name, needed)))
        start += prod(shape)
    return tuple(found), needed


def weighed(rows: Rows, weights: int) -> Rows:
    """Those that have weights of their own, where a node has so many.

    >>> weighed(((4, 1, 3, 2, 3), (10, 1, 3, 5, 0)), 3)
    ((10, 1, 3, 5, 0),)
    """
    return tuple(row for row in rows if row[4] < weights)


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
        classes: ``(K,)`` numbers, a class for a class or several such groups.
        rows: Where the rows lie.

    >>> target = np.zeros(5)
    >>> put_rows(target, np.ones(5), [2.0, 3.0], ((1, 1, 2, 2, 0),))
    >>> target.tolist()
    [0.0, 2.0, 2.0, 3.0, 3.0]
    """
    factors = np.asarray(classes, dtype=source.dtype)
    for start, before, count, after, first in rows:
        part = slice(start, start + before * count * after)
        own = factors[None, first : first + count, None]
        target[part] = (source[part].reshape(before, count, after) * own).reshape(-1)
