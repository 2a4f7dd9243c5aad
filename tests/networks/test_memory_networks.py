"""CMN and ICON: their histories and readings against loops over utterances, and causality."""

import dataclasses
from collections.abc import Callable
from typing import TypeVar

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._history import (
    Reading,
    along,
    both_ways,
    by_role,
    concatenated,
    heard,
    own_and_others,
    slots,
)
from fedmer.plugins.networks.cmn import CMN
from fedmer.plugins.networks.icon import ICON
from tests.networks.dialogues import batch_of_dialogues

THREE = CorpusShape({"text": 3, "audio": 2}, classes=4, speakers=3)
quick = settings(max_examples=15, deadline=None)
dialogues = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=7), min_size=1, max_size=3)
seeds = st.integers(0, 1000)
Kind = TypeVar("Kind", bound=CMN | ICON)
memory_networks = pytest.mark.parametrize("kind", [CMN, ICON])


def built(kind: type[Kind], seed: int = 0, **settings: int) -> Kind:
    torch.manual_seed(seed)
    network = kind(THREE, hidden=6, **settings)
    network.eval()
    return network


def walk(recurrence: nn.Module, rows: list[Tensor]) -> list[Tensor]:
    """The states of a one-way recurrence, an utterance at a time."""
    state, states = None, []
    for row in rows:
        output, state = recurrence(row[None, None], state)
        states.append(output[0, 0])
    return states


def read_by_hand(query: Tensor, memory: list[Tensor]) -> Tensor:
    """The softmax of bounded scores, slot by slot."""
    scores = [torch.tanh(query @ slot).exp() for slot in memory]
    found = torch.zeros_like(query)
    for score, slot in zip(scores, memory, strict=True):
        found = found + score / sum(scores) * slot
    return found


def turns_before(batch: Batch, b: int, i: int) -> tuple[list[int], list[int]]:
    """The earlier utterances with a modality: those of the speaker of i, and those of the
    others."""
    roles = batch.roles[b].tolist()
    known = [j for j in range(i) if any(bool(p[b, j]) for p in batch.present.values())]
    return [j for j in known if roles[j] == roles[i]], [j for j in known if roles[j] != roles[i]]


@torch.no_grad()
def cmn_by_hand(network: CMN, batch: Batch, b: int, i: int) -> Tensor:
    rows = concatenated(batch, THREE)[b]
    memories = []
    for turns, kind in zip(turns_before(batch, b, i), (network.own, network.others), strict=True):
        local = [torch.tanh(state) for state in walk(kind.local, [rows[j] for j in turns])]
        states = walk(kind.memory, local)
        memories.append([m for j, m in zip(turns, states, strict=True) if i - j <= network.window])
    query = torch.tanh(network.query(rows[i]))
    for _ in range(network.hops):
        query = torch.tanh(query + sum(read_by_hand(query, memory) for memory in memories))
    return query


@torch.no_grad()
def icon_by_hand(network: ICON, batch: Batch, b: int, i: int) -> Tensor:
    rows = concatenated(batch, THREE)[b]
    local = {}
    for turns, kind in zip(turns_before(batch, b, i), (network.own, network.others), strict=True):
        states = walk(kind, [rows[j] for j in turns])
        local.update({j: torch.tanh(state) for j, state in zip(turns, states, strict=True)})
    memory = [local[j] for j in sorted(local)]
    query = torch.tanh(network.query(rows[i]))
    for hop in range(network.hops):
        memory = walk(network.memories[0 if hop == 0 else 1], memory)
        near = [m for j, m in zip(sorted(local), memory, strict=True) if i - j <= network.window]
        query = torch.tanh(query + read_by_hand(query, near))
    return query


@quick
@given(dialogues=dialogues, seed=seeds, hops=st.integers(1, 3), window=st.integers(1, 8))
def test_cmn_is_what_a_loop_over_utterances_gives(
    dialogues: list[list[int]], seed: int, hops: int, window: int
) -> None:
    network = built(CMN, seed, hops=hops, window=window)
    compare(network, batch_of_dialogues(THREE, dialogues, seed), cmn_by_hand)


