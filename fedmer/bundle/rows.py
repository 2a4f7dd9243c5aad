"""Predictions as rows: for a terminal, and for CSV, JSON Lines and Parquet files."""

import csv
import io
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fedmer.bundle.prediction import Prediction
from fedmer.data.corpus import UNLABELLED
from fedmer.data.formats.tables.arrow import pyarrow
from fedmer.data.formats.tables.write import DELIMITERS, SUFFIXES
from fedmer.errors import InputError
from fedmer.files import SHARED, replacing, write_atomically
from fedmer.printable import printable

if TYPE_CHECKING:
    from rich.table import Table

ABSTAINED = ""
"""The prediction of an utterance whose likeliest emotion is not likely enough."""


def rows_of(
    predictions: Sequence[Prediction], names: Sequence[str], least: float = 0.0
) -> list[dict[str, Any]]:
    """One row an utterance.

    Args:
        predictions: Of a source's dialogues.
        names: Of the source's labels.
        least: An utterance whose likeliest emotion is less probable than this has no prediction.
    """
    found = []
    for said in predictions:
        dialogue = said.conversation
        chances = said.probabilities
        words = dialogue.utterances or [""] * len(dialogue)
        numbers = dialogue.numbers or range(len(dialogue))
        for turn in range(len(dialogue)):
            label = dialogue.labels[turn]
            row: dict[str, Any] = {
                "dialogue": dialogue.id,
                "turn": numbers[turn],
                "speaker": str(dialogue.speakers[turn]),
                "utterance": words[turn],
                "truth": names[label] if label != UNLABELLED else "",
                "prediction": said.labels[chances[turn].argmax()],
            }
            if chances[turn].max() < least:
                row["prediction"] = ABSTAINED
            row |= {f"p_{n}": _short(p) for n, p in zip(said.labels, chances[turn], strict=True)}
            for modality, own in said.students.items():
                there = modality in dialogue.features and dialogue.present[modality][turn]
                row[f"student_{modality}"] = said.labels[own[turn].argmax()] if there else ""
            row |= {f"weight_{m}": _short(own[turn]) for m, own in said.weights.items()}
            found.append(row)
    return found


def write_rows(rows: Sequence[Mapping[str, Any]], path: Path) -> None:
    """Write rows as CSV, TSV, JSON Lines or Parquet, by the ending of the file's name.

    Raises:
        InputError: It has another ending, pyarrow is missing, or it cannot be written.
    """
    check_ending(path)
    if path.suffix in DELIMITERS:
        text = io.StringIO(newline="")
        writer = csv.DictWriter(
            text, list(rows[0]), delimiter=DELIMITERS[path.suffix], lineterminator="\n"
        )
        writer.writeheader()
        writer.writerows(rows)
        write_atomically(path, text.getvalue(), SHARED)
    elif path.suffix == ".jsonl":
        lines = [json.dumps(row, ensure_ascii=False) for row in rows]
        write_atomically(path, "\n".join(lines) + "\n", SHARED)
    else:
        arrow = pyarrow(path, "a Parquet file")
        from pyarrow import parquet

        with replacing(path, SHARED) as file:
            parquet.write_table(arrow.Table.from_pylist(list(rows)), file)


def check_ending(path: Path) -> None:
    """See that a file of predictions has a name that says its kind.

    Raises:
        InputError: It has not.
    """
    if path.suffix not in SUFFIXES:
        raise InputError(f"{path} ends in none of {', '.join(SUFFIXES)}; choose one of them.")


def table_of(rows: Sequence[Mapping[str, Any]], most: int) -> "Table":
    """The first ``most`` rows for a terminal."""
    from rich.table import Table

    words = any(row["utterance"] for row in rows)
    truth = any(row["truth"] for row in rows)
    heads = ["dialogue", "turn", "speaker", *(["utterance"] if words else [])]
    heads += [*(["truth"] if truth else []), "prediction"]
    weights = [name for name in rows[0] if name.startswith("weight_")]
    table = Table()
    for head in heads:
        table.add_column(head, justify="right" if head == "turn" else "left")
    for head in ("probability", *(name.removeprefix("weight_") for name in weights)):
        table.add_column(printable(head), justify="right")
    for row in rows[:most]:
        likeliest = max(value for name, value in row.items() if name.startswith("p_"))
        cells = [printable(str(row[head])) or "-" for head in heads]
        table.add_row(*cells, f"{likeliest:.2f}", *(f"{row[name]:.2f}" for name in weights))
    return table


def agreement(rows: Sequence[Mapping[str, Any]], labels: Sequence[str]) -> str:
    """How often predictions are the labels, as a sentence; nothing where there are no labels."""
    known = [row for row in rows if row["truth"] in labels]
    decided = [row for row in known if row["prediction"] != ABSTAINED]
    if not decided:
        return ""
    right = sum(row["truth"] == row["prediction"] for row in decided)
    of = f"{len(decided)} labelled utterances"
    if len(decided) < len(known):
        of += f" with a prediction, of {len(known)}"
    return f"{100 * right / len(decided):.1f} % right of {of}"


def _short(value: Any) -> float:
    return round(float(value), 4)
