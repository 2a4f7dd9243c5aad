"""Statistics from clients' sums against NumPy on all their rows."""

import dataclasses
from collections.abc import Callable, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.data.batch import Excerpt, excerpt
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.partition import ClientPartition
from fedmer.data.standardise import Moments, Standardise, federated_statistics, statistics
from fedmer.datamodule import FederatedDataModule
from fedmer.plugins.partitioners.dialogue import Dialogue
from tests.data.partitions import clients
from tests.federations import small_corpus
from tests.strategies import corpora

quick = settings(max_examples=20, deadline=None)
CONSTANT = 3.7
Change = Callable[[Conversation, str], np.ndarray]


def remade(corpus: ConversationCorpus, change: Change) -> ConversationCorpus:
    """The corpus with other features: ``change(dialogue, modality)``."""
    dialogues = [
        dataclasses.replace(
            dialogue,
            features={name: change(dialogue, name) for name in dialogue.features},
        )
        for dialogue in corpus.conversations
    ]
    return ConversationCorpus(corpus.name, dialogues, corpus.label_names)


def uneven(dialogue: Conversation, name: str) -> np.ndarray:
    """Dimensions of different sizes and offsets, the first one constant; noise where missing."""
    rows = dialogue.features[name].astype(np.float64)
    width = rows.shape[1]
    rows = rows * np.geomspace(0.1, 10, width) + np.linspace(-20, 50, width)
    rows[:, 0] = CONSTANT
    noise = 1000.0 + np.arange(rows.size).reshape(rows.shape)
    return np.where(dialogue.present[name][:, None], rows, noise).astype(np.float32)


def pooled(corpus: ConversationCorpus, holders: Sequence[ClientPartition], name: str) -> np.ndarray:
    """Every row that a client holds, as often as it is held."""
    rows = [np.zeros((0, corpus.shape.features[name]))]
    for client in holders:
        for sample in client.samples:
            conversation = corpus.conversations[sample.dialogue]
            for turn in range(len(conversation)):
                if sample.context[turn] and conversation.present[name][turn]:
                    rows.append(conversation.features[name][turn : turn + 1].astype(np.float64))
    return np.concatenate(rows)


def rows_of(excerpts: Sequence[Excerpt], name: str) -> np.ndarray:
    return np.concatenate([e.features[name][e.present[name]].double().numpy() for e in excerpts])


