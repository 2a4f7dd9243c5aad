"""Arrays in a file that is either the old one or the new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.archive import read_archive
from fedmer.data.formats.memory import MemoryBudget
from fedmer.errors import InputError
from fedmer.files import replacing

MAX_GB = 0.5
"""What a file of a run may unpack to; the votes of ten thousand utterances have a megabyte."""


def write_arrays(path: Path, arrays: Mapping[str, NDArray[Any]], compress: bool = True) -> None:
    """Write an ``.npz``.

    Raises:
        InputError: It cannot be written.
    """
    with replacing(path) as file:
        write: Any = np.savez_compressed if compress else np.savez
        write(file, **arrays)


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """Read an ``.npz``, executing nothing in it.

    Raises:
        InputError: It is damaged, or unpacks to more than :data:`MAX_GB`.
    """
    try:
        return read_archive(path, MemoryBudget(path, MAX_GB, "remove it"))
    except InputError as error:
        raise InputError(f"{error} Without the file, what is made of it is left out.") from None
