"""The folder of IEMOCAP's full release, with ``Session1/dialog/...`` to ``Session5/dialog/...``."""

import re
from collections.abc import Iterator
from pathlib import Path

from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError

EMOTIONS = {
    "hap": "happy",
    "sad": "sad",
    "neu": "neutral",
    "ang": "angry",
    "exc": "excited",
    "fru": "frustrated",
}
"""The six of published results, in their order; an utterance of another emotion is context only."""

_TURN = re.compile(r"\[(\d+(?:\.\d+)?) - (\d+(?:\.\d+)?)\]\t(\S+)\t(\S+)")
_WORDS = re.compile(r"(\S+) \[[^\]]*\]: ?(.*)")
_TEST = "5"


def sessions(path: Path) -> list[Path]:
    """Folders of annotations, one a session; none if the folder is no such release."""
    return sorted(path.glob("Session[1-9]/dialog/EmoEvaluation"))


def read(path: Path) -> UtteranceTable:
    """All annotated utterances, in the order in which they start.

    The fifth session is the test part. A speaker is the session and the gender, as ``Ses01F``. The
    sound is the dialogue's, cut at the annotated times; so is the film, where it is there, on which
    both people are seen.

    Args:
        path: The folder that holds ``Session1`` and the others.

    Raises:
        InputError: An utterance has no words, or an annotation cannot be read.
    """
    found: list[Utterance] = []
    for folder in sessions(path):
        for file in sorted(folder.glob("Ses*.txt")):
            found += _dialogue(file, folder.parent, len(found) + 1)
    if not found:
        raise InputError(
            f"{path} has sessions of IEMOCAP but no annotated utterances; unpack it again."
        )
    films = any(utterance.video for utterance in found)
    fields = {"dialogue", "turn", "speaker", "label", "split", "session", "utterance"}
    fields |= {"audio", "start", "end", *(["video"] if films else [])}
    return UtteranceTable(path, found, frozenset(fields), {}, {}, list(EMOTIONS.values()))


def _dialogue(file: Path, dialog: Path, row: int) -> list[Utterance]:
    name, session = file.stem, dialog.parent.name.removeprefix("Session")
    words = dict(_words(dialog / "transcriptions" / file.name))
    film = dialog / "avi" / "DivX" / f"{name}.avi"
    turns = sorted(
        (float(start), float(end), turn, emotion)
        for start, end, turn, emotion in _TURN.findall(_text(file))
    )
    found = []
    for place, (start, end, turn, emotion) in enumerate(turns):
        if turn not in words:
            raise InputError(
                f"{file}: utterance {turn} has no words in "
                f"{dialog / 'transcriptions' / file.name}; "
                "unpack the release again."
            )
        found.append(
            Utterance(
                row=row + place,
                dialogue=name,
                turn=place,
                speaker=f"Ses0{session}{_gender(turn, file)}",
                label=EMOTIONS.get(emotion, ""),
                split="test" if session == _TEST else "train",
                session=f"Ses0{session}",
                text=words[turn],
                audio=dialog / "wav" / f"{name}.wav",
                video=film if film.is_file() else None,
                start=start,
                end=end,
            )
        )
    return found


def _gender(turn: str, file: Path) -> str:
    letter = turn.rpartition("_")[2][:1]
    if letter not in ("F", "M"):
        raise InputError(
            f"{file}: utterance {turn} says neither F nor M; unpack the release again."
        )
    return letter


def _words(file: Path) -> Iterator[tuple[str, str]]:
    for turn, words in _WORDS.findall(_text(file)):
        yield turn, words.strip()


def _text(file: Path) -> str:
    try:
        return file.read_text(encoding="utf-8", errors="replace")
    except OSError as error:
        raise InputError(f"{file} cannot be read: {error.strerror}.") from None
