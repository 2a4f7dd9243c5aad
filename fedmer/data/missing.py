"""Modalities taken away from utterances: which stay, and what is left of an excerpt or a batch."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import combinations

import torch
from torch import Tensor

from fedmer.data.batch import Batch, Excerpt


def staying(present: Tensor, drawn: Tensor, rate: Tensor | float) -> Tensor:
    """Which modalities stay, so that nobody is left without any.

    One goes where a number drawn for it is below its rate. Where all that are there would go, the
    one with the largest number stays. So what is missing at a rate is missing at every higher one.

    Args:
        present: ``(..., M)`` bool, those that are there.
        drawn: ``(..., M)`` in [0, 1).
        rate: The chance in [0, 1] that one goes; a number, or ``(M,)``.

    Returns:
        ``(..., M)`` bool, some of those that are there; at least one unless none is.

    >>> present = torch.tensor([[True, True], [True, True], [False, True]])
    >>> staying(present, torch.tensor([[0.2, 0.9], [0.2, 0.1], [0.2, 0.1]]), 0.5)
    tensor([[False,  True],
            [ True, False],
            [False,  True]])
    """
    stays = present & (drawn >= rate)
    last = drawn.masked_fill(~present, -1).argmax(dim=-1, keepdim=True)
    is_last = last == torch.arange(present.shape[-1], device=present.device)
    return stays | (present & is_last & ~stays.any(dim=-1, keepdim=True))


def kept(present: Mapping[str, Tensor], rate: float) -> dict[str, Tensor]:
    """What stays where each modality of each utterance goes with a chance.

    Args:
        present: Modality name -> ``(B, L)`` bool.
        rate: The chance in [0, 1] that a modality of an utterance goes; an utterance that has any
            keeps one.

    Returns:
        Modality name -> ``(B, L)`` bool, some of those that are there, drawn from torch's
        generator.
    """
    those = torch.stack(list(present.values()), dim=-1)
    stays = staying(those, torch.rand(those.shape, device=those.device), rate)
    return dict(zip(present, stays.unbind(dim=-1), strict=True))


def reduced(part: Excerpt, present: Mapping[str, Tensor]) -> Excerpt:
    """An excerpt with fewer modalities; features of those that are missing are zero.

    Args:
        part: It stays as it is.
        present: Modality name -> ``(n,)`` bool, some of those that are there.
    """
    return replace(part, features=_masked(part.features, present), present=dict(present))


def restricted(parts: Sequence[Excerpt], names: Sequence[str]) -> list[Excerpt]:
    """Excerpts in which only the modalities of these names are there."""
    return [
        reduced(part, {name: there & (name in names) for name, there in part.present.items()})
        for part in parts
    ]


def modalities_in(parts: Sequence[Excerpt]) -> list[str]:
    """Names of the modalities that some utterance has, in the order of the corpus."""
    names = parts[0].present if parts else {}
    return [name for name in names if any(bool(part.present[name].any()) for part in parts)]


def drop_modalities(batch: Batch, rate: float) -> Batch:
    """A batch in which utterances lack some of what they have, drawn from torch's generator.

    Args:
        batch: It stays as it is.
        rate: The chance in [0, 1] that a modality of an utterance is dropped; at 0 nothing is
            drawn. At least one of what an utterance has stays.
    """
    if rate == 0:
        return batch
    there = kept(batch.present, rate)
    return _with(batch, _masked(batch.features, there), there)


def filled(batch: Batch, rows: Mapping[str, Tensor], gaps: Mapping[str, Tensor]) -> Batch:
    """A batch in which something stands where a modality is missing, and counts as present.

    Args:
        batch: It stays as it is.
        rows: Modality name -> ``(B, L, D)``, what is put in.
        gaps: Modality name -> ``(B, L)`` bool, where.
    """
    features = {
        name: torch.where(gaps[name][..., None], rows[name].to(own.dtype), own)
        for name, own in batch.features.items()
    }
    return _with(batch, features, {name: own | gaps[name] for name, own in batch.present.items()})


def _with(batch: Batch, features: dict[str, Tensor], present: dict[str, Tensor]) -> Batch:
    made = replace(batch, features=features, present=present)
    # Found out already, and asking an accelerator again would wait for it.
    vars(made).update({name: vars(batch)[name] for name in _CACHED if name in vars(batch)})
    return made


_CACHED = ("lengths", "places")


def _masked(features: Mapping[str, Tensor], present: Mapping[str, Tensor]) -> dict[str, Tensor]:
    return {name: rows.masked_fill(~present[name][..., None], 0) for name, rows in features.items()}


FEW = 4
"""Modalities up to which every subset of them is looked at."""


def subsets(names: Sequence[str]) -> list[tuple[str, ...]]:
    """Subsets of modalities that a network is asked without the others, the largest first.

    All that are not empty; of more than four modalities those of one, of all but one, and of all.

    >>> subsets(["text", "audio"])
    [('text', 'audio'), ('text',), ('audio',)]
    >>> len(subsets("abcde"))
    11
    """
    count = len(names)
    sizes = range(count, 0, -1) if count <= FEW else (count, count - 1, 1)
    return [found for size in sizes for found in combinations(names, size)]
