"""Scores against a confusion matrix counted by hand."""

from random import Random

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED
from fedmer.metrics import TOTALS, EmotionMetrics, Scores, confusion_of

quick = settings(max_examples=20, deadline=None)
Pairs = list[tuple[int, int]]
"""Guess and truth, an utterance each."""


@st.composite
def judged(draw: st.DrawFn) -> tuple[int, Pairs]:
    """The number of classes, and at least one utterance; some classes may never occur."""
    classes = draw(st.integers(2, 5))
    one = st.integers(0, classes - 1)
    return classes, draw(st.lists(st.tuples(one, one), min_size=1, max_size=20))


def by_hand(classes: int, pairs: Pairs) -> Scores:
    confusion = np.zeros((classes, classes), dtype=int)
    for prediction, truth in pairs:
        confusion[truth, prediction] += 1
    right, support, guessed = confusion.diagonal(), confusion.sum(axis=1), confusion.sum(axis=0)

    def ratio(top: np.ndarray, bottom: np.ndarray) -> np.ndarray:
        return np.where(bottom > 0, top / np.maximum(bottom, 1), 0.0)

    f1 = ratio(2 * right, support + guessed)
    recall = ratio(right, support)
    occurring = support + guessed > 0
    return Scores(
        accuracy=right.sum() / len(pairs),
        weighted_f1=float((f1 * support).sum() / len(pairs)),
        macro_f1=float(f1[occurring].mean()),
        uar=float(recall[support > 0].mean()),
        precision=ratio(right, guessed).tolist(),
        recall=recall.tolist(),
        f1=f1.tolist(),
        confusion=confusion.tolist(),
    )


def assert_same(scores: Scores, expected: Scores) -> None:
    assert scores.confusion == expected.confusion
    for name in (*TOTALS, "precision", "recall", "f1"):
        assert getattr(scores, name) == pytest.approx(getattr(expected, name), abs=1e-5), name


def batch_of(classes: int, pairs: Pairs, rows: int, seed: int) -> tuple[Tensor, Batch]:
    """The utterances spread over a batch among padding and unlabelled utterances, with any logits
    there."""
    random = torch.Generator().manual_seed(seed)
    longest = 2 * len(pairs) // rows + 2
    chosen = torch.randperm(rows * longest, generator=random)[: len(pairs)]
    logits = 5 * torch.randn(rows * longest, classes, generator=random)
    labels = torch.full((rows * longest,), UNLABELLED)
    for place, (prediction, truth) in zip(chosen.tolist(), pairs, strict=True):
        logits[place, prediction] = logits[place].max() + 1
        labels[place] = truth
    labels = labels.reshape(rows, longest)
    labelled = labels != UNLABELLED
    context = labelled | (torch.rand(labels.shape, generator=random) < 0.5)
    nothing = torch.zeros_like(labels)
    batch = Batch({}, {}, context, labelled, labels, roles=nothing, positions=nothing)
    return logits.reshape(rows, longest, classes), batch


@quick
@given(judged(), st.integers(1, 3), st.integers(0, 1000))
def test_scores_are_those_of_the_confusion_matrix(
    case: tuple[int, Pairs], rows: int, seed: int
) -> None:
    classes, pairs = case
    metrics = EmotionMetrics(classes)
    before = metrics.empty
    half = len(pairs) // 2
    for part in (pairs[:half], pairs[half:]):  # one batch may have no labelled utterance at all
        metrics.update(*batch_of(classes, part, rows, seed))
    assert (before, metrics.empty) == (True, False)
    expected = by_hand(classes, pairs)
    assert_same(metrics.scores(), expected)
    totals = {name: float(value) for name, value in metrics.totals().items()}
    assert totals == pytest.approx(expected.totals, abs=1e-5)
    predictions, truths = (torch.tensor(column) for column in zip(*pairs, strict=True))
    assert_same(confusion_of(predictions, truths, classes), expected)


@quick
@given(judged())
def test_recall_weighted_by_support_is_accuracy(case: tuple[int, Pairs]) -> None:
    classes, pairs = case
    predictions, truths = (torch.tensor(column) for column in zip(*pairs, strict=True))
    scores = confusion_of(predictions, truths, classes)
    support = [sum(row) for row in scores.confusion]
    weighted = sum(n * r for n, r in zip(support, scores.recall, strict=True)) / len(pairs)
    assert weighted == pytest.approx(scores.accuracy, abs=1e-6)


@quick
@given(judged(), st.integers(1, 3), st.integers(0, 1000), st.integers(0, 1000))
def test_turns_without_a_label_never_count(
    case: tuple[int, Pairs], rows: int, seed: int, other: int
) -> None:
    classes, pairs = case
    logits, batch = batch_of(classes, pairs, rows, seed)
    noise = torch.randn(logits.shape, generator=torch.Generator().manual_seed(other))
    changed = torch.where(batch.labelled[..., None], logits, 1e6 * noise)
    longer = [torch.cat([part, part], dim=1) for part in (changed, batch.context, batch.labels)]
    unlabelled = torch.cat([batch.labelled, torch.zeros_like(batch.labelled)], dim=1)
    one, two = EmotionMetrics(classes), EmotionMetrics(classes)
    one.update(logits, batch)
    two.update(
        longer[0],
        Batch({}, {}, longer[1], unlabelled, longer[2], roles=longer[2], positions=longer[2]),
    )
    assert one.scores() == two.scores()


@quick
@given(judged(), st.randoms(use_true_random=False))
def test_reset_forgets(case: tuple[int, Pairs], random: Random) -> None:
    classes, pairs = case
    metrics = EmotionMetrics(classes)
    metrics.update(*batch_of(classes, [(0, random.randrange(classes))] * 3, 1, 0))
    metrics.reset()
    assert metrics.empty
    metrics.update(*batch_of(classes, pairs, 1, 0))
    assert_same(metrics.scores(), by_hand(classes, pairs))
