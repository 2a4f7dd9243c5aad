"""Modalities that a network hides from itself while it trains, to learn to do without them."""

import torch
from torch import Tensor

from fedmer.data.missing import staying
from fedmer.errors import InputError


def check_rate(missing_rate: float) -> None:
    """Refuse what is no probability below 1.

    Raises:
        InputError: ``missing_rate`` is out of range.
    """
    if not 0 <= missing_rate < 1:
        raise InputError(f"missing_rate is {missing_rate}; expected a number in [0, 1).")


def kept(present: dict[str, Tensor], rate: float) -> dict[str, Tensor]:
    """What is left where each modality of each utterance is hidden with a probability.

    An utterance that has a modality keeps one. So one that has a single modality keeps it.

    Args:
        present: Modality name -> ``(B, L)`` bool.
        rate: Probability in [0, 1) that a modality of an utterance is hidden.

    Returns:
        Modality name -> ``(B, L)`` bool, a subset of ``present``, drawn from torch's generator.
    """
    there = torch.stack(list(present.values()), dim=-1)
    left = staying(there, torch.rand(there.shape, device=there.device), rate)
    return dict(zip(present, left.unbind(dim=-1), strict=True))
