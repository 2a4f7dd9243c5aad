"""What can be swapped, found without a list to edit.

A plugin of fedmer is a public class in a file of its own below ``fedmer/plugins/<kind>/``. A plugin
of anybody else is a class that their package names under an entry point ``fedmer.<kind>``::

    [project.entry-points."fedmer.aggregators"]
    MyRule = "my_package.my_module:MyRule"

Built-in files are listed by reading them, not by importing them, so that ``fedmer plugins`` answers
before torch could have been imported.
"""

import ast
import difflib
import functools
import importlib
import importlib.util
import warnings
from collections.abc import Iterable
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path

from fedmer.errors import InputError

KINDS = {
    "aggregators": "Aggregator",
    "networks": "Network",
    "partitioners": "Partitioner",
    "selectors": "Selector",
    "executors": "Executor",
    "privacy": "Privacy",
    "extractors": "Extractor",
    "conditions": "Condition",
}
"""Kind -> the class of :mod:`fedmer.contracts` that every plugin of the kind extends."""


@dataclass(frozen=True)
class Plugin:
    """One thing that can be chosen by name.

    Args:
        name: The class name, which is the name to type.
        path: The dotted path to the class.
        package: The distribution that it came with.
        line: The first line of its docstring.
    """

    name: str
    path: str
    package: str
    line: str


def plugins(kind: str) -> list[Plugin]:
    """All plugins of a kind, third-party ones included, in alphabetical order.

    Raises:
        InputError: There is no such kind.

    >>> [p.name for p in plugins("selectors")]
    ['All', 'Poisson', 'TopVolume', 'Uniform', 'VolumeProportional']
    """
    if kind not in KINDS:
        raise InputError(unknown("kind of plugin", kind, KINDS))
    found = {plugin.name: plugin for plugin in _built_in(kind)}
    for point in _third_party(kind):
        name = point.value.rpartition(":")[2]
        path = point.value.replace(":", ".")
        package = point.dist.name if point.dist is not None else "an unnamed package"
        if name in found:
            warnings.warn(
                f"{singular(kind)} '{name}' of {package} has the name of {found[name].path}; "
                f"use its dotted path {path} instead.",
                stacklevel=2,
            )
            continue
        found[name] = Plugin(name, path, package, _first_line(point.module, name))
    return sorted(found.values(), key=lambda plugin: plugin.name)


def singular(kind: str) -> str:
    """What one plugin of a kind is called.

    >>> singular("aggregators"), singular("privacy")
    ('aggregator', 'privacy')
    """
    return kind.removesuffix("s")


def option(kind: str) -> str:
    """The option of ``fedmer fit`` that chooses plugins of a kind.

    >>> option("aggregators"), option("conditions")
    ('aggregator', 'conditions')
    """
    return kind if kind == "conditions" else singular(kind)


def load(kind: str) -> None:
    """Import every plugin of a kind, so that the parser resolves bare names.

    A third-party plugin that fails to import is a warning which names its package: it must not
    keep anybody from using the others.
    """
    for plugin in plugins(kind):
        module = plugin.path.rpartition(".")[0]
        if plugin.package == "fedmer":
            importlib.import_module(module)
            continue
        try:
            importlib.import_module(module)
        except Exception as error:  # noqa: BLE001 - whatever a third party's module raises
            warnings.warn(
                f"{singular(kind)} '{plugin.name}' of {plugin.package} cannot be used: "
                f"importing {module} failed with {type(error).__name__}: {error}",
                stacklevel=2,
            )


def unknown(what: str, name: str, known: Iterable[str]) -> str:
    """The sentence for a name that nobody knows.

    >>> unknown("aggregator", "FedAvgg", ["FedAvg", "Local"])
    "unknown aggregator 'FedAvgg'; did you mean 'FedAvg'? Known: FedAvg, Local"
    """
    names = sorted(known)
    folded = {candidate.lower(): candidate for candidate in names}
    close = difflib.get_close_matches(name.lower(), folded, n=1)
    hint = f"; did you mean '{folded[close[0]]}'?" if close else "."
    return f"unknown {what} '{name}'{hint} Known: {', '.join(names)}"


def _built_in(kind: str) -> tuple[Plugin, ...]:
    return _described(kind, Path(__file__).parent / kind)


@functools.cache
def _described(kind: str, folder: Path) -> tuple[Plugin, ...]:
    """Public classes of public files that descend, by the names in the source, from the kind's
    contract; what they have in common may lie in a file that is not public."""
    classes: dict[str, tuple[str, ast.ClassDef]] = {}
    for file in sorted(folder.glob("*.py")):
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.ClassDef):
                classes[node.name] = (file.stem, node)

    def descends(node: ast.ClassDef) -> bool:
        parents = [base.id for base in node.bases if isinstance(base, ast.Name)]
        return any(p == KINDS[kind] or (p in classes and descends(classes[p][1])) for p in parents)

    return tuple(
        Plugin(name, f"fedmer.plugins.{kind}.{stem}.{name}", "fedmer", _doc_line(node))
        for name, (stem, node) in classes.items()
        if not (name.startswith("_") or stem.startswith("_")) and descends(node)
    )


def _third_party(kind: str) -> list[EntryPoint]:
    return sorted(entry_points(group=f"fedmer.{kind}"), key=lambda point: point.value)


def _first_line(module: str, name: str) -> str:
    """The first docstring line of a third-party class, from its source where that is at hand."""
    try:
        spec = importlib.util.find_spec(module)
        if spec is None or spec.origin is None or not spec.origin.endswith(".py"):
            return ""
        tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    except Exception as error:  # noqa: BLE001 - finding a module imports a third party's package
        return f"(not importable: {type(error).__name__}: {error})"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == name:
            return _doc_line(node)
    return ""


def _doc_line(node: ast.ClassDef) -> str:
    return (ast.get_docstring(node) or "").partition("\n")[0]
