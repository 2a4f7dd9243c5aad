"""Splits by utterance: NWay and Dirichlet."""

import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.partitioner import Partitioner
from fedmer.data.corpus import UNLABELLED, ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.errors import InputError
from fedmer.plugins.partitioners._assign import dirichlet_owners, fill_empty
from fedmer.plugins.partitioners.dirichlet import Dirichlet
from fedmer.plugins.partitioners.n_way import NWay
from tests.partitioners.counting import n_way_fits, training_labels
from tests.strategies import corpora, corpus_of, make_conversation, random_corpus

SIX_HUNDRED = random_corpus(0, dialogues=30, turns=20, modalities={"text": 1})


def emotions(corpus: ConversationCorpus, client: ClientPartition) -> list[int]:
    labels = [corpus.conversations[s.dialogue].labels[s.labelled] for s in client.samples]
    return [int(label) for label in np.concatenate(labels)]


@settings(max_examples=150, deadline=None)
@given(
    corpus=corpora(),
    clients=st.integers(1, 12),
    ways=st.integers(2, 5),
    spread=st.integers(0, 3),
    seed=st.integers(0, 1000),
)
def test_n_way_gives_a_number_of_emotions_in_range_or_says_why_not(
    corpus: ConversationCorpus, clients: int, ways: int, spread: int, seed: int
) -> None:
    counts = training_labels(corpus)
    split = NWay(clients, ways, spread)
    if not n_way_fits(counts, clients, ways, spread):
        with pytest.raises(InputError, match=r"^(ways|clients) is"):
            split.split(corpus, corpus.part("train"), seed)
        return
    samples = split.split(corpus, corpus.part("train"), seed)
    assert len(samples) == clients
    held = [set(emotions(corpus, client)) for client in samples]
    low, high = max(2, ways - spread), min(len(counts), ways + spread)
    assert all(low <= len(emotions) <= high for emotions in held)
    assert set().union(*held) == set(counts)


def test_n_way_draws_every_number_of_emotions_alike_and_splits_evenly() -> None:
    samples = NWay(30, ways=3, spread=2).split(SIX_HUNDRED, SIX_HUNDRED.part("train"), 0)
    numbers = [len(set(emotions(SIX_HUNDRED, client))) for client in samples]
    assert set(numbers) == {2, 3, 4, 5}
    for emotion in range(6):
        parts = [n for c in samples if (n := emotions(SIX_HUNDRED, c).count(emotion))]
        assert max(parts) - min(parts) <= 1


def test_n_way_without_spread_is_the_same_for_all() -> None:
    samples = NWay(10, ways=3, spread=0).split(SIX_HUNDRED, SIX_HUNDRED.part("train"), 0)
    assert {len(set(emotions(SIX_HUNDRED, client))) for client in samples} == {3}


def test_n_way_serves_a_corpus_with_no_utterance_to_spare() -> None:
    labels = [0] * 6 + [1] * 2 + [2] * 2 + [3] * 2
    corpus = corpus_of([make_conversation("d", [("Ann", label) for label in labels])])
    for seed in range(20):
        samples = NWay(6, ways=2, spread=0).split(corpus, [0], seed)
        assert [len(set(emotions(corpus, client))) for client in samples] == [2] * 6


@pytest.mark.parametrize(
    ("split", "labels", "why"),
    [
        (NWay(2), [0, 0, 0], "ways is 3 with spread 2.*at least 2 emotions.*only 1"),
        (NWay(2, ways=4, spread=1), [0, 0, 1, 1], "at least 3 emotions, but only 2"),
        (NWay(3), [0, 0, 0, 0, 1, 1], "clients is 3.*6 in all.*allow 5.*rarest emotion has 2"),
        (NWay(1, ways=2, spread=1), [0, 1, 2, 3], "clients is 1 with at most 3.*but 4 emotions"),
        (NWay(4), [0, 1, 2], "clients is 4, but there are only 3 training utterances"),
        (Dirichlet(4), [0, 1, 2], "clients is 4, but there are only 3 training utterances"),
    ],
)
def test_what_the_labels_do_not_allow_is_refused(
    split: Partitioner, labels: list[int], why: str
) -> None:
    turns = [("Ann", label) for label in [*labels, UNLABELLED]]
    corpus = corpus_of(
        [make_conversation("d", turns), make_conversation("e", [("Ben", 3)], split="test")]
    )
    with pytest.raises(InputError, match=why):
        split.split(corpus, corpus.part("train"), 0)


