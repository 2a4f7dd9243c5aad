"""M3Net: hyperedges and filters against loops over nodes and edges."""

import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.plugins.networks._history import numbered
from fedmer.plugins.networks.m3_net import M3Net, _Frequencies, _Hypergraph
from tests.networks.test_contract import ragged, shape_of

D = 5
shapes = st.tuples(st.integers(1, 3), st.integers(1, 5))
quick = settings(max_examples=20, deadline=None)


def drawn(size: tuple[int, int], seed: int) -> tuple[Tensor, Tensor]:
    """Nodes of one dialogue and which of them exist."""
    random = torch.Generator().manual_seed(seed)
    exist = torch.rand(1, *size, generator=random) < 0.7
    return torch.randn(1, *size, D, generator=random) * exist[..., None], exist


def convolved(
    half: _Hypergraph, layer: nn.Module, nodes: Tensor, exist: Tensor, causal: bool
) -> Tensor:
    """One convolution, hyperedge by hyperedge and node by node."""
    modalities, length = exist.shape[1:]
    gamma, omega = half.node_weights.exp(), half.edge_weights.exp()
    found = torch.zeros_like(nodes)
    for m, t in itertools.product(range(modalities), range(length)):
        if not exist[0, m, t]:
            continue
        own = [n for n in range(modalities) if exist[0, n, t]]
        across = sum(gamma[n] * nodes[0, n, t] for n in own) / sum(gamma[n] for n in own)
        reach = [j for j in range(length) if exist[0, m, j] and (j <= t or not causal)]
        along = sum(nodes[0, m, j] for j in reach) / len(reach)
        mixed = (omega[0] * across + omega[m + 1] * along) / (omega[0] + omega[m + 1])
        found[0, m, t] = torch.relu(layer(mixed))
    return found


@quick
@given(size=shapes, seed=st.integers(0, 1000), causal=st.booleans())
def test_hyperedges_are_those_of_modalities_and_of_the_dialogue(
    size: tuple[int, int], seed: int, causal: bool
) -> None:
    torch.manual_seed(seed)
    half = _Hypergraph(size[0], D, 2, 0.3, causal).eval()
    nn.init.normal_(half.node_weights)
    nn.init.normal_(half.edge_weights)
    nodes, exist = drawn(size, seed)
    expected = nodes
    with torch.no_grad():
        for layer in half.layers:
            expected = convolved(half, layer, expected, exist, causal)
        torch.testing.assert_close(half(nodes, exist), expected, atol=1e-5, rtol=1e-4)


def neighbours(exist: Tensor, m: int, t: int, causal: bool) -> list[tuple[int, int]]:
    modalities, length = exist.shape[1:]
    turns = [(m, j) for j in range(length) if j != t and (j < t or not causal)]
    others = [(n, t) for n in range(modalities) if n != m]
    return [node for node in turns + others if exist[0, m, t] and exist[0, node[0], node[1]]]


@quick
@given(size=shapes, seed=st.integers(0, 1000), causal=st.booleans())
def test_filters_add_and_subtract_neighbours(
    size: tuple[int, int], seed: int, causal: bool
) -> None:
    torch.manual_seed(seed)
    layer = _Frequencies(D, 0.3, causal).eval()
    nodes, exist = drawn(size, seed)
    with torch.no_grad():
        found = layer(nodes, exist)
        for m, t in itertools.product(range(size[0]), range(size[1])):
            near = neighbours(exist, m, t, causal)
            expected = nodes[0, m, t].clone()
            for n, j in near:
                other = nodes[0, n, j]
                signed = torch.tanh(layer.reader(nodes[0, m, t]) + layer.neighbour(other))
                counts = len(near) * max(len(neighbours(exist, n, j, causal)), 1)
                expected += signed / counts**0.5 * other
            torch.testing.assert_close(found[0, m, t], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(("sign", "closer"), [(1.0, True), (-1.0, False)])
def test_positive_weights_draw_together_and_negative_ones_apart(sign: float, closer: bool) -> None:
    layer = _Frequencies(1, 0.0, causal=False)
    nn.init.zeros_(layer.reader.weight)
    nn.init.constant_(layer.reader.bias, sign)
    nn.init.zeros_(layer.neighbour.weight)
    nodes = torch.tensor([1.0, 3.0]).view(1, 1, 2, 1)
    found = layer(nodes, torch.ones(1, 1, 2, dtype=torch.bool)).flatten()
    ratio = (found[1] - found[0]).abs() / found.abs().sum()
    assert bool(ratio < 0.5) == closer


def test_its_layers_are_counted() -> None:
    network = M3Net(shape_of({"text": 3}), hidden=4, hyper_layers=3, frequency_layers=1)
    assert (len(network.hypergraph.layers), len(network.frequencies)) == (3, 1)


def test_without_the_recurrence_all_modalities_enter_alike() -> None:
    torch.manual_seed(0)
    network = M3Net(
        shape_of({"text": 3, "audio": 3}), hidden=4, dropout=0.0, hyper_layers=1,
        frequency_layers=1, recurrent=False,
    ).eval()  # fmt: skip
    assert not any("context" in name for name in network.state_dict())
    for part in (network.hypergraph.layers[0], network.frequencies[0].reader):
        nn.init.zeros_(part.weight)
        nn.init.zeros_(part.bias)
    nn.init.zeros_(network.frequencies[0].neighbour.weight)
    batch = ragged({"text": 3, "audio": 3}, [4, 2])
    output = network(batch)
    speaker = network.speaker(numbered(batch, 2))
    for name, rows in network.project(batch).items():
        wanted = torch.relu(rows + speaker).masked_fill(~batch.context[..., None], 0)
        torch.testing.assert_close(output.embeddings[name][..., 4:], wanted)
