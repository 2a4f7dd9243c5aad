"""Reading somebody else's pickle without running what it asks for.

A pickle is a program for a small machine with a stack. Python's own machine calls what it is told
to and allocates whatever is claimed: nine bytes can take gigabytes of it. This one knows plain
things only, and measures every claim against the file before anything is made.
"""

import codecs
import struct
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any

from fedmer.data.formats.memory import MAX_GB, MemoryBudget
from fedmer.data.formats.pickle_names import Array, Element, key, names
from fedmer.errors import InputError

_STEP = 64
"""Bytes that the result of an instruction takes, about, besides those that it reads."""

_SET = 256
"""Bytes that an empty set or dictionary takes, about."""

_PATIENCE = 1024
"""Instructions between two looks at the memory that is left."""

_COPIES = 8
"""How often a feature is copied on its way: from text to bytes, from a list to a set."""


def load(path: str | Path, max_gb: float = MAX_GB) -> Any:
    """Read a pickle of arrays, plain containers, strings and numbers.

    Python 2 pickles are read with latin1, as the published feature files need. An ordered or a
    default dictionary comes back as a dictionary, a bytearray as bytes.

    Args:
        path: The file.
        max_gb: What it may unpack to, in 10^9 bytes.

    Raises:
        InputError: The pickle asks for anything else, in which case nothing of it was run; it is
            cut short or garbled; or it unpacks to more than it may.
    """
    path = Path(path)
    try:
        with path.open("rb") as file:
            return _Machine(file, path, max_gb).run()
    except InputError:
        raise
    except (
        *(ValueError, TypeError, LookupError, EOFError, OverflowError, AttributeError),
        *(MemoryError, RecursionError, OSError, struct.error),
    ) as error:
        raise InputError(
            f"{path} is not a whole pickle ({type(error).__name__}: {error}); "
            "copy or download it again."
        ) from None


class _Named:
    """What stands for a class or a function of another program."""

    def __init__(self, name: str, make: Callable[..., Any] | None) -> None:
        self.name = name
        self.make = make


