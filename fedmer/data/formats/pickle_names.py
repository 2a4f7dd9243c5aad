"""What a pickle may name, and what is made when it does.

Nothing of NumPy is called on a pickle's behalf: its ``dtype`` and ``_reconstruct`` can be
made to read bytes as object pointers. Its names stand for what is here, which takes an
array's description apart, admits plain element types only, and builds the array itself.
"""

import math
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.formats.archive import PLAIN, check_elements
from fedmer.data.formats.memory import MemoryBudget

_KEYS = (str, bytes, float, bool, type(None), np.integer, np.str_)
_ITEM = 64
"""Bytes that an item of a set or a dictionary takes, about."""

_LARGEST_KEY = 2**60
"""Beyond it numbers can be chosen that a dictionary takes ages to compare."""


class Element:
    """Stands for ``numpy.dtype``: a plain element type and its byte order."""

    def __init__(self, code: Any, align: Any = False, copy: Any = False) -> None:
        text = _text(code)
        if not re.fullmatch(rf"[<>|=]?[?O{PLAIN}]\d{{0,9}}", text):
            raise ValueError(f"elements of type {text[:40]} are not plain")
        self.dtype = np.dtype(text)
        if not self.dtype.itemsize:
            # Any number of these fills no bytes at all.
            raise ValueError("elements of no size")

    def build(self, state: Any, budget: MemoryBudget) -> None:
        """Take the byte order; flags and fields are where a forged description would ask for bytes
        to be taken as pointers."""
        if any(part is not None for part in state[2:5]):
            raise ValueError("structured elements are not plain")
        if _text(state[1]) == ">":
            self.dtype = self.dtype.newbyteorder(">")


class Array(np.ndarray[Any, Any]):
    """Stands for ``numpy.ndarray``: fills itself, once, from a description that was checked."""

    built = False

    def build(self, state: Any, budget: MemoryBudget) -> None:
        """Fill itself.

        Args:
            state: Shape, element type, order and content are its last parts.
            budget: What copies may take.

        Raises:
            ValueError: The description is no plain array's, or it is the second: whatever was made
                of the first would be left with memory that is not there any more.
        """
        if self.built:
            raise ValueError("an array that is built twice")
        self.built = True
        shape, element, fortran, raw = state[-4:]
        shape = _shape(shape)
        if not isinstance(element, Element):
            raise TypeError("an array without an element type")
        if element.dtype.kind == "O":
            if type(raw) is not list or len(raw) != math.prod(shape):
                raise ValueError("an array of objects that does not fill its shape")
        else:
            raw = _bytes(raw)
            if len(raw) != math.prod(shape) * element.dtype.itemsize:
                raise ValueError("an array whose bytes do not fill its shape")
        budget.take(len(raw) * (8 if element.dtype.kind == "O" else 1))
        description: Any = (1, shape, element.dtype, bool(fortran), raw)
        self.__setstate__(description)
        check_elements(self, "an array")


def names(budget: MemoryBudget) -> Mapping[tuple[str, str], Callable[..., Any] | None]:
    """What a pickle may name: module and name -> what is called for it; None for a type that only
    stands beside something else, as the ``list`` of a ``defaultdict(list)`` does.

    Args:
        budget: What conversions may take together. No file that NumPy wrote converts the same bytes
            twice, but one that was made by hand may, a thousand times.
    """

    def copied(raw: Any) -> Any:
        if isinstance(raw, str | bytes):
            budget.take(len(raw))
        elif isinstance(raw, list | tuple):
            budget.take(_ITEM * len(raw))
        return raw

    def scalar(element: Any, raw: Any) -> Any:
        found = _flat(element, _bytes(raw))
        if len(found) != 1:
            raise ValueError("a number of another size than its type has")
        return found[0]

    def frombuffer(raw: Any, element: Any, shape: Any, order: Any, axes: Any = None) -> Any:
        flat, sides = _flat(element, raw), _shape(shape)
        if order == "K":
            return flat.reshape(sides).transpose(axes)
        return flat.reshape(sides, order="F" if order == "F" else "C")

    def encode(text: Any, encoding: Any = "latin1") -> bytes:
        # The codec registry would import whatever module the name leads to.
        if encoding not in ("latin1", "latin-1"):
            raise ValueError("another encoding than latin1")
        return _bytes(copied(text))

    def mapping(*content: Any) -> dict[Any, Any]:
        # Before protocol 2 an ordered dictionary was a list of pairs; a defaultdict has a type.
        pairs = copied(content[0]) if content and isinstance(content[0], list) else []
        return {key(name): value for name, value in pairs}

    def group(content: Any = ()) -> set[Any]:
        return {key(item) for item in copied(content)}

    made: dict[tuple[str, str], Callable[..., Any] | None] = {
        ("numpy.core.multiarray", "_reconstruct"): lambda kind, shape, code: Array((0,), np.int8),
        ("numpy.core.multiarray", "scalar"): scalar,
        ("numpy.core.numeric", "_frombuffer"): frombuffer,
        ("numpy", "ndarray"): None,
        ("numpy", "dtype"): Element,
        ("_codecs", "encode"): encode,
        ("builtins", "bytes"): lambda *given: encode(*given) if given else b"",
        ("builtins", "bytearray"): lambda *given: _bytes(copied(given[0])) if given else b"",
        ("builtins", "complex"): lambda real, imaginary: complex(float(real), float(imaginary)),
        ("builtins", "set"): group,
        ("builtins", "frozenset"): lambda content=(): frozenset(group(content)),
        ("collections", "OrderedDict"): mapping,
        ("collections", "defaultdict"): mapping,
    }
    for kind in ("dict", "list", "tuple", "int", "long", "float", "bool", "str", "unicode"):
        made["builtins", kind] = None
    return made


def key(value: Any) -> Any:
    """A key of a dictionary or a set, if it is one that cannot take ages to compare.

    Raises:
        TypeError: It is a container, or a huge number.
    """
    if (isinstance(value, int) and abs(value) < _LARGEST_KEY) or isinstance(value, _KEYS):
        return value
    raise TypeError(f"a key that is a {type(value).__name__}")


def _shape(shape: Any) -> tuple[int, ...]:
    if type(shape) is not tuple or any(type(n) is not int or n < 0 for n in shape):
        raise ValueError("an array of no possible shape")
    return shape


def _flat(element: Any, raw: Any) -> NDArray[Any]:
    """Elements where the bytes lie. Bytes do not change, and those of an array could be freed."""
    if type(raw) is not bytes or not isinstance(element, Element) or element.dtype.kind == "O":
        raise ValueError("an array that is not made of bytes")
    flat = np.frombuffer(raw, element.dtype)
    check_elements(flat, "an array")
    return flat


def _text(value: Any) -> str:
    return value.decode("latin1") if isinstance(value, bytes) else str(value)[:100]


def _bytes(value: Any) -> bytes:
    """Bytes, also where Python 2 wrote a string; never ``bytes(10**12)``."""
    if isinstance(value, str):
        return value.encode("latin1")
    if isinstance(value, bytes | list | tuple):
        return bytes(value)
    raise TypeError(f"bytes expected, not {type(value).__name__}")
