"""Reading somebody else's pickle without running what it asks for.

A pickle is a program. The usual answer, a list of harmless names, is not enough for NumPy: its own
``dtype`` and ``_reconstruct`` can be talked into reading bytes as object pointers. So nothing of
NumPy is called on a pickle's behalf here. Its names stand for small classes of this module, which
take an array's description apart, admit plain element types only, and build the array themselves.
"""

import collections
import math
import pickle
from pathlib import Path
from typing import Any

import numpy as np

from fedmer.errors import InputError

PLAIN = "biufcSU"
"""Element kinds that are nothing but their bytes: booleans, numbers, strings."""


def load(path: str | Path) -> Any:
    """Read a pickle of arrays, plain containers, strings and numbers.

    Python 2 pickles are read with latin1, as the published feature files need.

    Args:
        path: The file.

    Raises:
        InputError: The pickle asks for anything else, in which case nothing of it was run; or it
            is cut short or garbled.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Unpickler(file, path).load()
    except InputError:
        raise
    except Exception as error:  # noqa: BLE001 - garbage can fail in any opcode, in any way
        raise InputError(
            f"{path} is not a whole pickle ({type(error).__name__}: {error}); "
            "copy or download it again."
        ) from None


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, path: Path) -> None:
        super().__init__(file, encoding="latin1")
        self._path = path
        self._vocabulary = _vocabulary()

    def find_class(self, module: str, name: str) -> Any:
        # Python 2 and NumPy 2 know some modules under other names.
        home = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        try:
            return self._vocabulary[home, name]
        except KeyError:
            raise InputError(
                f"{self._path} tries to load {module}.{name}; a feature file may hold only arrays, "
                "plain containers, strings and numbers, so it was refused and nothing of it was "
                "run. Do not open it with anything else unless you trust where it came from."
            ) from None

    def persistent_load(self, identifier: Any) -> Any:
        raise InputError(f"{self._path} refers to data outside itself; it cannot be read.")


def _vocabulary() -> dict[tuple[str, str], Any]:
    """What a pickle may name.

    Made afresh for every file: a pickle can set attributes on whatever it can name, so a file
    must not be able to alter what the next one is read with.
    """

    class Dtype:
        """Stands for ``numpy.dtype``: remembers a plain element type and its byte order."""

        def __init__(self, code: str, align: bool = False, copy: bool = False) -> None:
            self.dtype = np.dtype(_text(code))
            if self.dtype.kind not in PLAIN + "O" or self.dtype.shape or self.dtype.names:
                raise ValueError(f"elements of type {code} are not plain")

        def __setstate__(self, state: tuple[Any, ...]) -> None:
            # Of the state only the byte order matters; its flags and fields are where a forged
            # description would ask for bytes to be taken as pointers.
            if any(part is not None for part in state[2:5]):
                raise ValueError("structured elements are not plain")
            if _text(state[1]) == ">":
                self.dtype = self.dtype.newbyteorder(">")

    class Array(np.ndarray[Any, Any]):
        """Stands for ``numpy.ndarray``: fills itself from a description that was checked."""

        def __setstate__(self, state: Any) -> None:
            shape, element, fortran, raw = state[-4:]
            if not isinstance(element, Dtype):
                raise TypeError("an array without an element type")
            shape = tuple(int(length) for length in shape)
            if min(shape, default=0) < 0:
                raise ValueError("an array of negative length")
            if element.dtype.kind == "O":
                if not isinstance(raw, list) or len(raw) != math.prod(shape):
                    raise ValueError("an array of objects that does not fill its shape")
            else:
                raw = _bytes(raw)
                if len(raw) != math.prod(shape) * element.dtype.itemsize:
                    raise ValueError("an array whose bytes do not fill its shape")
            description: Any = (1, shape, element.dtype, bool(fortran), raw)
            super().__setstate__(description)

    def reconstruct(kind: type, shape: tuple[int, ...], code: Any) -> Array:
        return Array((0,), np.int8)

    def scalar(element: Dtype, raw: bytes | str) -> Any:
        if element.dtype.kind == "O":
            raise ValueError("a scalar that is not plain")
        return np.frombuffer(_bytes(raw), element.dtype, 1)[0]

    def frombuffer(
        raw: Any, element: Dtype, shape: tuple[int, ...], order: str, axes: Any = None
    ) -> Any:
        if element.dtype.kind == "O":
            raise ValueError("an array of objects made of bytes")
        flat = np.frombuffer(raw, element.dtype)
        if order == "K":
            return flat.reshape(shape).transpose(axes)
        return flat.reshape(shape, order="F" if order == "F" else "C")

    def encode(text: str, encoding: str = "latin1") -> bytes:
        # The codec registry would import whatever module the name leads to.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError(f"encoding {encoding}")
        return text.encode("latin1")

    def make_bytes(content: Any = b"", encoding: str = "latin1") -> bytes:
        return _bytes(content)

    def make_bytearray(content: Any = b"", encoding: str = "latin1") -> bytearray:
        return bytearray(_bytes(content))

    return {
        ("numpy.core.multiarray", "_reconstruct"): reconstruct,
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("numpy", "ndarray"): Array,
        ("numpy", "dtype"): Dtype,
        ("_codecs", "encode"): encode,
        ("builtins", "bytes"): make_bytes,
        ("builtins", "bytearray"): make_bytearray,
        ("builtins", "unicode"): str,
        ("builtins", "long"): int,
        ("collections", "OrderedDict"): collections.OrderedDict,
        ("collections", "defaultdict"): collections.defaultdict,
        **{
            ("builtins", kind.__name__): kind
            for kind in (dict, list, tuple, set, frozenset, int, float, complex, bool, str)
        },
    }


def _text(value: str | bytes) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else value


def _bytes(value: Any) -> bytes:
    """Bytes, also where Python 2 wrote a string; never ``bytes(10**12)``."""
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, bytes | bytearray | list | tuple):
        return bytes(value)
    raise TypeError(f"bytes expected, not {type(value).__name__}")
