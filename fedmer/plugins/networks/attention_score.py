"""Attention scores over modalities: how much each modality of an utterance counts."""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from fedmer.errors import InputError


@dataclass(frozen=True)
class AttentionScore:
    r"""Weights of modalities by attention and by their likeness, equations 3 to 7 of the paper.

    With :math:`X_m` the output of modality :math:`m` for ``n`` utterances, ``prev`` the modality
    before it in cyclic order, and :math:`U` columns in :math:`W_m`:

    .. math::

        e_m &= \tanh(X_m W_m)\, V_m, \qquad
        a_m = \mathrm{softmax}(e_m / \sqrt U) \\
        \rho_m &= \max\Bigl(\rho_{\min},
            \tfrac12 \bigl(1 + \mathrm{Pearson}(X_m, X_{\mathrm{prev}(m)})\bigr)\Bigr), \qquad
        \beta_m = \mathrm{softplus}(b_m) - 1 \\
        a'_m &= \rho_m (1 + \beta_m a_m), \qquad X'_m = a'_m X_m

    The paper leaves open where the softmax runs, how the Pearson coefficient becomes a number in
    [0, 1], what beta is and where the result goes. Here an utterance's modalities compete by
    default, the coefficient is taken over an utterance's features and carries no gradient, beta is
    learnt, and
    :math:`X'` enters the gate that fuses modalities. For unaligned features the coefficient is
    near 0, so that rho is near a half everywhere and would only shrink what is fused; ``renorm``,
    which the paper does not have, takes that constant out.

    Args:
        width: U, columns of W.
        axis: Where the softmax runs: over an utterance's 'modality' values, or over a dialogue's
            'utterance' values, which fade in long dialogues since they share one unit.
        rho: What the coefficient r becomes: 'pearson' is (1 + r) / 2, 'abs' is its absolute value,
            'one' is 1 throughout.
        rho_min: The least rho, in [0, 1].
        beta: Where beta starts, above -1. At 0 the scores have no effect and no gradient.
        learn_beta: Learn beta, or keep it.
        renorm: Scale an utterance's weights so that their mean over its modalities is 1; off is the
            paper's.
        students: What the students read: 'raw' outputs, or 'scaled' ones.

    Raises:
        InputError: A value is out of range.
    """

    width: int = 32
    axis: Literal["modality", "utterance"] = "modality"
    rho: Literal["pearson", "abs", "one"] = "pearson"
    rho_min: float = 0.0
    beta: float = 1.0
    learn_beta: bool = True
    renorm: bool = True
    students: Literal["raw", "scaled"] = "raw"

    def __post_init__(self) -> None:
        if self.width < 1:
            raise InputError(f"attention_score.width is {self.width}; expected at least 1.")
        if not 0 <= self.rho_min <= 1:
            raise InputError(
                f"attention_score.rho_min is {self.rho_min}; expected a number in [0, 1]."
            )
        if not -1 < self.beta < math.inf:
            raise InputError(f"attention_score.beta is {self.beta}; expected a number above -1.")


class ModalityScores(nn.Module):
    """The weights :math:`a'` of every modality of every utterance.

    Args:
        modalities: Names, in the cyclic order of ``prev``; two or more.
        hidden: Width of the outputs that are weighed.
        settings: See :class:`AttentionScore`.
    """

    def __init__(self, modalities: list[str], hidden: int, settings: AttentionScore) -> None:
        super().__init__()
        self.modalities = modalities
        self.settings = settings
        self.look = nn.ModuleDict(
            {name: nn.Linear(hidden, settings.width, bias=False) for name in modalities}
        )
        self.score = nn.ModuleDict(
            {name: nn.Linear(settings.width, 1, bias=False) for name in modalities}
        )
        # softplus(b) = beta + 1, solved for b; what is learnt is how far b has moved from there.
        self.start = math.log(math.expm1(settings.beta + 1))
        moved = torch.zeros(len(modalities))
        self.moved = nn.Parameter(moved) if settings.learn_beta else None

    def forward(
        self, outputs: Mapping[str, Tensor], present: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        """Weigh every modality.

        Args:
            outputs: Modality -> ``(B, L, d)``.
            present: Modality -> ``(B, L)`` bool: who takes part in the softmax, in the coefficient
                and in the renormalisation.

        Returns:
            Modality -> ``(B, L, 1)`` weights of 0 or more; 0 where the modality is not present.
        """
        there = torch.stack([present[name] for name in self.modalities])
        attention = self.attention(outputs, there)
        likeness = self.likeness(outputs, there)
        weights = (likeness * (1 + self.beta()[:, None, None] * attention)).masked_fill(~there, 0.0)
        if self.settings.renorm:
            total = weights.sum(dim=0)
            usable = total > 0
            scale = there.sum(dim=0) / torch.where(usable, total, 1.0)
            weights = weights * torch.where(usable, scale, 1.0)
        return {name: weights[i][..., None] for i, name in enumerate(self.modalities)}

    def beta(self) -> Tensor:
        """The factor ``beta`` of every modality, ``(M,)``, above -1."""
        if self.moved is None:
            device = next(self.parameters()).device
            return torch.full((len(self.modalities),), self.settings.beta, device=device)
        start = torch.full_like(self.moved, self.start)
        # As a difference, so that before any step it is the chosen value to the last bit.
        return self.settings.beta + (F.softplus(start + self.moved) - F.softplus(start))

    def attention(self, outputs: Mapping[str, Tensor], there: Tensor) -> Tensor:
        """The attention ``a``, ``(M, B, L)``; it sums to 1 over modalities, or over utterances."""
        scores = torch.stack(
            [self.score[name](torch.tanh(self.look[name](outputs[name])))[..., 0]
             for name in self.modalities]
        )  # fmt: skip
        scores = scores.float() / math.sqrt(self.settings.width)
        scores = scores.masked_fill(~there, torch.finfo(scores.dtype).min)
        axis = 0 if self.settings.axis == "modality" else -1
        return scores.softmax(dim=axis).masked_fill(~there, 0.0)

    @torch.no_grad()
    def likeness(self, outputs: Mapping[str, Tensor], there: Tensor) -> Tensor:
        """The likeness ``rho`` of each modality and the one before it, ``(M, B, L)`` in [0, 1]."""
        if self.settings.rho == "one":
            return torch.ones(there.shape, device=there.device)
        stacked = torch.stack([outputs[name] for name in self.modalities]).float()
        coefficient = pearson(stacked, stacked.roll(1, dims=0)) * (there & there.roll(1, dims=0))
        rho = (1 + coefficient) / 2 if self.settings.rho == "pearson" else coefficient.abs()
        return rho.clamp(min=self.settings.rho_min, max=1.0)


def pearson(one: Tensor, other: Tensor) -> Tensor:
    """Pearson's coefficient over the last dimension, in [-1, 1]; 0 where either is constant.

    >>> pearson(torch.tensor([1.0, 2.0, 4.0]), torch.tensor([2.0, 4.0, 8.0]))
    tensor(1.)
    """
    one, other = (rows - rows.mean(dim=-1, keepdim=True) for rows in (one, other))
    spreads = one.square().sum(dim=-1) * other.square().sum(dim=-1)
    varies = spreads > torch.finfo(spreads.dtype).tiny
    shared = (one * other).sum(dim=-1) / torch.where(varies, spreads, 1.0).sqrt()
    return shared.clamp(-1, 1) * varies
