"""MAG: the gate against its equations, and what it leaves alone."""

import dataclasses

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.plugins.networks._modalities import there
from fedmer.plugins.networks.mag import MAG
from tests.networks.test_contract import ragged, shape_of, with_gaps

MODALITIES = {"audio": 2, "text": 3, "visual": 4}


@settings(max_examples=15, deadline=None)
@given(data=st.data(), seed=st.integers(0, 1000), beta=st.sampled_from([0.05, 1.0, 50.0]))
def test_the_shift_is_that_of_the_paper(data: st.DataObject, seed: int, beta: float) -> None:
    torch.manual_seed(seed)
    network = MAG(shape_of(MODALITIES), hidden=6, heads=2, shift=beta).eval()
    torch.nn.init.normal_(network.bias)
    batch = with_gaps(ragged(MODALITIES, [4, 2]), data)
    rows, present = network.project(batch), there(batch)
    stream = torch.randn(2, 4, 6)
    found = network.displacement(stream, rows, present)
    for b, t in batch.context.nonzero().tolist():
        own, moved = stream[b, t], network.bias
        others = [name for name in ("audio", "visual") if present[name][b, t]]
        for name in others:
            gate = torch.relu(network.gates[name](torch.cat([rows[name][b, t], own])))
            moved = moved + gate * rows[name][b, t]
        factor = (own.norm() / moved.norm() * beta).clamp(max=1)
        expected = factor * moved if others else torch.zeros(6)
        torch.testing.assert_close(found[b, t], expected, atol=1e-4, rtol=1e-4)
        assert found[b, t].norm() <= beta * own.norm() + 1e-4


def test_one_modality_is_a_plain_transformer() -> None:
    """Nothing shifts it, so that its gate's bias does not matter."""
    torch.manual_seed(0)
    network = MAG(shape_of({"audio": 3}), hidden=6, heads=2).eval()
    batch = ragged({"audio": 3}, [4, 2])
    before = network(batch).logits
    torch.nn.init.normal_(network.bias)
    assert torch.equal(network(batch).logits, before)


def test_nobody_attends_to_the_place_of_a_missing_text_before_the_gate() -> None:
    torch.manual_seed(0)
    network = MAG(shape_of(MODALITIES), hidden=6, heads=2).eval()
    batch = ragged(MODALITIES, [4])
    batch.present["text"][0, 2] = False
    before = network(batch).embeddings["text"]
    other = dataclasses.replace(batch, roles=batch.roles.clone())
    other.roles[0, 2] = 1 - other.roles[0, 2]
    after = network(other).embeddings["text"]
    assert torch.equal(after[0, [0, 1, 3]], before[0, [0, 1, 3]])
    assert not torch.equal(after[0, 2], before[0, 2])


def test_no_value_is_waited_for() -> None:
    network = MAG(shape_of(MODALITIES)).to("meta").train()
    assert network(ragged(MODALITIES, [4, 2]).to("meta")).logits.shape == (2, 4, 3)
