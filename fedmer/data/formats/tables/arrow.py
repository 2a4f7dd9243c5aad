"""Rows of Parquet files and of folders that Hugging Face ``datasets`` saved to disk."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fedmer.data.formats.memory import MemoryBudget
from fedmer.data.formats.tables.source import Source
from fedmer.errors import InputError

EXTRA = "tables"
_BATCH = 256
"""Rows that are unpacked at once."""
_DESCRIPTION = 1 << 24
"""Bytes of a folder's description, beyond any."""


def pyarrow(path: Path, what: str) -> Any:
    """The module ``pyarrow``.

    Raises:
        InputError: It is not installed.
    """
    try:
        import pyarrow as arrow
    except ImportError:
        raise InputError(
            f"{path} is {what}, which pyarrow reads; install it with "
            f"pip install 'fedmer[{EXTRA}]', or write the table as CSV."
        ) from None
    return arrow


def is_saved_dataset(path: Path) -> bool:
    """Is a folder one that ``Dataset.save_to_disk`` or ``DatasetDict.save_to_disk`` made?"""
    return (path / "state.json").is_file() or (path / "dataset_dict.json").is_file()


def read_parquet(path: Path, budget: MemoryBudget) -> Source:
    """A Parquet file.

    Raises:
        InputError: pyarrow is missing, or the file is damaged.
    """
    arrow = pyarrow(path, "a Parquet file")
    from pyarrow import parquet

    with _explained(path, arrow):
        file = parquet.ParquetFile(path)
        columns = list(file.schema_arrow.names)

    def batches() -> Iterator[Any]:
        with _explained(path, arrow):
            yield from file.iter_batches(batch_size=_BATCH)

    return Source(columns, _rows(batches(), budget))


def read_saved_dataset(path: Path, budget: MemoryBudget) -> Source:
    """A folder of ``datasets``; its parts are splits.

    Raises:
        InputError: pyarrow is missing, or a file is damaged or missing.
    """
    arrow = pyarrow(path, "a folder of Hugging Face datasets")
    parts = {"": path}
    if (path / "dataset_dict.json").is_file():
        names = _description(path / "dataset_dict.json").get("splits")
        if not isinstance(names, list) or not all(map(_is_plain, names)) or not names:
            raise InputError(
                f"{path / 'dataset_dict.json'} names no splits; save the folder again."
            )
        parts = {name: path / name for name in names}
    columns: list[str] = []
    for folder in parts.values():
        found = list(_description(folder / "dataset_info.json").get("features") or {})
        if columns and found != columns:
            raise InputError(
                f"{folder} has the columns {', '.join(found)}, but the part before it has "
                f"{', '.join(columns)}; save parts of the same columns."
            )
        columns = found
    splits = [name for name in parts if name and "split" not in columns]

    def rows() -> Iterator[tuple[int, list[Any]]]:
        number = 0
        for name, folder in parts.items():
            for _, cells in _rows(_batches(folder, columns, arrow), budget):
                number += 1
                yield number, [*cells, *([name] if splits else [])]

    described = _description(next(iter(parts.values())) / "dataset_info.json")["features"]
    return Source([*columns, *(["split"] if splits else [])], rows(), _names(described))


def _batches(folder: Path, columns: Sequence[str], arrow: Any) -> Iterator[Any]:
    listed = _description(folder / "state.json").get("_data_files")
    named = [item.get("filename") for item in listed or [] if isinstance(item, dict)]
    files = [name for name in named if isinstance(name, str) and _is_plain(name)]
    if not files or files != named:
        raise InputError(f"{folder / 'state.json'} names no data files; save the folder again.")
    for name in files:
        with _explained(folder / name, arrow), arrow.memory_map(str(folder / name)) as mapped:
            for batch in arrow.ipc.open_stream(mapped):
                yield from _slices(batch.select(list(columns)))


def _slices(batch: Any) -> Iterator[Any]:
    for start in range(0, batch.num_rows, _BATCH):
        yield batch.slice(start, _BATCH)


def _rows(batches: Iterator[Any], budget: MemoryBudget) -> Iterator[tuple[int, Sequence[Any]]]:
    number = 0
    for batch in batches:
        budget.take(batch.nbytes)
        for cells in zip(*(column.to_pylist() for column in batch.columns), strict=True):
            number += 1
            yield number, cells


def _names(features: Any) -> list[str]:
    """The names of the column ``label``, if it is a ``ClassLabel``."""
    label = features.get("label") if isinstance(features, dict) else None
    names = label.get("names") if isinstance(label, dict) else None
    return names if isinstance(names, list) and all(isinstance(n, str) for n in names) else []


def _description(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > _DESCRIPTION:
            raise ValueError("it has megabytes")
        found = json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); save the folder again.") from None
    if not isinstance(found, dict):
        raise InputError(f"{path} is no description of a data set; save the folder again.")
    return found


def _is_plain(name: Any) -> bool:
    return isinstance(name, str) and name not in ("", ".", "..") and Path(name).name == name


@contextmanager
def _explained(path: Path, arrow: Any) -> Iterator[None]:
    """Turn what pyarrow raises into a sentence."""
    try:
        yield
    except (arrow.ArrowException, OSError, KeyError) as error:
        said = " ".join(str(error).split())[:200]
        raise InputError(f"{path} cannot be read ({said}); copy or write it again.") from None
