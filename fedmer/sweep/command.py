"""From the ``command`` of a sweep file to the words that start a trial."""

import json
import os
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown

_VARIABLE = re.compile(r"\$\{envvar:([A-Z0-9_]*)\}")
_PYTHONS = ("python", "python3", sys.executable)


def _no_boolean_flags(values: Mapping[str, Any]) -> list[str]:
    return [
        f"--{name}" if value is True else f"--{name}={value}"
        for name, value in values.items()
        if value is not False
    ]


ARGUMENTS: dict[str, Callable[[Mapping[str, Any]], list[str]]] = {
    "${args}": lambda v: [f"--{name}={value}" for name, value in v.items()],
    "${args_no_equals}": lambda v: [w for n, value in v.items() for w in (f"--{n}", str(value))],
    "${args_no_hyphens}": lambda v: [f"{name}={value}" for name, value in v.items()],
    "${args_no_boolean_flags}": _no_boolean_flags,
    "${args_append_hydra}": lambda v: [f"+{name}={value}" for name, value in v.items()],
    "${args_override_hydra}": lambda v: [f"++{name}={value}" for name, value in v.items()],
    "${args_json}": lambda v: [json.dumps(v)],
}
"""Macros that stand for a trial's parameters, and what W&B's agent makes of them."""

MACROS = ("${env}", "${interpreter}", "${program}", *ARGUMENTS)


def check(words: Sequence[str], program: object) -> None:
    """See that every macro is known, and that the parameters reach the command.

    Raises:
        InputError: One is not, or they do not, or ``program`` is missing.
    """
    for word in words:
        for name in _VARIABLE.findall(word):
            if name not in os.environ:
                raise InputError(f"command uses {word}, but the variable {name} is not set.")
        whole = word.startswith("${") and word.endswith("}") and not _VARIABLE.search(word)
        if whole and word not in MACROS:
            raise InputError(unknown("macro", word, MACROS))
    if not any(word in ARGUMENTS for word in words):
        raise InputError('command has no "${args}", so that every trial would be the same; add it.')
    if "${program}" in words and not isinstance(program, str):
        raise InputError("command uses ${program}, but the file has no program; add one.")


def fill(words: Sequence[str], program: str, values: Mapping[str, Any]) -> list[str]:
    """The words with every macro filled in, as W&B's agent does.

    ``${interpreter}`` is the Python that runs the sweep, where the agent takes the ``python`` that
    it finds first.

    >>> fill(["fedmer", "fit", "${args}"], "", {"aggregator": "FedProx", "aggregator.mu": 0.1})
    ['fedmer', 'fit', '--aggregator=FedProx', '--aggregator.mu=0.1']
    """
    filled: list[str] = []
    fixed = {
        "${env}": ["/usr/bin/env"],
        "${interpreter}": [sys.executable],
        "${program}": [program],
    }
    for word in words:
        if word in ARGUMENTS:
            filled += ARGUMENTS[word](values)
        elif word in fixed:
            filled += fixed[word]
        else:
            filled.append(_VARIABLE.sub(lambda match: os.environ[match[1]], word))
    return filled


def of_fedmer(words: Sequence[str]) -> list[str] | None:
    """What follows ``fedmer`` if the words start ``fedmer fit``, else None.

    >>> of_fedmer(["/usr/bin/env", "python", "-m", "fedmer", "fit", "--seed_everything=1"])
    ['fit', '--seed_everything=1']
    >>> of_fedmer(["python", "train.py"]) is None
    True
    """
    rest = list(words[1:] if words[:1] == ["/usr/bin/env"] else words)
    if rest[:1] == ["fedmer"]:
        rest = rest[1:]
    elif rest[:1] and rest[0] in _PYTHONS and rest[1:3] == ["-m", "fedmer"]:
        rest = rest[3:]
    else:
        return None
    return rest if rest[:1] == ["fit"] else None