@quick
@given(dialogues=dialogues, seed=seeds, hops=st.integers(1, 3), window=st.integers(1, 8))
def test_icon_is_what_a_loop_over_utterances_gives(
    dialogues: list[list[int]], seed: int, hops: int, window: int
) -> None:
    network = built(ICON, seed, hops=hops, window=window)
    compare(network, batch_of_dialogues(THREE, dialogues, seed), icon_by_hand)


def compare(
    network: Kind, batch: Batch, by_hand: Callable[[Kind, Batch, int, int], Tensor]
) -> None:
    with torch.no_grad():
        output = network(batch)
        for b, i in batch.context.nonzero().tolist():
            expected = by_hand(network, batch, b, i)
            fused = output.embeddings["fused"][b, i]
            torch.testing.assert_close(fused, expected, atol=1e-5, rtol=1e-4)
            torch.testing.assert_close(output.logits[b, i], network.head(fused))


@quick
@given(dialogues=dialogues, seed=seeds, kind=st.sampled_from([nn.GRU, nn.LSTM]))
def test_a_recurrence_runs_both_ways_along_each_group_alone(
    dialogues: list[list[int]], seed: int, kind: type[nn.GRU] | type[nn.LSTM]
) -> None:
    batch = batch_of_dialogues(THREE, dialogues, seed)
    torch.manual_seed(seed)
    recurrence = both_ways(kind, 4, dropout=0.0)
    rows = torch.randn(*batch.context.shape, 4)
    own, others = own_and_others(by_role(batch, 3), heard(batch))
    with torch.no_grad():
        for members in (own, others):
            seen = rows[:, None].expand(-1, 3, -1, -1)
            states = along(recurrence, seen, members)
            assert states.shape == (*members.shape, 4)
            assert not states[~members].any()
            for b, role in members.any(dim=-1).nonzero().tolist():
                alone, _ = recurrence(rows[b][members[b, role]][None])
                torch.testing.assert_close(states[b, role][members[b, role]], alone[0])


@quick
@given(dialogues=dialogues, seed=seeds, window=st.integers(1, 8))
def test_slots_are_the_earlier_members_within_the_window(
    dialogues: list[list[int]], seed: int, window: int
) -> None:
    batch = batch_of_dialogues(THREE, dialogues, seed)
    speaking, known = by_role(batch, 3), heard(batch)
    for kind, members in enumerate(own_and_others(speaking, known)):
        visible = slots(speaking, members, window).reshape(*known.shape, 3, -1)
        expected = torch.zeros_like(visible)
        for b, i in batch.context.nonzero().tolist():
            for j in turns_before(batch, b, i)[kind]:
                expected[b, i, batch.roles[b, i], j] = i - j <= window
        assert torch.equal(visible, expected)


@memory_networks
@quick
@given(dialogues=dialogues, seed=seeds, data=st.data())
def test_a_later_turn_never_changes_an_earlier_prediction(
    kind: type[CMN] | type[ICON], dialogues: list[list[int]], seed: int, data: st.DataObject
) -> None:
    network, batch = built(kind), batch_of_dialogues(THREE, dialogues, seed)
    now = data.draw(st.integers(0, batch.context.shape[1] - 1), label="now")
    other = batch_of_dialogues(THREE, dialogues, seed + 1)
    roles = batch.roles.clone()
    roles[:, now + 1 :] = (roles[:, now + 1 :] + 1) % 3
    later = dataclasses.replace(
        batch,
        features={n: spliced(rows, other.features[n], now) for n, rows in batch.features.items()},
        present={n: spliced(rows, other.present[n], now) for n, rows in batch.present.items()},
        roles=roles,
    )
    with torch.no_grad():
        before, after = network(batch).logits, network(later).logits
    torch.testing.assert_close(after[:, : now + 1], before[:, : now + 1], atol=1e-6, rtol=0)


def spliced(rows: Tensor, other: Tensor, now: int) -> Tensor:
    return torch.cat([rows[:, : now + 1], other[:, now + 1 :]], dim=1)


