"""What a node has on its own machine: its dialogues, and what it remembers between rounds."""

import math
from dataclasses import dataclass, replace
from pathlib import Path

import torch

from fedmer.contracts.client import ClientMemory
from fedmer.data.batch import excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import ConversationCorpus, CorpusShape
from fedmer.data.formats import read_corpus
from fedmer.data.holdout import hold_out
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.data.remote import Description, Request
from fedmer.data.standardise import Statistics, moments
from fedmer.data.standardise import statistics as combine
from fedmer.errors import InputError
from fedmer.files import remove_leftovers, replacing, write_atomically
from fedmer.flower.node.first_answer import FirstAnswer

FEWEST_TURNS = 10
"""The sums of fewer utterances' features would say too much about each of them."""
_PRIVATE = 0o600
"""What a node remembers tells of its data, a personal network above all: its owner's to read."""


@dataclass(frozen=True, eq=False)
class NodeData:
    """A node's corpus and what of it is learnt from.

    Args:
        corpus: Its file; dialogues of the test part are left alone.
        training: The dialogues to learn from.
        held: Those kept back for validation: the file's validation part, or where it has none a
            fraction of the others.
    """

    corpus: ConversationCorpus
    training: ClientPartition
    held: list[Sample]

    @classmethod
    def read(cls, path: Path, request: Request, first: FirstAnswer | None = None) -> "NodeData":
        """Read the file and split it.

        Args:
            path: The file.
            request: What the server asks for.
            first: What the node told before, which it sticks to.

        Raises:
            InputError: It cannot be read, holds nothing to learn from, or is not what was
                described before.
        """
        corpus = read_corpus(path, math.inf)  # the node's own file
        train, val = (_whole(corpus, part) for part in ("train", "val"))
        if not train:
            raise InputError(f"{corpus.name} has no dialogue of split 'train' to learn from.")
        if first is not None:
            request = first.settle(path, request, chosen=bool(val))
        everything = ClientPartition("node", train)
        if val:
            return cls(corpus, everything, val)
        (training,), (held,) = hold_out([everything], request.holdout, request.seed)
        return cls(corpus, training, held)

    def describe(self, request: Request) -> Description:
        """What the server may know.

        Raises:
            InputError: There are too few utterances for their sums to be told.
        """
        client = self.client(None)
        sums = {}
        if request.standardise == "federated":
            sums = moments(self.corpus, self.training)
            fewest = min(part.count for part in sums.values())
            if fewest < FEWEST_TURNS:
                raise InputError(
                    f"a modality is present in {fewest} utterances only, and the sums of fewer "
                    "than "
                    f"{FEWEST_TURNS} say too much; start the run with --data.standardise local."
                )
        shape = self.corpus.shape
        return Description(
            name="",
            labels=tuple(self.corpus.label_names),
            features=dict(shape.features),
            speakers=shape.speakers,
            counts=client.class_counts(shape.classes),
            held=len(self.held),
            moments=sums,
            extractors=dict(self.corpus.extractors),
        )

    def client(self, statistics: dict[str, Statistics] | None) -> ClientData:
        """Excerpts, standardised if there are statistics."""
        return ClientData(
            "this node",
            [excerpt(self.corpus, sample, statistics) for sample in self.training.samples],
            [excerpt(self.corpus, sample, statistics) for sample in self.held],
        )

    def own_statistics(self) -> dict[str, Statistics]:
        """By this node's utterances alone."""
        return combine([moments(self.corpus, self.training)])


class NodeMemory:
    """What a node remembers of a run, a file a round, of which the last two are kept.

    So a server that lost a round and goes on from its checkpoint finds the node as it was then.

    Args:
        folder: Of the run.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def begin(self, attempt: str, round: int) -> None:
        """Forget what an attempt that was given up left behind.

        Args:
            attempt: The name of this one; what is of the same has been begun before.
            round: Where it began.
        """
        mark = self._folder / "attempt"
        if mark.exists() and mark.read_text() == attempt:
            return
        for number in self._rounds():
            if number >= round:
                self._path(number).unlink()
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        remove_leftovers(self._folder)
        write_atomically(mark, attempt, _PRIVATE)

    def before(self, round: int) -> ClientMemory:
        """What it remembered when a round began; empty before its first.

        Raises:
            InputError: It has forgotten.
        """
        rounds = self._rounds()
        earlier = [number for number in rounds if number < round]
        if earlier:
            state = torch.load(self._path(earlier[-1]), map_location="cpu", weights_only=True)
            return ClientMemory.from_state(state)
        if len(rounds) > 1 and round > 0:
            raise InputError(
                f"it remembers rounds {rounds[0] + 1} to {rounds[-1] + 1} only, and was asked to "
                f"go on with round {round + 1}; go on from a later checkpoint, or start anew"
            )
        return ClientMemory()

    def after(self, round: int, memory: ClientMemory) -> None:
        """Keep what it remembers now, if anything."""
        for number in self._rounds():
            if number >= round:
                self._path(number).unlink()
        if not memory:
            return
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        with replacing(self._path(round), _PRIVATE) as file:
            torch.save(memory.state_dict(), file)
        for number in self._rounds()[:-2]:
            self._path(number).unlink()

    def _rounds(self) -> list[int]:
        return sorted(int(path.stem) for path in self._folder.glob("[0-9]*.pt"))

    def _path(self, round: int) -> Path:
        return self._folder / f"{round:06d}.pt"


def shape_for(corpus: ConversationCorpus, speakers: int) -> CorpusShape:
    """The corpus's shape, with room for the most people in a dialogue of any node."""
    return replace(corpus.shape, speakers=max(speakers, corpus.shape.speakers))


def _whole(corpus: ConversationCorpus, part: str) -> list[Sample]:
    return [whole(corpus.conversations[index], index) for index in corpus.part(part)]