class _Machine:
    """Runs one pickle. Its instructions are the methods whose names begin with ``do_``.

    Args:
        file: Open at its start.
        path: Of the file.
        max_gb: What may be made.
    """

    def __init__(self, file: IO[bytes], path: Path, max_gb: float) -> None:
        self._file = file
        self._path = path
        self._left = path.stat().st_size
        self._budget = MemoryBudget(path, max_gb)
        self._budget.take(self._left)
        copies = (_COPIES * self._left + 10**6) / 1e9
        self._copies = MemoryBudget(path, copies, "it repeats itself, so make it anew")
        self._names = names(self._copies)
        self._stack: list[Any] = []
        self._marks: list[int] = []
        self._memo: dict[int, Any] = {}

    def run(self) -> Any:
        """What the pickle holds."""
        steps = {code: getattr(self, f"do_{name}") for code, name in _INSTRUCTIONS.items()}
        count = 0
        while True:
            code = self._read(1)
            if code == b".":
                return self._stack.pop()
            if code not in steps:
                raise ValueError(f"there is no instruction {code!r}")
            steps[code]()
            count += 1
            if count % _PATIENCE == 0:
                self._budget.take(_PATIENCE * _STEP)

    # Reading.

    def _read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise EOFError(f"{size} bytes are announced where {self._left} are left")
        self._left -= size
        return self._file.read(size)

    def _number(self, form: str) -> Any:
        return struct.unpack(form, self._read(struct.calcsize(form)))[0]

    def _line(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise EOFError("a line without an end")
        return line[:-1]

    def _since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def _top(self, kind: type) -> Any:
        """What the next items go into."""
        top = self._stack[-1]
        if type(top) is not kind:
            raise TypeError(f"a {kind.__name__} expected, not a {type(top).__name__}")
        return top

    # The shape of the program.

    def do_protocol(self) -> None:
        if self._number("<B") > 5:
            raise ValueError("a protocol beyond 5")

    def do_frame(self) -> None:
        if self._number("<Q") > self._left:
            raise EOFError("a frame beyond the end")

    def do_mark(self) -> None:
        self._marks.append(len(self._stack))

    def do_pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def do_pop_mark(self) -> None:
        self._since_mark()

    def do_dup(self) -> None:
        self._stack.append(self._stack[-1])

    def do_put(self) -> None:
        self._remember(int(self._line()))

    def do_binput(self) -> None:
        self._remember(self._number("<B"))

    def do_long_binput(self) -> None:
        self._remember(self._number("<I"))

    def do_memoize(self) -> None:
        self._remember(len(self._memo))

    def _remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def do_get(self) -> None:
        self._stack.append(self._memo[int(self._line())])

    def do_binget(self) -> None:
        self._stack.append(self._memo[self._number("<B")])

    def do_long_binget(self) -> None:
        self._stack.append(self._memo[self._number("<I")])

    # Numbers and text.

    def do_none(self) -> None:
        self._stack.append(None)

    def do_true(self) -> None:
        self._stack.append(True)

    def do_false(self) -> None:
        self._stack.append(False)

    def do_int(self) -> None:
        line = self._line()
        self._stack.append(line == b"01" if line in (b"00", b"01") else int(line))

    def do_binint(self) -> None:
        self._stack.append(self._number("<i"))

    def do_binint1(self) -> None:
        self._stack.append(self._number("<B"))

    def do_binint2(self) -> None:
        self._stack.append(self._number("<H"))

    def do_long(self) -> None:
        self._stack.append(int(self._line().rstrip(b"L")))

    def do_long1(self) -> None:
        self._stack.append(int.from_bytes(self._read(self._number("<B")), "little", signed=True))

    def do_long4(self) -> None:
        self._stack.append(int.from_bytes(self._read(self._number("<i")), "little", signed=True))

    def do_float(self) -> None:
        self._stack.append(float(self._line()))

    def do_binfloat(self) -> None:
        self._stack.append(self._number(">d"))

    def do_string(self) -> None:
        line = self._line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        self._stack.append(codecs.escape_decode(line[1:-1])[0].decode("latin1"))

    def do_binstring(self) -> None:
        self._stack.append(self._read(self._number("<i")).decode("latin1"))

    def do_short_binstring(self) -> None:
        self._stack.append(self._read(self._number("<B")).decode("latin1"))

    def do_unicode(self) -> None:
        self._stack.append(self._line().decode("raw-unicode-escape"))

    def do_binunicode(self) -> None:
        self._stack.append(self._read(self._number("<I")).decode())

    def do_short_binunicode(self) -> None:
        self._stack.append(self._read(self._number("<B")).decode())

    def do_binunicode8(self) -> None:
        self._stack.append(self._read(self._number("<Q")).decode())

    def do_binbytes(self) -> None:
        self._stack.append(self._read(self._number("<I")))

    def do_short_binbytes(self) -> None:
        self._stack.append(self._read(self._number("<B")))

    def do_binbytes8(self) -> None:
        self._stack.append(self._read(self._number("<Q")))

    # Containers.

    def do_empty_tuple(self) -> None:
        self._stack.append(())

    def do_tuple(self) -> None:
        self._stack.append(tuple(self._since_mark()))

    def do_tuple1(self) -> None:
        self._stack[-1:] = [(self._stack[-1],)]

    def do_tuple2(self) -> None:
        self._stack[-2:] = [(self._stack[-2], self._stack[-1])]

    def do_tuple3(self) -> None:
        self._stack[-3:] = [(self._stack[-3], self._stack[-2], self._stack[-1])]

    def do_empty_list(self) -> None:
        self._stack.append([])

    def do_list(self) -> None:
        self._stack.append(self._since_mark())

    def do_append(self) -> None:
        item = self._stack.pop()
        self._top(list).append(item)

    def do_appends(self) -> None:
        items = self._since_mark()
        self._top(list).extend(items)

    def do_empty_dict(self) -> None:
        self._budget.take(_SET)
        self._stack.append({})

    def do_dict(self) -> None:
        items = self._since_mark()
        self.do_empty_dict()
        self._fill(items)

    def do_setitem(self) -> None:
        value, name = self._stack.pop(), self._stack.pop()
        self._fill([name, value])

    def do_setitems(self) -> None:
        self._fill(self._since_mark())

    def _fill(self, items: Any) -> None:
        content = self._top(dict)
        for name, value in zip(items[::2], items[1::2], strict=True):
            content[key(name)] = value

    def do_empty_set(self) -> None:
        self._budget.take(_SET)
        self._stack.append(set())

    def do_additems(self) -> None:
        items = self._since_mark()
        self._top(set).update(map(key, items))

    def do_frozenset(self) -> None:
        self._budget.take(_SET)
        self._stack.append(frozenset(map(key, self._since_mark())))

    # Names of other programs.

    def do_name(self) -> None:
        self._name(self._line().decode(), self._line().decode())

    def do_stack_name(self) -> None:
        name, module = self._stack.pop(), self._stack.pop()
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is no text")
        self._name(module, name)

    def _name(self, module: str, name: str) -> None:
        # Python 2 and NumPy 2 know some modules under other names.
        home = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        if (home, name) not in self._names:
            raise InputError(
                f"{self._path} tries to load {module[:80]}.{name[:80]}; a feature file may hold "
                "only arrays, plain containers, strings and numbers, so it was refused and nothing "
                "of it was run. Do not open it with anything else unless you trust where it came "
                "from."
            )
        self._stack.append(_Named(f"{home}.{name}", self._names[home, name]))

    def do_reduce(self) -> None:
        given, named = self._stack.pop(), self._stack.pop()
        if type(named) is not _Named or named.make is None or type(given) is not tuple:
            raise TypeError("it calls what cannot be called")
        self._budget.take(_SET)
        self._stack.append(named.make(*given))

    def do_inst(self) -> None:
        self.do_name()
        named, given = self._stack.pop(), tuple(self._since_mark())
        self._stack += [named, given]
        self.do_reduce()

    def do_obj(self) -> None:
        named, *given = self._since_mark()
        self._stack += [named, tuple(given)]
        self.do_reduce()

    def do_build(self) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        if type(built) not in (Element, Array) or type(state) is not tuple:
            raise TypeError(f"a state for a {type(built).__name__}")
        built.build(state, self._copies)

    def do_outside(self) -> None:
        raise InputError(f"{self._path} refers to data outside itself; it cannot be read.")


_INSTRUCTIONS = {
    b"\x80": "protocol",
    b"\x95": "frame",
    b"(": "mark",
    b"0": "pop",
    b"1": "pop_mark",
    b"2": "dup",
    b"p": "put",
    b"q": "binput",
    b"r": "long_binput",
    b"\x94": "memoize",
    b"g": "get",
    b"h": "binget",
    b"j": "long_binget",
    b"N": "none",
    b"\x88": "true",
    b"\x89": "false",
    b"I": "int",
    b"J": "binint",
    b"K": "binint1",
    b"M": "binint2",
    b"L": "long",
    b"\x8a": "long1",
    b"\x8b": "long4",
    b"F": "float",
    b"G": "binfloat",
    b"S": "string",
    b"T": "binstring",
    b"U": "short_binstring",
    b"V": "unicode",
    b"X": "binunicode",
    b"\x8c": "short_binunicode",
    b"\x8d": "binunicode8",
    b"B": "binbytes",
    b"C": "short_binbytes",
    b"\x8e": "binbytes8",
    b"\x96": "binbytes8",
    b")": "empty_tuple",
    b"t": "tuple",
    b"\x85": "tuple1",
    b"\x86": "tuple2",
    b"\x87": "tuple3",
    b"]": "empty_list",
    b"l": "list",
    b"a": "append",
    b"e": "appends",
    b"}": "empty_dict",
    b"d": "dict",
    b"s": "setitem",
    b"u": "setitems",
    b"\x8f": "empty_set",
    b"\x90": "additems",
    b"\x91": "frozenset",
    b"c": "name",
    b"\x93": "stack_name",
    b"R": "reduce",
    b"\x81": "reduce",
    b"i": "inst",
    b"o": "obj",
    b"b": "build",
    b"P": "outside",
    b"Q": "outside",
    b"\x97": "outside",
    b"\x98": "outside",
}
"""The instructions of protocols 0 to 5, without those that refer to a registry of extensions."""
