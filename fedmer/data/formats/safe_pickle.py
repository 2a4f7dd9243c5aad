"""Reading somebody else's pickle without running what it asks for.

A pickle is a program for a small machine with a stack. Python's machine calls what it names
and allocates whatever is claimed: nine bytes can take gigabytes of it. This one knows plain
things only, and measures every claim against the file before anything is made.
"""

import codecs
import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
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


@dataclass(frozen=True)
class _Named:
    """What stands for a class or a function of another program."""

    make: Callable[..., Any] | None


class _Machine:
    """Runs one pickle.

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
        count = 0
        while True:
            code = self.read(1)
            if code in _VALUES:
                self._stack.append(_VALUES[code](self))
            elif code in _CHANGES:
                _CHANGES[code](self)
            elif code == b".":
                return self._stack.pop()
            else:
                raise ValueError(f"there is no instruction {code!r}")
            count += 1
            if count % _PATIENCE == 0:
                self._budget.take(_PATIENCE * _STEP)

    # Reading what stands behind an instruction.

    def read(self, size: int) -> bytes:
        if not 0 <= size <= self._left:
            raise EOFError(f"{size} bytes are announced where {self._left} are left")
        self._left -= size
        return self._file.read(size)

    def number(self, form: str) -> Any:
        return struct.unpack(form, self.read(struct.calcsize(form)))[0]

    def counted(self, form: str) -> bytes:
        """As many bytes as the number before them says."""
        return self.read(self.number(form))

    def line(self) -> bytes:
        line = self._file.readline(self._left)
        self._left -= len(line)
        if not line.endswith(b"\n"):
            raise EOFError("a line without an end")
        return line[:-1]

    def boolean_or_number(self) -> int:
        line = self.line()
        return line == b"01" if line in (b"00", b"01") else int(line)

    def quoted(self) -> str:
        line = self.line().strip()
        if len(line) < 2 or line[:1] != line[-1:] or line[:1] not in (b"'", b'"'):
            raise ValueError("a string without quotes")
        return codecs.escape_decode(line[1:-1])[0].decode("latin1")

    # The stack and the memo.

    def since_mark(self) -> list[Any]:
        start = self._marks.pop()
        items = self._stack[start:]
        del self._stack[start:]
        return items

    def last(self, count: int) -> tuple[Any, ...]:
        items = tuple(self._stack[-count:])
        if len(items) < count:
            raise IndexError("an empty stack")
        del self._stack[-count:]
        return items

    def top(self, kind: type) -> Any:
        """What the next items go into."""
        top = self._stack[-1]
        if type(top) is not kind:
            raise TypeError(f"a {kind.__name__} expected, not a {type(top).__name__}")
        return top

    def again(self) -> Any:
        return self._stack[-1]

    def recalled(self, place: int) -> Any:
        return self._memo[place]

    def remember(self, place: int) -> None:
        self._memo[place] = self._stack[-1]

    def memoize(self) -> None:
        self.remember(len(self._memo))

    def mark(self) -> None:
        self._marks.append(len(self._stack))

    def pop(self) -> None:
        if self._marks and self._marks[-1] == len(self._stack):
            self._marks.pop()
        else:
            self._stack.pop()

    def check_protocol(self) -> None:
        if self.number("<B") > 5:
            raise ValueError("a protocol beyond 5")

    def check_frame(self) -> None:
        if self.number("<Q") > self._left:
            raise EOFError("a frame beyond the end")

    # Containers.

    def hashed(self, kind: Callable[[], Any]) -> Any:
        """An empty set or dictionary."""
        self._budget.take(_SET)
        return kind()

    def append(self) -> None:
        item = self._stack.pop()
        self.top(list).append(item)

    def extend(self) -> None:
        items = self.since_mark()
        self.top(list).extend(items)

    def dictionary(self) -> dict[Any, Any]:
        return self.filled(self.hashed(dict), self.since_mark())

    def fill(self, items: Any) -> None:
        self.filled(self.top(dict), items)

    def filled(self, content: dict[Any, Any], items: Any) -> dict[Any, Any]:
        for name, value in zip(items[::2], items[1::2], strict=True):
            content[key(name)] = value
        return content

    def add_items(self) -> None:
        items = self.since_mark()
        self.top(set).update(map(key, items))

    def frozen_set(self) -> frozenset[Any]:
        self._budget.take(_SET)
        return frozenset(map(key, self.since_mark()))

    # Names of other programs.

    def named(self, module: Any, name: Any) -> _Named:
        if type(name) is not str or type(module) is not str:
            raise TypeError("a name that is no text")
        # Python 2 and NumPy 2 know some modules under other names.
        home = module.replace("__builtin__", "builtins").replace("numpy._core", "numpy.core")
        if (home, name) not in self._names:
            raise InputError(
                f"{self._path} tries to load {module[:80]}.{name[:80]}; a feature file may hold "
                "only arrays, plain containers, strings and numbers, so it was refused and nothing "
                "of it was run. Do not open it with anything else unless you trust where it came "
                "from."
            )
        return _Named(self._names[home, name])

    def named_in_lines(self) -> _Named:
        return self.named(self.line().decode(), self.line().decode())

    def called(self, named: Any, given: Any) -> Any:
        if type(named) is not _Named or named.make is None or type(given) is not tuple:
            raise TypeError("it calls what cannot be called")
        self._budget.take(_SET)
        return named.make(*given)

    def called_since_mark(self) -> Any:
        named, *given = self.since_mark()
        return self.called(named, tuple(given))

    def build(self) -> None:
        state, built = self._stack.pop(), self._stack[-1]
        if type(built) not in (Element, Array) or type(state) is not tuple:
            raise TypeError(f"a state for a {type(built).__name__}")
        built.build(state, self._copies)

    def refuse_outside(self) -> None:
        raise InputError(f"{self._path} refers to data outside itself; it cannot be read.")


_VALUES: Mapping[bytes, Callable[[_Machine], Any]] = {
    b"N": lambda m: None,
    b"\x88": lambda m: True,
    b"\x89": lambda m: False,
    b"I": _Machine.boolean_or_number,
    b"J": lambda m: m.number("<i"),
    b"K": lambda m: m.number("<B"),
    b"M": lambda m: m.number("<H"),
    b"L": lambda m: int(m.line().rstrip(b"L")),
    b"\x8a": lambda m: int.from_bytes(m.counted("<B"), "little", signed=True),
    b"\x8b": lambda m: int.from_bytes(m.counted("<i"), "little", signed=True),
    b"F": lambda m: float(m.line()),
    b"G": lambda m: m.number(">d"),
    b"S": _Machine.quoted,
    b"T": lambda m: m.counted("<i").decode("latin1"),
    b"U": lambda m: m.counted("<B").decode("latin1"),
    b"V": lambda m: m.line().decode("raw-unicode-escape"),
    b"X": lambda m: m.counted("<I").decode(),
    b"\x8c": lambda m: m.counted("<B").decode(),
    b"\x8d": lambda m: m.counted("<Q").decode(),
    b"B": lambda m: m.counted("<I"),
    b"C": lambda m: m.counted("<B"),
    b"\x8e": lambda m: m.counted("<Q"),
    b"\x96": lambda m: m.counted("<Q"),
    b"2": _Machine.again,
    b"g": lambda m: m.recalled(int(m.line())),
    b"h": lambda m: m.recalled(m.number("<B")),
    b"j": lambda m: m.recalled(m.number("<I")),
    b")": lambda m: (),
    b"t": lambda m: tuple(m.since_mark()),
    b"\x85": lambda m: m.last(1),
    b"\x86": lambda m: m.last(2),
    b"\x87": lambda m: m.last(3),
    b"]": lambda m: [],
    b"l": _Machine.since_mark,
    b"}": lambda m: m.hashed(dict),
    b"d": _Machine.dictionary,
    b"\x8f": lambda m: m.hashed(set),
    b"\x91": _Machine.frozen_set,
    b"c": _Machine.named_in_lines,
    b"\x93": lambda m: m.named(*m.last(2)),
    b"R": lambda m: m.called(*m.last(2)),
    b"\x81": lambda m: m.called(*m.last(2)),
    b"i": lambda m: m.called(m.named_in_lines(), tuple(m.since_mark())),
    b"o": _Machine.called_since_mark,
}
"""Instructions of protocols 0 to 5 that put a value on the stack, without those that refer to a
registry of extensions."""

_CHANGES: Mapping[bytes, Callable[[_Machine], None]] = {
    b"\x80": _Machine.check_protocol,
    b"\x95": _Machine.check_frame,
    b"(": _Machine.mark,
    b"0": _Machine.pop,
    b"1": lambda m: m.since_mark().clear(),
    b"p": lambda m: m.remember(int(m.line())),
    b"q": lambda m: m.remember(m.number("<B")),
    b"r": lambda m: m.remember(m.number("<I")),
    b"\x94": _Machine.memoize,
    b"a": _Machine.append,
    b"e": _Machine.extend,
    b"s": lambda m: m.fill(m.last(2)),
    b"u": lambda m: m.fill(m.since_mark()),
    b"\x90": _Machine.add_items,
    b"b": _Machine.build,
    **dict.fromkeys((b"P", b"Q", b"\x97", b"\x98"), _Machine.refuse_outside),
}
"""Those that change what is on the stack, or are checked."""
