"""Causal networks: whatever is said later, an utterance's prediction is the same to the bit."""

import dataclasses
import inspect
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

import fedmer
from fedmer.__main__ import main
from fedmer.data.batch import Batch, collate
from fedmer.data.corpus import ConversationCorpus
from fedmer.errors import InputError
from fedmer.plugins.networks.attention_score import AttentionScore
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.registry import plugins
from tests.federations import small_corpus
from tests.networks.test_contract import (
    build,
    excerpts_of,
    few,
    ragged,
    read,
    shape_of,
    with_gaps,
)
from tests.strategies import corpora

BUILT_IN = [plugin for plugin in plugins("networks") if plugin.package == "fedmer"]
CAUSAL = [p for p in BUILT_IN if "causal" in inspect.signature(getattr(fedmer, p.name)).parameters]
causal_networks = pytest.mark.parametrize("path", [pytest.param(p.path, id=p.name) for p in CAUSAL])


def test_every_network_that_reads_context_can_be_causal() -> None:
    assert {p.name for p in CAUSAL} == {
        p.name for p in BUILT_IN if getattr(fedmer, p.name).reads_context
    }


def poisoned(batch: Batch, turn: int, seed: int, people: int) -> Batch:
    """Other words after an utterance, and for several people other gaps and speakers too."""
    random = torch.Generator().manual_seed(seed)
    later = (torch.arange(batch.context.shape[1]) > turn) & batch.context
    features, present = {}, dict(batch.present)
    for name, rows in batch.features.items():
        if people:
            drawn = torch.rand(batch.context.shape, generator=random) < 0.5
            present[name] = torch.where(later, drawn, batch.present[name])
        other = 1e3 * torch.randn(rows.shape, generator=random) * present[name][..., None]
        features[name] = torch.where(later[..., None], other, rows)
    drawn_roles = torch.randint(0, people or 1, batch.roles.shape, generator=random)
    roles = torch.where(later & (people > 0), drawn_roles, batch.roles)
    return dataclasses.replace(batch, features=features, present=present, roles=roles)


@causal_networks
@few
@given(corpus=corpora(), data=st.data(), seed=st.integers(0, 1000))
def test_what_is_said_later_changes_nothing(
    path: str, corpus: ConversationCorpus, data: st.DataObject, seed: int
) -> None:
    network = build(path, corpus.shape, causal=True)
    batch = with_gaps(collate(excerpts_of(corpus)), data)
    turn = data.draw(st.integers(0, batch.context.shape[1] - 1), label="turn")
    until = batch.context & (torch.arange(batch.context.shape[1]) <= turn)
    before = read(network, batch)
    after = read(network, poisoned(batch, turn, seed, people=0))
    for name, value in before.items():
        assert torch.equal(after[name][until], value[until]), name
    # Recurrences over one speaker's utterances then have others beside them, which rounds
    # otherwise.
    after = read(network, poisoned(batch, turn, seed, corpus.shape.speakers))
    for name, value in before.items():
        torch.testing.assert_close(after[name][until], value[until], atol=1e-5, rtol=0, msg=name)


@causal_networks
def test_an_earlier_turn_still_counts(path: str) -> None:
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = build(path, shape_of(modalities), hidden=16, causal=True)
    batch = ragged(modalities, [5])
    features = {name: rows.clone() for name, rows in batch.features.items()}
    for rows in features.values():
        rows[0, 0] += 3
    after = read(network, dataclasses.replace(batch, features=features))["logits"]
    moved = (after - read(network, batch)["logits"]).abs().amax(dim=-1)[0]
    assert (moved > 1e-6).all()


@causal_networks
def test_a_turn_is_read_as_it_is_while_people_talk(path: str) -> None:
    """A dialogue so far gives what the whole dialogue gives of it."""
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = build(path, shape_of(modalities), causal=True)
    batch = ragged(modalities, [6])
    whole = read(network, batch)["logits"]
    for turns in range(1, 7):
        cut = {
            field.name: getattr(batch, field.name)[:, :turns]
            for field in dataclasses.fields(batch)
            if field.name not in ("features", "present")
        }
        rows = {name: own[:, :turns] for name, own in batch.features.items()}
        there = {name: own[:, :turns] for name, own in batch.present.items()}
        so_far = read(network, Batch(features=rows, present=there, **cut))["logits"]
        torch.testing.assert_close(so_far, whole[:, :turns], atol=1e-5, rtol=0)


@causal_networks
def test_gradients_of_a_causal_network_reach_no_later_turn(path: str) -> None:
    """The backward step, which the packed attention has of its own."""
    torch.manual_seed(0)
    modalities = {"text": 3, "audio": 2}
    network = build(path, shape_of(modalities), causal=True, missing_rate=0.0).train()
    batch = ragged(modalities, [5, 2])
    features = {name: rows.clone().requires_grad_() for name, rows in batch.features.items()}
    logits = network(dataclasses.replace(batch, features=features)).logits
    torch.autograd.backward(logits[0, 2].sum())
    reached = torch.zeros(5)
    for rows in features.values():
        assert rows.grad is not None
        reached += rows.grad[0].abs().amax(dim=-1)
        assert (rows.grad[1] == 0).all()
    assert (reached[:3] > 0).all()
    assert (reached[3:] == 0).all()


def test_scores_over_a_whole_dialogue_cannot_be_causal() -> None:
    with pytest.raises(InputError, match=r"axis is utterance.* and causal is true; use the axis"):
        SDT(shape_of({"text": 3, "audio": 2}), attention_score=AttentionScore(axis="utterance"),
            causal=True)  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("executor", ["Inline", "Stacked"])
def test_the_model_of_a_causal_run_is_causal(
    executor: str, here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    network = ["--network", "EarlyFusion", "--network.hidden", "8", "--network.causal", "true"]
    words = ["--data.path", str(corpus_file), "--partitioner.clients", "3", "--name", "a"]
    more = ["--trainer.max_epochs", "1", "--executor", executor, "--aggregator", "FedAvg"]
    assert main(["fit", *network, *words, *more]) == 0
    (dialogue,) = (c for c in small_corpus().conversations if c.id == "Ses05_0003")
    features = {name: rows.copy() for name, rows in dialogue.features.items()}
    for rows in features.values():
        rows[5:] = 9
    model = fedmer.load("runs/a")
    before = model.predict(dialogue).probabilities
    after = model.predict(dataclasses.replace(dialogue, features=features)).probabilities
    assert (before[:5] == after[:5]).all()
    assert (before[5:] != after[5:]).any()


def test_a_network_that_reads_one_turn_has_nothing_to_be_causal_of(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fit", "--network", "LMF", "--network.causal", "true"]) == 2
    said = capsys.readouterr().err
    assert "nothing that was chosen has an option 'causal'; it belongs to CMN, CORECT" in said
