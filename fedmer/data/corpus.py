"""Conversations in memory: what every reader returns and every split starts from.

This module needs NumPy only, so that the light subcommands answer at once.
"""

import hashlib
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import ArrayLike, NDArray

from fedmer.data.extractor_record import ExtractorRecord
from fedmer.errors import InputError

SPLITS = ("train", "val", "test")
UNLABELLED = -1
"""The label of an utterance that has none: context only, never learnt from, never scored."""


@dataclass(frozen=True, eq=False)
class Conversation:
    """One dialogue of ``N`` utterances (utterances), in the order they were spoken.

    Args:
        id: The dialogue's name, unique in its corpus.
        features: Modality name -> ``(N, D)`` float32. Rows of an absent modality are zero.
        present: Modality name -> ``(N,)`` bool: was this modality recorded for this utterance?
        speakers: ``(N,)`` names. A name means the same person in every dialogue of the corpus.
        labels: ``(N,)`` int64 in ``[0, classes)``, or :data:`UNLABELLED`.
        split: ``train``, ``val`` or ``test``: a dialogue belongs to one part as a whole.
        session: The recording session, where a corpus has sessions (IEMOCAP), else ``""``.
        utterances: The words, where a corpus has them; never needed for training.
        numbers: Of the utterances in their file, where there is one; never needed for training.
    """

    id: str
    features: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]
    speakers: NDArray[np.str_]
    labels: NDArray[np.int64]
    split: str
    session: str = ""
    utterances: Sequence[str] = ()
    numbers: Sequence[int] = ()

    def __len__(self) -> int:
        return len(self.labels)

    @classmethod
    def of(
        cls,
        features: Mapping[str, ArrayLike],
        speakers: Sequence[str],
        utterances: Sequence[str] = (),
        id: str = "conversation",
    ) -> "Conversation":
        """A conversation without labels, to be predicted.

        Args:
            features: Modality name -> ``(N, D)`` numbers. An utterance whose row is all NaN lacks
                it.
            speakers: Who speaks, one name an utterance.
            utterances: The words, one text an utterance, or nothing.
            id: What to call it.

        Raises:
            InputError: Features of a modality are no matrix.

        >>> said = Conversation.of({"text": [[0.5, 1.5], [np.nan, np.nan]]}, ["ann", "ben"])
        >>> said.present["text"].tolist()
        [True, False]
        """
        rows, present = {}, {}
        for name, given in features.items():
            try:
                matrix = np.asarray(given, dtype=np.float32)
            except (TypeError, ValueError):
                matrix = np.zeros(0, dtype=np.float32)
            if matrix.ndim != 2:
                raise InputError(f"'{name}' is no matrix of numbers; expected a row an utterance.")
            missing = np.isnan(matrix).all(axis=1).reshape(len(matrix))
            present[name] = ~missing
            rows[name] = np.where(present[name][:, None], matrix, np.float32(0))
        return cls(
            id=id,
            features=rows,
            present=present,
            speakers=np.array(speakers, dtype=np.str_),
            labels=np.full(len(speakers), UNLABELLED, dtype=np.int64),
            split="test",
            utterances=utterances,
        )

    @property
    def people(self) -> list[str]:
        """The speakers in the order in which they first speak."""
        return list(dict.fromkeys(self.speakers.tolist()))


@dataclass(frozen=True)
class CorpusShape:
    """The sizes that a network is built for.

    Args:
        features: Modality name -> feature dimension, in the corpus's order.
        classes: Number of emotions ``C``.
        speakers: The most people in one dialogue: role ids run over ``[0, speakers)``.
    """

    features: Mapping[str, int]
    classes: int
    speakers: int


