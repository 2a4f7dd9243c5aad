"""YAML from outside, read within bounds: plain values, and nothing is executed.

A text of a hundred bytes can name a list ten times, that list ten times, and so on, and so stand
for more values than any memory holds; and brackets may open a hundred thousand times. So the events
of a text are counted, aliases as what they stand for, before anything is built.
"""

import re
from pathlib import Path
from typing import Any, ClassVar

import yaml

from fedmer.errors import InputError

MAX_LENGTH = 262_144
"""In characters. A configuration of fedmer has three thousand."""
MAX_DEPTH = 64
MAX_VALUES = 50_000
"""Keys, values, lists and mappings, after aliases are replaced by what they stand for."""

_Base: Any = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class BeyondBounds(yaml.MarkedYAMLError):
    """A text is YAML, but tagged, or nested too deep, or stands for too much."""


class Loader(_Base):  # type: ignore[misc]
    """A loader of PyYAML's that checks the bounds of this module before it builds anything.

    It reads ``1e-3`` as a number, and dates and ``12:30:00`` as texts.

    Args:
        text: What is to be read.

    Raises:
        BeyondBounds: The text is.
    """

    def __init__(self, text: str) -> None:
        _check(text)
        super().__init__(text)

    yaml_implicit_resolvers: ClassVar = {
        first: [(tag, form) for tag, form in known if re.search("(null|bool|merge)$", tag)]
        for first, known in yaml.SafeLoader.yaml_implicit_resolvers.items()
    }


Loader.add_implicit_resolver(
    "tag:yaml.org,2002:int",
    re.compile(r"[-+]?(0b[01_]+|0x[\da-fA-F_]+|0[0-7_]*|[1-9][\d_]*)$"),
    list("-+0123456789"),
)
Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float",
    re.compile(
        r"[-+]?((\d[\d_]*\.[\d_]*|\.\d[\d_]*)([eE][-+]?\d+)?|\d[\d_]*[eE][-+]?\d+|"
        r"\.(inf|Inf|INF))$|\.(nan|NaN|NAN)$"
    ),
    list("-+.0123456789"),
)


class PlainLoader(Loader):
    """The same, which takes for numbers what PyYAML itself does: ``1e-3`` is a text."""

    yaml_implicit_resolvers: ClassVar = dict(yaml.SafeLoader.yaml_implicit_resolvers)


def read(path: Path, *, pipe: bool = False, loader: type[Loader] = Loader) -> Any:
    """What a YAML file says, as plain dictionaries, lists, texts, numbers, booleans and None.

    Args:
        path: The file.
        loader: What takes a word for what.
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
            content = file.read(4 * MAX_LENGTH + 1)  # a character has up to four bytes
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    return parse(content, str(path), loader)


def parse(content: bytes | str, name: str, loader: type[Loader] = Loader) -> Any:
    """What a YAML text says; see :func:`read`.

    Args:
        content: The text, or its bytes in UTF-8.
        loader: What takes a word for what.
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
        return yaml.load(text, Loader=loader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        line = f", line {mark.line + 1}" if mark else ""
        wrong = "" if isinstance(error, BeyondBounds) else " is not YAML"
        raise InputError(f"{name}{line}{wrong}: {error.problem}.") from error
    except (yaml.YAMLError, ValueError) as error:
        # A number of thousands of digits, or a character that YAML has no place for.
        raise InputError(f"{name} cannot be read: {' '.join(str(error).split())[:200]}.") from error


def dump(value: Any) -> str:
    """A text that :func:`parse` reads as this value again, keys in their order.

    >>> dump({"name": "1e3", "rate": 1e-3})
    "name: '1e3'\\nrate: 0.001\\n"
    """
    text: str = yaml.dump(value, Dumper=_Dumper, sort_keys=False, allow_unicode=True)
    return text


class _Dumper(yaml.SafeDumper):
    """Quotes the texts that :class:`Loader` would take for numbers; writes nothing as an alias."""

    yaml_implicit_resolvers = Loader.yaml_implicit_resolvers

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _check(text: str) -> None:
    """Refuse what is tagged, too deep or too much, from the stream of a parser's events."""
    if len(text) > MAX_LENGTH:
        raise BeyondBounds(problem=f"more than {MAX_LENGTH} characters; expected a short text")
    if re.search("^%TAG", text, re.MULTILINE):
        raise BeyondBounds(problem="tags are declared with %TAG; expected plain values")
    anchored: dict[str | None, tuple[int, int]] = {}
    """Name of an anchor -> values and depth of what it stands for."""
    open_: list[_Collection] = [_Collection(None)]
    documents = 0
    for event in yaml.parse(text, Loader=_Base):
        values = depth = 1
        anchor = getattr(event, "anchor", None)
        mark: Any = event.start_mark
        tag = getattr(event, "tag", None)
        problem = ""
        if tag is not None:
            shown = tag.replace("tag:yaml.org,2002:", "!!")[:100]
            problem = f"the tag {shown} is not allowed; expected plain values"
        elif isinstance(event, yaml.DocumentStartEvent):
            documents += 1
            problem = "a second document begins; expected one" if documents > 1 else ""
        elif isinstance(event, yaml.CollectionStartEvent):
            open_.append(_Collection(anchor))
        elif isinstance(event, yaml.CollectionEndEvent):
            done = open_.pop()
            values, depth, anchor = done.values, done.depth + 1, done.anchor
        elif isinstance(event, yaml.AliasEvent):
            if anchor in (collection.anchor for collection in open_):
                problem = f"*{anchor} stands in what it stands for"
            # The loader itself complains of an anchor that is not there.
            values, depth = anchored.get(anchor, (1, 1))
        if isinstance(event, yaml.ScalarEvent | yaml.CollectionEndEvent | yaml.AliasEvent):
            anchored[anchor] = values, depth
            around = open_[-1]
            around.values += values
            around.depth = max(around.depth, depth)
            if around.values > MAX_VALUES:
                problem = f"it stands for more than {MAX_VALUES} values"
        else:
            depth = 0
        if len(open_) + depth > MAX_DEPTH + 1:
            problem = f"nested deeper than {MAX_DEPTH}"
        if problem:
            raise BeyondBounds(problem=problem, problem_mark=mark)


class _Collection:
    """What has been counted of a list or a mapping that is still open."""

    def __init__(self, anchor: str | None) -> None:
        self.anchor = anchor
        self.values = 1
        self.depth = 0
