"""Scores of groups of speakers, such as genders or sites: whom a row serves worse than others."""

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.record.reading import bounded
from fedmer.report.confusion import totals
from fedmer.report.grid import Cell, Grid, Table
from fedmer.report.grouping import Row
from fedmer.report.scores import Score

COLUMNS = ("speaker", "group")


@dataclass(frozen=True)
class GroupScores:
    """How well a row recognises the emotions of one group's speakers.

    Args:
        row: Name of the row.
        group: Name of the group.
        speakers: How many of them have labelled test utterances.
        utterances: Labelled test utterances, each counted once.
        accuracy: On these, over seeds.
        weighted_f1: The same.
        distance: Weighted F1 minus that on the utterances of all other groups.
    """

    row: str
    group: str
    speakers: int
    utterances: int
    accuracy: Score
    weighted_f1: Score
    distance: Score | None


def read_groups(path: Path) -> dict[str, str]:
    """Speaker -> group, of a CSV file with the columns ``speaker`` and ``group``.

    Raises:
        InputError: The file cannot be read, lacks a column, or says two things of one speaker.
    """
    try:
        with path.open(newline="", encoding="utf-8-sig") as file:
            rows = list(bounded(csv.DictReader(file, restval="")))
    except (OSError, ValueError, csv.Error) as error:
        why = getattr(error, "strerror", None) or f"{error}"
        raise InputError(f"{path} cannot be read: {why}.") from error
    if not rows or not set(COLUMNS) <= set(rows[0]):
        raise InputError(
            f"{path} names no groups; expected a CSV file with the columns speaker and group, and "
            "a row a speaker."
        )
    groups: dict[str, str] = {}
    for row in rows:
        speaker, group = row["speaker"], row["group"]
        if groups.setdefault(speaker, group) != group:
            raise InputError(
                f"{path} puts '{speaker}' into '{groups[speaker]}' and into '{group}'; keep one."
            )
    return {speaker: group for speaker, group in groups.items() if group}


def group_scores(
    rows: Sequence[Row], groups: Mapping[str, str]
) -> tuple[list[GroupScores], list[str]]:
    """Scores of every row and group, and sentences on what is left out.

    Raises:
        InputError: No run kept its speakers, or none of them has a group.
    """
    found, notes = [], []
    strangers: set[str] = set()
    for row in rows:
        votes = [run.votes for run in row.runs]
        people = [own.speaker for own in votes if own is not None and own.speaker is not None]
        if len(people) < len(votes):
            notes.append(
                f"{row.name} kept no speakers with its votes; run it again to compare groups."
            )
            continue
        strangers |= set(np.unique(people[0]).tolist()) - groups.keys()
        found += _of_row(row, groups)
    if strangers:
        named = ", ".join(sorted(strangers)[:5]) + (" and more" if len(strangers) > 5 else "")
        notes.append(f"Without a group, and left out there: {named}.")
    if not found:
        raise InputError(f"There are no groups to compare. {' '.join(notes)}")
    return found, notes


def _of_row(row: Row, groups: Mapping[str, str]) -> list[GroupScores]:
    names = sorted(set(groups.values()))
    stacked, speakers, utterances = [], [0] * len(names), np.zeros(len(names), dtype=np.int64)
    for run in row.runs:
        votes = run.votes
        assert votes is not None
        assert votes.speaker is not None
        place = _places(votes.speaker, groups, names)
        stacked.append(votes.confusion(place, len(names)))
        utterances = np.bincount(place[place >= 0], minlength=len(names))
        speakers = [len(np.unique(votes.speaker[place == i])) for i in range(len(names))]
    matrices = np.stack(stacked)
    everybody = matrices.sum(axis=1)
    scores = []
    for i, name in enumerate(names):
        if not utterances[i]:
            continue
        accuracy, weighted = totals(matrices[:, i])
        others = everybody - matrices[:, i]
        distance = Score.over(weighted - totals(others)[1]) if others.sum() else None
        scores.append(
            GroupScores(
                *(row.name, name, speakers[i], int(utterances[i])),
                *(Score.over(accuracy), Score.over(weighted), distance),
            )
        )
    return scores


def _places(
    speakers: NDArray[np.str_], groups: Mapping[str, str], names: Sequence[str]
) -> NDArray[np.int64]:
    """``(N,)`` place of each speaker's group among the names, -1 without one."""
    people, person = np.unique(speakers, return_inverse=True)
    places = [names.index(groups[name]) if name in groups else -1 for name in people.tolist()]
    return np.array(places, dtype=np.int64)[person]


def group_table(found: Sequence[GroupScores]) -> Table:
    """A line a row and group."""
    shown, written = [], []
    for one in found:
        scores = [one.accuracy, one.weighted_f1, one.distance]
        counts = [str(one.speakers), str(one.utterances)]
        cells = [Cell(text) for text in (one.row, one.group, *counts)]
        for number, score in enumerate(scores):
            spread = "" if score is None or score.deviation is None else f"± {score.deviation:.2f}"
            sign = "+" if number == 2 else ""
            text = "" if score is None else f"{score.mean:{sign}.2f}".replace("-", "\u2212")
            cells.append(Cell(text, spread=spread))
        shown.append(cells)
        means = ["" if score is None else f"{score.mean:.4f}" for score in scores]
        written.append([one.row, one.group, *counts, *means])
    heads = ["", "group", "speakers", "utterances", "accuracy", "weighted F1", "to the others"]
    columns = ["row", "group", "speakers", "utterances", "accuracy", "weighted_f1", "difference"]
    return Table(Grid(heads, shown, text=(1,)), columns, written)
