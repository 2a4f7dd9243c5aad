"""A corpus as a table with a row an utterance, which is read again as the same corpus."""

import csv
import io
import json
from collections.abc import Iterator
from itertools import chain
from pathlib import Path
from typing import Any

from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.formats.tables.arrow import pyarrow
from fedmer.data.formats.tables.columns import EITHER, FIELDS
from fedmer.errors import InputError
from fedmer.files import SHARED, replacing

DELIMITERS = {".csv": ",", ".tsv": "\t"}
SUFFIXES = (*DELIMITERS, ".jsonl", ".parquet")
"""Endings of the names of tables, which say what kind is written."""


def write(corpus: ConversationCorpus, path: Path) -> None:
    """Write a corpus as CSV, TSV, JSON Lines or Parquet, by the ending of the file's name.

    CSV and TSV have a column for each number (``text_0``, ``text_1``, ...), the others lists.
    Reading it again gives the same fingerprint if the emotions are named in their order, as with
    ``--data.labels``; a table does not say it.

    Args:
        corpus: What to write.
        path: The file; replaced if it exists.

    Raises:
        InputError: A modality has the name of another column, pyarrow is missing, or the folder
            cannot be written to.
    """
    taken = {name for names in FIELDS.values() for name in names} - set(EITHER)
    wrong = [modality for modality in corpus.modalities if modality.lower() in taken]
    if wrong:
        raise InputError(
            f"{corpus.name}: a modality cannot be called '{wrong[0]}', since a table has a column "
            "of that name for something else; rename it."
        )
    if path.suffix in DELIMITERS:
        _write_delimited(corpus, path)
    elif path.suffix == ".parquet":
        _write_parquet(corpus, path)
    else:
        _write_lines(corpus, path)


def _rows(corpus: ConversationCorpus) -> Iterator[dict[str, Any]]:
    """Every utterance; features as lists, of None where the modality is missing."""
    conversations = corpus.conversations
    sessions = any(dialogue.session for dialogue in conversations)
    words = all(len(dialogue.utterances) == len(dialogue) for dialogue in conversations)
    for dialogue in conversations:
        for turn in range(len(dialogue)):
            label = int(dialogue.labels[turn])
            row: dict[str, Any] = {
                "dialogue": dialogue.id,
                "turn": turn,
                "speaker": str(dialogue.speakers[turn]),
                "label": "" if label == UNLABELLED else corpus.label_names[label],
                "split": dialogue.split,
            }
            row |= {"session": dialogue.session} if sessions else {}
            row |= {"utterance": dialogue.utterances[turn]} if words else {}
            for name, rows in dialogue.features.items():
                there = dialogue.present[name][turn]
                row[name] = rows[turn].tolist() if there else [None] * rows.shape[1]
            yield row


def _write_delimited(corpus: ConversationCorpus, path: Path) -> None:
    with replacing(path, SHARED) as file:
        text = io.TextIOWrapper(file, encoding="utf-8", newline="")
        writer = csv.writer(text, delimiter=DELIMITERS[path.suffix], lineterminator="\n")
        for number, row in enumerate(_rows(corpus)):
            features = {name: row.pop(name) for name in corpus.modalities}
            if number == 0:
                numbered = [
                    f"{m}_{i}" for m, values in features.items() for i in range(len(values))
                ]
                writer.writerow([*row, *numbered])
            writer.writerow([*row.values(), *chain.from_iterable(features.values())])
        text.flush()
        text.detach()


def _write_lines(corpus: ConversationCorpus, path: Path) -> None:
    with replacing(path, SHARED) as file:
        for row in _rows(corpus):
            file.write(json.dumps(row, ensure_ascii=False).encode() + b"\n")


def _write_parquet(corpus: ConversationCorpus, path: Path) -> None:
    arrow = pyarrow(path, "a Parquet file")
    from pyarrow import parquet

    rows = list(_rows(corpus))
    columns = {
        name: arrow.array(
            [row[name] for row in rows],
            arrow.list_(arrow.float32()) if name in corpus.modalities else None,
        )
        for name in rows[0]
    }
    with replacing(path, SHARED) as file:
        parquet.write_table(arrow.table(columns), file)
