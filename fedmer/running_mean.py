"""A weighted mean of weights that holds one vector, however many clients there are."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import torch
from torch import Tensor

from fedmer.messages import Weights
from fedmer.weights import FlatWeights


@dataclass(frozen=True, eq=False)
class ClientWeight:
    """How much one client counts in the mean, up to a factor common to all clients.

    Args:
        whole: In every parameter, 0 or more.
        classes: ``(C,)``, 0 or more: in the rows of each class instead, in those parameters that
            have a row a class. None: as everywhere.
        sums: Name -> ``(C,)``, 0 or more: in the rows of a summary that crosses in a masked sum.
    """

    whole: float
    classes: Tensor | None = None
    sums: Mapping[str, Tensor] = field(default_factory=dict)


class RunningMean:
    r"""A weighted mean that holds one vector, however many updates are added.

    .. math:: m \leftarrow m + \frac{a}{a_1 + \dots + a}\,(w - m)

    so that the mean of equal weights is those weights bit for bit, at a fifth of the time of a sum
    in double precision. After ten thousand updates it is within 1e-5 of the largest number, after
    a hundred within 1e-6. Integer and boolean buffers, such as counts of batches seen, take the
    maximum.

    Where clients have a weight a class, the rows of a class are averaged by these.

    Args:
        class_axes: Name -> axis of the parameters that have a row a class.

    >>> mean = RunningMean()
    >>> mean.add({"w": torch.tensor([1.0])}, ClientWeight(1.0))
    >>> mean.add({"w": torch.tensor([4.0])}, ClientWeight(2.0))
    >>> mean.result()
    {'w': tensor([3.])}
    """

    def __init__(self, class_axes: Mapping[str, int] | None = None) -> None:
        self._mean: FlatWeights | None = None
        self._total = 0.0
        self._axes = class_axes or {}
        self._totals: dict[str, Tensor] = {}
        """Name -> ``(C,)`` sums of the weights in its rows."""

    def add(self, weights: Weights, by: ClientWeight) -> None:
        """Add one client's weights.

        Raises:
            ValueError: They are those of another network than before.
        """
        weight = by.whole
        self._total += weight
        rows = self._rows(by)
        for name, own in rows.items():
            self._totals[name] = own + self._totals.get(name, 0.0)
        if self._mean is None:
            self._mean = FlatWeights.of(weights)
            return
        if not self._mean.fits(weights):
            raise ValueError("The updates of a cohort have different names or shapes.")
        flat = weights if isinstance(weights, FlatWeights) else FlatWeights.of(weights)
        before = {name: self._mean[name].clone() for name in rows}
        for kind, mean in self._mean.vectors.items():
            if not kind.is_floating_point:
                torch.maximum(mean, flat.vectors[kind], out=mean)
            elif weight > 0:
                mean.lerp_(flat.vectors[kind], weight / self._total)
        for name, old in before.items():
            self._mean[name].copy_(old.lerp(flat[name], self._part(name, rows[name])))

    def result(self, received: Weights | None = None) -> Weights:
        """The mean; its numbers change if more is added.

        Args:
            received: What the cohort began with; a class in which nobody has a weight keeps the
                rows that it has here, or 0.

        Raises:
            ValueError: The weights added up to nothing.
        """
        if self._mean is None or not self._total > 0:
            raise ValueError("A weighted mean needs weights with a positive sum.")
        for name, total in self._totals.items():
            value = self._mean[name]
            absent = along(self._axes.get(name, 0), total == 0, value)
            kept = (received or {}).get(name, torch.zeros_like(value))
            value.copy_(torch.where(absent, kept, value))
        return self._mean

    def _rows(self, by: ClientWeight) -> dict[str, Tensor]:
        """Name -> ``(C,)`` weights, of all that has weights a row."""
        rows = {name: own.double().cpu() for name, own in by.sums.items()}
        if by.classes is not None:
            rows |= dict.fromkeys(self._axes, by.classes.double().cpu())
        return rows

    def _part(self, name: str, rows: Tensor) -> Tensor:
        """What part of the mean so far a client has in each row of a tensor."""
        assert self._mean is not None
        parts = rows / self._totals[name].clamp(min=torch.finfo().tiny)
        value = self._mean[name]
        return along(self._axes.get(name, 0), parts.to(value.dtype), value)


def along(axis: int, rows: Tensor, like: Tensor) -> Tensor:
    """``(C,)`` numbers as a view that broadcasts along an axis of another tensor."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return rows.to(like.device).view(shape)
