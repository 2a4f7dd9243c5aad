"""DialogueTRM: who reads what, and its two grains of fusion against their equations."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.plugins.networks.dialogue_trm import DialogueTRM, _Gate
from tests.networks.test_contract import ragged, shape_of

quick = settings(max_examples=15, deadline=None)
MODALITIES = {"audio": 2, "text": 3, "visual": 4}
seeds = st.integers(0, 1000)


@pytest.mark.parametrize(("changed", "moved"), [("text", 4), ("audio", 1), ("visual", 1)])
def test_text_reads_the_dialogue_and_the_others_their_turn(changed: str, moved: int) -> None:
    torch.manual_seed(0)
    network = DialogueTRM(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    rows = batch.features[changed].clone()
    rows[0, 0] += 3
    other = dataclasses.replace(batch, features={**batch.features, changed: rows})
    with torch.no_grad():
        apart = (network(other).logits - network(batch).logits).abs().amax(dim=-1)[0]
    assert (apart > 1e-6).tolist() == [True] * moved + [False] * (4 - moved)


@pytest.mark.parametrize(
    ("modalities", "main"),
    [
        ({"audio": 2, "text": 3}, "text"),
        ({"audio": 2, "visual": 3}, "audio"),
        ({"visual": 3}, "visual"),
    ],
)
def test_the_main_modality_is_text_or_the_first(modalities: dict[str, int], main: str) -> None:
    network = DialogueTRM(shape_of(modalities), hidden=8, heads=2)
    assert network.main == main
    assert main not in network.turn
    count = len(modalities)
    assert len(network.gates) == max(count * (count - 1), 1)


@quick
@given(seed=seeds, width=st.integers(1, 5))
def test_a_gate_mixes_neuron_by_neuron_what_is_there(seed: int, width: int) -> None:
    torch.manual_seed(seed)
    gate = _Gate(width)
    left, right = torch.randn(2, 3, width), torch.randn(2, 3, width)
    has_left, has_right = torch.rand(2, 3) < 0.6, torch.rand(2, 3) < 0.6
    mixed = gate(left, right, has_left, has_right)
    for b, t in (has_left | has_right).nonzero().tolist():
        one = torch.tanh(gate.left(left[b, t]))
        two = torch.tanh(gate.right(right[b, t]))
        share = torch.sigmoid(gate.gate(torch.cat([left[b, t], right[b, t]])))
        if has_left[b, t] and has_right[b, t]:
            expected = share * one + (1 - share) * two
        else:
            expected = one if has_left[b, t] else two
        torch.testing.assert_close(mixed[b, t], expected, atol=1e-6, rtol=1e-5)


@quick
@given(seed=seeds, order=st.permutations(range(6)))
def test_pairs_are_a_set_of_those_that_a_turn_has(seed: int, order: list[int]) -> None:
    """Neither the order of the pairs matters, nor what stands where a pair is lacking."""
    torch.manual_seed(seed)
    network = DialogueTRM(shape_of(MODALITIES), hidden=8, heads=2).eval()
    pairs, counted = torch.randn(2, 3, 6, 8), torch.rand(2, 3, 6) < 0.5
    counted[0, 0], counted[0, 1] = True, False
    with torch.no_grad():
        pooled = network._pool(pairs, counted)
        shuffled = network._pool(pairs[:, :, order], counted[:, :, order])
        blind = network._pool(pairs.masked_fill(~counted[..., None], 9.0), counted)
        torch.testing.assert_close(shuffled, pooled, atol=1e-5, rtol=1e-5)
        torch.testing.assert_close(blind, pooled, atol=1e-5, rtol=1e-5)
        assert (pooled[0, 1] == 0).all()
        for b, t in counted.any(dim=-1).nonzero().tolist():
            some = pairs[b, t][counted[b, t]][None]
            mean = network.among_pairs(some, torch.ones(1, len(some[0]), dtype=torch.bool)).mean(1)
            torch.testing.assert_close(pooled[b, t], mean[0], atol=1e-5, rtol=1e-5)


@quick
@given(seed=seeds)
def test_a_turn_without_text_is_told_of_the_rest_of_the_dialogue(seed: int) -> None:
    torch.manual_seed(seed)
    network = DialogueTRM(shape_of(MODALITIES), hidden=16, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    batch.present["text"][0, 3] = False
    rows = batch.features["text"].clone()
    rows[0, 0] += 3
    other = dataclasses.replace(batch, features={**batch.features, "text": rows})
    with torch.no_grad():
        told = (network(other).logits - network(batch).logits)[0, 3].abs().max()
        batch.present["text"][:] = other.present["text"][:] = False
        untold = (network(other).logits - network(batch).logits).abs().max()
    assert told > 1e-6
    assert untold == 0
