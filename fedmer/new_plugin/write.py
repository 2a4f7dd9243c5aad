"""A new plugin as a package that can be installed: its class, its test, how to call it."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from fedmer.errors import InputError
from fedmer.files import SHARED, explained, write_atomically
from fedmer.plugins import registry

_TEMPLATES = Path(__file__).parent / "templates"
_WHAT = {
    "aggregator": ("an aggregation rule", "fedmer fit --aggregator MyPlugin --aggregator.most 50"),
    "network": ("a network", "fedmer fit --network MyPlugin --network.hidden 16"),
    "partitioner": ("a split", "fedmer fit --partitioner MyPlugin --partitioner.clients 8"),
    "selector": ("a choice of clients", "fedmer fit --selector MyPlugin --selector.count 5"),
    "executor": ("a place where clients run", "fedmer fit --executor MyPlugin"),
    "privacy": ("a privacy mechanism", "fedmer fit --privacy MyPlugin --privacy.step 0.001"),
    "condition": (
        "something that is wrong with some clients",
        "fedmer fit --conditions MyPlugin --conditions.fraction 0.4",
    ),
    "extractor": ("an extractor", "fedmer extract table.csv corpus.npz --text MyPlugin"),
}
"""Part -> what it is, and a command that uses it."""


@dataclass(frozen=True)
class Written:
    """A new package.

    Args:
        folder: Where it is.
        files: Its files, from the folder.
        command: What uses the plugin, once the package is installed.
    """

    folder: Path
    files: tuple[str, ...]
    command: str


def part_of(name: str) -> str:
    """The part that a word names, in singular or plural.

    Raises:
        InputError: There is no such part.

    >>> part_of("aggregators"), part_of("privacy")
    ('aggregator', 'privacy')
    """
    parts = {registry.singular(kind) for kind in registry.KINDS}
    if name not in parts and registry.singular(name) not in parts:
        raise InputError(registry.unknown("kind of plugin", name, parts))
    return name if name in parts else registry.singular(name)


def write_plugin(part: str, name: str, folder: Path | None = None) -> Written:
    """Write a package with one plugin that works as it stands.

    Args:
        part: As of :func:`part_of`.
        name: Of the class, as in ``MyRule``.
        folder: A new or empty one; by default ``fedmer-my-rule``.

    Raises:
        InputError: The name is none for a class or is taken, or the folder holds files or cannot be
            written; nothing was written then.
    """
    kind = next(kind for kind in registry.KINDS if registry.singular(kind) == part)
    _check(part, kind, name)
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])|(?<=[A-Z])(?=[A-Z][a-z])", "-", name).lower()
    package, module = f"fedmer-{words}", f"fedmer_{words.replace('-', '_')}"
    place = Path(package) if folder is None else folder
    if place.exists() and not (place.is_dir() and not any(place.iterdir())):
        raise InputError(f"{place} exists and is no empty folder; choose another with --folder.")
    what, command = _WHAT[part]
    filled = {
        "MY-PACKAGE": package,
        "my_module": module,
        "MyPlugin": name,
        "MY_KIND": kind,
        "MY_WHAT": what,
    }
    files = {
        "pyproject.toml": _filled("pyproject.toml.txt", filled),
        f"{module}.py": _filled(f"{part}.txt", filled),
        f"test_{module.removeprefix('fedmer_')}.py": _filled(f"test_{part}.txt", filled),
    }
    with explained(place):
        place.mkdir(parents=True, exist_ok=True)
    for file, text in files.items():
        write_atomically(place / file, text, SHARED)
    return Written(place, tuple(files), command.replace("MyPlugin", name))


def _check(part: str, kind: str, name: str) -> None:
    if not re.fullmatch(r"[A-Z][A-Za-z0-9]*", name) or name in ("None", "True", "False"):
        raise InputError(
            f"'{name}' is no name for a plugin; expected that of a class, letters and digits after "
            "a capital, as in MyRule."
        )
    if name == registry.KINDS[kind]:
        raise InputError(f"'{name}' is the class that every {part} extends; choose another name.")
    taken = {plugin.name: plugin.package for plugin in registry.plugins(kind)}
    if name in taken:
        raise InputError(
            f"there is {part} '{name}' of {taken[name]} already; choose another name, since that "
            "one would hide yours."
        )


def _filled(template: str, words: Mapping[str, str]) -> str:
    text = (_TEMPLATES / template).read_text(encoding="utf-8")
    for word, instead in words.items():
        text = text.replace(word, instead)
    return text
