"""Dropout that draws bits, layers side by side, and attention with and without dropout."""

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from fedmer.plugins.networks._layers import Dropout, Linears, attend

quick = settings(max_examples=25, deadline=None)


@quick
@given(p=st.floats(0.01, 0.95), size=st.integers(0, 9), seed=st.integers(0, 1000))
def test_what_is_kept_is_scaled_and_the_rest_is_zero(p: float, size: int, seed: int) -> None:
    torch.manual_seed(seed)
    rows = torch.randn(3, size, dtype=torch.float64)
    out = Dropout(p).train()(rows)
    kept = out != 0
    torch.testing.assert_close(out[kept], rows[kept] / (1 - p), rtol=1e-3, atol=0)


@pytest.mark.parametrize("p", [0.1, 0.3, 0.5, 0.9])
def test_the_share_and_the_mean_are_those_of_the_definition(p: float) -> None:
    torch.manual_seed(0)
    layer, rows = Dropout(p).train(), torch.ones(1000)
    out = torch.stack([layer(rows) for _ in range(1000)])
    # A million draws: five standard deviations of the share, and of the mean.
    assert abs(float((out == 0).float().mean()) - p) < 5 * (p * (1 - p)) ** 0.5 / 1000
    assert abs(float(out.mean()) - 1) < 5 * (p / (1 - p)) ** 0.5 / 1000
    # Neighbours share a drawn word and nothing else.
    zeros = (out == 0).float()
    pairs = (zeros[:, 1:] * zeros[:, :-1]).mean()
    assert abs(float(pairs) - p * p) < 5e-3


def test_dropout_is_a_function_of_the_seed_and_off_in_evaluation() -> None:
    layer, rows = Dropout(0.5), torch.randn(5, 7)
    torch.manual_seed(1)
    one = layer(rows)
    torch.manual_seed(1)
    assert torch.equal(layer(rows), one)
    assert not torch.equal(layer(rows), one)
    assert layer.eval()(rows) is rows
    assert Dropout(0.0).train()(rows) is rows


@quick
@given(count=st.integers(1, 4), bias=st.booleans(), seed=st.integers(0, 1000))
def test_layers_side_by_side_are_those_layers(count: int, bias: bool, seed: int) -> None:
    torch.manual_seed(seed)
    layers = Linears(count, 3, 5, bias=bias)
    rows = torch.randn(count, 2, 4, 3)
    out = layers(rows)
    assert out.shape == (count, 2, 4, 5)
    for p in range(count):
        offset = layers.bias[p, 0] if layers.bias is not None else None
        torch.testing.assert_close(out[p], F.linear(rows[p], layers.weight[p], offset))


def test_layers_start_like_torchs() -> None:
    torch.manual_seed(0)
    ours, theirs = Linears(50, 64, 64), nn.Linear(64, 64)
    for one, other in ((ours.weight, theirs.weight), (ours.bias, theirs.bias)):
        assert one is not None
        assert one.abs().max() <= 64**-0.5
        assert one.std().item() == pytest.approx(other.std().item(), rel=0.25)


@quick
@given(seed=st.integers(0, 1000))
def test_attention_with_dropout_is_attention_on_average_and_without_it_exactly(seed: int) -> None:
    torch.manual_seed(seed)
    queries, keys, values = torch.randn(3, 2, 2, 4, 3)
    present = torch.rand(2, 4) < 0.6
    present[:, 0] = True
    exact = F.scaled_dot_product_attention(queries, keys, values, present[:, None, None, :])
    off = Dropout(0.3).eval()
    assert torch.equal(attend(queries, keys, values, present, off), exact)
    on = Dropout(1e-9).train()  # rounds to none dropped, by the other way of computing it
    torch.testing.assert_close(attend(queries, keys, values, present, on), exact)
