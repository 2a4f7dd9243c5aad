"""The trials of a sweep: every combination of a grid, or draws that never change."""

import hashlib
import itertools
import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmer.seeds import derive, generator
from fedmer.sweep.file import SweepFile

_LONGEST = 100
_TAG = 64
"""Characters of a tag, at most."""

_RESERVED = ("wandb",)
"""Names that something else has in the folder of a sweep."""


@dataclass(frozen=True)
class Trial:
    """One run of a sweep.

    Args:
        name: Readable, unique in its sweep, and safe as a folder's name.
        values: Parameter -> value, in the order of the file.
    """

    name: str
    values: Mapping[str, Any]

    @property
    def tags(self) -> list[str]:
        """Its values in words, as W&B takes them: short, and without a comma.

        >>> Trial("a", {"aggregator": "FedProx", "aggregator.mu": 0.1, "seed_everything": 0}).tags
        ['FedProx', 'mu=0.1', 'seed_everything=0']
        """
        words = [_label(key.rpartition(".")[2], value) for key, value in self.values.items()]
        return [word.replace(",", ";")[:_TAG] for word in words if word]


def trials(sweep: SweepFile) -> list[Trial]:
    """All trials of a sweep, the same ones in the same order each time.

    A grid goes through the last parameter of the file fastest. Random trials are functions of the
    sweep's name, the parameter's name and the trial's number, so that a higher ``run_cap`` adds
    trials to those already run. Repeated ones are left out: they would give the same result.
    """
    chosen = list(itertools.islice(_distinct(_values(sweep)), sweep.run_cap))
    return [Trial(*pair) for pair in zip(_names(sweep, chosen), chosen, strict=True)]


def folder_name(name: str) -> str:
    """A name as a folder can have it.

    >>> folder_name("learning rate / FedAvg")
    'learning_rate_FedAvg'
    """
    safe = re.sub(r"[^A-Za-z0-9_.=+-]+", "_", name).lstrip(".-")
    if len(safe) > _LONGEST:
        safe = f"{safe[: _LONGEST - 9]}-{_digest(name)}"
    return safe or _digest(name)


def _values(sweep: SweepFile) -> Iterator[dict[str, Any]]:
    names = [parameter.name for parameter in sweep.parameters]
    if sweep.method == "grid":
        lists = [parameter.listed or [] for parameter in sweep.parameters]
        yield from (dict(zip(names, row, strict=True)) for row in itertools.product(*lists))
        return
    assert sweep.run_cap is not None
    seed = derive(0, "sweep", sweep.name)
    # A small space has fewer trials than the cap; a hundred draws for each will have met them all.
    for number in range(100 * sweep.run_cap):
        yield {p.name: p.draw(generator(seed, p.name, number)) for p in sweep.parameters}


def _distinct(rows: Iterator[dict[str, Any]]) -> Iterator[dict[str, Any]]:
    seen = set()
    for row in rows:
        key = json.dumps(row)
        if key not in seen:
            seen.add(key)
            yield row


def _names(sweep: SweepFile, rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Made of what varies; two trials of one name get a digest of their values."""
    varying = [
        p.name for p in sweep.parameters if p.listed is None or len(set(map(str, p.listed))) > 1
    ]
    ends = Counter(name.rpartition(".")[2] for name in varying)
    short = {n: end if ends[end := n.rpartition(".")[2]] == 1 else n for n in varying}
    plain = [
        folder_name("-".join(_label(short[name], row[name]) for name in varying) or "trial")
        for row in rows
    ]
    # Some file systems take upper and lower case for the same.
    taken = Counter([*_RESERVED, *(name.lower() for name in plain)])
    return [
        name if taken[name.lower()] == 1 else f"{name}-{_digest(json.dumps(row))}"
        for name, row in zip(plain, rows, strict=True)
    ]


def _label(key: str, value: Any) -> str:
    """A class or file says what it is; a number needs its parameter's name."""
    if isinstance(value, float):
        return f"{key}={value:.4g}"
    if not isinstance(value, str) or not re.match(r"[A-Za-z_./]", value):
        return f"{key}={value}"
    if "/" in value or Path(value).suffix in (".yaml", ".yml"):
        return Path(value).stem
    if all(part.isidentifier() for part in value.split(".")):
        return value.rpartition(".")[2]
    return value


def _digest(text: str) -> str:
    return hashlib.blake2b(text.encode(), digest_size=4).hexdigest()
