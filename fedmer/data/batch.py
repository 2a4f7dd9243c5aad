"""Excerpts of dialogues as tensors, and padded batches of them."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property

import torch
from torch import Tensor
from torch.utils.data import Sampler

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import Sample, whole
from fedmer.data.standardise import Statistics
from fedmer.seeds import generator

EVALUATION_BATCH = 32
"""Dialogues at once where nothing is learnt; no result depends on it."""


@dataclass(frozen=True, eq=False)
class Excerpt:
    """What one client has of one dialogue: ``n`` utterances, those of its context mask K.

    Utterances outside K are not here at all and labels outside M are overwritten, so nothing
    downstream can look at what the client may not know.

    Args:
        dialogue: The dialogue's id.
        turns: ``(n,)`` int64, the utterances' indices in the whole dialogue.
        features: Modality name -> ``(n, D)`` float32, standardised; zero where not present.
        present: Modality name -> ``(n,)`` bool.
        labels: ``(n,)`` int64; :data:`~fedmer.data.corpus.UNLABELLED` outside M.
        labelled: ``(n,)`` bool, M.
        roles: ``(n,)`` int64, 0 for the listener, then partners.
        positions: ``(n,)`` int64, the place for the position encoding.
    """

    dialogue: str
    turns: Tensor
    features: Mapping[str, Tensor]
    present: Mapping[str, Tensor]
    labels: Tensor
    labelled: Tensor
    roles: Tensor
    positions: Tensor

    def __len__(self) -> int:
        return len(self.labels)


def excerpt(
    corpus: ConversationCorpus, sample: Sample, statistics: Mapping[str, Statistics] | None = None
) -> Excerpt:
    """Cut a sample out of a corpus, standardised by ``statistics`` if there are any."""
    conversation = corpus.conversations[sample.dialogue]
    kept = sample.context
    features, present = {}, {}
    for name, rows in conversation.features.items():
        there = conversation.present[name][kept]
        values = rows[kept]
        if statistics is not None:
            values = statistics[name].standardise(values)
        features[name] = torch.from_numpy(values * there[:, None])
        present[name] = torch.from_numpy(there)
    labelled = torch.from_numpy(sample.labelled[kept])
    labels = torch.from_numpy(conversation.labels[kept]).masked_fill(~labelled, UNLABELLED)
    return Excerpt(
        dialogue=conversation.id,
        turns=torch.from_numpy(kept.nonzero()[0]),
        features=features,
        present=present,
        labels=labels,
        labelled=labelled,
        roles=torch.from_numpy(sample.roles(conversation)),
        positions=torch.from_numpy(sample.positions()),
    )


@dataclass(eq=False)
class Batch:
    """``B`` excerpts padded to the longest, ``L`` utterances.

    Args:
        features: Modality name -> ``(B, L, D)`` float32, zero in padding and where missing.
        present: Modality name -> ``(B, L)`` bool, False in padding.
        context: ``(B, L)`` bool, K: True for utterances, False for padding.
        labelled: ``(B, L)`` bool, M, a subset of K.
        labels: ``(B, L)`` int64, :data:`~fedmer.data.corpus.UNLABELLED` outside M.
        roles: ``(B, L)`` int64, 0 in padding.
        positions: ``(B, L)`` int64, 0 in padding.
    """

    features: dict[str, Tensor]
    present: dict[str, Tensor]
    context: Tensor
    labelled: Tensor
    labels: Tensor
    roles: Tensor
    positions: Tensor

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Batch":
        """The same batch on another device."""

        def move(value: Tensor | dict[str, Tensor]) -> Tensor | dict[str, Tensor]:
            if isinstance(value, dict):
                return {
                    name: part.to(device, non_blocking=non_blocking) for name, part in value.items()
                }
            return value.to(device, non_blocking=non_blocking)

        moved = Batch(**{f.name: move(getattr(self, f.name)) for f in fields(self)})  # type: ignore[arg-type]
        # Found out here, since asking an accelerator for them would wait for it.
        moved.lengths = self.lengths
        moved.places = self.places.to(device, non_blocking=non_blocking)
        return moved

    @property
    def nbytes(self) -> int:
        """Bytes of all tensors."""
        parts = [getattr(self, f.name) for f in fields(self)]
        tensors = [t for p in parts for t in (p.values() if isinstance(p, dict) else [p])]
        return sum(tensor.numel() * tensor.element_size() for tensor in tensors)

    @cached_property
    def lengths(self) -> list[int]:
        """Utterances of each dialogue, ``B`` numbers."""
        counts: list[int] = self.context.sum(dim=1).tolist()
        return counts

    @cached_property
    def places(self) -> Tensor:
        """Where the ``N`` utterances stand among the ``B * L`` places: ``(N,)`` int64,
        ascending."""
        return self.context.flatten().nonzero()[:, 0]

    def pack(self, padded: Tensor) -> Tensor:
        """``(N, ...)`` of ``(B, L, ...)``: the utterances one behind the other."""
        return padded.flatten(0, 1).index_select(0, self.places)


def collate(excerpts: Sequence[Excerpt]) -> Batch:
    """Pad excerpts on the right.

    Raises:
        ValueError: There are no excerpts.
    """
    if not excerpts:
        raise ValueError("collate needs at least one excerpt.")

    def pad(rows: list[Tensor], value: float = 0) -> Tensor:
        return torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=value)

    names = list(excerpts[0].features)
    return Batch(
        features={name: pad([e.features[name] for e in excerpts]) for name in names},
        present={name: pad([e.present[name] for e in excerpts]) for name in names},
        context=pad([torch.ones(len(e), dtype=torch.bool) for e in excerpts]),
        labelled=pad([e.labelled for e in excerpts]),
        labels=pad([e.labels for e in excerpts], UNLABELLED),
        roles=pad([e.roles for e in excerpts]),
        positions=pad([e.positions for e in excerpts]),
    )


def batch_of(corpus: ConversationCorpus, dialogues: Sequence[int]) -> Batch:
    """Whole dialogues of a corpus, by their places in it, with their features as they are.

    Raises:
        ValueError: There are no dialogues.
    """
    return collate([excerpt(corpus, whole(corpus.conversations[i], i)) for i in dialogues])


class EpochOrder(Sampler[int]):
    """The order of a client's dialogues: a pure function of (seed, client, epoch).

    Dialogues that fit into one batch stay in their order, since none is learnt from before another.
    Lightning calls :meth:`set_epoch` by itself when a DataLoader uses this as its sampler.

    Args:
        size: How many dialogues.
        seed: Of the run.
        client: Its id.
        batch_size: Dialogues a batch.
    """

    def __init__(self, size: int, seed: int, client: int = 0, batch_size: int = 1) -> None:
        self.size, self.seed, self.client, self.epoch = size, seed, client, 0
        self.batch_size = batch_size

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        return self.size

    def __iter__(self) -> Iterator[int]:
        # A generator on purpose: Lightning makes the iterator before it sets the epoch on resume.
        if self.size <= self.batch_size:
            yield from range(self.size)
            return
        yield from (
            generator(self.seed, "order", self.client, self.epoch).permutation(self.size).tolist()
        )
