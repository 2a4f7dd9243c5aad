"""Who holds what: a client is a set of (dialogue, context mask K, label mask M)."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import UNLABELLED, Conversation
from fedmer.errors import InputError


@dataclass(frozen=True, eq=False)
class Sample:
    """One dialogue of ``N`` utterances as a client sees it.

    Args:
        dialogue: Index into ``corpus.conversations``.
        context: ``(N,)`` bool, K: the utterances whose features the client holds and may attend to.
        labelled: ``(N,)`` bool, M: the utterances whose labels it holds and learns from; a subset
            of K.
        listener: The person from whose side the dialogue is seen. Role 0 is that person; with no
            listener it is whoever speaks first.
        keep_gaps: Where K leaves turns out, do the others keep their place in the dialogue
            (position 0, 3, 4) or close up (0, 1, 2)?

    Raises:
        InputError: M is not a subset of K, or is empty.
    """

    dialogue: int
    context: NDArray[np.bool_]
    labelled: NDArray[np.bool_]
    listener: str | None = None
    keep_gaps: bool = False

    def __post_init__(self) -> None:
        # Splits over thousands of clients make a million samples; any() costs ten times as much.
        same = self.context.shape == self.labelled.shape
        if not same or np.count_nonzero(self.labelled > self.context):
            raise InputError("A sample's labelled utterances must lie within its context.")
        if not np.count_nonzero(self.labelled):
            raise InputError("A sample needs at least one labelled utterance.")

    def positions(self) -> NDArray[np.int64]:
        """The place of every utterance of K, for the position encoding."""
        places = np.flatnonzero(self.context)
        return places if self.keep_gaps else np.arange(len(places))

    def roles(self, dialogue: Conversation) -> NDArray[np.int64]:
        """Role-relative speaker ids of the utterances of K: 0 is the listener, then partners.

        Partners are numbered in the order in which they speak, so an id says what somebody is to
        the listener and never who they are.
        """
        people = list(dict.fromkeys(dialogue.speakers[self.context].tolist()))
        if self.listener is not None:
            people = [self.listener, *(p for p in people if p != self.listener)]
        ids = {person: role for role, person in enumerate(people)}
        return np.array([ids[p] for p in dialogue.speakers[self.context].tolist()], dtype=np.int64)


@dataclass(frozen=True, eq=False)
class ClientPartition:
    """Everything that one client holds.

    Args:
        name: What to call it in tables, for example the speaker.
        samples: At least one; no dialogue twice.
    """

    name: str
    samples: Sequence[Sample]

    @property
    def examples(self) -> int:
        """Labelled utterances."""
        return sum(int(sample.labelled.sum()) for sample in self.samples)


def whole(conversation: Conversation, dialogue: int) -> Sample:
    """A dialogue as a client sees it that holds all of it."""
    return Sample(
        dialogue, np.ones(len(conversation), dtype=bool), conversation.labels != UNLABELLED
    )
