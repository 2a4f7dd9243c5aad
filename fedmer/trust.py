"""Which classes a text from outside may name: a configuration file, or what a server tells a node.

What names a class has it imported and called. What a person types is theirs to choose; what stands
in a file may come from anybody, so that it chooses only among what is known to be a part. That is
decided by name, before anything is imported.
"""

import functools
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from jsonargparse import _loaders_dumpers as loading
from jsonargparse import set_parsing_settings
from jsonargparse._common import parsing_settings

from fedmer import safe_yaml
from fedmer.errors import InputError
from fedmer.plugins import registry

CLIENT = ("fedmer.plugins", "fedmer.schedules", "torch.optim")
"""Where the classes lie that the settings of a client may name, installed plugins aside."""

_LIGHTNING = ("accelerators", "callbacks", "loggers", "plugins", "profilers", "strategies")
FILE = (
    *CLIENT,
    *(
        f"{package}.{module}"
        for package in ("pytorch_lightning", "lightning_fabric")
        for module in _LIGHTNING
    ),
)
"""Where those lie that a configuration file may name."""

REFUSED = (
    "which is no part of fedmer, torch or Lightning and no installed plugin; "
    "add --trust if you trust the file."
)

_PLAIN = re.compile(r"[\w -]*|[-+]?[\d.]+(e[-+]?\d+)?")


def check_classes(settings: Any) -> None:
    """Refuse settings of a client that name a class which is no part that is installed here.

    A parser takes a plain text for the name of a class or for more settings too, where a class may
    stand; so texts have to be words or numbers.

    Raises:
        InputError: One does.

    >>> check_classes({"optimizer": {"class_path": "subprocess.Popen"}})
    Traceback (most recent call last):
    fedmer.errors.InputError: the settings name subprocess.Popen, which is not a part that is \
installed here
    """
    for way, value in _leaves(settings):
        if way and way[-1] == "class_path":
            if not may_name(value, CLIENT):
                raise InputError(
                    f"the settings name {value}, which is not a part that is installed here"
                )
        elif isinstance(value, str) and not _PLAIN.fullmatch(value):
            raise InputError(f"the settings say '{value}', expected a word or a number")


def check_file(content: Any, name: str) -> None:
    """Refuse what a configuration file says if it names a class that is no known part.

    Raises:
        InputError: It does; the sentence says where.

    >>> check_file({"optimizer": {"class_path": "os.system"}}, "x.yaml")
    Traceback (most recent call last):
    fedmer.errors.InputError: x.yaml: optimizer names os.system, which is no part of fedmer, torch \
or Lightning and no installed plugin; add --trust if you trust the file.
    """
    for way, value in _leaves(content):
        if not way or way[-1] != "class_path":
            continue
        # A bare name is looked up among the classes that are there already.
        bare = isinstance(value, str) and value.isidentifier()
        if not bare and not may_name(value, FILE):
            where = ".".join(way[:-1]) or "it"
            raise InputError(f"{name}: {where} names {value}, {REFUSED}")


def may_name(path: object, places: Iterable[str]) -> bool:
    """Whether it is an installed plugin, or a class of one of these packages.

    It has to be a class of theirs and not of what they import. Nothing is imported to find out.

    >>> may_name("torch.optim.Adam", FILE), may_name("torch.optim.os.system", FILE)
    (True, False)
    """
    if not isinstance(path, str):
        return False
    if path in _installed():
        return True
    inside = tuple(f"{place}." for place in places)
    found = loaded(path) if path.startswith(inside) else None
    return isinstance(found, type) and f"{found.__module__}.".startswith(inside)


def loaded(path: str) -> object:
    """What a dotted path names in a module that is imported already, else None."""
    place, _, name = path.rpartition(".")
    return vars(sys.modules[place]).get(name) if place in sys.modules else None


@contextmanager
def only(places: Iterable[str], names: Iterable[str] = ()) -> Iterator[None]:
    """While it is open, parsers import nothing that a text names but what may be named.

    A parser takes a text for a dotted path wherever a function or a class may stand, so that
    looking for ``class_path`` alone would not do. Parsers also read every text within the bounds of
    :mod:`fedmer.safe_yaml`.

    Args:
        places: Packages whose classes may be named, beside installed plugins.
        names: Dotted paths that a person typed.
    """
    settings, loader = dict(parsing_settings), loading.yaml_default_loader
    set_parsing_settings(
        import_path_denylist=["*"], import_path_allowlist=[*places, *_installed(), *names]
    )
    loading.yaml_default_loader = safe_yaml.Loader  # type: ignore[assignment]
    try:
        yield
    finally:
        # Put back by hand: jsonargparse itself only ever adds to its settings.
        parsing_settings.update(settings)
        loading.yaml_default_loader = loader


@functools.cache
def _installed() -> set[str]:
    """Paths of all plugins; those of a client are imported, and what they take with them."""
    for kind in ("networks", "aggregators", "privacy"):
        registry.load(kind)
    paths = {plugin.path for kind in registry.KINDS for plugin in registry.plugins(kind)}
    return paths | {other for path in paths for other in also_at(path)}


def also_at(path: str) -> Iterator[str]:
    """Other paths of an imported class: where it was made, and packages above that show it."""
    found = loaded(path)
    if isinstance(found, type):
        *packages, name = f"{found.__module__}.{found.__qualname__}".split(".")
        for depth in range(1, len(packages) + 1):
            other = ".".join([*packages[:depth], name])
            if loaded(other) is found:
                yield other


def _leaves(value: Any, way: tuple[str, ...] = ()) -> Iterator[tuple[tuple[str, ...], Any]]:
    """What is no mapping and no list, and whatever stands as a ``class_path``, with its keys."""
    if isinstance(value, Mapping):
        for key, inner in value.items():
            if key == "class_path":
                yield (*way, key), inner
            else:
                yield from _leaves(inner, (*way, str(key)))
    elif isinstance(value, list | tuple):
        for place, inner in enumerate(value):
            yield from _leaves(inner, (*way, str(place)))
    else:
        yield way, value
