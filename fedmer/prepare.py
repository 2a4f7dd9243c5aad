"""What was typed after ``fedmer fit``, and the files that it names, made ready for the parser.

Files are read here and not by the parser, so that they are read within bounds, may name only parts
that are known, and make one configuration. A part that another replaces, in a later file or on the
command line, takes its options with it. What is typed counts more than what stands in files.
"""

import re
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from copy import deepcopy
from pathlib import Path
from typing import Any, TypeGuard

from fedmer import recipes, safe_yaml, trust
from fedmer.choice import PARTS, known_path, same_class, typed_class
from fedmer.errors import InputError
from fedmer.given import classes_in
from fedmer.schedules import check_name

_GROUPS = ("trainer", "model", "data", "loss", "local", "server")
_NO_CLASS = ("name", "runs", "ckpt_path", "data.path")
_PATHS = ("runs", "ckpt_path", "data.path")
_SPEC = ("class_path", "init_args", "dict_kwargs")
_DOTTED = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)+")
_SHARED = ("torch", "fedmer", "pytorch_lightning", "lightning_fabric", *sys.stdlib_module_names)


@contextmanager
def prepared(given: Sequence[str], defaults: Mapping[str, Any]) -> Iterator[list[str]]:
    """The words for the parser; while this is open, it imports only what may be named.

    Args:
        given: What was typed after the subcommand.
        defaults: Part -> what it is unless somebody says otherwise.

    Raises:
        InputError: A file cannot be read or names what it may not, or a class that was typed cannot
            be imported.
    """
    options = list(_options(recipes.as_files(given)))
    trusted = any(option == "--trust" for option, _, _ in options)
    typed = [
        name
        for option, value, _ in options
        if value is not None and option[2:] not in (*_NO_CLASS, "config")
        for name in _dotted_names(value)
    ]
    folder = str(Path.cwd())
    # At the end, so that no file of the folder stands in for a module of anybody else.
    added = bool(typed or trusted) and folder not in sys.path and "" not in sys.path
    if added:
        sys.path.append(folder)
    try:
        words = _words(options, defaults, trusted)
        if trusted:
            yield words
        else:
            with trust.only(trust.FILE, {part for name in typed for part in _allowed(name)}):
                yield words
    finally:
        if added:
            sys.path.remove(folder)


@contextmanager
def settled(
    content: Mapping[str, Any], files: Sequence[Path], defaults: Mapping[str, Any]
) -> Iterator[list[str]]:
    """The words for the parser, of what a person gives in Python; as :func:`prepared`.

    Args:
        content: What a configuration would say, which counts more than files.
        files: Configurations.
        defaults: Part -> what it is unless somebody says otherwise.

    Raises:
        InputError: A file cannot be read or names what it may not.
    """
    whole = _Configuration(defaults)
    for file in files:
        whole.add(_read(file, trusted=False), str(file))
    whole.add(content, "fit")
    for note in whole.notes:
        print(f"fedmer: {note}", file=sys.stderr)
    # Classes that a person gives are theirs to choose, as those that they type.
    with trust.only(trust.FILE, {part for path in classes_in(content) for part in _allowed(path)}):
        yield ["--config", safe_yaml.dump(whole.content)]


def _words(
    options: Sequence[tuple[str, str | None, list[str]]],
    defaults: Mapping[str, Any],
    trusted: bool,
) -> list[str]:
    """One configuration from the files and the classes that were chosen, then all other words."""
    whole = _Configuration(defaults)
    rest: list[str] = []
    for option, value, _ in options:
        if option in ("--config", "-c"):
            if value is None:
                raise InputError("--config has no value; expected a YAML file.")
            whole.add(_read(Path(value), trusted), value)
    for option, value, words in options:
        way = option.removeprefix("--").removesuffix(".class_path")
        if option in ("--config", "-c", "--trust"):
            continue
        if value is None or way in _NO_CLASS or not whole.choose(way, value, trusted):
            rest += words
    if trusted:
        for part in PARTS:
            chosen = whole.content.get(part)
            if _is_spec(chosen):
                chosen["class_path"] = typed_class(part, chosen["class_path"])
    for note in whole.notes:
        print(f"fedmer: {note}", file=sys.stderr)
    return ["--config", safe_yaml.dump(whole.content), *rest]


