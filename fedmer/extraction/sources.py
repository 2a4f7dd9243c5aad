"""What features are extracted from: a table, or the folder of a published release."""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from fedmer.data.formats.memory import MAX_GB
from fedmer.data.formats.releases import iemocap, meld
from fedmer.data.formats.tables.read import is_table, read_table
from fedmer.data.formats.tables.utterance import UtteranceTable
from fedmer.errors import InputError


def read_source(
    path: Path, columns: Mapping[str, str] | None = None, max_gb: float = MAX_GB
) -> UtteranceTable:
    """The rows of a table or of a release.

    Args:
        path: A file, or a folder.
        columns: Field of a table -> the name of its column.
        max_gb: What a table may take, in 10^9 bytes.

    Raises:
        InputError: It is neither, or anything that is wrong with it.
    """
    if not path.exists():
        raise InputError(f"{path} does not exist; check the path.")
    start = b""
    if path.is_file():
        with path.open("rb") as file:
            start = file.read(512)
    if is_table(path, start):
        return read_table(path, columns, max_gb)
    if path.is_dir() and columns:
        raise InputError(f"{path} is no table, so --columns means nothing; leave it out.")
    if path.is_dir() and iemocap.sessions(path):
        return iemocap.read(path)
    if path.is_dir() and meld.tables(path):
        return meld.read(path)
    if path.is_dir():
        raise InputError(
            f"{path} is a folder, but of no release: expected IEMOCAP with Session1/dialog and so "
            "on, or MELD with train_sent_emo.csv and so on."
        )
    raise InputError(f"{path} is no table; expected a row an utterance, or a release's folder.")


def for_training(table: UtteranceTable) -> UtteranceTable:
    """A table without a split as one that is all for training, as that of a node is."""
    if "split" in table.fields:
        return table
    return replace(
        table,
        utterances=[replace(utterance, split="train") for utterance in table.utterances],
        fields=table.fields | {"split"},
    )
