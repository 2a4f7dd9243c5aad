"""What the nodes of a masked sum have to have been told alike.

A server could tell one node that all count the same, and the others that they count nothing; or
send the others settings by which nothing is learnt. The total would then be the update of the
first. So every node draws its masks from its keys and from all that it was told: masks of two nodes
that were told different things do not cancel, and the total is noise.
"""

import hashlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from flwr.app import ArrayRecord, ConfigRecord, RecordDict

from fedmer.errors import InputError
from fedmer.flower.class_rows import Rows

MODULUS = 2**32
"""Masked vectors are sums modulo this."""
_ADDRESSED = ("memory",)
"""Records of a message that are for one node alone."""
_ADDRESSED_VALUES = ("client",)


@dataclass(frozen=True)
class Terms:
    """One masked sum.

    Args:
        request: The digest of what everybody was asked to learn, by :func:`digest_of`.
        weights: Node -> its weight.
        threshold: How many nodes it takes to unmask the total.
        clip: The largest size of a number in a weighted update.
        classes: Node -> ``(K,)`` weights in the rows of each class, where there are such.
        rows: Where these rows lie in a vector; empty where there are no such weights.
    """

    request: bytes
    weights: Mapping[int, float]
    threshold: int
    clip: float
    classes: Mapping[int, Sequence[float]] = field(default_factory=dict)
    rows: Rows = ()

    @property
    def digest(self) -> bytes:
        """``(32,)`` bytes that differ if anything does."""
        said = [
            self.request.hex(),
            sorted(self.weights.items()),
            self.threshold,
            self.clip,
            sorted((node, list(column)) for node, column in self.classes.items()),
            self.rows,
        ]
        return hashlib.sha256(json.dumps(said).encode()).digest()


def grid(nodes: int) -> int:
    """Steps to which a number of a vector is rounded: the sum of all has to fit the modulus."""
    return MODULUS >> (1 + math.ceil(math.log2(max(nodes, 2))))


def digest_of(content: RecordDict) -> bytes:
    """``(32,)`` bytes of a message's content, less what is for its receiver alone."""
    seen = hashlib.sha256()
    for name in sorted(content.keys() - _ADDRESSED):
        record = content[name]
        seen.update(_framed(name.encode()))
        if isinstance(record, ArrayRecord):
            for key, array in record.items():
                seen.update(_framed(key.encode()))
                seen.update(len(array.data).to_bytes(8, "little"))
                seen.update(array.data)
        elif isinstance(record, ConfigRecord):
            values = {key: value for key, value in record.items() if key not in _ADDRESSED_VALUES}
            seen.update(_framed(repr(sorted(values.items())).encode()))
    return seen.digest()


def read_weights(text: object) -> dict[int, float]:
    """Node -> weight, from the text that :func:`written` makes.

    Raises:
        InputError: It is something else, or a weight is negative or not finite.
    """
    try:
        pairs = json.loads(str(text))
        weights = dict(pairs)
        right = len(weights) == len(pairs) and all(
            type(node) is int and type(weight) is float and 0 <= weight < math.inf
            for node, weight in pairs
        )
    except (ValueError, TypeError, RecursionError):
        right = False
    if not right or not sum(weights.values()) > 0:
        raise InputError("the weights of the masked sum cannot be read")
    return weights


def written(weights: Mapping[int, float]) -> str:
    """Weights as text; every digit of them."""
    return json.dumps([[node, float(weight)] for node, weight in sorted(weights.items())])


def read_classes(text: object) -> dict[int, list[float]]:
    """Node -> ``(C,)`` weights of classes, from the text that :func:`written_classes` makes.

    Raises:
        InputError: It is something else, or a weight is negative or not finite.
    """
    try:
        pairs = json.loads(str(text))
        classes = dict(pairs)
        right = len(classes) == len(pairs) and all(
            type(node) is int
            and len(column) == len(pairs[0][1]) > 0
            and all(type(weight) is float and 0 <= weight < math.inf for weight in column)
            for node, column in pairs
        )
    except (ValueError, TypeError, RecursionError):
        right = False
    if not right:
        raise InputError("the weights of classes of the masked sum cannot be read")
    return classes


def written_classes(classes: Mapping[int, Sequence[float]]) -> str:
    """Weights of classes as text; every digit of them."""
    return json.dumps(
        [[node, list(map(float, column))] for node, column in sorted(classes.items())]
    )


def _framed(data: bytes) -> bytes:
    return len(data).to_bytes(8, "little") + data
