"""Members are told from others by as much as a network has learnt by heart, and no more."""

from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fedmer.audit.detection import Detection
from fedmer.audit.membership import halves, likelihood_ratio, loss_threshold
from tests.audit.subjects import Fit, subject_of

SCORES = st.lists(st.tuples(st.integers(0, 5), st.booleans()), min_size=2, max_size=30).filter(
    lambda rows: len({member for _, member in rows}) == 2
)


def detection(rows: list[tuple[int, bool]]) -> Detection:
    score, member = np.array(rows, dtype=np.float64).T
    return Detection(score, member > 0, np.arange(len(rows)))


@given(SCORES)
def test_the_area_counts_pairs(rows: list[tuple[int, bool]]) -> None:
    ours, others = ([s for s, m in rows if m is member] for member in (True, False))
    pairs = [(a > b) + (a == b) / 2 for a in ours for b in others]
    assert detection(rows).area() == pytest.approx(np.mean(pairs))


@given(SCORES, st.sampled_from([0.0, 0.001, 0.1, 0.34, 0.5]))
def test_hits_are_above_a_threshold_that_few_others_pass(
    rows: list[tuple[int, bool]], false: float
) -> None:
    found = 0.0
    for threshold in {score for score, _ in rows}:
        passed = [(s >= threshold, m) for s, m in rows]
        if np.mean([p for p, m in passed if not m]) <= false:
            found = max(found, float(np.mean([p for p, m in passed if m])))
    assert detection(rows).hits(false) == pytest.approx(found)


@pytest.mark.parametrize("false", [0.001, 0.01, 0.2])
def test_chance_is_what_a_score_without_meaning_finds(false: float) -> None:
    random = np.random.default_rng(0)
    member = np.arange(60) < 40
    found = [
        Detection(random.normal(size=60), member, np.arange(60)).hits(false) for _ in range(2000)
    ]
    chance = Detection(np.zeros(60), member, np.arange(60)).chance(false)
    assert np.mean(found) == pytest.approx(chance, abs=0.01)


def test_a_group_that_is_drawn_twice_counts_twice() -> None:
    rows = detection([(3, True), (2, False), (1, True)])
    assert rows.area(np.array([3.0, 1.0, 1.0])) == pytest.approx(0.75)


@given(st.integers(1, 20), st.sampled_from([2, 4, 8]), st.integers(0, 99))
def test_every_dialogue_is_in_half_of_the_shadows(count: int, shadows: int, seed: int) -> None:
    found = halves(count, shadows, seed)
    assert found.shape == (shadows, count)
    assert (found.sum(axis=0) == shadows // 2).all()


def test_a_network_that_knows_its_data_by_heart_gives_members_away(fit: Fit) -> None:
    by_heart = ("--optimizer.lr", "0.01", "--local.epochs", "20", "--trainer.max_epochs", "6")
    run = fit("heart", "--aggregator", "FedAvg", "--partitioner.clients", "1", *by_heart)
    subject = subject_of(run)
    area, *_, dialogues = loss_threshold(subject).figures
    assert area.value > 0.8
    assert dialogues.value == 1
    assert likelihood_ratio(subject, 2).figures[0].value > 0.8


def test_a_network_that_has_learnt_nothing_gives_nobody_away(plain: Path) -> None:
    subject = subject_of(plain)
    for found in (loss_threshold(subject), likelihood_ratio(subject, 2)):
        area = found.figures[0]
        assert area.low is not None
        assert area.high is not None
        assert area.low < 0.5 < area.high


def test_personal_networks_are_not_released(fit: Fit) -> None:
    subject = subject_of(fit("local", "--aggregator", "Local", "--trainer.max_epochs", "1"))
    for found in (loss_threshold(subject), likelihood_ratio(subject, 2)):
        assert not found.figures
        assert found.skipped == "Local has no global network whose answers could tell."
