"""A weighted mean of weights that holds one vector, however many clients there are."""

from collections.abc import Mapping
from dataclasses import dataclass

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
    """

    whole: float
    classes: Tensor | None = None


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
        self._class_totals: Tensor | None = None

    def add(self, weights: Weights, by: ClientWeight) -> None:
        """Add one client's weights.

        Raises:
            ValueError: They are those of another network than before.
        """
        weight = by.whole
        self._total += weight
        if by.classes is not None:
            before = 0.0 if self._class_totals is None else self._class_totals
            self._class_totals = by.classes.double().cpu() + before
        if self._mean is None:
            self._mean = FlatWeights.of(weights)
            return
        if not self._mean.fits(weights):
            raise ValueError("The updates of a cohort have different names or shapes.")
        flat = weights if isinstance(weights, FlatWeights) else FlatWeights.of(weights)
        rows = {} if by.classes is None else {n: self._mean[n].clone() for n in self._axes}
        for kind, mean in self._mean.vectors.items():
            if not kind.is_floating_point:
                torch.maximum(mean, flat.vectors[kind], out=mean)
            elif weight > 0:
                mean.lerp_(flat.vectors[kind], weight / self._total)
        for name, old in rows.items():
            self._mean[name].copy_(old.lerp(flat[name], self._class_parts(name, by)))

    def result(self, received: Weights | None = None) -> Weights:
        """The mean; its numbers change if more is added.

        Args:
            received: What the cohort began with; a class in which nobody has a weight keeps the
                rows that it has here.

        Raises:
            ValueError: The weights added up to nothing.
        """
        if self._mean is None or not self._total > 0:
            raise ValueError("A weighted mean needs weights with a positive sum.")
        if self._class_totals is not None and received is not None:
            for name, axis in self._axes.items():
                value = self._mean[name]
                absent = along(axis, self._class_totals == 0, value)
                value.copy_(torch.where(absent, received[name], value))
        return self._mean

    def _class_parts(self, name: str, by: ClientWeight) -> Tensor:
        """What part of the mean so far a client has in each row of a parameter."""
        assert self._mean is not None
        assert self._class_totals is not None
        assert by.classes is not None
        parts = by.classes.double().cpu() / self._class_totals.clamp(min=torch.finfo().tiny)
        value = self._mean[name]
        return along(self._axes[name], parts.to(value.dtype), value)


def along(axis: int, rows: Tensor, like: Tensor) -> Tensor:
    """``(C,)`` numbers as a view that broadcasts along an axis of another tensor."""
    shape = [1] * like.dim()
    shape[axis] = -1
    return rows.to(like.device).view(shape)
