"""YAML from outside, read within bounds: plain values, and nothing is executed.

A text of a hundred bytes can name a list ten times, that list ten times, and so on, and so stand
for more values than any memory holds; and brackets may open a hundred thousand times. So the events
of a text are counted, aliases as what they stand for, before anything is built.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import yaml

from fedmer.errors import InputError

MAX_BYTES = 262_144
"""A configuration of fedmer has three thousand."""
MAX_DEPTH = 64
MAX_VALUES = 50_000
"""Keys, values, lists and mappings, after aliases are replaced by what they stand for."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class _Loader(_Base):  # type: ignore[misc]
    """Reads ``1e-3`` as a number, and dates and ``12:30:00`` as texts."""

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in known if re.search("(null|bool|merge)$", tag)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$"),
    list("-+0123456789"),
)
_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|"
        r"\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


def read(path: Path, *, pipe: bool = False) -> Any:
    """What a YAML file says, as plain dictionaries, lists, texts, numbers, booleans and None.

    Args:
        path: The file.
        pipe: Take a named pipe too, such as ``<(...)`` of a shell; reading one waits for whoever
            writes it.

    Raises:
        InputError: It cannot be read, or is beyond a bound of this module.
    """
    if path.is_dir():
        raise InputError(f"{path} is a folder; expected a YAML file.")
    if not path.exists():
        raise InputError(f"{path} does not exist; expected a YAML file.")
    if not path.is_file() and not (pipe and path.is_fifo()):
        raise InputError(f"{path} is not a file; expected a YAML file.")
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return parse(content, str(path))


def parse(content: bytes | str, name: str) -> Any:
    """What a YAML text says; see :func:`read`.

    Args:
        content: The text, or its bytes in UTF-8.
        name: What the text is called in a sentence, such as the file's path.

    Raises:
        InputError: It is no YAML, not UTF-8, has a tag, or is beyond a bound of this module.

    >>> parse("lr: 3e-4", "text")
    {'lr': 0.0003}
    >>> parse("a: !!python/name:os.system", "x.yaml")
    Traceback (most recent call last):
    fedmer.errors.InputError: x.yaml, line 1: the tag !!python/name:os.system is not allowed; \
expected plain values.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{name} has more than {MAX_BYTES} bytes; expected a short YAML file.")
    try:
        # Not left to the YAML parser, which would take UTF-16 for what it was not meant to be.
        text = content.decode() if isinstance(content, bytes) else content
        text = text.removeprefix("\N{BYTE ORDER MARK}")
        text.encode()
    except (UnicodeDecodeError, UnicodeEncodeError) as error:
        raise InputError(
            f"{name} is not UTF-8 text; it goes wrong at byte {error.start}. Save it as UTF-8."
        ) from error
    try:
        if re.search("^%TAG", text, re.MULTILINE):
            raise InputError(f"{name} declares tags with %TAG; expected plain values.")
        _check(yaml.parse(text, Loader=_Loader), name)
        return yaml.load(text, Loader=_Loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        raise InputError(f"{name}{line} is not YAML: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        if isinstance(error, InputError):
            raise
        # A number of thousands of digits, or a character that YAML has no place for.
        raise InputError(f"{name} cannot be read: {' '.join(str(error).split())[:200]}.") from error


def _check(events: Iterator[Any], name: str) -> None:
    """Refuse what is tagged, too deep or too much, from the stream of a parser's events."""
    anchored: dict[str | None, tuple[int, int]] = {}
    """Name of an anchor -> values and depth of what it stands for."""
    open_: list[_Collection] = [_Collection(None)]
    documents = 0
    for event in events:
        values = depth = 1
        where = f"{name}, line {event.start_mark.line + 1}"
        tag = getattr(event, "tag", None)
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")[:100]
            raise InputError(f"{where}: the tag {shown} is not allowed; expected plain values.")
        if isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Collection(event.anchor))
            if len(open_) > MAX_DEPTH:
                raise InputError(f"{where}: nested deeper than {MAX_DEPTH}.")
            continue
        if isinstance(event, yaml.CollectionEndEvent):
            done = open_.pop()
            values, depth = done.values, done.depth + 1
            anchor = done.anchor
        elif isinstance(event, yaml.AliasEvent):
            if event.anchor in (collection.anchor for collection in open_):
                raise InputError(f"{where}: *{event.anchor} stands in what it stands for.")
            # The parser itself says so of an anchor that is not there.
            values, depth = anchored.get(event.anchor, (1, 1))
            anchor = None
        elif isinstance(event, yaml.ScalarEvent):
            anchor = event.anchor
        else:
            documents += isinstance(event, yaml.DocumentStartEvent)
            if documents > 1:
                raise InputError(f"{where}: a second document begins; expected one.")
            continue
        if anchor is not None:
            anchored[anchor] = values, depth
        around = open_[-1]
        around.values += values
        around.depth = max(around.depth, depth)
        if len(open_) + depth > MAX_DEPTH:
            raise InputError(f"{where}: nested deeper than {MAX_DEPTH}.")
        if around.values > MAX_VALUES:
            raise InputError(f"{where}: stands for more than {MAX_VALUES} values.")


class _Collection:
    """What has been counted of a list or a mapping that is still open."""

    def __init__(self, anchor: str | None) -> None:
        self.anchor = anchor
        self.values = 1
        self.depth = 0
