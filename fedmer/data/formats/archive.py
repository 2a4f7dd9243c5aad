"""Arrays out of an ``.npz`` from anybody.

``numpy.load`` allocates whatever a header claims and unpacks whatever an archive holds. Here
every claim is measured against the file before anything is made.
"""

import ast
import math
import re
import struct
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.memory import MemoryBudget
from fedmer.errors import InputError

PLAIN = "biufcSU"
"""Element kinds that are nothing but their bytes: booleans, numbers, strings."""

_HEADER = 4096
"""Bytes of a header beyond any that plain arrays have; NumPy writes about 120."""

_AT_ONCE = 1 << 22
"""Bytes that are read in one go: of a member, or of the archive's list of members."""

_RATIO = 1100
"""More than deflate can shrink anything by (1032)."""

_LARGEST = 2**40
"""Longer than any side of an array that fits into memory."""

_CHARACTERS = 0x110000
"""Unicode ends here."""


def read_archive(path: Path, budget: MemoryBudget) -> dict[str, NDArray[Any]]:
    """Read all arrays of an ``.npz``, executing nothing in it.

    Args:
        path: The file.
        budget: What the arrays may take together.

    Raises:
        InputError: It is damaged, encrypted, packed in an unknown way, or larger than there is
            memory for; a key occurs twice; or an array is of Python objects, of records, of dates,
            or claims another size than it has.
    """
    arrays: dict[str, NDArray[Any]] = {}
    try:
        size = path.stat().st_size
        with path.open("rb") as file, zipfile.ZipFile(Measured(file)) as archive:
            for member in archive.infolist():
                key = member.filename.removesuffix(".npy")
                where = f"{path}: '{key}'"
                if key in arrays:
                    raise InputError(f"{where} occurs twice; every key needs one array.")
                if member.file_size > _RATIO * min(member.compress_size, size) + _HEADER:
                    raise InputError(
                        f"{where} claims {member.file_size} bytes, more than its "
                        f"{member.compress_size} can unpack to; copy or download the file again."
                    )
                budget.take(member.file_size)
                arrays[key] = _member(archive, member, where)
    except InputError:
        raise
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (
        *(ValueError, EOFError, KeyError, MemoryError, RuntimeError, NotImplementedError),
        *(OverflowError, IndexError, struct.error, zlib.error, zipfile.BadZipFile),
    ) as error:
        raise InputError(
            f"{path} is not a whole .npz file of plain arrays ({error}); copy or download it again."
        ) from None
    return arrays


def read_array(path: Path, budget: MemoryBudget) -> NDArray[Any]:
    """Read the array of an ``.npy``, executing nothing in it.

    Args:
        path: The file.
        budget: What it may take.

    Raises:
        InputError: It cannot be read, or as :func:`read_archive`.
    """
    try:
        size = path.stat().st_size
        budget.take(size)
        with path.open("rb") as file:
            return _array(file, size, str(path))
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from None
    except (ValueError, MemoryError, OverflowError) as error:
        raise InputError(
            f"{path} is not a whole .npy file of a plain array ({error}); copy or download it "
            "again."
        ) from None


