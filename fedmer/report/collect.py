"""Finished runs, read from their folders and checked."""

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.record.reading import MAX_CELLS, REMEDY, check_rows, read_json, read_rows
from fedmer.record.votes import FILE as VOTES
from fedmer.record.votes import SUBSETS, Votes, read_all_votes, read_votes
from fedmer.report.confusion import totals
from fedmer.report.result import check_result

Which = Literal["selected", "last"]
_PERSONAL = ("FedProto", "Local")
"""The rules without a global network in runs made before results said which are personal."""

_STARTED = ("config.yaml", "metrics.csv", "checkpoints")


@dataclass(frozen=True, eq=False)
class Run:
    """One finished run.

    Args:
        path: Its folder.
        result: What ``result.json`` says.
        which: The round that is reported: the last one, or the one selected by validation.
        given: What the sweep varied, where the run is a trial of one.
    """

    path: Path
    result: Mapping[str, Any]
    which: Which
    given: Mapping[str, str] = field(default_factory=dict)

    @property
    def seed(self) -> int:
        return int(self.result["seed"])

    @property
    def corpus(self) -> str:
        """Name and fingerprint."""
        return f"{self.result['data']['name']} ({self.result['data']['fingerprint']})"

    @property
    def personal(self) -> bool:
        """Are the scores those of all clients' personal networks, pooled?"""
        return bool(self.result.get("personal", self.result["aggregator"] in _PERSONAL))

    @property
    def round(self) -> int:
        return int(self.result[self.which]["round"])

    @property
    def confusion(self) -> NDArray[np.int64]:
        """``(C, C)`` counts on test, rows are the truth."""
        return np.array(self.result[self.which]["scores"]["test"]["confusion"], dtype=np.int64)

    @cached_property
    def config(self) -> dict[str, Any]:
        """``config.yaml``; empty if somebody removed it."""
        from fedmer import safe_yaml

        path = self.path / "config.yaml"
        content = safe_yaml.read(path) if path.exists() else {}
        try:
            # Rows are distinguished by this.
            json.dumps(content, sort_keys=True)
        except (TypeError, ValueError):
            raise InputError(
                f"{path} has a name that is no text, or a number of thousands of digits; {REMEDY}."
            ) from None
        return content if isinstance(content, dict) else {}

    @cached_property
    def rounds(self) -> list[dict[str, str]]:
        """The rows of ``metrics.csv``."""
        path = self.path / "metrics.csv"
        rows = read_rows(path) if path.exists() else []
        scores = ("train_loss", "val_weighted_f1", "test_weighted_f1")
        check_rows(rows, path, ("round", "bytes_down", "bytes_up"), optional=scores)
        return rows

    @cached_property
    def clients(self) -> list[dict[str, str]]:
        """The rows of ``clients.csv``."""
        path = self.path / "clients.csv"
        rows = read_rows(path) if path.exists() else []
        check_rows(rows, path, ("round", "client", "examples"), ("weight",))
        count = len({row["client"] for row in rows}) * len({row["round"] for row in rows})
        if count > MAX_CELLS:
            raise InputError(f"{path} has {count} pairs of client and round; {REMEDY}.")
        return rows

    @cached_property
    def votes(self) -> Votes | None:
        """Of the round that is reported; None for a run that kept none."""
        return read_votes(self.path / VOTES, self.which, len(self.result["data"]["labels"]))

    @cached_property
    def subset_votes(self) -> dict[str, Votes]:
        """Subset of the modalities -> votes, of the last round; empty for a run that kept none."""
        return read_all_votes(self.path / SUBSETS, len(self.result["data"]["labels"]))


@dataclass(frozen=True)
class Collection:
    """What was found.

    Args:
        runs: At least one, in the order of their folders.
        notes: Sentences on what was left out.
    """

    runs: Sequence[Run]
    notes: Sequence[str]


