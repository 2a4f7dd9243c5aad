"""What a client's loss makes of its classes: their weights, and offsets on their logits."""

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from fedmer.errors import InputError

Calibration = Literal["none", "restricted", "balanced", "prior"]

ABSENT = -1e4
"""Stands for minus infinity: its exponential is 0, and its product with a weight of 0 is no NaN."""


@dataclass(frozen=True, eq=False)
class ClassTerms:
    """What one client's loss makes of its classes.

    Args:
        weights: ``(C,)`` factors of the cross-entropy; None is 1 for all.
        offsets: ``(C,)`` numbers that are added to all logits in training, and never where a
            network predicts; None is 0 for all.
    """

    weights: Tensor | None = None
    offsets: Tensor | None = None

    @property
    def parts(self) -> dict[str, Tensor]:
        """Those of its tensors that are there, by name."""
        found = {"weights": self.weights, "offsets": self.offsets}
        return {name: value for name, value in found.items() if value is not None}

    def to(self, device: torch.device) -> "ClassTerms":
        """The same on a device."""
        return ClassTerms(**{name: value.to(device) for name, value in self.parts.items()})


NEUTRAL = ClassTerms()
"""Every class weighs 1, and no logit is moved."""


def inverse_frequencies(counts: Tensor) -> Tensor:
    """Class weights ``total / count``; 0 for a class that does not occur.

    >>> inverse_frequencies(torch.tensor([1, 3, 0]))
    tensor([4.0000, 1.3333, 0.0000])
    """
    total = counts.sum().float()
    return torch.where(counts > 0, total / counts.clamp(min=1), 0.0)


def logit_offsets(
    calibration: Calibration, strength: float, counts: Tensor, everybody: Tensor
) -> Tensor | None:
    r"""Offsets ``(C,)`` of a client's logits, or None for none.

    With :math:`\pi_k` the share of class :math:`k` in the client's labelled utterances and
    :math:`\bar\pi_k` in everybody's, and the strength :math:`\tau`,

    * 'restricted' adds :math:`\log(1 - \tau)` to classes that the client lacks: at 1 its softmax is
      over the classes that it holds (X.-C. Li and D.-C. Zhan, "FedRS", KDD 2021, by a factor on
      logits where this has one on probabilities);
    * 'balanced' adds :math:`\tau \log \pi_k` (J. Ren et al., "Balanced Meta-Softmax", NeurIPS 2020;
      A. Menon et al., "Long-tail learning via logit adjustment", ICLR 2021): what is learnt
      predicts under equal shares of all classes;
    * 'prior' adds :math:`\tau (\log \pi_k - \log \bar\pi_k)`: what is learnt predicts under
      everybody's shares.

    A class that the client lacks has :data:`ABSENT` for the logarithm of 0, so that the client
    neither learns nor unlearns it. A class that nobody holds has 0, so that all unlearn it, as they
    would without calibration; so has every class of a client without a labelled utterance.

    Args:
        calibration: Which of them.
        strength: tau, 0 or more; at 0 there are no offsets.
        counts: ``(C,)``, how often each class occurs at the client.
        everybody: ``(C,)``, at all clients together; where it says less than ``counts``, as when
            noise was added to it, the client's own count holds.

    >>> here, everywhere = torch.tensor([3, 1, 0, 0]), torch.tensor([4, 4, 8, 0])
    >>> logit_offsets("balanced", 1.0, here, everywhere)
    tensor([-2.8768e-01, -1.3863e+00, -1.0000e+04,  0.0000e+00])
    >>> logit_offsets("prior", 1.0, here, everywhere)
    tensor([ 1.0986e+00,  0.0000e+00, -1.0000e+04,  0.0000e+00])
    """
    if calibration == "none" or strength == 0:
        return None
    local = counts.double().clamp(min=0)
    everybody = torch.maximum(everybody.double(), local)
    held = local > 0
    if calibration == "restricted":
        absent = torch.tensor(1.0 - strength, dtype=torch.float64).log().clamp(min=ABSENT)
        offsets = torch.where(held, 0.0, absent)
    else:
        shares = torch.where(held, local / local.sum().clamp(min=1), 1.0).log()
        if calibration == "prior":
            shares = shares - torch.where(held, everybody / everybody.sum().clamp(min=1), 1.0).log()
        offsets = torch.where(held, strength * shares, ABSENT)
    known = (everybody > 0) & held.any()
    return torch.where(known, offsets, 0.0).float()


def class_terms(
    class_weights: str,
    calibration: Calibration,
    strength: float,
    counts: Tensor,
    everybody: Tensor,
) -> ClassTerms:
    """One client's terms.

    Args:
        class_weights: 'none', 'local' or 'global'; see :func:`inverse_frequencies`.
        calibration: See :func:`logit_offsets`.
        strength: Its tau.
        counts: ``(C,)``, how often each class occurs at the client.
        everybody: ``(C,)``, at all clients together.

    Raises:
        InputError: It takes everybody's counts, and they are unknown.
    """
    for option, needs in (
        ("class_weights global", class_weights == "global"),
        ("calibration prior", calibration == "prior" and strength > 0),
    ):
        if needs and not (everybody > 0).any():
            raise InputError(
                f"--loss.{option} needs how often each emotion occurs at all clients together, "
                "which nobody told; use one that needs a client's own counts alone, or none."
            )
    weights = None
    if class_weights != "none":
        weights = inverse_frequencies(everybody if class_weights == "global" else counts)
    return ClassTerms(weights, logit_offsets(calibration, strength, counts, everybody))
