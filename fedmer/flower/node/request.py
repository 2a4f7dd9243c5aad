"""What a server's message says, measured before a node uses it."""

import json
import re
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from flwr.app import RecordDict

from fedmer.data.corpus import CorpusShape
from fedmer.data.remote import Request
from fedmer.data.standardise import Statistics
from fedmer.errors import InputError
from fedmer.flower.wire import RefusedError, take
from fedmer.weights import Layout

_LONGEST = 7 * 86400.0
"""Seconds that a node may be given for one message."""
_MOST_TEXT = 100_000
"""Characters that a run's settings may have; those of fedmer's parts have about a thousand."""
_DEEPEST = 24
"""Levels of brackets in them."""
_MOST_ROUNDS = 10**9
_MOST_SPEAKERS = 1000
_KINDS = ("none", "local", "federated")


def seconds_in(head: Mapping[str, Any]) -> float:
    """How long the node may take.

    Raises:
        InputError: It is no time.
    """
    given = head["seconds"]
    if not isinstance(given, int | float) or not 0 < given <= _LONGEST:
        raise InputError(
            f"it was given {given} seconds for its answer; expected above 0 and at most "
            f"{_LONGEST:.0f} (--executor.timeout)"
        )
    return float(given)


def run_in(head: Mapping[str, Any]) -> tuple[str, str, int]:
    """The name of the run, that of its attempt, and the round with which that began.

    Raises:
        InputError: They could not be names of files, or it is no round.
    """
    for what in ("run", "attempt"):
        if not re.fullmatch(r"[0-9a-f]{32}", str(head[what])):
            raise InputError(
                f"the {what} is called '{str(head[what])[:100]}', expected 32 hexadecimal digits"
            )
    return str(head["run"]), str(head["attempt"]), _count(head, "begin", 0, _MOST_ROUNDS)


def round_in(content: RecordDict) -> int:
    """The round, from 0.

    Raises:
        InputError: It is none.
    """
    head: Any = content["round"]
    return _count(head, "round", 0, _MOST_ROUNDS)


def speakers_in(head: Mapping[str, Any]) -> int:
    """The most people in a dialogue of any node.

    Raises:
        InputError: It cannot be.
    """
    return _count(head, "speakers", 1, _MOST_SPEAKERS)


def request_in(head: Mapping[str, Any]) -> Request:
    """What the server asks of the data.

    Raises:
        InputError: It cannot be.
    """
    kind, fraction = head["standardise"], head["holdout"]
    if kind not in _KINDS or not isinstance(fraction, int | float) or not 0 <= fraction < 1:
        raise InputError(
            f"it was asked to standardise by '{str(kind)[:100]}' and to keep back {fraction}; "
            f"expected one of {', '.join(_KINDS)}, and a fraction in [0, 1)"
        )
    return Request(str(kind), float(fraction), int(head["seed"]))


def settings_in(head: Mapping[str, Any]) -> dict[str, Any]:
    """The run's settings.

    Raises:
        InputError: They are too long, too deep, or no JSON object.
    """
    text = str(head["settings"])
    if len(text) > _MOST_TEXT:
        raise InputError(f"the settings have {len(text)} characters, at most {_MOST_TEXT} are read")
    try:
        settings: dict[str, Any] = json.loads(text)
        if isinstance(settings, dict) and _depth(settings) <= _DEEPEST:
            return settings
    except (ValueError, RecursionError):
        pass
    raise InputError(f"the settings are no JSON object of at most {_DEEPEST} levels")


def statistics_in(
    content: RecordDict, kind: str, shape: CorpusShape
) -> tuple[torch.Tensor, dict[str, Statistics]]:
    """Labelled utterances of each emotion at all nodes, ``(C,)``, and what to standardise by.

    Raises:
        RefusedError: They are missing, or not of this corpus's shape.
    """
    parts = {"class_counts": torch.zeros(shape.classes, dtype=torch.int64)}
    for name, width in shape.features.items() if kind == "federated" else ():
        parts[f"{name}.mean"] = parts[f"{name}.deviation"] = torch.zeros(width)
    numbers = take(content, "statistics", Layout.of(parts))
    if int(numbers["class_counts"].min()) < 0:
        raise RefusedError("its counts of the emotions are below 0")
    found = {}
    for name in shape.features if kind == "federated" else ():
        deviation = numbers[f"{name}.deviation"].numpy()
        if not np.all(deviation > 0):
            raise RefusedError(f"its deviations of {name} are not above 0")
        found[name] = Statistics(numbers[f"{name}.mean"].numpy(), deviation)
    return numbers["class_counts"], found


def _count(head: Mapping[str, Any], name: str, least: int, most: int) -> int:
    value = head[name]
    if type(value) is not int or not least <= value <= most:
        raise InputError(f"its message has {name} {value}; expected {least} to {most}")
    return value


def _depth(value: Any) -> int:
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return 1 + max(map(_depth, inner), default=0)
