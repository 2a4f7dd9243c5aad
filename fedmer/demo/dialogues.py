"""Made-up dialogues in words: who speaks, what is felt, and what is said of it."""

import csv
import io
import re
from collections.abc import Sequence
from pathlib import Path

from numpy.random import Generator

from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.demo.phrases import PATTERNS, WORDS
from fedmer.files import SHARED, write_atomically
from fedmer.seeds import generator

EMOTIONS = tuple(PATTERNS)
SPEAKERS = {
    "train": (
        *("Ada", "Bela", "Chidi", "Dora", "Emre", "Fumi"),
        *("Gita", "Hugo", "Ines", "Jomo", "Kaya", "Lars"),
    ),
    "val": ("Mina", "Nils", "Omar", "Pia"),
    "test": ("Quentin", "Rosa", "Sami", "Tove"),
}
"""Part -> who speaks in it; nobody in two."""

DIALOGUES = {"train": 360, "val": 60, "test": 90}
LONGEST = 9
"""Utterances of a dialogue; the shortest has one."""

KEEPS, CATCHES = 0.45, 0.2
"""Chance that speakers feel what they felt before, and what whoever spoke before them does."""

CALM = 0.25
"""Share of the first emotion, neutral, among those that nothing in the dialogue brings about."""

_WORD = re.compile(r"\{(\w+)\}")
_CHOICE = re.compile(r"\(([^()]*)\)")


def spoken_table(seed: int = 0) -> UtteranceTable:
    """Dialogues of two or three made-up speakers.

    What one part of them says, no other part can say: patterns of sentences are dealt to parts,
    as speakers are. An emotion lasts (:data:`KEEPS`) and is caught from others (:data:`CATCHES`).

    Args:
        seed: The table is a pure function of it.

    Returns:
        Rows with dialogue, turn, speaker, label, split and words, and without features.

    >>> table = spoken_table()
    >>> said = table.utterances[0]
    >>> said.split, said.label in EMOTIONS, said.text != ""
    ('train', True, True)
    """
    rows: list[Utterance] = []
    for part, count in DIALOGUES.items():
        for number in range(count):
            random = generator(seed, "spoken", part, number)
            name = f"{part}-{number:03d}"
            for turn, (speaker, emotion) in enumerate(_course(part, random)):
                said = _sentence(patterns(emotion, part), random)
                rows.append(Utterance(len(rows) + 2, name, turn, speaker, emotion, part, text=said))
    fields = frozenset({"dialogue", "turn", "speaker", "label", "split", "utterance"})
    return UtteranceTable(Path("spoken"), rows, fields, {}, {})


def patterns(emotion: str, part: str) -> list[str]:
    """What a part can say of an emotion: two thirds are of ``train``, a tenth are of ``val``."""
    return [p for i, p in enumerate(PATTERNS[emotion]) if _part(i) == part]


def write_table(table: UtteranceTable, path: Path) -> None:
    """Write the words of a table as CSV, a row an utterance.

    Raises:
        InputError: It cannot be written.
    """
    text = io.StringIO(newline="")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("dialogue", "turn", "speaker", "label", "split", "utterance"))
    for u in table.utterances:
        writer.writerow((u.dialogue, u.turn, u.speaker, u.label, u.split, u.text))
    write_atomically(path, text.getvalue(), SHARED)


def _part(place: int) -> str:
    return {3: "val", 4: "test", 9: "test"}.get(place % 10, "train")


def _course(part: str, random: Generator) -> list[tuple[str, str]]:
    """Who speaks in each utterance, and what they feel."""
    known = SPEAKERS[part]
    there = [known[i] for i in random.choice(len(known), int(random.integers(2, 4)), replace=False)]
    felt: dict[str, str] = {}
    turns: list[tuple[str, str]] = []
    for _ in range(int(random.integers(1, LONGEST + 1))):
        others = [name for name in there if not turns or name != turns[-1][0]]
        speaker = others[int(random.integers(len(others)))]
        chance = random.random()
        if chance < KEEPS and speaker in felt:
            emotion = felt[speaker]
        elif chance > 1 - CATCHES and turns:
            emotion = turns[-1][1]
        elif random.random() < CALM:
            emotion = EMOTIONS[0]
        else:
            emotion = EMOTIONS[int(random.integers(1, len(EMOTIONS)))]
        felt[speaker] = emotion
        turns.append((speaker, emotion))
    return turns


def _sentence(choices: Sequence[str], random: Generator) -> str:
    """One of the patterns with everything in it chosen."""

    def of(options: Sequence[str]) -> str:
        return options[int(random.integers(len(options)))]

    said = of(choices)
    said = _CHOICE.sub(lambda found: of(found[1].split("|")), said)
    while _WORD.search(said):
        said = _WORD.sub(lambda found: of(WORDS[found[1]]), said)
    return said[0].upper() + said[1:]
