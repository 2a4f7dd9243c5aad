"""Clients whose data is on other machines, as they describe it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import torch
from torch import Tensor

from fedmer.data.client_data import ClientData
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.standardise import Moments
from fedmer.errors import InputError


@dataclass(frozen=True, eq=False)
class Request:
    """What the server asks of clients before the first round.

    Args:
        standardise: Should they send their features' moments?
        holdout: The fraction of its dialogues, in [0, 1), that each keeps back.
        seed: Where a client's choice of them comes from.
    """

    standardise: str
    holdout: float
    seed: int


@dataclass(frozen=True, eq=False)
class Description:
    """What a client says of its data; nothing in it belongs to one utterance.

    Args:
        name: Of the client, as the server knows it.
        labels: The emotions' names.
        features: Modality -> dimension.
        speakers: The most people in one of its dialogues.
        counts: ``(C,)`` int64, labelled utterances of each class to learn from.
        held: Dialogues that it keeps back for validation.
        moments: Modality -> count, sum and sum of squares, if they were asked for.
        extractors: Modality -> what made its features, where the client knows it.
    """

    name: str
    labels: tuple[str, ...]
    features: Mapping[str, int]
    speakers: int
    counts: Tensor
    held: int
    moments: Mapping[str, Moments] = field(default_factory=dict)
    extractors: Mapping[str, ExtractorRecord] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class RemoteClient(ClientData):
    """A client that is known by its numbers only.

    Args:
        counts: ``(C,)`` int64, labelled utterances of each class; zeros if it has not been met.
    """

    counts: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.int64))

    @property
    def examples(self) -> int:
        return int(self.counts.sum())

    def class_counts(self, classes: int) -> Tensor:
        return self.counts


@dataclass(frozen=True, eq=False)
class RemoteClients:
    """All clients of a federation, those that did not answer included.

    Args:
        names: By client id.
        known: Client id -> description, at least one.
    """

    names: Sequence[str]
    known: Mapping[int, Description]

    @property
    def clients(self) -> list[ClientData]:
        classes = len(next(iter(self.known.values())).labels)
        nothing = torch.zeros(classes, dtype=torch.int64)
        found: list[ClientData] = []
        for client, name in enumerate(self.names):
            described = self.known.get(client)
            found.append(
                RemoteClient(name, [], counts=nothing)
                if described is None
                else RemoteClient(name, [], counts=described.counts)
            )
        return found

    @property
    def held(self) -> int:
        """Dialogues kept back, by all clients together."""
        return sum(remote.held for remote in self.known.values())

    @property
    def extractors(self) -> dict[str, ExtractorRecord]:
        """What made the features of the modalities of which every client that is known says it."""
        first, *others = self.known.values()
        return {
            name: made
            for name, made in first.extractors.items()
            if all(name in other.extractors for other in others)
        }

    def corpus(self, public: ConversationCorpus | None, name: str) -> ConversationCorpus:
        """What the server can look at: the public dialogues, and a made-up one of their shape.

        Raises:
            InputError: The public file has other emotions or other features than the clients, or
                features that another extractor made.
        """
        first = next(iter(self.known.values()))
        if public is not None:
            theirs = (tuple(public.label_names), dict(public.shape.features))
            if theirs != (first.labels, dict(first.features)):
                raise InputError(
                    f"{public.name} has the emotions {list(theirs[0])} and the features "
                    f"{theirs[1]}, but {first.name} has {list(first.labels)} and "
                    f"{dict(first.features)}; give a test file of the same kind."
                )
            for name, made in self.extractors.items():
                if public.extractors.get(name, made) != made:
                    raise InputError(
                        f"{public.name}: '{name}' was made by {public.extractors[name]}, but the "
                        f"clients' by {made}; give a test file that was extracted in that way."
                    )
        conversations = (
            [] if public is None else [c for c in public.conversations if c.split != "train"]
        )
        speakers = max(remote.speakers for remote in self.known.values())
        made_up = _made_up(dict(first.features), len(first.labels), speakers)
        every = [made_up, *conversations]
        whole = ConversationCorpus(name, every, first.labels, extractors=self.extractors)
        return whole if public is None else replace(whole, name=public.name)


def _made_up(features: dict[str, int], classes: int, speakers: int) -> Conversation:
    """It says how large the server's network has to be, and nothing is learnt from it."""
    return Conversation(
        id="made up by the server",
        features={name: np.zeros((speakers, d), dtype=np.float32) for name, d in features.items()},
        present={name: np.ones(speakers, dtype=bool) for name in features},
        speakers=np.array([f"person {i}" for i in range(speakers)]),
        labels=np.arange(speakers, dtype=np.int64) % classes,
        split="train",
    )
