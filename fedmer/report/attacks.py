"""What attacks found out about clients: ``audit.json`` of runs, and the table made of them."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import fmean
from typing import Any

from fedmer.errors import InputError
from fedmer.record.reading import read_json
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row
from fedmer.report.student import half_width

FILE = "audit.json"
"""In the folder of a run that was audited."""


@dataclass(frozen=True)
class Figure:
    """One number of an attack.

    Args:
        name: What it is.
        value: As it was measured.
        chance: What it is where nothing can be found out.
        low: The 2.5 % quantile of resamples of what was attacked; None where there is nothing to
            resample.
        high: The 97.5 % quantile.
    """

    name: str
    value: float
    chance: float
    low: float | None = None
    high: float | None = None


@dataclass(frozen=True)
class Finding:
    """What one attack found.

    Args:
        figures: Empty where it cannot be tried.
        skipped: A sentence that says why; empty where it was tried.
    """

    figures: Sequence[Figure] = ()
    skipped: str = ""


@dataclass(frozen=True)
class Audit:
    """All that was tried on a run.

    Args:
        round: The round after which, from 1.
        seconds: How long it took.
        options: What it was made with.
        findings: By the name of the attack.
    """

    round: int
    seconds: float
    options: Mapping[str, Any] = field(default_factory=dict)
    findings: Mapping[str, Finding] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """For the file."""
        return asdict(self)


def read_audit(run: Path) -> Audit | None:
    """The audit of a run; None where there was none.

    Raises:
        InputError: The file is damaged.
    """
    path = run / FILE
    if not path.exists():
        return None
    try:
        content = read_json(path)
        findings = {
            _text(name): Finding([_figure(**f) for f in found["figures"]], _text(found["skipped"]))
            for name, found in content["findings"].items()
        }
        return Audit(
            int(content["round"]), _number(content["seconds"]), dict(content["options"]), findings
        )
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(
            f"{path} is not what 'fedmer audit' wrote ({type(error).__name__}: "
            f"{str(error)[:100]}); remove it, or audit the run again."
        ) from None


def attack_table(rows: Sequence[Row]) -> Table | None:
    """A line a row and figure, mean over seeds; None where no run was audited."""
    shown, written = [], []
    for row in rows:
        audits = [audit for audit in (read_audit(run.path) for run in row.runs) if audit]
        for attack in dict.fromkeys(name for audit in audits for name in audit.findings):
            findings = [audit.findings[attack] for audit in audits if attack in audit.findings]
            figures: dict[str, list[Figure]] = {}
            for figure in (figure for finding in findings for figure in finding.figures):
                figures.setdefault(figure.name, []).append(figure)
            for name, found in figures.items():
                value, low, high = over_seeds(found)
                chance = fmean(one.chance for one in found)
                apart = low is not None and high is not None and not low <= chance <= high
                interval = "" if low is None else f"{low:.3f} to {high:.3f}"
                cells = [Cell(row.name), Cell(attack), Cell(name), Cell(str(len(found)))]
                cells += [Cell(f"{value:.3f}", apart), Cell(interval), Cell(f"{chance:.3f}")]
                shown.append(cells)
                ends = ["" if end is None else f"{end:.6f}" for end in (low, high)]
                numbers = [f"{value:.6f}", *ends, f"{chance:.6f}"]
                written.append([row.name, attack, name, len(found), *numbers])
            if not figures:
                why = findings[0].skipped
                shown.append([Cell(row.name), Cell(attack), Cell(why), *[Cell("")] * 4])
                written.append([row.name, attack, why, 0, "", "", "", ""])
    if not shown:
        return None
    heads = ["", "attack", "figure", "seeds", "found", "95 % interval", "by chance"]
    columns = ["row", "attack", "figure", "seeds", "found", "low", "high", "chance"]
    return Table(Grid(heads, shown, text=(1, 2)), columns, written)


def over_seeds(found: Sequence[Figure]) -> tuple[float, float | None, float | None]:
    """Mean and 95 % interval of one figure of runs that differ in their seed.

    Seeds attack the same utterances, so that their mean is no surer of these than one seed is: the
    half width is the root of the squares of Student's over seeds and of the mean one of resamples.

    >>> one = Figure("", 0.5, chance=0.5, low=0.4, high=0.6)
    >>> [round(x, 2) for x in over_seeds([one])], [round(x, 2) for x in over_seeds([one, one])]
    ([0.5, 0.4, 0.6], [0.5, 0.4, 0.6])
    """
    values = [one.value for one in found]
    mean, half = fmean(values), half_width(values)
    ends = [(f.low, f.high) for f in found if f.low is not None and f.high is not None]
    if half is None:
        return (mean, *(ends[0] if ends else (None, None)))
    if ends:
        half = math.hypot(half, fmean((high - low) / 2 for low, high in ends))
    return mean, mean - half, mean + half


def _figure(name: Any, value: Any, chance: Any, low: Any, high: Any) -> Figure:
    ends = [None if end is None else _number(end) for end in (low, high)]
    return Figure(_text(name), _number(value), _number(chance), ends[0], ends[1])


def _text(value: Any) -> str:
    if not isinstance(value, str) or len(value) > 1000:
        raise ValueError("a text is none, or is too long")
    return value


def _number(value: Any) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        raise ValueError(f"'{str(value)[:40]}' is no number")
    return float(value)