def test_impossible_settings_are_refused() -> None:
    with pytest.raises(InputError, match="ways is 1; expected at least 2"):
        NWay(ways=1)
    with pytest.raises(InputError, match="spread is -1; expected 0 or more"):
        NWay(spread=-1)
    for alpha in (0, -1, float("nan"), float("inf")):
        with pytest.raises(InputError, match=f"alpha is {alpha}; expected a finite"):
            Dirichlet(alpha=alpha)


@pytest.mark.parametrize("split", [NWay(7), Dirichlet(7)])
def test_context_is_all_of_a_dialogue_touched(split: Partitioner) -> None:
    for client in split.split(SIX_HUNDRED, SIX_HUNDRED.part("train"), 0):
        assert all(sample.context.all() and sample.listener is None for sample in client.samples)


def test_alpha_is_how_alike_clients_are() -> None:
    def purity(alpha: float) -> float:
        """The mean part of a client's commonest emotion: from 1/6 to 1."""
        clients = Dirichlet(10, alpha).split(SIX_HUNDRED, SIX_HUNDRED.part("train"), 0)
        labels = [emotions(SIX_HUNDRED, client) for client in clients]
        return float(np.mean([np.bincount(each).max() / len(each) for each in labels]))

    assert purity(1000) < 0.3 < purity(0.5) < 0.8 < purity(0.01)


def test_as_many_clients_as_utterances_get_one_each() -> None:
    clients = Dirichlet(600, 0.05).split(SIX_HUNDRED, SIX_HUNDRED.part("train"), 3)
    assert [client.examples for client in clients] == [1] * 600


@settings(max_examples=60, deadline=None)
@given(
    items=st.integers(1, 50),
    clients=st.integers(1, 50),
    alpha=st.floats(1e-320, 1e308),
    seed=st.integers(0, 1000),
)
def test_dirichlet_owners_are_clients(items: int, clients: int, alpha: float, seed: int) -> None:
    owners = dirichlet_owners(np.random.default_rng(seed), items, clients, alpha)
    assert owners.shape == (items,)
    assert owners.min() >= 0
    assert owners.max() < clients


@settings(max_examples=60, deadline=None)
@given(data=st.data(), clients=st.integers(1, 8))
def test_filling_takes_only_from_those_who_have_most(data: st.DataObject, clients: int) -> None:
    one = st.integers(0, clients - 1)
    owner = np.array(data.draw(st.lists(one, min_size=clients, max_size=20)))
    filled = fill_empty(owner, clients)
    before, after = (np.bincount(each, minlength=clients) for each in (owner, filled))
    assert after.min() >= 1
    assert (filled != owner).sum() == (before == 0).sum()
    givers = after < before
    if givers.any():
        assert after[givers].min() >= after[~givers & (before > 0)].max(initial=0) - 1


@pytest.mark.slow
@pytest.mark.parametrize("split", [Dirichlet(10_000, alpha=0.5), NWay(10_000, ways=3, spread=1)])
def test_ten_thousand_clients_take_seconds(split: Partitioner) -> None:
    corpus = random_corpus(0, dialogues=800, turns=50, modalities={"text": 1})
    start = time.perf_counter()
    clients = split.split(corpus, corpus.part("train"), 0)
    assert time.perf_counter() - start < 10
    assert len(clients) == 10_000
    assert sum(client.examples for client in clients) == 40_000