class _Configuration:
    """Files and choices merged, in their order.

    Args:
        defaults: Part -> what it is unless somebody says otherwise.
    """

    def __init__(self, defaults: Mapping[str, Any]) -> None:
        self.content = {key: deepcopy(part) for key, part in defaults.items() if key in PARTS}
        self.notes: list[str] = []
        self._given: set[tuple[str, ...]] = set()
        """Ways to what was not a default."""

    def add(self, content: Mapping[str, Any], file: str) -> None:
        self._merge(self.content, content, (), f"{file}: ")

    def choose(self, way: str, value: str, trusted: bool) -> bool:
        """Take a class, or a file with settings, that was typed for a part; False if it is not."""
        if way in (*PARTS, *_GROUPS) and not value.isidentifier() and Path(value).is_file():
            self.add({way: _read(Path(value), trusted)}, value)
            return True
        holder, key, keys = self._holder(way)
        before = holder.get(key)
        if way not in PARTS and not _is_spec(before):
            return False
        try:
            said = safe_yaml.parse(value, way)
        except InputError:
            return False
        if way in PARTS and isinstance(said, str):
            said = {"class_path": said}
        if way in PARTS and _is_spec(said):
            said["class_path"] = typed_class(way, said["class_path"])
        if isinstance(said, Mapping) or (
            isinstance(said, str)
            and _is_spec(before)
            and same_class(keys, said, before["class_path"])
        ):
            self._merge(holder, {key: said}, keys[:-1], "--")
            return True
        if _is_spec(before):
            self._drop(before, keys, f"--{way} {value}")
        holder.pop(key, None)
        return False

    def _holder(self, way: str) -> tuple[dict[str, Any], str, tuple[str, ...]]:
        """The mapping that what ``--way`` names stands in, its key there, and all keys to it."""
        holder = self.content
        keys: tuple[str, ...] = ()
        *above, key = way.split(".")
        for step in above:
            inner = holder.get(step, {})
            keys += (step,)
            if _is_spec(inner) and step != "init_args":
                inner = inner.get("init_args", {})
                keys += ("init_args",)
            holder = inner if isinstance(inner, dict) else {}
        return holder, key, (*keys, key)

    def _merge(
        self, old: dict[str, Any], new: Mapping[str, Any], keys: tuple[str, ...], source: str
    ) -> None:
        for key, value in new.items():
            here = (*keys, key)
            before = old.get(key)
            if isinstance(value, str) and (
                (here[:-1] == () and key in PARTS)
                or (_is_spec(before) and same_class(here, value, before["class_path"]))
            ):
                value = {"class_path": value}
            if isinstance(value, Mapping) and (
                _is_spec(before) or "class_path" in value or (not keys and key in PARTS)
            ):
                old[key] = self._part(before, value, here, source)
            elif isinstance(value, Mapping) and isinstance(before, dict):
                self._merge(before, value, here, source)
            else:
                old[key] = deepcopy(value)
                self._given.add(here)

    def _part(
        self, before: Any, value: Mapping[str, Any], keys: tuple[str, ...], source: str
    ) -> dict[str, Any]:
        """A part after a file or a choice has spoken of it."""
        where = ".".join(key for key in keys if key != "init_args")
        other = [key for key in value if key not in _SPEC]
        if "class_path" not in value and other:
            value = {"init_args": value}
        elif other:
            name, option = value["class_path"], other[0]
            raise InputError(
                f"{source}{where} has '{option}' beside class_path; write {where}: {{class_path: "
                f"{name}, init_args: {{{option}: {value[option]}}}}}."
            )
        merged = before if _is_spec(before) else {}
        if "class_path" in value:
            if not isinstance(value["class_path"], str):
                raise InputError(f"{source}{where} has a class_path that is no text.")
            name = known_path(keys, value["class_path"])
            if keys == ("lr_scheduler",):
                check_name(name.rpartition(".")[2])
            if merged and not same_class(keys, name, merged["class_path"]):
                self._drop(merged, keys, f"{source}{where} {name.rpartition('.')[2]}")
                merged = {}
            merged["class_path"] = name
        for inner in ("init_args", "dict_kwargs"):
            if isinstance(value.get(inner), Mapping):
                options = merged.setdefault(inner, {})
                self._merge(options, value[inner], (*keys, inner), source)
            elif inner in value:
                merged[inner] = value[inner]
        return merged

    def _drop(self, part: Mapping[str, Any], keys: tuple[str, ...], instead: str) -> None:
        lost = []
        for inner in ("init_args", "dict_kwargs"):
            options = part.get(inner) or {}
            for option, value in options.items() if isinstance(options, Mapping) else ():
                here = (*keys, inner, option)
                if any(way[: len(here)] == here for way in self._given):
                    lost.append(f"{option} {_short(value)}")
        self._given = {way for way in self._given if way[: len(keys)] != keys}
        if lost:
            name = str(part["class_path"]).rpartition(".")[2]
            verb = "is" if len(lost) == 1 else "are"
            self.notes.append(
                f"{instead} instead of {name}: {', '.join(lost)} of the configuration {verb} not "
                "carried over."
            )


