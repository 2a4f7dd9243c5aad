"""Intervals of differences: what they must be, and how often they are right."""

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.report.collect import collect
from fedmer.report.confusion import totals
from fedmer.report.differences import Paired, differences, paired_bootstrap
from fedmer.report.grouping import rows_of
from fedmer.report.report import make_report
from tests.report.made import make_run, predictions


def dialogues(draw: np.random.Generator, count: int, right: float) -> NDArray[np.int64]:
    """Confusion matrices of dialogues of ten utterances and three classes."""
    confusion = np.zeros((count, 3, 3), dtype=np.int64)
    for one in confusion:
        for _ in range(10):
            truth = draw.integers(3)
            said = truth if draw.random() < right else draw.integers(3)
            one[truth, said] += 1
    return confusion


@st.composite
def pairs(draw: st.DrawFn) -> list[Paired]:
    """One to three seeds over the same dialogues."""
    generator = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.integers(1, 12))
    return [
        (dialogues(generator, count, generator.random()), dialogues(generator, count, 0.5))
        for _ in range(draw(st.integers(1, 3)))
    ]


@settings(max_examples=15)
@given(pairs=pairs())
def test_swapping_the_sides_flips_the_interval(pairs: list[Paired]) -> None:
    swapped = [(other, one) for one, other in pairs]
    for left, right in zip(paired_bootstrap(pairs), paired_bootstrap(swapped), strict=True):
        assert left.low is not None
        assert left.high is not None
        assert left.low <= left.high
        assert (left.difference, left.low, left.high) == pytest.approx(
            (-right.difference, -right.high, -right.low)  # type: ignore[operator]
        )


@settings(max_examples=10)
@given(pairs=pairs())
def test_what_is_the_same_differs_by_exactly_nothing(pairs: list[Paired]) -> None:
    for interval in paired_bootstrap([(one, one) for one, _ in pairs]):
        assert (interval.difference, interval.low, interval.high) == (0, 0, 0)
        assert not interval.clear


@settings(max_examples=10)
@given(pairs=pairs(), factor=st.integers(2, 60))
def test_more_networks_that_vote_alike_change_nothing(pairs: list[Paired], factor: int) -> None:
    many = [(factor * one, other) for one, other in pairs]
    for left, right in zip(
        paired_bootstrap(pairs, True), paired_bootstrap(many, True), strict=True
    ):
        assert (left.difference, left.low, left.high) == pytest.approx(
            (right.difference, right.low, right.high)
        )


def test_the_fast_way_is_the_slow_way() -> None:
    """Resampled utterance by utterance and scored from scratch, the interval is nearly the same."""
    draw = np.random.default_rng(0)
    one, other = dialogues(draw, 25, 0.6), dialogues(draw, 25, 0.5)
    slow = []
    for _ in range(2000):
        chosen = draw.integers(25, size=25)
        slow.append(
            totals(sum(one[i] for i in chosen))[1] - totals(sum(other[i] for i in chosen))[1]
        )
    _, fast = paired_bootstrap([(one, other)])
    assert (fast.low, fast.high) == pytest.approx(np.percentile(slow, [2.5, 97.5]), abs=0.012)


def test_intervals_cover_the_true_difference_about_as_often_as_they_say() -> None:
    draw = np.random.default_rng(1)
    large = totals(dialogues(draw, 8000, 0.6).sum(axis=0))[0]
    true = large - totals(dialogues(draw, 8000, 0.5).sum(axis=0))[0]
    covered = 0
    for trial in range(40):
        pair = dialogues(draw, 40, 0.6), dialogues(draw, 40, 0.5)
        accuracy, _ = paired_bootstrap([pair], seed=trial)
        assert accuracy.low is not None
        assert accuracy.high is not None
        covered += accuracy.low <= true <= accuracy.high
    assert 34 <= covered <= 40  # of 40; 95 % of them are 38


def test_seeds_widen_the_interval() -> None:
    draw = np.random.default_rng(2)
    base = dialogues(draw, 40, 0.5)
    apart = [(dialogues(draw, 40, right), base) for right in (0.3, 0.5, 0.7)]
    alone, _ = paired_bootstrap(apart[1:2])
    together, _ = paired_bootstrap(apart)
    assert together.high - together.low > 1.5 * (alone.high - alone.low)  # type: ignore[operator]


def test_a_planted_difference_is_found_between_runs(tmp_path: Path) -> None:
    for seed in (0, 1, 2):
        make_run(tmp_path / f"a{seed}", seed, networks=[predictions(0.4, seed)])
        make_run(tmp_path / f"b{seed}", seed, "FedProx", networks=[predictions(0.8, 10 + seed)])
        make_run(tmp_path / f"c{seed}", seed, "Twin", networks=[predictions(0.4, seed)])
        make_run(tmp_path / f"d{seed}", seed, "Mute", votes=False)
    make_run(tmp_path / "e7", 7, "Stranger")
    rows, _ = rows_of(collect([tmp_path]).runs)
    found = {one.row: one for one in differences(rows, [rows[0]])}
    assert list(found) == ["FedProx", "Twin", "Mute", "Stranger"]
    for interval in (found["FedProx"].accuracy, found["FedProx"].weighted_f1):
        assert interval is not None
        assert interval.low is not None
        assert interval.low > 0.1
    twin = found["Twin"].weighted_f1
    assert twin is not None
    assert (twin.difference, twin.low, twin.high) == (0, 0, 0)
    mute = found["Mute"]
    assert mute.note == "d0 kept no votes on test"
    assert mute.accuracy is not None
    assert mute.accuracy.low is None
    assert found["Stranger"].note == "no seed in common"


def test_a_rule_is_the_baseline_of_each_split(tmp_path: Path) -> None:
    for split in ("Speaker", "Dialogue"):
        for rule in ("FedAvg", "FedProx"):
            folder = make_run(tmp_path / f"{rule}-{split}", aggregator=rule)
            result = json.loads((folder / "result.json").read_text())
            (folder / "result.json").write_text(json.dumps(result | {"partitioner": split}))
    found = collect([tmp_path], "selected")
    report = make_report(found, "FedAvg")
    assert report.baseline == "FedAvg with the same network, split and conditions"
    assert {(one.row, one.baseline) for one in report.differences} == {
        (f"FedProx, {split}", f"FedAvg, {split}") for split in ("Speaker", "Dialogue")
    }
    assert make_report(found, "FedAvg, Speaker").baseline == "FedAvg, Speaker"
    with pytest.raises(InputError, match=r"did you mean 'FedAvg, Speaker'.* Known: .*; Fed"):
        make_report(found, "FedAvg, Speakr")
