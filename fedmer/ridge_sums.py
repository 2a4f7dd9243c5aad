"""Linear heads in closed form, from sums that add up over utterances, clients and rounds."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from fedmer.errors import InputError
from fedmer.losses.class_terms import ABSENT

_BLOCK = 512
"""Rows of a Gram matrix that are computed together; only what lies right of them is."""
_DEPENDENT = 1e-7
"""A pivot this much smaller than the largest is a feature that others explain to rounding."""
_ROUNDING = 1e-12
"""What part of a number is left when all of it was subtracted, at most."""
_RARE = 1e-7
"""A class with a smaller share of the utterances has none; a masked sum is that exact."""
_GROWTH = 1e-5
"""By what part a ridge grows to see how the determinant does."""
_STEPS = [10 ** (step / 2) for step in range(10, -9, -1)]
"""Ridges to choose from, from the largest, in units of the features' mean square."""


def packed_size(features: int) -> int:
    """Numbers in the upper triangle of a Gram matrix of so many features.

    >>> packed_size(3)
    6
    """
    return features * (features + 1) // 2


@dataclass(frozen=True, eq=False)
class RidgeSums:
    r"""What a head in closed form has to know of turns: sums that do not grow with their number.

    .. math:: \sum w\, z z^\top, \qquad \sum w\, z y^\top

    :math:`z` ends with a constant 1 and :math:`y` is the emotion as a unit vector. Sums of disjoint
    sets of utterances are added to have those of the union, and subtracted to have those of what is
    left: so a client is added later, or removed exactly.

    Args:
        gram: ``(d (d + 1) / 2,)`` float64, the upper triangle row by row.
        cross: ``(d, C)`` float64.

    >>> z, y = torch.tensor([[0.0], [1.0], [2.0]]), torch.tensor([0, 1, 1])
    >>> both = RidgeSums.of(z, y, classes=2)
    >>> left = both - RidgeSums.of(z[2:], y[2:], classes=2)
    >>> left.solve(ridge=0)[:, 1].round(decimals=6).tolist()
    [1.0, 0.0]
    """

    gram: Tensor
    cross: Tensor

    @classmethod
    def of(
        cls, rows: Tensor, labels: Tensor, classes: int, weights: Tensor | None = None
    ) -> "RidgeSums":
        """Those of some utterances.

        Args:
            rows: ``(N, d - 1)``, without the constant.
            labels: ``(N,)`` int64.
            classes: How many emotions there are, ``C``.
            weights: ``(N,)``, 0 or more; by default all 1.
        """
        z = torch.cat([rows, rows.new_ones(len(rows), 1)], dim=1).double()
        weighted = z if weights is None else z * weights.double()[:, None]
        y = torch.nn.functional.one_hot(labels, classes).double()
        width = z.shape[1]
        gram = z.new_empty(packed_size(width))
        end = 0
        for start in range(0, width, _BLOCK):
            block = weighted[:, start : start + _BLOCK].T @ z[:, start:]
            for row, numbers in enumerate(block):
                begin, end = end, end + width - start - row
                gram[begin:end] = numbers[row:]
        return cls(gram, weighted.T @ y)

    @classmethod
    def nothing(cls, features: int, classes: int, device: torch.device) -> "RidgeSums":
        """Those of no utterances, with ``features`` that include the constant."""
        gram = torch.zeros(packed_size(features), dtype=torch.float64, device=device)
        return cls(gram, torch.zeros(features, classes, dtype=torch.float64, device=device))

    def __add__(self, other: "RidgeSums") -> "RidgeSums":
        return RidgeSums(self.gram + other.gram, self.cross + other.cross)

    def __sub__(self, other: "RidgeSums") -> "RidgeSums":
        return RidgeSums(_left(self.gram, other.gram), _left(self.cross, other.cross))

    def __mul__(self, factor: float) -> "RidgeSums":
        return RidgeSums(self.gram * factor, self.cross * factor)

    def pack(self, prefix: str = "sums.") -> dict[str, Tensor]:
        """As named tensors."""
        return {f"{prefix}gram": self.gram, f"{prefix}cross": self.cross}

    @classmethod
    def unpack(cls, tensors: Mapping[str, Tensor], prefix: str = "sums.") -> "RidgeSums":
        """The inverse of :meth:`pack`."""
        return cls(tensors[f"{prefix}gram"], tensors[f"{prefix}cross"])

    @property
    def features(self) -> int:
        """``d``, the constant included."""
        return len(self.cross)

    def used(self) -> Tensor:
        """``(d - 1,)`` bool: the features that are not zero on every utterance."""
        steps = torch.arange(self.features, 1, -1, device=self.gram.device)
        place = steps.cumsum(dim=0) - steps
        return self.gram[place] != 0

    def matrix(self) -> Tensor:
        """``(d, d)``, the whole Gram matrix."""
        full = self.gram.new_empty(self.features, self.features)
        end = 0
        for row in range(self.features):
            begin, end = end, end + self.features - row
            full[row, row:] = full[row:, row] = self.gram[begin:end]
        return full

    def solve(self, ridge: float) -> Tensor:
        r"""``(d, C)``: :math:`(\sum w z z^\top + \lambda I)^{-1} \sum w z y^\top`.

        The constant is not shrunk.

        Raises:
            InputError: Features are linearly dependent, and ``ridge`` is 0 or too small to help.
        """
        factor = _factor(self.matrix(), ridge)
        return torch.cholesky_solve(self.cross, factor)

    def discriminant(self, ridge: float, prior: float = 1.0) -> Tensor:
        r"""``(d, C)``: regularised linear discriminant analysis; logits are log-probabilities.

        With :math:`n = \sum w`, the mean :math:`\mu`, class means :math:`\mu_k`, class shares
        :math:`\pi_k` and the covariance within classes :math:`\Sigma`, all of which these sums
        tell, the logit of class :math:`k` is

        .. math::

            v_k^\top (z - \mu) - \tfrac{1}{2} v_k^\top (\mu_k - \mu) + \tau \log \pi_k, \qquad
            v_k = \big(\Sigma + \tfrac{\lambda}{n} I\big)^{-1} (\mu_k - \mu)

        R. Fisher, 1936; J. Friedman, "Regularized Discriminant Analysis", JASA 1989. A class
        without utterances is never predicted.

        Args:
            ridge: :math:`\lambda`.
            prior: :math:`\tau`: 1 predicts under the shares that the classes have, 0 under equal
                ones.

        Raises:
            InputError: As :meth:`solve`.
        """
        counts = self.cross[-1]
        total = counts.sum()
        held = counts > _RARE * total
        means = self.cross[:-1] / torch.where(held, counts, 1.0)
        within = self.matrix()
        mean = within[:-1, -1:] / total
        within[:-1, :-1] -= means * counts @ means.T
        # The constant is a mean, and nothing is left of it within a class.
        within[-1, :-1] = within[:-1, -1] = 0
        apart = torch.where(held, means - mean, 0.0)
        padded = torch.cat([apart, apart.new_zeros(1, len(counts))])
        weights = torch.cholesky_solve(padded * total, _factor(within, ridge))[:-1]
        constants = prior * (counts / total).clamp(min=torch.finfo().tiny).log()
        constants = constants - ((mean + apart / 2) * weights).sum(dim=0)
        return torch.cat([weights, torch.where(held, constants, ABSENT)[None]])

    def choose(self) -> float:
        r"""The ridge with the least generalised cross-validation error, from these sums alone.

        .. math::

            \frac{\frac{1}{n} \lVert Y - Z W_\lambda \rVert^2}
                {(1 - \mathrm{tr}(H_\lambda) / n)^2},
            \qquad H_\lambda = Z (Z^\top Z + \lambda I)^{-1} Z^\top

        G. Golub, M. Heath and G. Wahba, "Generalized Cross-Validation as a Method for Choosing a
        Good Ridge Parameter", Technometrics 1979. From the largest of a fixed list downwards, the
        first minimum.
        """
        best, chosen = torch.inf, 0.0
        for ridge, error in self._errors():
            if error >= best:
                break
            best, chosen = error, ridge
        return chosen

    def _errors(self) -> Iterator[tuple[float, float]]:
        """Ridges from the largest, each with its error."""
        matrix, cross = self.matrix(), self.cross
        total = float(matrix[-1, -1])
        squares = matrix.diagonal()[:-1]
        used = squares > 0
        unit = float(squares.sum()) / (max(int(used.sum()), 1) * total)
        for step in _STEPS:
            ridge = step * unit
            factor = _factor(matrix, ridge)
            weights = torch.cholesky_solve(cross, factor)
            # y is a unit vector, so that its squares sum to the utterances.
            explained = 2 * (weights * cross).sum() - ((matrix @ weights) * weights).sum()
            # The trace is a derivative of the determinant, for a third of the price of an inverse.
            grown = _log_det(_factor(matrix, ridge * (1 + _GROWTH))) - _log_det(factor)
            free = 1 + float(used.sum()) - grown / _GROWTH
            left = max(1 - free / total, torch.finfo(torch.float64).eps)
            yield ridge, float(total - explained) / total / left**2


