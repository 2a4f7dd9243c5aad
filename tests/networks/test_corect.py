"""CORECT: its relations and its attention against loops over nodes and edges."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from fedmer.errors import InputError
from fedmer.plugins.networks.corect import CORECT, _GraphAttention, _Relations
from tests.networks.test_contract import ragged, shape_of

D, HEADS = 6, 2
Node = tuple[int, int]
shapes = st.tuples(st.integers(1, 3), st.integers(1, 6))
quick = settings(max_examples=20, deadline=None)
MODALITIES = {"audio": 2, "text": 3, "visual": 4}


def drawn(size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Nodes of one dialogue and which of them exist."""
    random = torch.Generator().manual_seed(seed)
    exist = torch.rand(1, *size, generator=random) < 0.7
    return torch.randn(1, *size, D, generator=random) * exist[..., None], exist


def nearby(exist: Tensor, node: Node, window: int, causal: bool) -> dict[str, list[Node]]:
    """The neighbours of a node by their relation to it."""
    m, t = node
    found: dict[str, list[Node]] = {"before": [], "after": []}
    for j in range(exist.shape[2]):
        if exist[0, m, j] and 0 < abs(t - j) <= window and (j < t or not causal):
            found["before" if j < t else "after"].append((m, j))
    for n in range(exist.shape[1]):
        if n != m and exist[0, n, t]:
            found[f"{n}_to_{m}"] = [(n, t)]
    return found


@quick
@given(size=shapes, seed=st.integers(0, 1000), window=st.integers(0, 3), causal=st.booleans())
def test_each_relation_has_weights_of_its_own(
    size: tuple[int, int], seed: int, window: int, causal: bool
) -> None:
    torch.manual_seed(seed)
    layer = _Relations(size[0], D, window, causal)
    assert (layer.after is None) == causal
    nodes, exist = drawn(size, seed)
    with torch.no_grad():
        found = layer(nodes, exist)
        for m, t in itertools.product(range(size[0]), range(size[1])):
            expected = layer.itself(nodes[0, m, t])
            for relation, members in nearby(exist, (m, t), window, causal).items():
                if not members:
                    continue
                mean = torch.stack([nodes[0, n, j] for n, j in members]).mean(dim=0)
                if relation == "before":
                    expected = expected + layer.before.weight[m] @ mean
                elif relation == "after":
                    assert layer.after is not None
                    expected = expected + layer.after.weight[m] @ mean
                else:
                    expected = expected + mean @ layer.between[relation]
            torch.testing.assert_close(found[0, m, t], expected, atol=1e-5, rtol=1e-4)


@quick
@given(size=shapes, seed=st.integers(0, 1000), window=st.integers(0, 3), causal=st.booleans())
def test_attention_is_a_softmax_over_all_neighbours(
    size: tuple[int, int], seed: int, window: int, causal: bool
) -> None:
    torch.manual_seed(seed)
    layer = _GraphAttention(D, HEADS, 0.3, window, causal).eval()
    nodes, exist = drawn(size, seed)
    with torch.no_grad():
        found = layer(nodes, exist)
        for m, t in itertools.product(range(size[0]), range(size[1])):
            expected = layer.itself(nodes[0, m, t])
            near = list(itertools.chain(*nearby(exist, (m, t), window, causal).values()))
            if near:
                rows = torch.stack([nodes[0, n, j] for n, j in near])
                query = layer.query(nodes[0, m, t]).view(HEADS, -1)
                keys = layer.key(rows).view(len(near), HEADS, -1)
                values = layer.value(rows).view(len(near), HEADS, -1)
                scores = torch.einsum("hw,nhw->hn", query, keys) / (D // HEADS) ** 0.5
                mixed = torch.einsum("hn,nhw->hw", scores.softmax(dim=-1), values)
                expected = expected + mixed.flatten()
            torch.testing.assert_close(found[0, m, t], expected, atol=1e-5, rtol=1e-4)


def test_every_ordered_pair_of_modalities_attends() -> None:
    network = CORECT(shape_of(MODALITIES), hidden=8, heads=2)
    assert sorted(network.crossmodal) == sorted(
        f"{one}_to_{other}" for one, other in itertools.permutations(MODALITIES, 2)
    )
    assert network.main == "text"


def test_no_value_is_waited_for() -> None:
    network = CORECT(shape_of(MODALITIES)).to("meta").train()
    assert network(ragged(MODALITIES, [4, 2]).to("meta")).logits.shape == (2, 4, 3)


def test_a_window_below_zero_is_refused() -> None:
    with pytest.raises(InputError, match="window is -1; expected a whole number, 0 or more"):
        CORECT(shape_of(MODALITIES), window=-1)
