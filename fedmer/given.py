"""Parts that were made in Python, as a configuration file has them."""

from collections.abc import Mapping, Sequence
from dataclasses import fields, is_dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from fedmer.contracts.part import PartType
from fedmer.errors import InputError


def settings_of(value: Any, where: str) -> Any:
    """What a configuration file would say for a value.

    Args:
        value: A part: an instance, a class, or a ``functools.partial`` of a class whose first
            argument fedmer gives itself. Or plain values, and what holds them.
        where: Which option it is for, for the sentence.

    Returns:
        ``class_path`` and ``init_args`` for parts; everything else as it is.

    Raises:
        InputError: It cannot be written into a file.

    >>> from fedmer.plugins.aggregators.fed_prox import FedProx
    >>> settings_of(FedProx(mu=0.1), "aggregator")
    {'class_path': 'fedmer.plugins.aggregators.fed_prox.FedProx', 'init_args': {'mu': 0.1}}
    """
    if isinstance(value, partial):
        if value.args:
            raise InputError(
                f"{where} is a partial with arguments without names; name them, as in lr=0.001."
            )
        return settings_of(value.func, where) | _arguments(value.keywords, where)
    if isinstance(value, type) or _is_made_by_function(value):
        if "<locals>" in value.__qualname__:
            raise InputError(
                f"{where} is {value.__qualname__}, which nothing outside of its function can "
                "import; define it at the top of a module or a notebook."
            )
        return {"class_path": f"{value.__module__}.{value.__qualname__}"}
    if isinstance(type(value), PartType):
        return settings_of(type(value), where) | _arguments(value.given, where)
    if is_dataclass(value):
        return {own.name: settings_of(getattr(value, own.name), where) for own in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): settings_of(own, f"{where}.{key}") for key, own in value.items()}
    if isinstance(value, str | bool | int | float | None):
        return value
    if isinstance(value, Path):
        return str(value)
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, Sequence | set | frozenset):
        return [settings_of(own, where) for own in value]
    raise InputError(
        f"{where} is a {type(value).__name__}, which no configuration can hold, so that the run "
        "could not be repeated; give a part of fedmer or plain values."
    )


def classes_in(settings: Any) -> list[str]:
    """The paths of all classes that settings name."""
    if isinstance(settings, Mapping):
        own = [settings["class_path"]] if isinstance(settings.get("class_path"), str) else []
        return own + [path for value in settings.values() for path in classes_in(value)]
    if isinstance(settings, list):
        return [path for value in settings for path in classes_in(value)]
    return []


def _arguments(given: Mapping[str, Any], where: str) -> dict[str, Any]:
    options = {name: settings_of(value, f"{where}.{name}") for name, value in given.items()}
    return {"init_args": options} if options else {}


def _is_made_by_function(value: Any) -> bool:
    """Is it a function, such as one that makes a network?"""
    return callable(value) and hasattr(value, "__qualname__") and hasattr(value, "__module__")
