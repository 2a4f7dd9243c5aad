"""Which column of a table is what."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmer.data.formats.tables.cells import is_list
from fedmer.errors import InputError

FIELDS: Mapping[str, tuple[str, ...]] = {
    "dialogue": ("dialogue", "dialogue_id", "dialog", "dialog_id", "conversation"),
    "turn": ("turn", "turn_id", "utterance_id"),
    "speaker": ("speaker", "speaker_id"),
    "label": ("label", "emotion"),
    "split": ("split",),
    "session": ("session",),
    "utterance": ("utterance", "text", "words", "sentence"),
    "audio": ("audio", "audio_path"),
    "video": ("video", "video_path"),
    "start": ("start", "start_time", "starttime"),
    "end": ("end", "end_time", "endtime"),
}
"""Field of a row -> names that its column may have, the better ones first, in lower case."""

REQUIRED = ("dialogue", "turn", "speaker")
EITHER = ("text", "audio", "video")
"""Names of columns that hold words or paths, or where they hold lists, the features."""

_NUMBERED = re.compile(r"(?P<modality>.+)_(?P<place>\d{1,6})")


@dataclass(frozen=True)
class Columns:
    """Places of a table's columns.

    Args:
        names: All of them, renamed.
        fields: Field -> place.
        numbered: Modality -> places of its numbers, in their order.
        rest: Places of what is neither: lists of features, or nothing that is used.
    """

    names: Sequence[str]
    fields: Mapping[str, int]
    numbered: Mapping[str, Sequence[int]]
    rest: Sequence[int]


def settle(
    names: Sequence[str], first: Sequence[Any], mapping: Mapping[str, str], path: Path
) -> Columns:
    """Decide which column is what, by names and by the first row.

    Args:
        names: Of the columns, as the file has them.
        first: The first row.
        mapping: Field or modality -> name of its column, or what its numbered columns begin with.
        path: The file.

    Raises:
        InputError: Two columns have one name, a name of ``mapping`` is not there, a column that
            every table needs is missing, or numbers are missing among numbered columns.
    """
    twice = [name for name, count in Counter(names).items() if count > 1 and name]
    if twice:
        raise InputError(f"{path} has the column '{twice[0]}' twice; give each its own name.")
    names = _renamed(names, first, mapping, path)
    numbered = _groups(names, first)
    grouped = {place for places in numbered.values() for place in places}
    lists = {place for place, value in enumerate(first) if is_list(value)}
    fields = {}
    for field, aliases in FIELDS.items():
        known = {
            name.lower(): place
            for place, name in reversed(list(enumerate(names)))
            if place not in grouped and not (name.lower() in EITHER and place in lists)
        }
        found = [known[alias] for alias in aliases if alias in known]
        if found:
            fields[field] = found[0]
    missing = [field for field in REQUIRED if field not in fields]
    if missing:
        raise InputError(
            f"{path} lacks the column {', '.join(repr(field) for field in missing)}; it has "
            f"{_some(names)}. Say which it is with --data.columns, as in "
            f"--data.columns.{missing[0]} NAME."
        )
    for modality, places in numbered.items():
        _check_gaps(modality, [names[place] for place in places], path)
    used = grouped | set(fields.values())
    return Columns(names, fields, numbered, [i for i in range(len(names)) if i not in used])


def _renamed(
    names: Sequence[str], first: Sequence[Any], mapping: Mapping[str, str], path: Path
) -> list[str]:
    """Names with the mapping applied; what else has a name that is taken now loses it."""
    renamed = list(names)
    groups = _groups(names, first)
    given: set[int] = set()
    for wanted, theirs in mapping.items():
        if theirs in names:
            places, new = [list(names).index(theirs)], [wanted]
        elif theirs in groups:
            places = list(groups[theirs])
            new = [wanted + names[place].removeprefix(theirs) for place in places]
        else:
            raise InputError(
                f"{path} has no column '{theirs}', which --data.columns gives for '{wanted}'; it "
                f"has {_some(names)}."
            )
        for place, name in zip(places, new, strict=True):
            renamed[place] = name
            given.add(place)
    taken = {renamed[place] for place in given}
    return [
        "" if name in taken and place not in given else name for place, name in enumerate(renamed)
    ]


def _groups(names: Sequence[str], first: Sequence[Any]) -> dict[str, list[int]]:
    """Columns ``text_0``, ``text_1``, ... by what they begin with, in their numbers' order."""
    groups: dict[str, dict[int, int]] = {}
    for place, name in enumerate(names):
        found = _NUMBERED.fullmatch(name)
        if found and not (place < len(first) and is_list(first[place])):
            groups.setdefault(found["modality"], {})[int(found["place"])] = place
    return {
        modality: [places[number] for number in sorted(places)]
        for modality, places in groups.items()
    }


def _check_gaps(modality: str, names: Sequence[str], path: Path) -> None:
    numbers = [int(name.rpartition("_")[2]) for name in names]
    start = min(numbers[0], 1)
    for expected, number in enumerate(numbers, start=start):
        if number != expected:
            raise InputError(
                f"{path} has the columns {_some(names)} but no '{modality}_{expected}'; number the "
                f"features of a modality from {modality}_0 without a gap."
            )


def _some(names: Sequence[str]) -> str:
    shown = [repr(name) for name in names[:12]]
    return ", ".join(shown) + (f" and {len(names) - 12} more" if len(names) > 12 else "")