@dataclass(frozen=True, eq=False)
class ConversationCorpus:
    """All conversations of a data set, checked.

    Args:
        name: What to call it in tables.
        conversations: In the file's order.
        label_names: One name a class; a label is an index into it.
        notes: What its reader decided by a rule, such as a split that the file does not have.
        extractors: Modality -> what made its features, of those of which it is known.

    Raises:
        InputError: What is wrong, in which dialogue, under which key.
    """

    name: str
    conversations: Sequence[Conversation]
    label_names: Sequence[str]
    notes: Sequence[str] = ()
    extractors: Mapping[str, ExtractorRecord] = field(default_factory=dict)
    _fingerprint: list[str] = field(default_factory=list, repr=False)

    def __post_init__(self) -> None:
        check(self)

    def __len__(self) -> int:
        return len(self.conversations)

    @property
    def modalities(self) -> list[str]:
        return list(self.conversations[0].features)

    @property
    def shape(self) -> CorpusShape:
        first = self.conversations[0]
        return CorpusShape(
            features={name: rows.shape[1] for name, rows in first.features.items()},
            classes=len(self.label_names),
            speakers=max(len(c.people) for c in self.conversations),
        )

    def part(self, split: str) -> list[int]:
        """Indices of the dialogues in ``train``, ``val`` or ``test``."""
        return [i for i, c in enumerate(self.conversations) if c.split == split]

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits that change with any feature, label, speaker, id or split."""
        if not self._fingerprint:
            digest = hashlib.sha256(repr(list(self.label_names)).encode())
            for dialogue in self.conversations:
                digest.update(repr((dialogue.id, dialogue.split, dialogue.session)).encode())
                digest.update("\x1f".join(dialogue.speakers.tolist()).encode())
                digest.update(np.ascontiguousarray(dialogue.labels).tobytes())
                for name in dialogue.features:
                    digest.update(name.encode())
                    digest.update(np.ascontiguousarray(dialogue.features[name]).tobytes())
                    digest.update(np.ascontiguousarray(dialogue.present[name]).tobytes())
            self._fingerprint.append(digest.hexdigest()[:16])
        return self._fingerprint[0]


def check(corpus: ConversationCorpus) -> None:
    """Refuse a corpus that would make training fail later, or worse, not fail.

    Raises:
        InputError: No dialogues, duplicate ids, an empty dialogue, a dialogue without a labelled
            utterance, rows that do not match, dimensions that differ or are 0, NaN or infinity, a
            label out of range, an unknown split, an emotion named twice, a text that is no Unicode.
    """
    if not corpus.conversations:
        raise InputError(f"{corpus.name} holds no dialogues; a corpus needs at least one.")
    if len(corpus.label_names) < 2:
        raise InputError(
            f"{corpus.name} names {len(corpus.label_names)} emotion(s); at least two are needed."
        )
    _check_text(corpus.label_names, f"{corpus.name}: 'label_names'")
    twice = [name for name, n in Counter(corpus.label_names).items() if n > 1]
    if twice:
        raise InputError(f"{corpus.name} names the emotion '{twice[0]}' twice; give each its own.")
    seen: set[str] = set()
    shape = {name: rows.shape[-1] for name, rows in corpus.conversations[0].features.items()}
    if not shape:
        raise InputError(f"{corpus.name} holds no modality; text, audio or visual is needed.")
    for name, width in shape.items():
        _check_modality(name, width, corpus.name)
    for dialogue in corpus.conversations:
        where = f"{corpus.name}: dialogue '{dialogue.id}'"
        if dialogue.id in seen:
            raise InputError(f"{where} occurs twice; every dialogue needs an id of its own.")
        seen.add(dialogue.id)
        _check_conversation(dialogue, where, shape, len(corpus.label_names))


def _check_modality(name: str, width: int, corpus: str) -> None:
    if not re.fullmatch(r"\w[\w -]*", name):
        raise InputError(
            f"{corpus}: a modality is called '{name}'; names are of letters, digits, spaces, - and "
            "_, since parts of a network are named after them."
        )
    if width == 0:
        raise InputError(f"{corpus}: '{name}' has no columns; leave the modality out of the file.")


def _check_text(texts: Iterable[str], where: str) -> None:
    try:
        "".join(texts).encode()
    except UnicodeEncodeError:
        raise InputError(f"{where} holds characters that do not exist.") from None


def _check_conversation(
    dialogue: Conversation, where: str, shape: Mapping[str, int], classes: int
) -> None:
    turns = len(dialogue)
    texts = (dialogue.id, dialogue.session, *dialogue.speakers.tolist(), *dialogue.utterances)
    _check_text(texts, where)
    if turns == 0:
        raise InputError(f"{where} is empty; remove it or give it at least one utterance.")
    if dialogue.split not in SPLITS:
        raise InputError(
            f"{where} is in split '{dialogue.split}'; expected one of {', '.join(SPLITS)}."
        )
    if dialogue.labels.shape != (turns,) or dialogue.labels.dtype != np.int64:
        raise InputError(f"{where}: labels must be {turns} int64 numbers, one an utterance.")
    if len(dialogue.speakers) != turns:
        raise InputError(f"{where} has {turns} utterances but {len(dialogue.speakers)} speakers.")
    wrong = dialogue.labels[(dialogue.labels < UNLABELLED) | (dialogue.labels >= classes)]
    if len(wrong):
        raise InputError(
            f"{where}: label {wrong[0]} is out of range; expected 0 to {classes - 1}, "
            f"or {UNLABELLED} for an utterance without one."
        )
    if not (dialogue.labels != UNLABELLED).any():
        raise InputError(
            f"{where} has no labelled utterance; remove it or label at least one utterance."
        )
    if list(dialogue.features) != list(shape) or list(dialogue.present) != list(shape):
        raise InputError(
            f"{where} has modalities {', '.join(dialogue.features) or 'none'}; the first dialogue "
            f"has {', '.join(shape)}. Mark what is missing in the presence mask instead."
        )
    for name, rows in dialogue.features.items():
        if rows.ndim != 2 or rows.shape[0] != turns or rows.dtype != np.float32:
            raise InputError(
                f"{where}: '{name}' is {rows.dtype} of shape {rows.shape}; "
                f"expected float32 of ({turns}, {shape[name]})."
            )
        if rows.shape[1] != shape[name]:
            raise InputError(
                f"{where}: '{name}' has {rows.shape[1]} dimensions but the first dialogue has "
                f"{shape[name]}; all dialogues need the same."
            )
        if dialogue.present[name].shape != (turns,) or dialogue.present[name].dtype != np.bool_:
            raise InputError(f"{where}: the presence mask of '{name}' must be {turns} booleans.")
        bad = ~np.isfinite(rows).all(axis=1)
        if bad.any():
            raise InputError(
                f"{where}: '{name}' holds NaN or infinity in turn {int(np.argmax(bad))}; "
                "repair the features, or mark the utterance as missing that modality."
            )