class Measured:
    """A file that is never read in one piece: what has no end, has a list of members of gigabytes.

    Args:
        file: Open for reading.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        content = self._file.read(min(size, _AT_ONCE + 1) if size >= 0 else _AT_ONCE + 1)
        if len(content) > _AT_ONCE:
            raise zipfile.BadZipFile("its list of members takes megabytes")
        return content


def _member(archive: zipfile.ZipFile, member: zipfile.ZipInfo, where: str) -> NDArray[Any]:
    if member.flag_bits & 1:
        raise InputError(f"{where} is encrypted; write the file without a password.")
    if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(
            f"{where} is packed in a way that NumPy does not use (method {member.compress_type}); "
            "write the file with numpy.savez or numpy.savez_compressed."
        )
    with archive.open(member) as file:
        array = _array(file, member.file_size, where)
        # The checksum is compared at the end of the member, which only a further byte finds.
        file.read(1)
    return array


def _array(file: IO[bytes], size: int, where: str) -> NDArray[Any]:
    """An array as ``numpy.save`` writes it, out of ``size`` bytes."""
    shape, fortran, kind = _header(file, where)
    count = math.prod(shape)
    size -= file.tell()
    if count * kind.itemsize != size:
        raise InputError(
            f"{where} claims {kind} of shape {shape}, but has {size} bytes; copy or download "
            "the file again."
        )
    array = np.empty(count, kind)
    raw, done = array.view(np.uint8), 0
    while done < size:
        piece = file.read(min(_AT_ONCE, size - done))
        if not piece:
            raise InputError(f"{where} is cut short; copy or download the file again.")
        raw[done : done + len(piece)] = np.frombuffer(piece, np.uint8)
        done += len(piece)
    check_elements(array, where)
    return array.reshape(shape, order="F" if fortran else "C")


def _header(file: IO[bytes], where: str) -> tuple[tuple[int, ...], bool, np.dtype[Any]]:
    """Shape, order and type of what follows, as ``numpy.save`` writes them in version 1 to 3."""
    start = file.read(8)
    version = tuple(start[6:8])
    if start[:6] != b"\x93NUMPY" or version not in ((1, 0), (2, 0), (3, 0)):
        what = "a pickle" if start[:1] == b"\x80" else "no array as numpy.save writes it"
        raise InputError(f"{where} holds {what}; write the file with numpy.savez.")
    size = int.from_bytes(file.read(2 if version == (1, 0) else 4), "little")
    text = file.read(size) if size <= _HEADER else b""
    try:
        header = ast.literal_eval(text.decode("utf-8" if version == (3, 0) else "latin1").strip())
        shape, fortran, code = header["shape"], header["fortran_order"], header["descr"]
    except (ValueError, SyntaxError, TypeError, KeyError, MemoryError, RecursionError):
        raise InputError(
            f"{where} has a header that cannot be read; copy or download the file again."
        ) from None
    if not isinstance(shape, tuple) or not all(
        type(side) is int and 0 <= side <= _LARGEST for side in shape
    ):
        raise InputError(
            f"{where} claims the shape {shape}; expected whole numbers that a file can have."
        )
    return shape, fortran is True, _kind(code, where)


def _kind(code: Any, where: str) -> np.dtype[Any]:
    plain = isinstance(code, str) and re.fullmatch(rf"[<>|=]?[{PLAIN}]\d{{1,9}}", code)
    if isinstance(code, str) and code.strip("|<>=") == "O":
        raise InputError(
            f"{where} is an array of Python objects, which would have to be executed to be read; "
            "strings must be NumPy strings: write it with .astype(str), or numbers with their own "
            "type."
        )
    try:
        kind: np.dtype[Any] = np.dtype(code if plain else "V0")
    except (TypeError, ValueError):
        kind = np.dtype("V0")
    if not kind.itemsize:
        raise InputError(f"{where} holds {str(code)[:100]}; expected booleans, numbers or strings.")
    return kind


def check_elements(array: NDArray[Any], where: str) -> None:
    """Refuse bytes that are no value of their type, and would be misread later.

    Args:
        array: As it was read.
        where: What it is, for the sentence.

    Raises:
        InputError: A truth value is neither 0 nor 1, or a character does not exist.
    """
    if array.dtype.kind == "b" and (np.ravel(array).view(np.uint8) > 1).any():
        raise InputError(f"{where} holds what is neither true nor false.")
    if array.dtype.kind == "U" and array.size:
        codes = np.ravel(array).view(array.dtype.str[0] + "u4")
        if ((codes >= _CHARACTERS) | ((codes >= 0xD800) & (codes < 0xE000))).any():
            raise InputError(f"{where} holds characters that do not exist.")
