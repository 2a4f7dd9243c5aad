"""How sure a difference between two rows is: a paired bootstrap over dialogues and seeds."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.record.votes import Votes
from fedmer.report.confusion import totals
from fedmer.report.grouping import Row
from fedmer.seeds import generator

RESAMPLES = 2000
LEVEL = 0.95

_CHUNK = 200
"""Resamples at a time; so the weights of a corpus of thousands of dialogues stay small."""

Paired = tuple[NDArray[np.int64], NDArray[np.int64]]
"""Of one seed: ``(D, C, C)`` confusion matrices of the same ``D`` dialogues, row and baseline."""


@dataclass(frozen=True)
class Interval:
    """A difference in [-1, 1], and between which values resampling moves it.

    Args:
        difference: Row minus baseline, the mean over seeds.
        low: None where there is nothing to resample.
        high: None likewise.
    """

    difference: float
    low: float | None = None
    high: float | None = None

    @property
    def clear(self) -> bool:
        """Does the interval exclude zero?"""
        return self.low is not None and self.high is not None and (self.low > 0 or self.high < 0)


@dataclass(frozen=True)
class Difference:
    """A row minus the baseline row.

    Args:
        row: Its name.
        baseline: Name of the row that it is compared with; empty if there is none.
        seeds: The seeds that both have; the difference is over these.
        accuracy: None without a seed in common.
        weighted_f1: None likewise.
        note: Why there is no interval; else empty.
    """

    row: str
    baseline: str
    seeds: Sequence[int]
    accuracy: Interval | None
    weighted_f1: Interval | None
    note: str = ""


def differences(rows: Sequence[Row], baselines: Sequence[Row]) -> list[Difference]:
    """The difference of every other row to its baseline.

    Args:
        rows: All of them.
        baselines: Some of these. Of several, each is that of the rows with its network, split and
            conditions, and the first of those with its network and split.
    """
    found = []
    for row in rows:
        if row in baselines:
            continue
        like = [b for b in baselines if len(baselines) == 1 or task(row) == task(b)]
        # What conditions cost is seen beside a row without them.
        like += [b for b in baselines if task(row)[:2] == task(b)[:2]]
        if like:
            found.append(_difference(row, like[0]))
        else:
            note = "no baseline with this network and split"
            found.append(Difference(row.name, "", [], None, None, note))
    return found


def task(row: Row) -> tuple[str, str, str]:
    """Network, split and conditions: a row is a baseline of rows in which these are the same."""
    run = row.runs[0]
    conditions = json.dumps(run.config.get("conditions"), sort_keys=True)
    return run.result["network"], run.result["partitioner"], conditions


def _difference(row: Row, baseline: Row) -> Difference:
    seeds = [seed for seed in row.seeds if seed in baseline.seeds]
    if not seeds:
        return Difference(row.name, baseline.name, [], None, None, "no seed in common")
    pairs: dict[int, Paired] = {}
    for seed in seeds:
        ours, theirs = row.of(seed).votes, baseline.of(seed).votes
        for run, votes in ((row.of(seed), ours), (baseline.of(seed), theirs)):
            if votes is None:
                return _bare(row, baseline, seeds, f"{run.path.name} kept no votes on test")
        assert ours is not None
        assert theirs is not None
        if not _same_turns(ours, theirs):
            return _bare(row, baseline, seeds, f"seed {seed}: scored on different utterances")
        pairs[seed] = ours.by_dialogue()[1], theirs.by_dialogue()[1]
    accuracy, weighted = paired_bootstrap(list(pairs.values()))
    return Difference(row.name, baseline.name, seeds, accuracy, weighted)


def _bare(row: Row, baseline: Row, seeds: Sequence[int], note: str) -> Difference:
    """The difference without an interval."""
    moved = [
        np.subtract(totals(row.of(seed).confusion), totals(baseline.of(seed).confusion))
        for seed in seeds
    ]
    accuracy, weighted = (Interval(float(value)) for value in np.mean(moved, axis=0))
    return Difference(row.name, baseline.name, seeds, accuracy, weighted, note)


def _same_turns(one: Votes, other: Votes) -> bool:
    return all(
        np.array_equal(getattr(one, name), getattr(other, name))
        for name in ("dialogue", "turn", "truth")
    )


def paired_bootstrap(pairs: Sequence[Paired], seed: int = 0) -> tuple[Interval, Interval]:
    """The difference of accuracy and of weighted F1, each with a percentile interval.

    A resample draws seeds and dialogues with replacement, the same for both sides, adds up the
    confusion matrices of the dialogues drawn, scores them, and takes the mean over the seeds drawn.
    Whole dialogues are drawn because utterances of one dialogue are alike.

    Args:
        pairs: One a seed, all of the same dialogues.
        seed: The result is a function of it.

    Returns:
        Accuracy, weighted F1.
    """
    draw = generator(seed, "bootstrap")
    found: list[NDArray[np.float64]] = []
    for start in range(0, RESAMPLES, _CHUNK):
        size = min(_CHUNK, RESAMPLES - start)
        chosen = draw.integers(len(pairs), size=(size, len(pairs)))
        weights = _draw_dialogues(draw, size, len(pairs[0][0]))
        slots = []
        for slot in range(len(pairs)):
            moved = np.zeros((2, size))
            for place, pair in enumerate(pairs):
                mine = chosen[:, slot] == place
                moved[:, mine] = _moved(pair, weights[mine])
            slots.append(moved)
        found.append(np.mean(slots, axis=0))
    resampled = np.concatenate(found, axis=1)
    whole = np.mean([_moved(pair, np.ones((1, len(pair[0])))) for pair in pairs], axis=0)
    tail = 100 * (1 - LEVEL) / 2
    low, high = np.percentile(resampled, [tail, 100 - tail], axis=1)
    accuracy, weighted = (
        Interval(float(whole[i, 0]), float(low[i]), float(high[i])) for i in range(2)
    )
    return accuracy, weighted


def _draw_dialogues(draw: np.random.Generator, size: int, dialogues: int) -> NDArray[Any]:
    """``(size, D)``: how often each dialogue was drawn."""
    return draw.multinomial(dialogues, np.full(dialogues, 1 / dialogues), size=size)


def _moved(pair: Paired, weights: NDArray[Any]) -> NDArray[np.float64]:
    """``(2, size)``: accuracy and weighted F1, row minus baseline, of dialogues so weighted."""
    scores = []
    for confusion in pair:
        dialogues, classes = confusion.shape[:2]
        flat = confusion.reshape(dialogues, classes * classes).astype(np.float64)
        drawn = (weights.astype(np.float64) @ flat).reshape(len(weights), classes, classes)
        scores.append(np.stack(totals(drawn)))
    return scores[0] - scores[1]