def _read(path: Path, trusted: bool, above: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A configuration file, and those that its parts name in turn, as one mapping."""
    path = path.expanduser()
    content = safe_yaml.read(path, pipe=True)
    if not isinstance(content, dict):
        kind = "nothing" if content is None else f"a {type(content).__name__}"
        raise InputError(f"{path} holds {kind}; expected options, such as 'aggregator: FedAvg'.")
    if not all(isinstance(key, str) for key in content):
        raise InputError(f"{path} has a key that is no name; expected the names of options.")
    if not trusted:
        trust.check_file(content, str(path))
    for key in (*PARTS, *_GROUPS) if not above else ():
        named = content.get(key)
        if isinstance(named, str) and not named.isidentifier() and not _DOTTED.fullmatch(named):
            content[key] = _read(path.parent / named, trusted, (path,))
    for way in _PATHS:
        *groups, key = way.split(".")
        holder: Any = content
        for group in groups:
            holder = holder.get(group)
        if isinstance(holder, dict) and str(holder.get(key)).startswith("~/"):
            holder[key] = str(Path(holder[key]).expanduser())
    return content


def _options(words: Sequence[str]) -> Iterator[tuple[str, str | None, list[str]]]:
    """Option, its value if it has one, and the words that said so; "" for a stray word."""
    left = list(words)
    while left:
        word = left.pop(0)
        option, equals, value = word.partition("=")
        if not (word.startswith("--") or word == "-c"):
            yield "", None, [word]
        elif equals:
            yield option, value, [word]
        elif left and not left[0].startswith("--"):
            value = left.pop(0)
            yield option, value, [word, value]
        else:
            yield option, None, [word]


def _dotted_names(value: str) -> Iterator[str]:
    """Dotted paths in what was typed: the whole value, or texts in a list or mapping."""
    if not Path(value[:200]).is_file():
        for name in re.split(r"[\s\[\]{},:'\"]+", value):
            if _DOTTED.fullmatch(name):
                yield name


def _allowed(name: str) -> Iterator[str]:
    """What a typed path allows: itself, and the package that a class of it may really lie in."""
    root, _, rest = name.partition(".")
    if root == "jsonargparse":
        return
    yield name
    yield from trust.also_at(name)
    if root not in _SHARED:
        yield root
    elif root == "torch":
        yield f"{root}.{rest.partition('.')[0]}"


def _is_spec(value: object) -> TypeGuard[dict[str, Any]]:
    return isinstance(value, dict) and isinstance(value.get("class_path"), str)


def _short(value: Any) -> str:
    text = safe_yaml.dump([value]).strip().removeprefix("- ")
    return " ".join(text.split())
