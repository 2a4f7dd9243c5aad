"""From a table's file to rows and features."""

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.archive import read_array
from fedmer.data.formats.memory import MAX_GB, MemoryBudget
from fedmer.data.formats.tables import arrow, cells, text
from fedmer.data.formats.tables.columns import Columns, settle
from fedmer.data.formats.tables.source import Source
from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError

PARQUET = b"PAR1"
_CELL = 64
"""Bytes that a cell takes in memory, about, besides its letters."""
_PARTS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "dev", "development"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}


def is_table(path: Path, start: bytes) -> bool:
    """Is it a table? ``start`` is how the file begins, nothing for a folder."""
    if path.is_dir():
        return arrow.is_saved_dataset(path)
    return start.startswith(PARQUET) or text.is_text_table(start)


def read_table(
    path: Path, columns: Mapping[str, str] | None = None, max_gb: float = MAX_GB
) -> UtteranceTable:
    """Read a CSV, TSV, JSON Lines or Parquet file, or a folder of Hugging Face ``datasets``.

    Features are numbered columns (``text_0``, ``text_1``, ...), columns of lists, columns of paths
    of ``.npy`` files (one vector each), or one ``NAME.MODALITY.npy`` with a row an utterance beside
    the table. A row in which all numbers of a modality are empty lacks it.

    Args:
        path: The file or folder.
        columns: Field (``dialogue``, ``turn``, ``speaker``, ``label``, ``split``, ``session``,
            ``utterance``, ``audio``, ``video``, ``start``, ``end``) or modality -> the name of its
            column in the file, or what its numbered columns begin with.
        max_gb: What it may unpack to, in 10^9 bytes.

    Raises:
        InputError: What is wrong, in which row and which column.
    """
    budget = MemoryBudget(path, max_gb)
    reader, label_names = _read_rows(_source(path, budget), path, columns, budget)
    reader.add_beside()
    return reader.table(label_names)


def table_of_rows(
    source: Source, name: str, columns: Mapping[str, str] | None = None
) -> UtteranceTable:
    """A table whose rows are in memory; see :func:`read_table`.

    Args:
        source: The rows.
        name: What to call it in sentences.
        columns: Field or modality -> the name of its column.

    Raises:
        InputError: What is wrong, in which row and which column.
    """
    path = Path(name)
    reader, label_names = _read_rows(source, path, columns, MemoryBudget(path, math.inf))
    return reader.table(label_names)


def _read_rows(
    source: Source, path: Path, columns: Mapping[str, str] | None, budget: MemoryBudget
) -> tuple["_Reader", Sequence[str]]:
    first = next(source.rows, None)
    if first is None:
        raise InputError(f"{path} has no rows; expected a row an utterance.")
    settled = settle(source.columns, first[1], columns or {}, path)
    reader = _Reader(path, settled, budget)
    reader.add(*first)
    for number, row in source.rows:
        reader.add(number, row)
    return reader, source.label_names


def _source(path: Path, budget: MemoryBudget) -> Source:
    if path.is_dir():
        return arrow.read_saved_dataset(path, budget)
    with path.open("rb") as file:
        start = file.read(len(PARQUET))
    return arrow.read_parquet(path, budget) if start == PARQUET else text.read(path, budget)