def collect(paths: Sequence[Path], which: Which = "selected") -> Collection:
    """Read runs, and the runs in folders of runs such as a sweep.

    Args:
        paths: Folders of runs, or folders that hold such folders.
        which: The round to report. A run in which no round was selected reports its last.

    Raises:
        InputError: A path is not a run, nothing is finished, a result is damaged or contradicts
            itself, or the runs are of different corpora.
    """
    runs, notes, unfinished = [], [], []
    seen: set[Path] = set()
    for path in paths:
        for folder in _folders(path):
            if folder.resolve() in seen:
                continue
            seen.add(folder.resolve())
            if not (folder / "result.json").exists():
                unfinished.append(folder)
                continue
            run = _read(folder, which)
            if run is None:
                notes.append(f"{folder.name} was never scored on test and is left out.")
            else:
                if run.which != which:
                    notes.append(
                        f"No round of {folder.name} was selected by validation; its last is shown."
                    )
                runs.append(run)
    if not runs:
        raise InputError(
            f"There is no finished run in {', '.join(map(str, paths))}; a run is finished once its "
            "folder has a result.json. Go on with an interrupted one by 'fedmer fit --ckpt_path'."
        )
    if unfinished:
        names = ", ".join(folder.name for folder in unfinished)
        notes.append(f"Not finished and left out: {names}.")
    _check_one_corpus(runs)
    return Collection(runs, notes)


def _folders(path: Path) -> list[Path]:
    """The run folders that a path means, finished or not."""
    if not path.is_dir():
        what = "is a file" if path.exists() else "does not exist"
        raise InputError(f"{path} {what}; expected the folder of a run, or a folder of runs.")
    if (path / "result.json").exists():
        return [path]
    try:
        inside = sorted(
            p for p in path.iterdir() if p.is_dir() and p.name[0] != "." and _started(p)
        )
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from None
    if not inside and not _started(path):
        raise InputError(
            f"{path} is neither the folder of a run nor a folder of runs; a finished run has a "
            "result.json."
        )
    return inside or [path]


def _started(path: Path) -> bool:
    return any((path / name).exists() for name in ("result.json", *_STARTED))


def _read(folder: Path, which: Which) -> Run | None:
    path = folder / "result.json"
    result = read_json(path)
    try:
        check_result(result)
    except ValueError as error:
        raise InputError(
            f"{path} cannot be read as the result of a run ({error}); make the run anew, or leave "
            "it out."
        ) from None
    scored: list[Which] = [
        key
        for key in (which, "last")
        if result[key] is not None and "test" in result[key]["scores"]
    ]
    if not scored:
        return None
    run = Run(folder, result, scored[0], _given(folder))
    _check(run)
    return run


def _check(run: Run) -> None:
    """The confusion matrix gives the scores beside it."""
    scores = run.result[run.which]["scores"]["test"]
    for name, value in zip(("accuracy", "weighted_f1"), totals(run.confusion), strict=True):
        if not math.isclose(scores[name], float(value), abs_tol=1e-5):
            raise InputError(
                f"{run.path / 'result.json'} contradicts itself: {name} is {scores[name]:.6f}, but "
                f"its confusion matrix gives {float(value):.6f}. Make the run anew, or leave it "
                "out."
            )


def _given(folder: Path) -> dict[str, str]:
    """The columns of a sweep's ``trials.csv`` that name parameters, for this trial."""
    path = folder.parent / "trials.csv"
    if not path.exists():
        return {}
    rows = read_rows(path)
    trial = next((row for row in rows if row.get("trial") == folder.name), {})
    columns = list(trial)
    # A row that is being written lacks cells.
    trial = {name: value or "" for name, value in trial.items()}
    if not {"seconds", "rounds"} <= trial.keys():
        return {}
    # A trial's parameters stand between what became of it and its scores.
    return {
        name: trial[name]
        for name in columns[columns.index("seconds") + 1 : columns.index("rounds")]
    }


def _check_one_corpus(runs: Sequence[Run]) -> None:
    """Refuse to compare what was measured on different utterances."""
    first = runs[0]
    for run in runs:
        if run.corpus != first.corpus or _labels(run) != _labels(first):
            raise InputError(
                f"{first.path} is of {first.corpus} and {run.path} of {run.corpus}; a table "
                "compares runs of one corpus, so report them apart."
            )
        frequencies = [r.confusion.sum(axis=1) / r.confusion.sum() for r in (first, run)]
        if not np.allclose(frequencies[0], frequencies[1], atol=1e-9):
            raise InputError(
                f"{first.path} and {run.path} are of {run.corpus}, but were scored on different "
                "test utterances (--trainer.limit_val_batches does that); report them apart."
            )


def _labels(run: Run) -> list[str]:
    return list(run.result["data"]["labels"])
