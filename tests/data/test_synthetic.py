"""The synthetic corpus has the published statistics, and is a function of its arguments."""

import time
from functools import cache
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.emotion_process import CONTAGION, COUNTS, INERTIA, LENGTHS, apportion
from fedmer.data.synthetic import PRESETS, synthetic_corpus
from fedmer.errors import InputError

SEEDS = (0, 1, 2)


@cache
def made(seed: int) -> ConversationCorpus:
    return synthetic_corpus(seed)


@pytest.mark.parametrize("seed", SEEDS)
def test_published_sizes(seed: int) -> None:
    corpus = made(seed)
    for split, dialogues, turns, people in (("train", 120, 5810, 8), ("test", 31, 1623, 2)):
        conversations = [corpus.conversations[i] for i in corpus.part(split)]
        assert len(conversations) == dialogues
        assert sum(map(len, conversations)) == turns
        assert len({person for dialogue in conversations for person in dialogue.people}) == people
    lengths = [len(dialogue) for dialogue in corpus.conversations]
    assert min(lengths) >= LENGTHS[0]
    assert max(lengths) <= LENGTHS[-1]
    found = np.quantile(lengths, [0.1, 0.25, 0.5, 0.75, 0.9])
    np.testing.assert_allclose(found, [28, 37.5, 47, 59, 69], atol=5)
    for dialogue in corpus.conversations:
        assert {person[:5] for person in dialogue.people} == {dialogue.session} == {dialogue.id[:5]}


@pytest.mark.parametrize("seed", SEEDS)
def test_published_statistics(seed: int) -> None:
    inertia, contagion = np.zeros((6, 6)), np.zeros((6, 6))
    switched = turns = 0
    counts = np.zeros(6)
    for dialogue in made(seed).conversations:
        last: dict[str, int] = {}
        spoken = list(zip(dialogue.speakers.tolist(), dialogue.labels.tolist(), strict=True))
        for person, label in spoken:
            counts[label] += 1
            if person in last:
                inertia[last[person], label] += 1
            last[person] = label
        for (before, one), (after, other) in pairwise(spoken):
            turns += 1
            if before != after:
                switched += 1
                contagion[one, other] += 1
    assert switched / turns == pytest.approx(0.68, abs=0.02)
    np.testing.assert_allclose(counts, COUNTS.sum(axis=0), rtol=0.10)
    inertia /= inertia.sum(axis=1, keepdims=True)
    contagion /= contagion.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(np.diag(inertia), np.diag(INERTIA), atol=0.07)
    np.testing.assert_allclose(np.diag(contagion), np.diag(CONTAGION), atol=0.16)
    assert np.abs(inertia - INERTIA).mean() < 0.025
    assert np.abs(contagion - CONTAGION).mean() < 0.04


def test_speakers_differ_in_features_and_emotions() -> None:
    people: dict[str, list[np.ndarray]] = {}
    for dialogue in made(0).conversations:
        for person in dialogue.people:
            people.setdefault(person, []).append(
                dialogue.features["text"][dialogue.speakers == person].astype(np.float64)
            )
    rows = {person: np.concatenate(parts) for person, parts in people.items()}
    deviation = np.concatenate(list(rows.values())).std(axis=0)
    means = np.stack([part.mean(axis=0) / deviation for part in rows.values()])
    # Sampling alone would move the mean of some 700 utterances by 1/27 of a standard deviation.
    assert means.std(axis=0).mean() > 3 / 27


def nearest_mean(corpus: ConversationCorpus, modalities: list[str]) -> float:
    """Test accuracy of the simplest context-free classifier there is."""

    def part(split: str) -> tuple[np.ndarray, np.ndarray]:
        conversations = [corpus.conversations[i] for i in corpus.part(split)]
        rows = [np.concatenate([t.features[m] for m in modalities], axis=1) for t in conversations]
        return np.concatenate(rows).astype(np.float64), np.concatenate(
            [t.labels for t in conversations]
        )

    (x, y), (z, truth) = part("train"), part("test")
    centre = x.mean(axis=0)
    means = np.stack([x[y == emotion].mean(axis=0) for emotion in range(6)]) - centre
    within = np.cov((x - centre - means[y]).T) + 0.1 * np.diag(x.var(axis=0))
    weights = np.linalg.solve(within, means.T)
    score = (z - centre) @ weights - 0.5 * (means.T * weights).sum(axis=0)
    score += np.log(np.bincount(y) / len(y))
    return float((score.argmax(axis=1) == truth).mean())


def test_difficulty() -> None:
    # Two test speakers are few, so single corpora scatter by two points; their mean does not.
    parts = [["text"], ["audio"], ["visual"], ["text", "audio", "visual"]]
    scores = [[nearest_mean(made(seed), part) for part in parts] for seed in SEEDS]
    text, audio, visual, everything = np.mean(scores, axis=0)
    assert 0.37 < text < 0.43
    assert text > audio > visual > 0.26
    assert 0.48 < everything < 0.54


def test_difficulty_does_not_depend_on_the_dimension() -> None:
    wide = {"text": 200, "audio": 160, "visual": 120}
    assert nearest_mean(synthetic_corpus(0, features=wide), list(wide)) == pytest.approx(
        nearest_mean(made(0), list(wide)), abs=0.03
    )


@given(st.integers(0, 2**31), st.integers(5, 40))
@settings(max_examples=8, deadline=None)
def test_a_pure_function_of_its_arguments(seed: int, dialogues: int) -> None:
    small = {"text": 4, "gaze": 3}
    corpus = synthetic_corpus(seed, dialogues, small)
    assert corpus.fingerprint == synthetic_corpus(seed, dialogues, small).fingerprint
    assert corpus.fingerprint != synthetic_corpus(seed + 1, dialogues, small).fingerprint
    assert len(corpus) == dialogues
    assert {dialogue.session for dialogue in corpus.conversations} == {
        f"Ses0{i}" for i in range(1, 6)
    }
    alone = synthetic_corpus(seed, dialogues, {"gaze": 3})
    for dialogue, other in zip(corpus.conversations, alone.conversations, strict=True):
        np.testing.assert_array_equal(dialogue.features["gaze"], other.features["gaze"])
        np.testing.assert_array_equal(dialogue.labels, other.labels)


@given(st.integers(5, 400))
def test_apportioning_loses_nothing(total: int) -> None:
    parts = apportion(total, np.array([28, 30, 32, 30, 31]), least=1)
    assert parts.sum() == total
    assert parts.min() >= 1


def test_wrong_arguments() -> None:
    with pytest.raises(InputError, match="at least 5"):
        synthetic_corpus(dialogues=4)
    with pytest.raises(InputError, match="at least one modality"):
        synthetic_corpus(features={})
    with pytest.raises(InputError, match="dimension 1 or more"):
        synthetic_corpus(features={"text": 0})


@pytest.mark.slow
def test_the_wide_preset_is_quick() -> None:
    start = time.process_time()
    synthetic_corpus(features=PRESETS["iemocap"])
    assert time.process_time() - start < 10