@memory_networks
@quick
@given(dialogues=dialogues, seed=seeds, order=st.permutations(range(3)))
def test_it_matters_who_speaks_and_not_which_number_they_have(
    kind: type[CMN] | type[ICON], dialogues: list[list[int]], seed: int, order: list[int]
) -> None:
    network, batch = built(kind), batch_of_dialogues(THREE, dialogues, seed)
    renamed = dataclasses.replace(batch, roles=torch.tensor(order)[batch.roles])
    with torch.no_grad():
        before, after = network(batch).logits, network(renamed).logits
    torch.testing.assert_close(after[batch.context], before[batch.context], atol=1e-6, rtol=0)


@memory_networks
def test_the_others_are_told_from_oneself(kind: type[CMN] | type[ICON]) -> None:
    network, batch = built(kind), batch_of_dialogues(THREE, [[0, 0, 0, 0]], 1)
    assert heard(batch)[0, 0]
    dialogue = dataclasses.replace(batch, roles=torch.tensor([[1, 0, 0, 0]]))
    with torch.no_grad():
        moved = (network(dialogue).logits - network(batch).logits).abs().amax(dim=-1)[0]
    assert (moved[1:] > 1e-6).all()
    assert moved[0] < 1e-6


@memory_networks
@quick
@given(dialogue=st.lists(st.integers(0, 2), min_size=2, max_size=7), seed=seeds, data=st.data())
def test_a_turn_without_any_modality_leaves_no_memory(
    kind: type[CMN] | type[ICON], dialogue: list[int], seed: int, data: st.DataObject
) -> None:
    network, batch = built(kind), batch_of_dialogues(THREE, [dialogue], seed)
    gone = data.draw(st.integers(0, len(dialogue) - 1), label="gone")
    for there in batch.present.values():
        there[0, gone] = False
    kept = [i for i in range(len(dialogue)) if i != gone]
    without = dataclasses.replace(
        batch,
        features={name: rows[:, kept] for name, rows in batch.features.items()},
        present={name: rows[:, kept] for name, rows in batch.present.items()},
        **{
            name: getattr(batch, name)[:, kept]
            for name in ("context", "labelled", "labels", "roles", "positions")
        },
    )
    with torch.no_grad():
        whole, shorter = network(batch).logits, network(without).logits
    torch.testing.assert_close(whole[:, kept], shorter, atol=1e-6, rtol=0)


@quick
@given(seed=seeds, turns=st.integers(1, 5))
def test_reading_spreads_a_weight_of_one_or_nothing(seed: int, turns: int) -> None:
    random = torch.Generator().manual_seed(seed)
    visible = torch.rand(2, turns, 3 * turns, generator=random) < 0.3
    memory = torch.ones(2, 3, turns, 4)
    found = Reading(0.5).eval()(torch.randn(2, turns, 4, generator=random), memory, visible)
    torch.testing.assert_close(found, visible.any(-1, keepdim=True).float().expand(-1, -1, 4))


@memory_networks
def test_more_roles_than_the_corpus_promised_share_the_last_one(
    kind: type[CMN] | type[ICON],
) -> None:
    network, batch = built(kind), batch_of_dialogues(THREE, [[0, 1, 2, 3, 4, 2]], 0)
    clamped = dataclasses.replace(batch, roles=batch.roles.clamp(max=2))
    with torch.no_grad():
        assert torch.equal(network(batch).logits, network(clamped).logits)


@memory_networks
@pytest.mark.parametrize("hops", [1, 2, 3])
def test_size_follows_from_the_equations(kind: type[CMN] | type[ICON], hops: int) -> None:
    with torch.device("meta"):
        network = kind(THREE, hidden=6, hops=hops)
    d, width = 6, 5
    query, head = width * d + d, d * 4 + 4
    local, memory = 3 * (width * d + d * d + 2 * d), 3 * (2 * d * d + 2 * d)
    memories = 2 if kind is CMN else min(hops, 2)
    assert sum(p.numel() for p in network.parameters()) == (
        query + 2 * local + memories * memory + head
    )


@memory_networks
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden": 0}, r"hidden is 0; expected"),
        ({"dropout": 1.0}, r"dropout is 1\.0; expected a number in \[0, 1\)"),
        ({"hops": 0}, r"hops is 0; expected a whole number, 1 or more"),
        ({"window": 0}, r"window is 0; expected a whole number, 1 or more"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    kind: type[CMN] | type[ICON], arguments: dict[str, float], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        kind(THREE, **arguments)  # type: ignore[arg-type]
