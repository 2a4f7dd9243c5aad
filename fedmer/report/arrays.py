"""Arrays in a file that is either the old one or the new one."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any
from zipfile import BadZipFile

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.files import replacing


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
        InputError: It is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            return dict(file)
    except (ValueError, OSError, EOFError, BadZipFile) as error:
        raise InputError(
            f"{path} cannot be read ({type(error).__name__}); it is damaged. Remove it and what "
            "was made of it is left out."
        ) from error
