"""Who counts how much, by how far each client's prototypes lie from the global ones."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedmer.losses import prototype
from fedmer.prototypes import Prototypes

Weighting = Literal["distance", "softmax", "robust", "counts"]
Radius = Literal["envelope", "clip"]


@dataclass(frozen=True)
class DistanceWeights:
    r"""Weights of clients, class by class.

    With :math:`d_{ik} = d(C_i^k, c^{k,t})` and the clients :math:`S_k` that hold class :math:`k`:

    .. math::

        s_{ik} &= (R_k - d_{ik} + \epsilon R_k)\, n_{ik}^\gamma, \qquad
        R_k = \max\bigl(r_k, \max_{i \in S_k} d_{ik}\bigr) \\
        w_{ik} &= s_{ik} \big/ \textstyle\sum_{j \in S_k} s_{jk}

    Args:
        weighting: 'distance' as above; 'softmax' with :math:`s_{ik} = e^{-d_{ik} / \tau}
            n_{ik}^\gamma`; 'robust' with :math:`s_{ik} = e^{-z_{ik} / (\tau \tilde z_k)}
            n_{ik}^\gamma`, see :meth:`from_middle`; 'counts' with :math:`n_{ik}^\gamma` alone.
        radius: 'envelope' as above; 'clip' with :math:`s_{ik} = \max(r_k - d_{ik}, 0)\,
            n_{ik}^\gamma`, which gives nothing to a client beyond the margin.
        epsilon: What the farthest client keeps, as a share of the radius.
        gamma: The power of the number of utterances.
        tau: The temperature; of 'softmax' in units of distance, of 'robust' in medians of z.
        distance: Of the distance.
    """

    weighting: Weighting
    radius: Radius
    epsilon: float
    gamma: float
    tau: float
    distance: prototype.Distance

    @property
    def measures(self) -> bool:
        """Do distances from the global prototypes count?"""
        return self.weighting in ("distance", "softmax")

    @property
    def compares(self) -> bool:
        """Do distances from the other clients of a cohort count?"""
        return self.weighting == "robust"

    def apart(self, local: Tensor, previous: Prototypes) -> Tensor:
        """``(..., C)`` float64 distances of ``(..., C, D)`` prototypes to the global ones."""
        apart = prototype.distances(local.double(), previous.means.double(), self.distance)
        return apart.diagonal(dim1=-2, dim2=-1)

    def from_middle(self, local: Tensor, counts: Tensor) -> Tensor:
        r"""How far each client is from the middle of its cohort, ``(I, C)`` float64, 0 if unheld.

        .. math::

            z_{ik} = d(C_i^k, m^k)\, \sqrt{n_{ik}}, \qquad
            m^k = \operatorname{median}_{i \in S_k} C_i^k

        The median is taken number by number. By chance the mean of :math:`n` embeddings lies off by
        :math:`1 / \sqrt n`, so that without the root a client of few utterances looks bad, and one
        of many good, whatever they are. Where the distance is a square the factor is :math:`n`.

        Args:
            local: ``(I, C, D)`` prototypes.
            counts: ``(I, C)`` utterances.
        """
        held = counts > 0
        rows = local.double().masked_fill(~held[..., None], torch.nan)
        middle = Prototypes(rows.nanquantile(0.5, dim=0).nan_to_num(), held.any(dim=0))
        power = 0.5 if self.distance == "euclidean" else 1.0
        return self.apart(local, middle) * held * counts.double().pow(power)

    def __call__(self, apart: Tensor | None, counts: Tensor, previous: Prototypes | None) -> Tensor:
        """Weights ``w``, ``(I, C)`` float64.

        A column sums to 1 over the clients that hold the class, and is 0 throughout where nobody
        does. Where there is nothing to measure from, such as a class that had no prototype before,
        or no score is left above 0, the counts alone decide.

        Args:
            apart: ``(I, C)`` from :meth:`apart`, or from :meth:`from_middle` where clients are
                compared; None where it does not count, or there is nothing to measure from.
            counts: ``(I, C)`` utterances; 0 is a class that a client does not hold.
            previous: The global prototypes, or None if there are none yet.
        """
        held = counts > 0
        by_count = counts.double().pow(self.gamma) * held
        scores = by_count
        if apart is not None and self.compares:
            scores = self._evenness(apart, held) * by_count
        elif apart is not None and previous is not None:
            known = previous.known
            closeness = self._closeness(apart, held, previous.means.double(), known)
            scores = torch.where(known, closeness * by_count, by_count)
        total = scores.sum(dim=0)
        usable = torch.isfinite(total) & (total > 0)
        scores = torch.where(usable, scores, by_count)
        total = scores.sum(dim=0)
        return scores / torch.where(total > 0, total, 1.0)

    def _closeness(self, apart: Tensor, held: Tensor, previous: Tensor, known: Tensor) -> Tensor:
        """How near each client is to the global prototype of each class, ``(I, C)``."""
        distances = apart.masked_fill(~held, 0.0)
        if self.weighting == "softmax":
            # The nearest scores 1: far prototypes must not underflow all at once.
            nearest = distances.masked_fill(~held, torch.inf).amin(dim=0).nan_to_num(posinf=0.0)
            return torch.exp((nearest - distances) / self.tau)
        margin = prototype.margins(previous, known, self.distance)
        margin = torch.where(torch.isfinite(margin), margin, 0.0)
        if self.radius == "clip":
            return (margin - distances).clamp(min=0)
        reach = torch.maximum(margin, distances.amax(dim=0))
        # With all distances and the radius 0 everybody is equally near.
        return torch.where(reach > 0, reach - distances + self.epsilon * reach, 1.0)

    def _evenness(self, apart: Tensor, held: Tensor) -> Tensor:
        r"""``(I, C)`` of :math:`e^{-z_{ik} / (\tau \tilde z_k)}`, with the median over holders."""
        usual = apart.masked_fill(~held, torch.nan).nanquantile(0.5, dim=0).nan_to_num()
        # Where the middle client is the middle itself, only who is there too is near.
        off = torch.where(apart > 0, apart / usual, 0.0)
        return torch.exp(-off / self.tau)


def weighted_means(local: Tensor, weights: Tensor) -> Tensor:
    r"""The means ``(C, D)``, :math:`c^k = \sum_i w_{ik} C_i^k`, in the dtype of ``local``.

    Args:
        local: ``(I, C, D)``.
        weights: ``(I, C)`` from :class:`DistanceWeights`; a class without any has no mean.
    """
    mean = torch.einsum("ic,icd->cd", weights, local.double())
    # A weighted mean lies between its parts; rounding must not carry it out.
    inside = torch.where((weights > 0)[..., None], local.double(), torch.nan)
    low = inside.nan_to_num(nan=torch.inf).amin(dim=0)
    high = inside.nan_to_num(nan=-torch.inf).amax(dim=0)
    return torch.minimum(torch.maximum(mean, low), high).to(local.dtype)
