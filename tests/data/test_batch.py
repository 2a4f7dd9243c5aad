"""What reaches a client of a dialogue, and how excerpts become batches."""

import dataclasses

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.data.batch import Batch, EpochOrder, Excerpt, collate, excerpt
from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.partition import ClientPartition, Sample, whole
from fedmer.data.standardise import federated_statistics
from fedmer.seeds import generator
from tests.data.partitions import samples
from tests.strategies import PEOPLE, corpora, corpus_of

quick = settings(max_examples=25, deadline=None)


def draw_excerpts(corpus: ConversationCorpus, data: st.DataObject) -> list[Excerpt]:
    dialogues = data.draw(st.lists(st.integers(0, len(corpus) - 1), min_size=1, max_size=4))
    return [excerpt(corpus, data.draw(samples(corpus, dialogue))) for dialogue in dialogues]


def tensors(holder: Excerpt | Batch) -> dict[str, Tensor]:
    """Every tensor of an excerpt or a batch, by name."""
    result = {}
    for field in dataclasses.fields(holder):
        value = getattr(holder, field.name)
        if isinstance(value, Tensor):
            result[field.name] = value
        elif isinstance(value, dict):
            result.update({f"{field.name} {name}": part for name, part in value.items()})
    return result


def garble(dialogue: Conversation, sample: Sample, classes: int, seed: int) -> Conversation:
    """Other features and people outside K, other rows where missing, other labels outside M."""
    random = generator(seed, "garble")
    size = len(dialogue)

    def other(name: str, rows: np.ndarray) -> np.ndarray:
        noise = random.standard_normal(rows.shape).astype(np.float32)
        return np.where((sample.context & dialogue.present[name])[:, None], rows, noise)

    there = {
        name: np.where(sample.context, there, random.random(size) < 0.5)
        for name, there in dialogue.present.items()
    }
    people = random.choice(PEOPLE, size)
    return dataclasses.replace(
        dialogue,
        features={name: other(name, rows) for name, rows in dialogue.features.items()},
        present=there,
        labels=np.where(sample.labelled, dialogue.labels, random.integers(0, classes, size)),
        speakers=np.where(sample.context, dialogue.speakers, people),
        utterances=("unheard",) * size,
    )


@quick
@given(corpus=corpora(), data=st.data(), seed=st.integers(0, 1000), standard=st.booleans())
def test_nothing_outside_the_masks_reaches_an_excerpt(
    corpus: ConversationCorpus, data: st.DataObject, seed: int, standard: bool
) -> None:
    dialogue = data.draw(st.integers(0, len(corpus) - 1))
    sample = data.draw(samples(corpus, dialogue))
    conversations = list(corpus.conversations)
    conversations[dialogue] = garble(conversations[dialogue], sample, corpus.shape.classes, seed)
    other = corpus_of(conversations, corpus.shape.classes)
    holders = [ClientPartition("one", [sample])]
    before, after = (
        excerpt(c, sample, federated_statistics(c, holders) if standard else None)
        for c in (corpus, other)
    )
    one, two = tensors(before), tensors(after)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(two[name], value), name


