"""Predictions as a page: every conversation a timeline with a lane a speaker."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from fedmer.bundle.prediction import Prediction

_TURN = 137.508
"""Degrees between the hues of two emotions: the golden angle keeps any number of them apart."""


@dataclass(frozen=True)
class Turn:
    """What the page shows of one utterance.

    Args:
        place: In the dialogue, from 0.
        number: What its source calls it.
        lane: Of its speaker, from 0.
        speaker: Name.
        words: Or an empty text.
        emotion: Place of the emotion that is shown, None where there is no prediction.
        truth: The label, or an empty text.
        chances: Emotion and its probability, the likeliest first.
        students: Modality -> emotion.
        weights: Modality -> weight.
    """

    place: int
    number: int
    lane: int
    speaker: str
    words: str
    emotion: int | None
    truth: str
    chances: Sequence[tuple[str, float]]
    students: Mapping[str, str]
    weights: Mapping[str, float]


def timeline_of(
    predictions: Sequence[Prediction], rows: Sequence[Mapping[str, Any]], model: str, source: str
) -> str:
    """One page that loads nothing, every name in it escaped.

    Args:
        predictions: At least one.
        rows: Of :func:`fedmer.bundle.rows.rows_of`, of the same predictions.
        model: Where the model came from.
        source: What was predicted.
    """
    pages = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=StrictUndefined,
    )
    labels = predictions[0].labels
    left = iter(rows)
    dialogues = []
    for said in predictions:
        people = said.conversation.people
        turns = [_turn(said, place, people, next(left)) for place in range(len(said.conversation))]
        dialogues.append((said.conversation.id, people, turns))
    return pages.get_template("timeline.html").render(
        model=model, source=source, labels=labels, hues=_hues(labels), dialogues=dialogues
    )


def _turn(said: Prediction, place: int, people: Sequence[str], row: Mapping[str, Any]) -> Turn:
    def of(kind: str) -> dict[str, Any]:
        start = f"{kind}_"
        return {n.removeprefix(start): v for n, v in row.items() if n.startswith(start) and v != ""}

    chances = sorted(
        ((name, float(row[f"p_{name}"])) for name in said.labels), key=lambda own: -own[1]
    )
    named = row["prediction"]
    return Turn(
        place=place,
        number=row["turn"],
        lane=people.index(row["speaker"]),
        speaker=row["speaker"],
        words=row["utterance"],
        emotion=said.labels.index(named) if named else None,
        truth=row["truth"],
        chances=chances,
        students=of("student"),
        weights=of("weight"),
    )


def _hues(labels: Sequence[str]) -> list[tuple[float, int]]:
    """Hue in degrees and saturation in percent of every emotion; what is neutral is grey.

    >>> _hues(["neutral", "joy"])
    [(0.0, 0), (137.5, 62)]
    """
    return [
        (round(place * _TURN % 360, 1), 0 if name.lower() in ("neutral", "none", "neu") else 62)
        for place, name in enumerate(labels)
    ]
