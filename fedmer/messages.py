"""What crosses between server and clients, and how many bytes it is.

Three messages make a round: the server's :class:`Broadcast` to every client of the cohort, each
client's small :class:`Summary`, and its large :class:`Update`. They hold tensors and numbers only,
so that any executor, in this process or across a network, can carry them.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field

from torch import Tensor

Weights = dict[str, Tensor]
"""``state_dict`` name -> tensor: parameters and buffers of a network."""


def nbytes(tensors: Mapping[str, Tensor]) -> int:
    """Bytes of the numbers themselves, without names or framing.

    >>> import torch
    >>> nbytes({"weight": torch.zeros(3, 4)})
    48
    """
    return sum(tensor.nbytes for tensor in tensors.values())


@dataclass(frozen=True)
class Broadcast:
    """Server to clients, at the start of a round.

    Args:
        round: From 0.
        weights: The global network, or None for a rule that never sends one.
        tensors: Whatever else the rule lets clients know, such as class prototypes.
    """

    round: int
    weights: Weights | None = None
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return nbytes(self.weights or {}) + nbytes(self.tensors)


@dataclass(frozen=True)
class Summary:
    """Client to server, small: what the server needs to weigh the client.

    Args:
        client: The client's id.
        examples: Labelled utterances that it trained on.
        train_loss: Mean loss of its steps.
        steps: Optimizer steps that it made.
        tensors: What the rule needs, such as ``(C, D)`` class prototypes and ``(C,)`` counts.
    """

    client: int
    examples: int
    train_loss: float = 0.0
    steps: int = 1
    tensors: Mapping[str, Tensor] = field(default_factory=dict)

    @property
    def nbytes(self) -> int:
        return nbytes(self.tensors) + 8 * 3


@dataclass(frozen=True)
class Update:
    """Client to server, large: the client's network after its local training.

    It carries the weights themselves rather than their difference from what was received, because
    only so is "one client that holds everything" centralised training bit for bit: ``w + (v - w)``
    is not always ``v`` in floating point. A mechanism that works on differences (clipping, a
    server optimizer) has both ends at hand and takes them where it needs them.

    Args:
        client: The client's id.
        weights: Parameters and buffers.
        compressed: How many bytes cross where a mechanism has compressed them; None: all of them.
    """

    client: int
    weights: Weights
    compressed: int | None = None

    @property
    def nbytes(self) -> int:
        return nbytes(self.weights) if self.compressed is None else self.compressed
