"""The lines of the main table: means and standard deviations over seeds, in points."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from fedmer.report.collect import Run
from fedmer.report.confusion import class_scores, totals
from fedmer.report.grouping import Row

_BASELINES = {"probe": "linear probe", "majority": "majority class"}


@dataclass(frozen=True)
class Score:
    """A mean over seeds and its standard deviation (with ``n - 1``; None for one seed), in points.

    >>> Score.over([0.5, 0.7])
    Score(mean=60.0, deviation=14.142135623730951)
    """

    mean: float
    deviation: float | None

    @classmethod
    def over(cls, values: Sequence[float] | NDArray[np.float64]) -> "Score":
        points = 100 * np.asarray(values, dtype=np.float64)
        spread = float(points.std(ddof=1)) if len(points) > 1 else None
        return cls(float(points.mean()), spread)


@dataclass(frozen=True)
class Line:
    """One line.

    Args:
        name: Of the row, or of the baseline.
        kind: ``runs`` were trained in a federation; a ``baseline`` was not.
        personal: Are these the scores of all clients' personal networks, pooled?
        seeds: How many it is a mean over.
        support: Labelled test utterances of every emotion; None if they differ between seeds.
        accuracies: One an emotion, its recall; None if the runs did not keep it.
        f1: One an emotion; None likewise.
        accuracy: Overall.
        weighted_f1: Overall.
    """

    name: str
    kind: Literal["runs", "baseline"]
    personal: bool
    seeds: int
    support: Sequence[int] | None
    accuracies: Sequence[Score] | None
    f1: Sequence[Score] | None
    accuracy: Score
    weighted_f1: Score


def lines_of(rows: Sequence[Row]) -> list[Line]:
    """One line a row, and below them the baselines."""
    return [_line(row) for row in rows] + _baselines(rows)


def support_of(run: Run) -> list[int]:
    """Labelled test utterances of every emotion, each counted once even if many networks voted."""
    counted: list[int] = run.confusion.sum(axis=1).tolist()
    if run.personal:
        networks = len({r["client"] for r in run.clients if int(r["round"]) <= run.round})
        if networks and not any(count % networks for count in counted):
            return [count // networks for count in counted]
    return counted


def _line(row: Row) -> Line:
    supports = {tuple(support_of(run)) for run in row.runs}
    return _from_matrices(
        row.name,
        "runs",
        [run.confusion for run in row.runs],
        personal=row.personal,
        support=next(iter(supports)) if len(supports) == 1 else None,
    )


def _from_matrices(
    name: str,
    kind: Literal["runs", "baseline"],
    matrices: Sequence[NDArray[Any]],
    personal: bool,
    support: Sequence[int] | None,
) -> Line:
    recall, f1 = class_scores(np.stack(matrices))
    accuracy, weighted = totals(np.stack(matrices))
    return Line(
        name,
        kind,
        personal,
        len(matrices),
        support,
        [Score.over(column) for column in recall.T],
        [Score.over(column) for column in f1.T],
        Score.over(accuracy),
        Score.over(weighted),
    )


def _baselines(rows: Sequence[Row]) -> list[Line]:
    """The baselines of every run, one line for all that found the same.

    They learn from all clients' utterances together, so what a split leaves out or holds out
    changes them, and nothing else about a run does.
    """
    lines = []
    for key, title in _BASELINES.items():
        found: dict[str, tuple[dict[int, Mapping[str, Any]], list[str]]] = {}
        for row in rows:
            baselines = {run.seed: run.result["baselines"] for run in row.runs}
            scores = {seed: found[key] for seed, found in baselines.items() if key in found}
            if not scores:
                continue
            split = str(row.runs[0].result["partitioner"])
            for known, splits in found.values():
                if _agree(known, scores):
                    known |= scores
                    if split not in splits:
                        splits.append(split)
                    break
            else:
                found[row.name] = (dict(scores), [split])
        names = [", ".join(splits) for _, splits in found.values()]
        clear = len(set(names)) == len(names)
        for (owner, (scores, _)), named in zip(found.items(), names, strict=True):
            also = "" if len(found) == 1 else f" ({named if clear else f'clients of {owner}'})"
            lines.append(_baseline(title + also, list(scores.values())))
    return lines


def _agree(one: Mapping[int, Mapping[str, Any]], other: Mapping[int, Mapping[str, Any]]) -> bool:
    return all(
        json.dumps(one[seed], sort_keys=True) == json.dumps(other[seed], sort_keys=True)
        for seed in one.keys() & other.keys()
    )


def _baseline(name: str, found: Sequence[Mapping[str, Any]]) -> Line:
    if all("confusion" in scores for scores in found):
        matrices = [np.array(scores["confusion"]) for scores in found]
        supports = {tuple(matrix.sum(axis=1).tolist()) for matrix in matrices}
        support = next(iter(supports)) if len(supports) == 1 else None
        return _from_matrices(name, "baseline", matrices, personal=False, support=support)
    return Line(
        name,
        "baseline",
        personal=False,
        seeds=len(found),
        support=None,
        accuracies=None,
        f1=None,
        accuracy=Score.over([scores["accuracy"] for scores in found]),
        weighted_f1=Score.over([scores["weighted_f1"] for scores in found]),
    )
