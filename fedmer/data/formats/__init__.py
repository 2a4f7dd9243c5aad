"""Corpus files: what a file is, is decided by what it holds and never by its name."""

from pathlib import Path

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native, sdt_pickle
from fedmer.errors import InputError

UNDERSTOOD = (
    "a native corpus (.npz), the IEMOCAP and MELD pickles of SDT, or the older ones of "
    "conv-emotion and MMGCN"
)


def read_corpus(path: str | Path) -> ConversationCorpus:
    """Read a corpus file of any kind that fedmer understands.

    Nothing in the file is ever executed, and everything in it is checked.

    Args:
        path: The file.

    Returns:
        The corpus, named after the file.

    Raises:
        InputError: The file is missing, is none of the kinds understood, is damaged, or holds
            something that no corpus may hold. The message names the file and, where there is
            one, the dialogue and the key.

    >>> read_corpus("nowhere.npz")
    Traceback (most recent call last):
    fedmer.errors.InputError: nowhere.npz does not exist; check the path.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            start = file.read(4)
    except FileNotFoundError:
        raise InputError(f"{path} does not exist; check the path.") from None
    except IsADirectoryError:
        raise InputError(f"{path} is a folder; name a file in it: {UNDERSTOOD}.") from None
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}; check the path.") from None
    if start == b"PK\x03\x04":
        reader = native.read
    elif start[:1] == b"\x80" or start[:1] == b"(":
        # Pickles start with their protocol number, or, before protocol 2, with a tuple's mark.
        reader = sdt_pickle.read
    else:
        what = "is empty" if not start else f"starts with {start!r}"
        raise InputError(f"{path} {what}; expected {UNDERSTOOD}.")
    try:
        return reader(path)
    except InputError as error:
        # A corpus knows its name only; whoever reads the message needs the file.
        message = str(error)
        if not message.startswith(str(path)) and message.startswith(path.stem):
            message = f"{path}{message.removeprefix(path.stem)}"
        raise InputError(message) from None
