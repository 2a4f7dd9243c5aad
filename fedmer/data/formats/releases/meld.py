"""The folder of MELD's raw release: ``*_sent_emo.csv``, and a film for each utterance."""

import csv
import re
from collections.abc import Iterator, Mapping
from pathlib import Path

from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError

EMOTIONS = ("neutral", "surprise", "fear", "sadness", "joy", "disgust", "anger")
"""In the order of published results."""

_PARTS = {"train": "train", "dev": "val", "test": "test"}
_COLUMNS = ("Utterance", "Speaker", "Emotion", "Dialogue_ID", "Utterance_ID")
_FILM = re.compile(r"dia\d+_utt\d+\.mp4")


def tables(path: Path) -> dict[str, Path]:
    """Part -> its table; none if the folder is no such release."""
    found = {part: sorted(path.rglob(f"{part}_sent_emo.csv")) for part in _PARTS}
    return {part: files[0] for part, files in found.items() if files}


def read(path: Path) -> UtteranceTable:
    """All utterances of the parts that are there.

    A film is cut at its utterance already, so that the table's times, which are those of the
    broadcast, are left out. A film that is missing counts as a missing modality later.

    Args:
        path: The folder that holds the tables, and below it the films.

    Raises:
        InputError: A table lacks a column, or an emotion is none of the seven.
    """
    films = _films(path)
    found: list[Utterance] = []
    for part, file in tables(path).items():
        for number, row in _rows(file):
            film = f"dia{row['Dialogue_ID']}_utt{row['Utterance_ID']}.mp4"
            emotion = row["Emotion"].strip().lower()
            if emotion not in EMOTIONS:
                raise InputError(
                    f"{file}: row {number}, column 'Emotion' is '{emotion[:40]}'; expected one of "
                    f"{', '.join(EMOTIONS)}."
                )
            found.append(
                Utterance(
                    row=number,
                    dialogue=f"{part}{row['Dialogue_ID']}",
                    turn=int(row["Utterance_ID"]),
                    speaker=row["Speaker"].strip(),
                    label=emotion,
                    split=_PARTS[part],
                    text=row["Utterance"],
                    video=films.get(part, file.parent) / film,
                )
            )
    if not found:
        raise InputError(f"{path} has tables of MELD without rows; unpack the release again.")
    fields = ["dialogue", "turn", "speaker", "label", "split", "utterance"]
    fields += ["video"] if films else []
    return UtteranceTable(path, found, frozenset(fields), {}, {}, list(EMOTIONS))


def _films(path: Path) -> Mapping[str, Path]:
    """Part -> the folder with its films, by the folder's name."""
    found: dict[str, Path] = {}
    folders = sorted({film.parent for film in path.rglob("*.mp4") if _FILM.fullmatch(film.name)})
    for folder in folders:
        name = str(folder.relative_to(path)).lower()
        for part in _PARTS:
            if part in name:
                found.setdefault(part, folder)
    return found


def _rows(file: Path) -> Iterator[tuple[int, Mapping[str, str]]]:
    with file.open(encoding="utf-8", errors="replace", newline="") as lines:
        reader = csv.DictReader(lines)
        missing = [name for name in _COLUMNS if name not in (reader.fieldnames or [])]
        if missing:
            raise InputError(f"{file} lacks the column '{missing[0]}'; unpack the release again.")
        for number, row in enumerate(reader, start=2):
            for name in ("Dialogue_ID", "Utterance_ID"):
                if not (row[name] or "").isdigit():
                    raise InputError(
                        f"{file}: row {number}, column '{name}' is '{row[name]}'; expected a whole "
                        "number."
                    )
            yield number, row
