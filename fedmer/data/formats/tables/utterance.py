"""The row model of a table: one utterance, whatever kind of file it stands in."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Utterance:
    """One row of a table.

    Args:
        row: Its number as a spreadsheet shows it: the header of a CSV file is row 1, the first line
            of JSON Lines and the first row of other files too.
        dialogue: Which dialogue.
        turn: Place in it; unique in its dialogue.
        speaker: A name means the same person in every dialogue.
        label: The emotion as a word or a number, ``""`` where there is none.
        split: ``train``, ``val`` or ``test``, ``""`` where the table has no such column.
        session: The recording session, or ``""``.
        text: The words, or ``""``.
        audio: The recording, beside the table where the path is relative; it need not exist.
        video: The same of the picture.
        start: Where in the recordings the utterance starts, in seconds; None is their start.
        end: Where it ends, in seconds; None is their end.
    """

    row: int
    dialogue: str
    turn: int
    speaker: str
    label: str = ""
    split: str = ""
    session: str = ""
    text: str = ""
    audio: Path | None = None
    video: Path | None = None
    start: float | None = None
    end: float | None = None


@dataclass(frozen=True, eq=False)
class UtteranceTable:
    """All ``n`` rows of a table, in the file's order, and the features that stand in it.

    Args:
        path: The file or folder.
        utterances: The rows, at least one.
        fields: Names of the columns of :class:`Utterance` that the table has.
        features: Modality name -> ``(n, D)`` float32, finite; zero in rows that lack it. Empty
            where a table holds recordings or words only.
        present: Modality name -> ``(n,)`` bool.
        label_names: The emotions' names where the file says them (``datasets``), else empty.
        unused: Columns that mean nothing here.
    """

    path: Path
    utterances: Sequence[Utterance]
    fields: frozenset[str]
    features: Mapping[str, NDArray[np.float32]]
    present: Mapping[str, NDArray[np.bool_]]
    label_names: Sequence[str] = ()
    unused: Sequence[str] = ()
