"""Corpus files: what a file is, is decided by what it holds and never by its name."""

from pathlib import Path

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native, sdt_pickle
from fedmer.data.formats.memory import MAX_GB
from fedmer.errors import InputError

UNDERSTOOD = (
    "a native corpus (.npz), the IEMOCAP and MELD pickles of SDT, or the older ones of "
    "conv-emotion and MMGCN"
)


_OTHERS = {
    b"\x93NUM": "is a single array; save all columns together with numpy.savez",
    b"\x1f\x8b": "is compressed with gzip; unpack it with gunzip first",
    b"BZh": "is compressed with bzip2; unpack it with bunzip2 first",
    b"\xfd7zX": "is compressed with xz; unpack it with unxz first",
    b"\x89HDF": "is an HDF5 file; save its columns as NumPy arrays with numpy.savez",
    b"PAR1": "is a Parquet file; save its columns as NumPy arrays with numpy.savez",
    b"PK\x05\x06": "is an archive that holds nothing; write it again",
}
"""What else a file that is given for a corpus may be, by how it starts, and what helps."""


def read_corpus(path: str | Path, max_gb: float = MAX_GB) -> ConversationCorpus:
    """Read a corpus file of any kind that fedmer understands.

    Nothing in the file is ever executed, and everything in it is checked.

    Args:
        path: The file.
        max_gb: What it may unpack to, in 10^9 bytes. Reading takes up to about three times as much
            memory.

    Returns:
        The corpus, named after the file.

    Raises:
        InputError: The file is missing, is none of the kinds understood, is damaged, unpacks to
            more than ``max_gb``, or holds something that no corpus may hold. The message names the
            file and, where there is one, the dialogue and the key.

    >>> read_corpus("nowhere.npz")
    Traceback (most recent call last):
    fedmer.errors.InputError: nowhere.npz does not exist; check the path.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file() and not path.is_dir():
            raise InputError(f"{path} is not a file; name one: {UNDERSTOOD}.")
        with path.open("rb") as file:
            start = file.read(512)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a file in it: {UNDERSTOOD}.") from None
    except InputError:
        raise
    except (OSError, ValueError) as error:
        why = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read: {why}; check the path.") from None
    if start.startswith(b"PK\x03\x04"):
        reader = native.read
    elif start.startswith((b"\x80", b"(")):
        # Pickles start with their protocol number, or, before protocol 2, with a tuple's mark.
        reader = sdt_pickle.read
    else:
        raise InputError(f"{path} {_what(start)}; expected {UNDERSTOOD}.")
    try:
        return reader(path, max_gb)
    except InputError as error:
        # A corpus knows its name only; whoever reads the message needs the file.
        message = str(error)
        if not message.startswith(str(path)) and message.startswith(path.stem):
            message = f"{path}{message.removeprefix(path.stem)}"
        raise InputError(message) from None


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
        return (
            f"is a text file that starts with '{line[:40]}'; docs/data.md shows how to save its "
            "columns with numpy.savez"
        )
    return f"starts with {start[:4]!r}"
