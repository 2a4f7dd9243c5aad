"""A class that somebody chose for a part, by its name or by its dotted path."""

import importlib
import inspect
import sys
from collections.abc import Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any

from fedmer import trust
from fedmer.errors import InputError
from fedmer.plugins import registry

_KINDS = {registry.option(kind): kind for kind in registry.KINDS}
_TORCH = {
    "optimizer": ("torch.optim",),
    "lr_scheduler": ("torch.optim.lr_scheduler", "fedmer.schedules"),
}
_FILLED = ("network", "optimizer", "lr_scheduler")
"""Parts whose first argument fedmer gives itself."""
PARTS = (*_KINDS, *_TORCH)
"""Options of ``fedmer fit`` that choose a class."""


def known_path(keys: Sequence[str], name: str) -> str:
    """The dotted path of a class of fedmer or torch that is called by its name alone.

    >>> import torch
    >>> known_path(["aggregator"], "fedmer.FedAvg")
    'fedmer.plugins.aggregators.fed_avg.FedAvg'
    >>> known_path(["optimizer"], "Adam"), known_path(["aggregator"], "FedAvgg")
    ('torch.optim.Adam', 'FedAvgg')
    """
    part = keys[-1] if len(keys) == 1 else ""
    short = name.removeprefix("fedmer.")
    if part in _KINDS and short.isidentifier():
        paths = [p.path for p in registry.plugins(_KINDS[part]) if p.name == short]
    else:
        paths = [f"{place}.{name}" for place in _TORCH.get(part, ())]
        paths = [path for path in paths if trust.loaded(path) is not None]
    return paths[0] if paths else name


def same_class(keys: Sequence[str], one: str, other: str) -> bool:
    """Whether two names or paths are those of one class, as far as can be said without an import.

    Args:
        keys: Where they stand in the configuration.
        one: A bare name or a dotted path.
        other: Another.

    >>> import torch
    >>> same_class(["optimizer"], "Adam", "torch.optim.adam.Adam")
    True
    """
    paths = [known_path(keys, name) for name in (one, other)]
    found = [trust.loaded(path) for path in paths]
    if None not in found:
        return found[0] is found[1]
    if all("." in path for path in paths):
        return paths[0] == paths[1]
    return paths[0].rpartition(".")[2] == paths[1].rpartition(".")[2]


def typed_class(part: str, name: str) -> str:
    """Import a class that a person typed by its dotted path, so that what is wrong can be said.

    Args:
        part: One of :data:`PARTS`.
        name: A bare name, which is left as it is, or a dotted path.

    Raises:
        InputError: There is no such module or class, importing it fails, or it is no such part.
    """
    name = known_path([part], name)
    place, _, last = name.rpartition(".")
    if not place or not all(word.isidentifier() for word in name.split(".")):
        return name
    said = f"--{part} {name}"
    try:
        module = importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name is None or not (place == error.name or place.startswith(f"{error.name}.")):
            raise InputError(
                f"{said}: importing {place} failed, since it needs {error.name}, which is not "
                "installed."
            ) from error
        raise InputError(
            f"{said}: there is no module {error.name}, neither in {Path.cwd()} nor installed."
        ) from error
    except SyntaxError as error:
        raise InputError(f"{said}: {error.filename}, line {error.lineno}: {error.msg}.") from error
    except Exception as error:
        # Whatever a third party's module raises.
        raise InputError(
            f"{said}: importing {place} failed with {type(error).__name__}: {error}."
        ) from error
    found = getattr(module, last, None)
    if found is None:
        close = get_close_matches(last, vars(module), n=1)
        hint = f"; did you mean '{close[0]}'?" if close else "."
        raise InputError(f"{said}: {place} has no '{last}'{hint}")
    _check_kind(part, said, found)
    return name


def classes(part: str) -> dict[str, Any]:
    """Name -> class, of all that can be chosen for a part and are imported.

    >>> import torch
    >>> sorted(classes("optimizer"))[:4]
    ['ASGD', 'Adadelta', 'Adafactor', 'Adagrad']
    """
    if part in _KINDS:
        registry.load(_KINDS[part])
        named = {p.name: trust.loaded(p.path) for p in registry.plugins(_KINDS[part])}
    else:
        groups = [vars(sys.modules[place]) for place in _TORCH[part] if place in sys.modules]
        named = {name: found for group in groups for name, found in group.items()}
    base = _base(part)
    return {
        name: found
        for name, found in named.items()
        if isinstance(found, type) and issubclass(found, base) and found is not base
    }


def options(part: str) -> dict[str, list[str]]:
    """Option -> names of the classes for a part that have it."""
    found: dict[str, list[str]] = {}
    for name, made in classes(part).items():
        given = inspect.signature(made).parameters.values()
        for option in [p.name for p in given if p.kind is not p.VAR_KEYWORD][part in _FILLED :]:
            found.setdefault(option, []).append(name)
    return found


def _check_kind(part: str, said: str, found: Any) -> None:
    base = _base(part)
    if isinstance(found, type):
        if not issubclass(found, base):
            raise InputError(
                f"{said} is no {part}; its class has to extend {base.__module__}.{base.__name__}."
            )
        if inspect.isabstract(found):
            missing = ", ".join(sorted(getattr(found, "__abstractmethods__", ())))
            raise InputError(f"{said} is not whole; its class has to have the method {missing}.")
    elif part not in _FILLED or not callable(found) or inspect.isbuiltin(found):
        raise InputError(
            f"{said} is a {type(found).__name__}; expected a class that extends "
            f"{base.__module__}.{base.__name__}."
        )


def _base(part: str) -> type:
    # Here, since light subcommands answer before torch is imported.
    if part in _KINDS:
        from fedmer import contracts

        made: type = getattr(contracts, registry.KINDS[_KINDS[part]])
        return made
    from torch.optim import Optimizer
    from torch.optim.lr_scheduler import LRScheduler

    return Optimizer if part == "optimizer" else LRScheduler
