"""Compression, updates of fewer bytes."""

from typing import Literal

import torch
from torch import Tensor

from fedmer.contracts.privacy import ClientContext, Privacy
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, nbytes
from fedmer.plugins.privacy._changes import changed, changes
from fedmer.weights import FlatWeights

_LEFT = "left"


class Compression(Privacy):
    r"""Clients send what training changed in fewer bytes.

    With :math:`\Delta_i` the update less what the client received, and what the rule attached:

    * 'top_k' sends the :math:`k` numbers of largest size and where they stand, 8 bytes each. What
      is left out is kept on the client and added to its next change, so that it comes later
      (S. Stich et al., "Sparsified SGD with Memory", NeurIPS 2018, arXiv 1809.07599):

      .. math:: s_i^t = \mathrm{top}_k(\Delta_i^t + e_i^t), \qquad
          e_i^{t+1} = \Delta_i^t + e_i^t - s_i^t

    * 'int8' sends a byte a number: with :math:`m` the largest size in a tensor and :math:`u`
      uniform in [0, 1), the whole number :math:`\lfloor 127 \Delta / m + u \rfloor`;
    * 'sign' sends a bit a number: :math:`m` with probability :math:`(1 + \Delta / m) / 2`, and else
      :math:`-m`.

    The last two are right in the mean (D. Alistarh et al., "QSGD", NeurIPS 2017, arXiv 1610.02132),
    so that errors of many clients cancel. ``bytes_up`` counts what crosses: numbers, places, a
    largest size of 4 bytes for each tensor, and integers as they are. It hides nothing.

    Args:
        method: Which of them.
        keep: The share of numbers that 'top_k' sends, in (0, 1].

    Raises:
        InputError: ``keep`` is out of range.
    """

    compresses = True

    def __init__(
        self, method: Literal["top_k", "int8", "sign"] = "int8", keep: float = 0.05
    ) -> None:
        if not 0 < keep <= 1:
            raise InputError(f"privacy.keep is {keep}; expected a number in (0, 1].")
        self.method = method
        self.keep = keep

    def on_client(
        self, summary: Summary, update: Update | None, context: ClientContext
    ) -> tuple[Summary, Update | None]:
        if update is None:
            return summary, update
        found = FlatWeights.of(changes(update, context.received))
        whole = {n: v for n, v in update.weights.items() if n not in found}
        count = nbytes(whole)
        random = torch.Generator().manual_seed(context.seed)
        for kind, vector in found.vectors.items():
            if self.method == "top_k":
                count += self._top(vector, context.memory, f"{_LEFT}.{kind}")
        if self.method != "top_k":
            rounded = _to_bytes if self.method == "int8" else _to_bits
            for value in found.values():
                count += rounded(value, random)
        sent = changed(update, context.received, found)
        return summary, Update(sent.client, sent.weights, count)

    def _top(self, vector: Tensor, memory: dict[str, Tensor], name: str) -> int:
        """Leave the largest of a vector, in place; the rest goes into memory. Returns bytes."""
        if name in memory:
            vector += memory[name].to(vector.device)
        most = max(1, round(self.keep * len(vector)))
        places = vector.abs().topk(most).indices
        left = vector.clone()
        left[places] = 0
        vector -= left
        memory[name] = left
        return nbytes({"places": places.int(), "numbers": vector[places]})


def _to_bytes(value: Tensor, random: torch.Generator) -> int:
    """Round to one of 255 numbers, in place. Returns bytes."""
    largest = _largest(value)
    chance = torch.rand(value.shape, generator=random, dtype=value.dtype).to(value.device)
    # A number just below 1 may round up to it.
    whole = (value * (127 / largest) + chance).floor().clamp(-127, 127).to(torch.int8)
    value.copy_(whole.to(value.dtype) * (largest / 127))
    return whole.nbytes + 4


def _to_bits(value: Tensor, random: torch.Generator) -> int:
    """Round to one of two numbers, in place. Returns bytes."""
    largest = _largest(value)
    chance = torch.rand(value.shape, generator=random, dtype=value.dtype).to(value.device)
    up = chance < (1 + value / largest) / 2
    value.copy_(torch.where(up, largest, -largest))
    return (value.numel() + 7) // 8 + 4


def _largest(value: Tensor) -> Tensor:
    """Of the sizes, in single precision as it crosses; 1 where all are zero."""
    if value.numel() == 0:
        return value.new_ones(())
    largest = value.abs().max().float().to(value.dtype)
    return torch.where(largest > 0, largest, 1.0)
