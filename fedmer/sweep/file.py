"""Reading a W&B sweep file, and saying what cannot run here before anything runs."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmer import safe_yaml
from fedmer.errors import InputError
from fedmer.plugins.registry import unknown
from fedmer.sweep import command
from fedmer.sweep.parameters import Parameter, parameter

KEYS = (
    "program",
    "entity",
    "project",
    "description",
    "name",
    "method",
    "metric",
    "parameters",
    "command",
    "run_cap",
)
_ELSEWHERE = (
    "apiVersion",
    "controller",
    "early_terminate",
    "image_uri",
    "job",
    "kind",
    "metrics",
    "scheduler",
)
"""Keys that W&B knows and that mean nothing without its server."""
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_ANY_COMMAND = ["${env}", "${interpreter}", "${program}", "${args}"]


@dataclass(frozen=True)
class SweepFile:
    """What a sweep file asks for.

    Args:
        path: The file.
        name: Its ``name``, or the file's.
        project: The W&B project of its runs, or None.
        method: ``grid`` or ``random``.
        parameters: In the order of the file.
        command: The words of a trial's command, macros not yet filled in.
        program: What ``${program}`` stands for.
        run_cap: At most this many trials, or None.
    """

    path: Path
    name: str
    project: str | None
    method: str
    parameters: tuple[Parameter, ...]
    command: tuple[str, ...]
    program: str
    run_cap: int | None


def read(path: Path) -> SweepFile:
    """Read and check a sweep file.

    Raises:
        InputError: It cannot be read, is not a sweep, or asks for what only W&B's server does.
    """
    try:
        return _checked(path, _load(path))
    except InputError as error:
        said = str(error)
        raise InputError(said if said.startswith(str(path)) else f"{path}: {said}") from error


def _load(path: Path) -> dict[str, Any]:
    # W&B's reading of numbers, so that a file means here what it means there.
    content = safe_yaml.read(path, loader=safe_yaml.PlainLoader)
    if not isinstance(content, dict):
        raise InputError("holds no sweep; expected the keys method, parameters and command.")
    return content


def _checked(path: Path, content: dict[str, Any]) -> SweepFile:
    for key in content:
        if key in _ELSEWHERE:
            raise InputError(
                f"'{key}' needs the server of W&B; remove it, or run the file under 'wandb agent'."
            )
        if key not in KEYS:
            raise InputError(unknown("key", str(key), KEYS))
    _check_method(content)
    _check_metric(content.get("metric", {"name": ""}))
    name = str(content.get("name") or path.stem)
    program = content.get("program")
    words = content.get("command", _ANY_COMMAND)
    if not isinstance(words, list) or not words or not all(map(_is_word, words)):
        raise InputError(f"command is {words!r}; expected a list of words.")
    words = tuple(str(word) for word in words)
    command.check(words, program)
    return SweepFile(
        path=path,
        name=name,
        project=content.get("project"),
        method=content["method"],
        parameters=_parameters(content),
        command=words,
        program=str(program or ""),
        run_cap=content.get("run_cap"),
    )


def _check_method(content: dict[str, Any]) -> None:
    method = content.get("method")
    if method is None:
        raise InputError("has no method; add 'method: grid' or 'method: random'.")
    if method in ("bayes", "custom"):
        raise InputError(
            f"method {method} needs the server of W&B, which chooses each trial by the ones "
            "before; grid and random work here."
        )
    if method not in ("grid", "random"):
        raise InputError(unknown("method", str(method), ("grid", "random")))
    cap = content.get("run_cap")
    if cap is None and method == "random":
        raise InputError("method random has no end; add run_cap: 20, the number of trials.")
    if cap is not None and (type(cap) is not int or cap < 1):
        raise InputError(f"run_cap is {cap!r}; expected at least 1.")


def _check_metric(metric: Any) -> None:
    if not isinstance(metric, dict) or not isinstance(metric.get("name"), str):
        raise InputError(f"metric is {metric!r}; expected a name and a goal.")
    if metric.get("goal", "minimize") not in ("minimize", "maximize"):
        raise InputError(f"metric.goal is {metric['goal']!r}; expected minimize or maximize.")
    for key in metric.keys() - {"name", "goal"}:
        raise InputError(f"metric.{key} needs the server of W&B; remove it.")


def _parameters(content: dict[str, Any]) -> tuple[Parameter, ...]:
    given = content.get("parameters")
    if not isinstance(given, dict) or not given:
        raise InputError("has no parameters; name at least one, with its values.")
    for name in given:
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise InputError(
                f"parameter {name!r} is not a name; expected one such as aggregator.mu."
            )
    found = tuple(parameter(name, said) for name, said in given.items())
    for one in found if content["method"] == "grid" else ():
        if one.listed is None or "probabilities" in one.settings:
            raise InputError(
                f"parameter '{one.name}' is {one.distribution}, and a grid needs values to list; "
                "give values, or use method: random."
            )
    return found


def _is_word(word: Any) -> bool:
    return isinstance(word, str | int | float)
