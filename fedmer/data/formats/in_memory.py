"""A corpus of what Python holds: a frame of pandas or polars, an arrow table, arrays by name."""

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import TableOptions, read_corpus
from fedmer.data.formats.memory import MAX_GB
from fedmer.data.formats.tables.corpus import to_corpus
from fedmer.data.formats.tables.read import table_of_rows
from fedmer.data.formats.tables.source import Source
from fedmer.errors import InputError

NAME = "corpus"
"""What a corpus is called that has no file."""


@runtime_checkable
class Frame(Protocol):
    """A frame of pandas or polars, as far as it is needed; neither has to be installed."""

    @property
    def columns(self) -> Any: ...

    def __getitem__(self, key: Any, /) -> Any: ...


def corpus(
    source: str | Path | Mapping[str, Any] | Frame,
    columns: Mapping[str, str] | None = None,
    labels: Sequence[str] | None = None,
    seed: int = 0,
    max_gb: float = MAX_GB,
) -> ConversationCorpus:
    """A corpus from a file, a frame or arrays, with a row an utterance.

    Args:
        source: A file that :func:`~fedmer.data.formats.read_corpus` understands; a frame of pandas
            or polars, or a table of arrow; or column name -> one value an utterance. The columns
            are those of a table file: ``dialogue``, ``turn``, ``speaker``, ``label``, and if there
            are any ``split``, ``session`` and ``utterance``. Features of a modality are numbered
            columns (``text_0``, ``text_1``, ...), a column of lists, or an ``(n, D)`` array under
            the modality's name. A row whose numbers are all NaN lacks the modality.
        columns: Field or modality -> the name of its column, where that is another.
        labels: The emotions in their order; by default the alphabetical one.
        seed: Of the split by dialogues, where there is no column ``split``.
        max_gb: What a file may unpack to, in 10^9 bytes.

    Raises:
        InputError: What is wrong, in which row and column.

    >>> said = {"dialogue": ["a", "a"], "turn": [0, 1], "speaker": ["ann", "ben"]}
    >>> said |= {"label": ["sad", "happy"], "split": ["train", "train"], "text": np.ones((2, 3))}
    >>> corpus(said).shape
    CorpusShape(features={'text': 3}, classes=2, speakers=2)
    """
    if isinstance(source, str | Path):
        return read_corpus(source, max_gb, TableOptions(columns, labels, seed))
    return to_corpus(table_of_rows(_source(source), NAME, columns), labels, seed)


def _source(given: Any) -> Source:
    if isinstance(given, Mapping):
        named = {str(name): _cells(values) for name, values in given.items()}
    elif hasattr(given, "column_names"):
        named = {str(name): given.column(name).to_pylist() for name in given.column_names}
    elif isinstance(given, Frame):
        named = {str(name): _cells(given[name]) for name in given.columns}
    else:
        raise InputError(
            f"the corpus is a {type(given).__name__}; expected a file, a frame of pandas or "
            "polars, or column name -> values."
        )
    sizes = {name: len(values) for name, values in named.items()}
    if len(set(sizes.values())) > 1:
        (one, length), *others = sizes.items()
        other = next(name for name, size in others if size != length)
        raise InputError(
            f"{NAME}: column '{one}' has {length} values but '{other}' has {sizes[other]}; every "
            "column needs one an utterance."
        )
    return Source(list(named), _numbered(list(named.values())))


def _cells(values: Any) -> Sequence[Any]:
    """One value a row; a row of a matrix is one."""
    to_list = getattr(values, "to_list", None)
    if to_list is not None:
        return [None if _is_missing(value) else value for value in to_list()]
    array = values if isinstance(values, np.ndarray) else None
    if array is not None and array.ndim > 1:
        return list(array)
    return list(values) if array is None else array.tolist()


def _is_missing(value: Any) -> bool:
    """Is it one of the markers of pandas, which are equal to nothing?"""
    return type(value).__name__ in ("NAType", "NaTType")


def _numbered(columns: Sequence[Sequence[Any]]) -> Iterator[tuple[int, Sequence[Any]]]:
    yield from enumerate(zip(*columns, strict=True), start=1)