@quick
@given(corpus=corpora(), data=st.data())
def test_statistics_from_sums_are_those_of_the_pooled_rows(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    corpus = remade(corpus, uneven)
    holders = data.draw(clients(corpus))
    result = federated_statistics(corpus, holders)
    assert list(result) == corpus.modalities
    for name, own in result.items():
        rows = pooled(corpus, holders, name)
        if not len(rows):
            assert (own.mean == 0).all()
            assert (own.deviation == 1).all()
            continue
        constant = np.ptp(rows, axis=0) == 0
        assert constant[0]
        np.testing.assert_allclose(own.mean, rows.mean(axis=0), rtol=1e-5, atol=1e-5)
        expected = np.where(constant, 1.0, rows.std(axis=0))
        np.testing.assert_allclose(own.deviation, expected, rtol=1e-4)
        assert own.mean.dtype == own.deviation.dtype == np.float32


@quick
@given(corpus=corpora(), data=st.data())
def test_the_order_of_clients_is_immaterial(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    corpus = remade(corpus, uneven)
    holders = data.draw(clients(corpus))
    shuffled = data.draw(st.permutations(holders))
    one, other = (federated_statistics(corpus, order) for order in (holders, shuffled))
    for name, own in one.items():
        np.testing.assert_allclose(other[name].mean, own.mean, rtol=1e-6, atol=1e-6)
        np.testing.assert_allclose(other[name].deviation, own.deviation, rtol=1e-6, atol=1e-6)


@quick
@given(corpus=corpora(), data=st.data())
def test_what_was_standardised_has_mean_0_and_deviation_1(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    corpus = remade(corpus, uneven)
    holders = data.draw(clients(corpus))
    result = federated_statistics(corpus, holders)
    excerpts = [excerpt(corpus, sample, result) for c in holders for sample in c.samples]
    for name in corpus.modalities:
        rows = rows_of(excerpts, name)
        if len(rows):
            constant = np.ptp(pooled(corpus, holders, name), axis=0) == 0
            np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
            np.testing.assert_allclose(rows.std(axis=0), np.where(constant, 0, 1), atol=1e-3)


@pytest.mark.parametrize("size", [1e-4, 1.0, 1e4])
@pytest.mark.parametrize("offset", [0.0, 0.1, 12345.678])
def test_a_constant_dimension_is_moved_to_0_and_not_blown_up(size: float, offset: float) -> None:
    rows = np.full((1000, 1), size + offset, dtype=np.float32).astype(np.float64)
    told = {"text": Moments(1000, rows.sum(axis=0), np.square(rows).sum(axis=0))}
    own = statistics([told])["text"]
    assert own.deviation == 1
    np.testing.assert_allclose(own.standardise(rows.astype(np.float32)), 0, atol=1e-2)


def module(mode: Standardise, corpus: ConversationCorpus) -> FederatedDataModule:
    data = FederatedDataModule(Dialogue(3), standardise=mode, holdout=0.3)
    data._corpus = corpus
    data.setup("fit")
    return data


def test_only_what_clients_learn_from_is_looked_at() -> None:
    """Neither test nor validation dialogues nor those held out move the statistics."""
    corpus = small_corpus()
    data = module("federated", corpus)
    learnt = {corpus.conversations[s.dialogue].id for c in data.partitions for s in c.samples}
    assert any(held for held in data.held)
    assert 0 < len(learnt) < len(corpus)

    def change(those_learnt_from: bool) -> Change:
        def new(conversation: Conversation, name: str) -> np.ndarray:
            return conversation.features[name] + np.float32(
                (conversation.id in learnt) == those_learnt_from
            )

        return new

    before = data.statistics
    unseen = module("federated", remade(corpus, change(False))).statistics
    seen = module("federated", remade(corpus, change(True))).statistics
    assert before is not None
    assert unseen is not None
    assert seen is not None
    for name, own in before.items():
        assert np.array_equal(unseen[name].mean, own.mean)
        assert np.array_equal(unseen[name].deviation, own.deviation)
        np.testing.assert_allclose(seen[name].mean, own.mean + 1, atol=1e-4)


def test_local_statistics_are_a_clients_own() -> None:
    corpus = remade(small_corpus(), uneven)
    local, federated, raw = (module(m, corpus).clients for m in ("local", "federated", "none"))
    for name in corpus.modalities:
        for client in local:
            rows = rows_of(client.train, name)
            np.testing.assert_allclose(rows.mean(axis=0), 0, atol=1e-3)
            np.testing.assert_allclose(rows.std(axis=0)[1:], 1, atol=1e-3)
        assert np.abs(rows_of(federated[0].train, name).mean(axis=0)[1:]).max() > 0.01
        everyone = np.concatenate([rows_of(client.train, name) for client in federated])
        np.testing.assert_allclose(everyone.mean(axis=0), 0, atol=1e-3)
        np.testing.assert_allclose(everyone.std(axis=0)[1:], 1, atol=1e-3)
        assert np.allclose(rows_of(raw[0].train, name)[:, 0], CONSTANT)


def test_a_holdout_is_standardised_as_its_client() -> None:
    corpus = small_corpus()
    for mode in ("local", "federated"):
        treated, raw = module(mode, corpus).clients, module("none", corpus).clients
        for name in corpus.modalities:
            own = [rows_of(c.train, name) for c in treated]
            plain = [rows_of(c.train, name) for c in raw]
            # The affine map that the training rows went through, from two of them.
            scale = (own[0][0] - own[0][1]) / (plain[0][0] - plain[0][1])
            shift = own[0][0] - scale * plain[0][0]
            held = rows_of(treated[0].holdout, name)
            expected = scale * rows_of(raw[0].holdout, name) + shift
            np.testing.assert_allclose(held, expected, atol=1e-2)