@quick
@given(corpus=corpora(), data=st.data())
def test_an_excerpt_holds_what_its_share_allows(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    dialogue = data.draw(st.integers(0, len(corpus) - 1))
    conversation, sample = corpus.conversations[dialogue], data.draw(samples(corpus, dialogue))
    part = excerpt(corpus, sample)
    turns = part.turns.tolist()
    assert turns == np.flatnonzero(sample.context).tolist()
    assert len(part) == len(turns)
    assert part.labelled.tolist() == sample.labelled[turns].tolist()
    expected = [int(conversation.labels[t]) if sample.labelled[t] else UNLABELLED for t in turns]
    assert part.labels.tolist() == expected
    assert part.roles.tolist() == sample.roles(conversation).tolist()
    assert part.positions.tolist() == sample.positions().tolist()
    assert part.dialogue == conversation.id
    assert list(part.features) == list(part.present) == corpus.modalities
    for name, rows in part.features.items():
        assert rows.dtype == torch.float32
        assert np.array_equal(rows.numpy(), conversation.features[name][turns])
        assert np.array_equal(part.present[name].numpy(), conversation.present[name][turns])


@quick
@given(corpus=corpora(), data=st.data())
def test_standardised_rows_of_a_missing_modality_are_zero(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    sample = data.draw(samples(corpus, 0))
    statistics = federated_statistics(corpus, [ClientPartition("one", [sample])])
    part = excerpt(corpus, sample, statistics)
    for name, rows in part.features.items():
        assert (rows[~part.present[name]] == 0).all()


@quick
@given(corpus=corpora(), data=st.data())
def test_collate_pads_on_the_right_and_loses_nothing(
    corpus: ConversationCorpus, data: st.DataObject
) -> None:
    excerpts = draw_excerpts(corpus, data)
    batch = collate(excerpts)
    longest = max(map(len, excerpts))
    columns = tensors(batch)
    for name, value in columns.items():
        assert value.shape[:2] == (len(excerpts), longest), name
    for row, part in enumerate(excerpts):
        own = {**tensors(part), "context": torch.ones(len(part), dtype=torch.bool)}
        for name, value in columns.items():
            assert value.dtype == own[name].dtype
            assert torch.equal(value[row, : len(part)], own[name]), name
            filler = UNLABELLED if name == "labels" else 0
            assert (value[row, len(part) :] == filler).all(), name
    assert not (batch.labelled & ~batch.context).any()
    assert ((batch.labels == UNLABELLED) == ~batch.labelled).all()


def test_collate_needs_an_excerpt() -> None:
    with pytest.raises(ValueError, match="at least one excerpt"):
        collate([])


@quick
@given(corpus=corpora(max_dialogues=2))
def test_a_batch_moves_as_a_whole(corpus: ConversationCorpus) -> None:
    batch = collate(
        [excerpt(corpus, whole(dialogue, i)) for i, dialogue in enumerate(corpus.conversations)]
    )
    moved = tensors(batch.to("meta"))
    assert moved.keys() == tensors(batch).keys()
    for name, value in tensors(batch).items():
        assert moved[name].device.type == "meta"
        assert moved[name].shape == value.shape
        assert torch.equal(tensors(batch.to("cpu"))[name], value)


@quick
@given(
    size=st.integers(1, 40),
    seed=st.integers(0, 100),
    client=st.integers(0, 20),
    epoch=st.integers(0, 1000),
)
def test_order_is_a_permutation_by_seed_client_and_epoch(
    size: int, seed: int, client: int, epoch: int
) -> None:
    order = EpochOrder(size, seed, client)
    order.set_epoch(epoch)
    drawn = list(order)
    assert sorted(drawn) == list(range(size))
    assert len(order) == size
    assert list(order) == drawn
    again = EpochOrder(size, seed, client)
    np.random.seed(epoch)  # noqa: NPY002 - the order must not depend on it
    torch.manual_seed(epoch)
    again.set_epoch(epoch + 1)
    again.set_epoch(epoch)
    assert list(again) == drawn


def test_orders_differ_by_seed_client_and_epoch() -> None:
    def drawn(seed: int, client: int, epoch: int) -> tuple[int, ...]:
        order = EpochOrder(30, seed, client)
        order.set_epoch(epoch)
        return tuple(order)

    keys = [(s, c, e) for s in range(3) for c in range(3) for e in range(3)]
    assert len({drawn(*key) for key in keys}) == len(keys)


def test_an_iterator_made_early_uses_the_epoch_set_later() -> None:
    order, late = EpochOrder(30, seed=0), EpochOrder(30, seed=0)
    early = iter(order)
    order.set_epoch(7)
    late.set_epoch(7)
    assert list(early) == list(late) != list(EpochOrder(30, seed=0))