def _left(whole: Tensor, part: Tensor) -> Tensor:
    """The difference, 0 where it is rounding."""
    left = whole - part
    return torch.where(left.abs() > _ROUNDING * whole.abs(), left, 0.0)


def _factor(matrix: Tensor, ridge: float) -> Tensor:
    """The Cholesky factor of a Gram matrix, its last feature not shrunk by the ridge."""
    shrunk = matrix.clone()
    diagonal = shrunk.diagonal()
    silent = diagonal == 0
    diagonal[:-1] += ridge
    # A feature that is zero on every utterance gets the weight zero, whatever the ridge.
    diagonal[silent] = 1.0
    factor: Tensor
    factor, failed = torch.linalg.cholesky_ex(shrunk)
    pivots = factor.diagonal()[~silent]
    if int(failed) or float(pivots.min()) < _DEPENDENT * float(pivots.max()):
        raise InputError(
            f"With a ridge of {ridge:g} the {len(matrix) - 1} features are linearly dependent, so "
            "that no weights are the best ones; leave aggregator.ridge out to have it chosen, or "
            "give a larger one, such as 1."
        )
    return factor


def _log_det(factor: Tensor) -> float:
    """Of the matrix, by its Cholesky factor."""
    return 2 * float(factor.diagonal().log().sum())
