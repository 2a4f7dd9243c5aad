"""Masks of missing modalities, drawn for utterances, dialogues or clients."""

from collections.abc import Sequence

import torch
from torch import Tensor

from fedmer.contracts.condition import Condition
from fedmer.data.batch import Excerpt
from fedmer.data.missing import reduced, staying
from fedmer.plugins.conditions.feature_noise import known_of
from fedmer.seeds import generator


def masked(
    parts: Sequence[Excerpt],
    condition: Condition,
    by: str,
    modalities: Sequence[str] | None,
    seed: int,
) -> list[Excerpt]:
    """Excerpts that lack some of their modalities.

    What is drawn for a dialogue or an utterance depends on the dialogue's id and the utterance's
    place in it alone, so that whoever has an utterance lacks the same of it.

    Args:
        parts: At least one.
        condition: Its severity is the rate.
        by: What a modality is drawn for: ``utterance``, ``dialogue`` or ``client``, which is all of
            the excerpts.
        modalities: Which may be missing; None for all.
        seed: The masks are a function of it.

    Raises:
        InputError: The corpus has no such modality.
    """
    known = list(parts[0].features)
    chosen = known if modalities is None else known_of(modalities, known, condition)
    rates = [condition.severity if name in chosen else 0.0 for name in known]
    rate = torch.tensor(rates, dtype=torch.float64)
    return [_masked(part, _drawn(part, by, len(known), seed), rate) for part in parts]


def _drawn(part: Excerpt, by: str, modalities: int, seed: int) -> Tensor:
    """``(n, M)`` in [0, 1)."""
    random = generator(seed) if by == "client" else generator(seed, part.dialogue)
    if by != "utterance":
        return torch.from_numpy(random.random(modalities)).expand(len(part), -1)
    return torch.from_numpy(random.random((int(part.turns.max()) + 1, modalities)))[part.turns]


def _masked(part: Excerpt, drawn: Tensor, rate: Tensor) -> Excerpt:
    kept = staying(torch.stack(list(part.present.values()), dim=-1), drawn, rate)
    return reduced(part, dict(zip(part.present, kept.unbind(dim=-1), strict=True)))
