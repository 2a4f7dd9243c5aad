"""From a table's rows to conversations."""

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.formats.native import ordered
from fedmer.data.formats.tables.cells import whole_number
from fedmer.data.formats.tables.splitting import split_dialogues
from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError

_MOST = 1000
"""Emotions that numbers may stand for without names; more are a mistake."""


def to_corpus(
    table: UtteranceTable, labels: Sequence[str] | None = None, seed: int = 0
) -> ConversationCorpus:
    """The corpus of a table that has features and labels.

    Args:
        table: Its rows; dialogues keep the order in which it first names them.
        labels: The emotions in their order. By default those that the table names, in alphabetical
            order; numbers are their own names.
        seed: Of the split, where the table has none.

    Raises:
        InputError: It has no labels, one that is none of ``labels``, a dialogue in two parts, or
            anything that :func:`fedmer.data.corpus.check` refuses.
    """
    notes = []
    if table.unused:
        notes.append(f"columns that are not used: {', '.join(table.unused)}")
    if "label" not in table.fields:
        raise InputError(
            f"{table.path} lacks the column 'label'; say which it is with --data.columns.label "
            "NAME."
        )
    names = list(labels or table.label_names) or _names(table)
    if not table.features:
        raise InputError(
            f"{table.path} has no features: neither columns text_0, text_1, ..., nor lists, nor "
            f"{table.path.stem}.text.npy beside it."
        )
    conversations = conversations_of(table, names)
    if "split" not in table.fields:
        parts, apart = split_dialogues(
            [conversation.people for conversation in conversations], seed
        )
        counts = ", ".join(f"{parts.count(part)} {part}" for part in ("train", "val", "test"))
        who = "no speaker is in two parts" if apart else "speakers are in several parts"
        notes.append(f"no column 'split': dialogues were split by seed {seed}: {counts}; {who}")
        conversations = [
            replace(conversation, split=part)
            for conversation, part in zip(conversations, parts, strict=True)
        ]
    return ConversationCorpus(_stem(table.path), conversations, names, notes=notes)


def conversations_of(table: UtteranceTable, names: Sequence[str]) -> list[Conversation]:
    """The dialogues of a table, in the order in which it first names them, utterances sorted.

    Args:
        table: Its rows.
        names: The emotions in their order.

    Returns:
        Conversations whose part is ``test`` where the table says none.

    Raises:
        InputError: A label is none of ``names``, or a dialogue is in two parts or sessions.
    """
    places: dict[str, list[int]] = {}
    for place, utterance in enumerate(table.utterances):
        places.setdefault(utterance.dialogue, []).append(place)
    labels = _numbers(table, names)
    found = []
    for dialogue, rows in places.items():
        said = sorted((table.utterances[i] for i in rows), key=lambda u: u.turn)
        rows.sort(key=lambda i: table.utterances[i].turn)
        for field in ("split", "session"):
            _check_single(table.path, said, field)
        words = [utterance.text for utterance in said]
        found.append(
            Conversation(
                id=dialogue,
                features={m: table.features[m][rows] for m in ordered(table.features)},
                present={m: table.present[m][rows] for m in ordered(table.features)},
                speakers=np.array([utterance.speaker for utterance in said]),
                labels=labels[rows],
                split=said[0].split or "test",
                session=said[0].session,
                utterances=words if "utterance" in table.fields else (),
                numbers=[utterance.turn for utterance in said],
            )
        )
    return found


def _names(table: UtteranceTable) -> list[str]:
    """The emotions that occur."""
    named = {utterance.label: utterance.row for utterance in table.utterances if utterance.label}
    numbers = {name: whole_number(name) for name in named}
    found = [number for number in numbers.values() if number is not None]
    if not named or len(found) < len(named):
        return sorted(named)
    if max(found) >= _MOST:
        name = max(numbers, key=lambda name: numbers[name] or 0)
        raise InputError(
            f"{table.path}: row {named[name]}, column 'label' is {name}; expected the number of an "
            f"emotion below {_MOST}, or its name."
        )
    return [str(number) for number in range(max(found) + 1)]


def _numbers(table: UtteranceTable, names: Sequence[str]) -> NDArray[np.int64]:
    """``(n,)`` labels."""
    places = {name: place for place, name in enumerate(names)} | {"": UNLABELLED}
    found = np.empty(len(table.utterances), dtype=np.int64)
    for place, utterance in enumerate(table.utterances):
        number = places.get(utterance.label)
        if number is None:
            number = whole_number(utterance.label)
        if number is None or not UNLABELLED <= number < len(names):
            raise InputError(
                f"{table.path}: row {utterance.row}, column 'label' is '{utterance.label[:40]}'; "
                f"expected one of {', '.join(names)}, a number from {UNLABELLED} to "
                f"{len(names) - 1}, or nothing for an utterance without an emotion."
            )
        found[place] = number
    return found


def _check_single(path: Path, said: Sequence[Utterance], field: str) -> None:
    first = said[0]
    for other in said:
        if getattr(other, field) != getattr(first, field):
            raise InputError(
                f"{path}: row {other.row}, column '{field}' is '{getattr(other, field)}', but "
                f"'{getattr(first, field)}' in row {first.row} of the same dialogue "
                f"'{first.dialogue}'; a dialogue belongs to one {field} as a whole."
            )


def _stem(path: Path) -> str:
    return path.name if path.is_dir() else path.stem
