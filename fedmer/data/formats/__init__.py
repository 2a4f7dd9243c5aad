"""Corpus files: what a file is, is decided by what it holds and never by its name."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native, sdt_pickle, sentiment_pickle
from fedmer.data.formats.memory import MAX_GB, MemoryBudget
from fedmer.data.formats.safe_pickle import load
from fedmer.data.formats.tables.corpus import to_corpus
from fedmer.data.formats.tables.read import is_table, read_table
from fedmer.errors import InputError

UNDERSTOOD = (
    "a native corpus (.npz), a table with a row an utterance (CSV, TSV, JSON Lines, Parquet, a "
    "folder of Hugging Face datasets), the IEMOCAP and MELD pickles of SDT, the older ones of "
    "conv-emotion and MMGCN, or the dictionary pickles of multimodal sentiment analysis"
)
_OTHERS = {
    b"\x93NUM": "is a single array; save all columns together with numpy.savez",
    b"\x1f\x8b": "is compressed with gzip; unpack it with gunzip first",
    b"BZh": "is compressed with bzip2; unpack it with bunzip2 first",
    b"\xfd7zX": "is compressed with xz; unpack it with unxz first",
    b"\x89HDF": "is an HDF5 file; save its columns as NumPy arrays with numpy.savez",
    b"ARROW1": "is a single Arrow file; give the folder that datasets saved, or a Parquet file",
    b"\xff\xfe": "is text in UTF-16; save it as UTF-8",
    b"\xfe\xff": "is text in UTF-16; save it as UTF-8",
    b"PK\x05\x06": "is an archive that holds nothing; write it again",
}
"""What else a file that is given for a corpus may be, by how it starts, and what helps."""


@dataclass(frozen=True)
class TableOptions:
    """What a table does not say of itself.

    Args:
        columns: Field or modality -> the name of its column; see
            :func:`fedmer.data.formats.tables.read.read_table`.
        labels: The emotions in their order; by default the alphabetical one.
        seed: Of the split, where the table has none.
    """

    columns: Mapping[str, str] | None = None
    labels: Sequence[str] | None = None
    seed: int = 0


def read_corpus(
    path: str | Path, max_gb: float = MAX_GB, table: TableOptions | None = None
) -> ConversationCorpus:
    """Read a corpus file of any kind that fedmer understands.

    Nothing in the file is ever executed, and everything in it is checked.

    Args:
        path: The file, or a folder of Hugging Face ``datasets``.
        max_gb: What it may unpack to, in 10^9 bytes. Reading takes up to about three times as much
            memory.
        table: How to read a table.

    Returns:
        The corpus, named after the file.

    Raises:
        InputError: The file is missing, is none of the kinds understood, is damaged, unpacks to
            more than ``max_gb``, or holds something that no corpus may hold. The message names the
            file and, where there is one, the dialogue and the key, or the row and the column.

    >>> read_corpus("nowhere.npz")
    Traceback (most recent call last):
    fedmer.errors.InputError: nowhere.npz does not exist; check the path.
    """
    path = Path(path)
    start = _start(path)
    options = table or TableOptions()
    try:
        if is_table(path, start):
            found = read_table(path, options.columns, max_gb)
            return to_corpus(found, options.labels, options.seed)
        if options.columns or options.labels:
            raise InputError(
                f"{path} is no table, so --data.columns and --data.labels mean nothing; leave them "
                "out."
            )
        if start.startswith(b"PK\x03\x04"):
            return native.read(path, max_gb)
        # Pickles start with their protocol number, or, before protocol 2, with a mark.
        if start.startswith((b"\x80", b"(")):
            content, budget = load(path, max_gb), MemoryBudget(path, max_gb)
            if sentiment_pickle.is_sentiment(content):
                return sentiment_pickle.from_parts(content, path, budget)
            return sdt_pickle.from_parts(content, path, budget)
    except InputError as error:
        # A corpus knows its name only; whoever reads the message needs the file.
        message = str(error)
        if not message.startswith(str(path)) and message.startswith(path.stem):
            message = f"{path}{message.removeprefix(path.stem)}"
        raise InputError(message) from None
    raise InputError(f"{path} {_what(start)}; expected {UNDERSTOOD}.")


def is_table_path(path: Path) -> bool:
    """Is a file or folder a table with a row an utterance?

    Raises:
        InputError: There is none, or it cannot be read.
    """
    return is_table(path, _start(path))


def _start(path: Path) -> bytes:
    """How a file begins; nothing for a folder that is a table."""
    try:
        if path.is_dir():
            if is_table(path, b""):
                return b""
            raise InputError(f"{path} is a folder; name a file in it: {UNDERSTOOD}.")
        if path.exists() and not path.is_file():
            raise InputError(f"{path} is not a file; name one: {UNDERSTOOD}.")
        with path.open("rb") as file:
            return file.read(512)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except (OSError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {why}; check the path.") from None


def _what(start: bytes) -> str:
    """What a file is that starts so, as the middle of a sentence."""
    if not start:
        return "is empty"
    for signature, what in _OTHERS.items():
        if start.startswith(signature):
            return what
    try:
        line = start.decode("utf-8", errors="strict" if len(start) < 512 else "ignore").split("\n")[
            0
        ]
    except UnicodeDecodeError:
        line = ""
    line = line.strip()
    if line and line.isprintable():
        return f"is a text file that starts with '{line[:40]}', which is no header of a table"
    return f"starts with {start[:4]!r}"