class _Reader:
    """Takes rows one at a time.

    Args:
        path: The table.
        columns: What is what.
        budget: What it may take.
    """

    def __init__(self, path: Path, columns: Columns, budget: MemoryBudget) -> None:
        self._path, self._columns, self._budget = path, columns, budget
        self._utterances: list[Utterance] = []
        self._rows: dict[str, list[NDArray[np.float32] | None]] = {
            modality: [] for modality in columns.numbered
        }
        self._turns: dict[tuple[str, int], int] = {}
        self._undecided = {place: 0 for place in columns.rest if columns.names[place]}
        """Places of columns in which every cell so far was empty -> how many those were."""
        self._first: dict[str, tuple[int, int]] = {}
        """Modality -> place of the first row that has it, and its width."""
        self._unused: list[str] = []
        self._listed: dict[int, str] = {}
        """Places of columns of lists or of paths of .npy files -> modality."""

    def add(self, number: int, row: Sequence[Any]) -> None:
        self._budget.take(_CELL * len(self._columns.fields))
        self._utterances.append(self._utterance(number, row))
        for modality, places in self._columns.numbered.items():
            names = [self._columns.names[place] for place in places]
            at = partial(self._where, number, names)
            self._keep(modality, cells.numbers([row[place] for place in places], at), at)
        for place in list(self._undecided):
            self._decide(place, row[place])
        for place, modality in self._listed.items():
            at = partial(self._where, number, [self._columns.names[place]])
            self._keep(modality, self._features(row[place], at), at)

    def table(self, label_names: Sequence[str]) -> UtteranceTable:
        """Everything, once all rows were added."""
        features, present = {}, {}
        for modality, rows in self._rows.items():
            nothing = np.full(self._first[modality][1], np.nan, dtype=np.float32)
            matrix = np.stack([nothing if row is None else row for row in rows])
            there = np.isfinite(matrix).all(axis=1).reshape(len(rows))
            features[modality] = np.where(there[:, None], matrix, np.float32(0))
            present[modality] = there
        return UtteranceTable(
            path=self._path,
            utterances=self._utterances,
            fields=frozenset(self._columns.fields),
            features=features,
            present=present,
            label_names=label_names,
            unused=[*self._unused, *(self._columns.names[place] for place in self._undecided)],
        )

    def _utterance(self, number: int, row: Sequence[Any]) -> Utterance:
        places = self._columns.fields

        def at(field: str) -> Any:
            return row[places[field]] if field in places else None

        def where(field: str) -> str:
            return self._where(number, [self._columns.names[places[field]]], 0)

        def said(field: str) -> str:
            return cells.word(at(field), where(field)) if field in places else ""

        def file(field: str) -> Path | None:
            name = said(field)
            return self._path.parent / name if name else None

        for field in ("dialogue", "turn", "speaker"):
            if not said(field):
                raise InputError(f"{where(field)} is empty; every row needs one.")
        turn = cells.whole_number(said("turn"))
        if turn is None:
            raise InputError(f"{where('turn')} is '{said('turn')[:40]}'; expected a whole number.")
        before = self._turns.setdefault((said("dialogue"), turn), number)
        if before != number:
            raise InputError(
                f"{where('turn')}: dialogue '{said('dialogue')}' has utterance {turn} in row "
                f"{before} "
                "too; number the utterances of a dialogue from 0."
            )
        split = said("split")
        if "split" in places and split.strip().lower() not in _PARTS:
            raise InputError(
                f"{where('split')} is '{split[:40]}'; expected train, val or test in every row, or "
                "no such column."
            )
        return Utterance(
            row=number,
            dialogue=said("dialogue"),
            turn=turn,
            speaker=said("speaker"),
            label=said("label"),
            split=_PARTS.get(split.strip().lower(), ""),
            session=said("session"),
            text=said("utterance"),
            audio=file("audio"),
            video=file("video"),
            start=cells.seconds(at("start"), where("start")) if "start" in places else None,
            end=cells.seconds(at("end"), where("end")) if "end" in places else None,
        )

    def _where(self, number: int, columns: Sequence[str], place: int) -> str:
        return f"{self._path}: row {number}, column '{columns[min(place, len(columns) - 1)]}'"

    def _decide(self, place: int, value: Any) -> None:
        """See whether a column that was empty so far holds features."""
        name = self._columns.names[place]
        if cells.is_empty(value):
            self._undecided[place] += 1
        elif cells.is_list(value) or _is_array_file(value):
            if name in self._rows:
                raise InputError(
                    f"{self._path} has features of '{name}' in two places: numbered columns and a "
                    "column of that name; leave one out."
                )
            self._listed[place] = name
            self._rows[name] = [None] * self._undecided.pop(place)
        else:
            del self._undecided[place]
            self._unused.append(name)

    def _features(self, value: Any, at: Callable[[int], str]) -> NDArray[np.float32] | None:
        if not _is_array_file(value):
            return cells.feature_row(value, at(0))
        array = _array(self._path.parent / value, self._budget, at(0))
        if array.ndim != 1:
            raise InputError(f"{at(0)}: {value} has the shape {array.shape}; expected one row.")
        return cells.numbers(array.tolist(), at)

    def _keep(
        self, modality: str, row: NDArray[np.float32] | None, at: Callable[[int], str]
    ) -> None:
        """Add a row of features, unless it is ragged or empty in part."""
        rows = self._rows[modality]
        if row is not None:
            self._budget.take(row.nbytes)
            first, width = self._first.setdefault(modality, (len(rows), len(row)))
            if width != len(row):
                raise InputError(
                    f"{at(0)} has {len(row)} numbers, but row {self._utterances[first].row} has "
                    f"{width}; give every row the same."
                )
            empty = np.isnan(row)
            if empty.any() and not empty.all():
                raise InputError(
                    f"{at(int(np.argmax(empty)))} is empty or NaN, though other numbers of "
                    f"'{modality}' are there; leave all of them empty where it is missing."
                )
        rows.append(row)

    def add_beside(self) -> None:
        """Take matrices of files called ``NAME.MODALITY.npy``."""
        stem = self._path.stem
        for file in sorted(self._path.parent.glob("*.npy")):
            modality = file.name.removeprefix(f"{stem}.").removesuffix(".npy")
            if not file.name.startswith(f"{stem}.") or not modality:
                continue
            if modality in self._rows:
                raise InputError(
                    f"{file} holds features of '{modality}', which {self._path} has too; leave one "
                    "of them out."
                )
            array = _array(file, self._budget, str(file))
            rows = len(self._utterances)
            if array.ndim != 2 or len(array) != rows:
                raise InputError(
                    f"{file} has the shape {array.shape}; expected {rows} rows, one for each of "
                    f"{self._path}."
                )
            self._rows[modality] = []
            for utterance, row in zip(self._utterances, array, strict=True):
                at = partial(_beside, f"{file}: the features of row {utterance.row}")
                self._keep(modality, cells.numbers(row.tolist(), at), at)


def _beside(said: str, place: int) -> str:
    return said


def _is_array_file(value: Any) -> bool:
    return isinstance(value, str) and value.endswith(".npy")


def _array(path: Path, budget: MemoryBudget, where: str) -> NDArray[Any]:
    if not path.is_file():
        raise InputError(f"{where}: there is no file {path}; expected an array of NumPy.")
    array = read_array(path, budget)
    if array.dtype.kind not in "iuf":
        raise InputError(f"{where}: {path} holds {array.dtype}; expected numbers.")
    return array
