"""EarlyFusion and LateFusion, and the Transformer that they and others are made of."""

import dataclasses

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.network import Network
from fedmer.plugins.networks._layers import Attention, TransformerLayer, sinusoid
from fedmer.plugins.networks._modalities import Place, Projections
from fedmer.plugins.networks.dialogue_trm import DialogueTRM
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.networks.late_fusion import LateFusion
from fedmer.plugins.networks.lmf import LMF
from fedmer.plugins.networks.mmtr import MMTr
from fedmer.plugins.networks.mult import MulT
from fedmer.plugins.networks.tfn import TFN
from tests.networks.test_contract import ragged, shape_of

quick = settings(max_examples=15, deadline=None)
MODALITIES = {"text": 3, "audio": 2, "visual": 4}
seeds = st.integers(0, 1000)


@quick
@given(
    seed=seeds,
    heads=st.integers(1, 3),
    width=st.integers(1, 4),
    turns=st.integers(1, 6),
    across=st.booleans(),
)
def test_a_layer_is_torch_s_own_over_the_keys_that_are_there(
    seed: int, heads: int, width: int, turns: int, across: bool
) -> None:
    torch.manual_seed(seed)
    hidden = heads * width
    layer = TransformerLayer(hidden, heads, dropout=0.5).eval()
    for parameter in layer.parameters():  # also away from LayerNorm's ones and zeros
        nn.init.normal_(parameter)
    query = torch.randn(2, turns, hidden)
    keys = torch.randn(2, turns + 2, hidden) if across else query
    present = torch.rand(keys.shape[:2]) < 0.6
    present[:, seed % keys.shape[1]] = True
    attention = same_attention(layer.attention)
    with torch.no_grad():
        asking, asked = layer.before(query), layer.before(keys)
        found, _ = attention(asking, asked, asked, key_padding_mask=~present)
        attended = query + found
        inner = nn.functional.gelu(layer.widen(layer.between(attended)))
        expected = attended + layer.narrow(inner)
        actual = layer(query, present, keys if across else None)
    torch.testing.assert_close(actual, expected, atol=1e-4, rtol=1e-4)


def same_attention(ours: Attention) -> nn.MultiheadAttention:
    """torch's attention with our weights."""
    hidden = ours.query.in_features
    theirs = nn.MultiheadAttention(hidden, ours.heads, batch_first=True).eval()
    parts = (ours.query, ours.key, ours.value)
    with torch.no_grad():
        theirs.in_proj_weight.copy_(torch.cat([part.weight for part in parts]))
        theirs.in_proj_bias.copy_(torch.cat([part.bias for part in parts]))
    theirs.out_proj.load_state_dict(ours.out.state_dict())
    return theirs


@quick
@given(seed=seeds)
def test_attention_to_nobody_is_zero_and_has_no_gradient(seed: int) -> None:
    torch.manual_seed(seed)
    attention = Attention(4, 2, dropout=0.0)
    query, keys = torch.randn(2, 3, 4), torch.randn(2, 5, 4, requires_grad=True)
    present = torch.tensor([[False] * 5, [True, False, True, False, False]])
    found = attention(query, keys, present)
    assert (found[0] == 0).all()
    (gradient,) = torch.autograd.grad(found.sum(), keys)
    assert (gradient.abs().sum(dim=-1) > 0).tolist() == present.tolist()


@quick
@given(seed=seeds, bias=st.booleans())
def test_projections_are_zero_where_missing_whatever_is_there(seed: int, bias: bool) -> None:
    torch.manual_seed(seed)
    batch = ragged(MODALITIES, [4, 2])
    batch.present["audio"][0, 1] = False
    batch.features["audio"][0, 1] = float("nan")
    project = Projections(shape_of(MODALITIES), 5, bias=bias)
    rows = project(batch)
    assert list(rows) == list(MODALITIES)
    for name, row in rows.items():
        assert (row[~batch.present[name]] == 0).all()
        expected = project.layers[name](batch.features[name])[batch.present[name]]
        torch.testing.assert_close(row[batch.present[name]], expected)
    torch.autograd.backward(sum(row.sum() for row in rows.values()))
    assert all(p.grad is not None and p.grad.isfinite().all() for p in project.parameters())


def test_place_is_position_plus_speaker_and_padding_has_no_speaker() -> None:
    batch = ragged(MODALITIES, [4, 2])
    batch.roles[0] = torch.tensor([0, 1, 1, 7])
    place = Place(shape_of(MODALITIES), 6)
    said = place(batch) - sinusoid(batch.positions, 6)
    table = place.speaker.weight
    torch.testing.assert_close(said[0], table[[0, 1, 1, 1]])
    assert (said[1, 2:] == 0).all()


@quick
@given(seed=seeds)
def test_early_fusion_is_one_linear_layer_on_all_features(seed: int) -> None:
    torch.manual_seed(seed)
    network = EarlyFusion(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [5, 3])
    layers = list(network.project.layers.values())
    weight = torch.cat([layer.weight for layer in layers], dim=1)
    bias = sum(layer.bias for layer in layers)
    with torch.no_grad():
        together = torch.cat(list(batch.features.values()), dim=-1)
        rows = together @ weight.T + bias + network.place(batch)
        expected = network.transformer(rows, batch.context)
        fused = network(batch).embeddings["fused"]
    torch.testing.assert_close(fused[batch.context], expected[batch.context], atol=1e-5, rtol=1e-5)


@quick
@given(seed=seeds)
def test_late_fusion_averages_the_students_of_the_modalities_there(seed: int) -> None:
    torch.manual_seed(seed)
    network = LateFusion(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [5, 3])
    batch.present = {name: torch.rand(2, 5).gt(0.4) & batch.context for name in MODALITIES}
    for there in batch.present.values():
        there[0, 0] = False  # an utterance without any
    with torch.no_grad():
        output = network(batch)
    for b, t in batch.context.nonzero().tolist():
        having = [name for name in MODALITIES if batch.present[name][b, t]] or list(MODALITIES)
        mean = torch.stack([output.students[name][b, t] for name in having]).mean(dim=0)
        torch.testing.assert_close(output.logits[b, t], mean, atol=1e-5, rtol=1e-5)
        assert len(having) == 3 or not torch.allclose(
            mean, torch.stack([s[b, t] for s in output.students.values()]).mean(dim=0)
        )


@pytest.mark.parametrize("changed", MODALITIES)
def test_a_student_of_late_fusion_reads_its_modality_alone(changed: str) -> None:
    torch.manual_seed(0)
    network = LateFusion(shape_of(MODALITIES), hidden=8, heads=2).eval()
    batch = ragged(MODALITIES, [5, 3])
    features: dict[str, Tensor] = {**batch.features, changed: batch.features[changed] + 1}
    with torch.no_grad():
        before = network(batch).students
        after = network(dataclasses.replace(batch, features=features)).students
    moved = {name for name in MODALITIES if not torch.equal(before[name], after[name])}
    assert moved == {changed}


@pytest.mark.parametrize("kind", [EarlyFusion, LateFusion, TFN, LMF, MulT, DialogueTRM, MMTr])
def test_no_value_is_waited_for(kind: type[Network]) -> None:
    """On the meta device there are no values, so a branch or a size that needs one fails."""
    network = kind(shape_of(MODALITIES)).to("meta").train()
    batch = ragged(MODALITIES, [4, 2]).to("meta")
    assert network(batch).logits.shape == (2, 4, 3)
