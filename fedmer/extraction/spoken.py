"""Conversations as a person types them: a line an utterance, ``speaker: words``."""

from collections.abc import Iterable
from pathlib import Path

from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError

_LONGEST = 100_000
"""Characters of a line."""


def read_lines(lines: Iterable[str], name: str = "standard input") -> UtteranceTable:
    """The rows of a text; an empty line begins another dialogue.

    Args:
        lines: As ``ann: I can't believe you did that``.
        name: What to call them in sentences.

    Raises:
        InputError: A line has no speaker or no words, or is no UTF-8, or there are no lines.

    >>> table = read_lines(["ann: Hello.", "ben: What a day!", "", "ann: It's you."])
    >>> [(u.dialogue, u.turn, u.speaker, u.text) for u in table.utterances]
    [('1', 0, 'ann', 'Hello.'), ('1', 1, 'ben', 'What a day!'), ('2', 0, 'ann', "It's you.")]
    """
    found: list[Utterance] = []
    dialogue, turn = 1, 0
    for number, line in enumerate(lines, start=1):
        if any("\ud800" <= character <= "\udfff" for character in line):
            # What was no UTF-8 is read as lone surrogates.
            raise InputError(f"{name}: line {number} is no UTF-8; save it as UTF-8.")
        if not line.strip():
            dialogue, turn = dialogue + (turn > 0), 0
            continue
        speaker, colon, words = (part.strip() for part in line.partition(":"))
        if not speaker or not colon or not words or len(line) > _LONGEST:
            raise InputError(
                f"{name}: line {number} is '{line.strip()[:40]}'; expected a speaker, a colon and "
                "words, as in 'ann: Hello.'"
            )
        found.append(
            Utterance(row=number, dialogue=str(dialogue), turn=turn, speaker=speaker, text=words)
        )
        turn += 1
    if not found:
        raise InputError(f"{name} has no lines; expected one an utterance, as in 'ann: Hello.'")
    fields = frozenset({"dialogue", "turn", "speaker", "utterance"})
    return UtteranceTable(Path(name), found, fields, {}, {})
