"""MMGCN and MMDFN: their graph, layers and recurrences against loops over nodes and utterances."""

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.errors import InputError
from fedmer.plugins.networks._graph import Graph, GraphConvolution, multimodal_graph
from fedmer.plugins.networks.mmdfn import MMDFN
from fedmer.plugins.networks.mmgcn import MMGCN
from tests.networks.dialogues import batch_of_dialogues

THREE = CorpusShape({"audio": 2, "text": 3, "visual": 4}, classes=4, speakers=3)
D = 6
quick = settings(max_examples=15, deadline=None)
dialogues = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=2)
seeds = st.integers(0, 1000)
graph_networks = pytest.mark.parametrize("kind", [MMGCN, MMDFN])

Node = tuple[str, int]
"""A modality and an utterance."""


def angle(one: Tensor, other: Tensor) -> float:
    """The edge between two nodes, from the formula; 0.5 if one of them is zero."""
    length = float(one.norm() * other.norm())
    cosine = float(one @ other) / length if length else 0.0
    return 1 - math.acos(0.99999 * min(max(cosine, -1.0), 1.0)) / math.pi


def dense(nodes: dict[Node, Tensor]) -> dict[tuple[Node, Node], float]:
    """The normalised adjacency, pair by pair."""
    edges = {
        (a, b): angle(nodes[a], nodes[b])
        for a, b in itertools.product(nodes, nodes)
        if a[0] == b[0] or a[1] == b[1]
    }
    degree = {a: sum(w for (x, _), w in edges.items() if x == a) for a in nodes}
    return {(a, b): w / math.sqrt(degree[a] * degree[b]) for (a, b), w in edges.items()}


def mixed(edges: dict[tuple[Node, Node], float], rows: dict[Node, Tensor]) -> dict[Node, Tensor]:
    return {
        a: sum((w * rows[b] for (x, b), w in edges.items() if x == a), start=torch.zeros(D))
        for a in rows
    }


@quick
@given(
    seed=seeds, modalities=st.integers(1, 4), turns=st.integers(1, 5), odd=st.sampled_from("zps")
)
def test_the_graph_is_what_a_loop_over_pairs_of_nodes_gives(
    seed: int, modalities: int, turns: int, odd: str
) -> None:
    random = torch.Generator().manual_seed(seed)
    rows = torch.randn(2, modalities, turns, D, generator=random)
    rows[0, 0, 0] = {"z": 0 * rows[0, 0, 0], "p": 2 * rows[0, 0, -1], "s": -rows[0, -1, 0]}[odd]
    present = torch.rand(2, modalities, turns, generator=random) < 0.7
    values = torch.randn(2, modalities, turns, D, generator=random)
    actual = multimodal_graph(rows, present).mix(values)
    for b in range(2):
        there = [(str(m), t) for m, t in present[b].nonzero().tolist()]
        edges = dense({(m, t): rows[b, int(m), t] for m, t in there})
        expected = mixed(edges, {(m, t): values[b, int(m), t] for m, t in there})
        for (m, t), row in expected.items():
            torch.testing.assert_close(actual[b, int(m), t], row, atol=1e-4, rtol=1e-4)
        assert not actual[b][~present[b]].any()


def test_an_edge_by_hand() -> None:
    """Two utterances at a right angle, and one modality more in the first of them, parallel to
    it."""
    rows = torch.tensor([[[[2.0, 0.0], [0.0, 1.0]], [[1.0, 0.0], [5.0, 5.0]]]])
    graph = multimodal_graph(rows, torch.tensor([[[True, True], [True, False]]]))
    same = 1 - math.acos(0.99999) / math.pi
    first, second, other = same + 0.5 + same, 0.5 + same, same + same
    between = 0.5 / math.sqrt(first * second)
    expected = torch.tensor([[same / first, between], [between, same / second]])
    torch.testing.assert_close(graph.within[0, 0], expected, atol=1e-4, rtol=0)
    torch.testing.assert_close(graph.within[0, 1, 0, 0], torch.tensor(same / other))
    across = torch.tensor([[0.0, same / math.sqrt(first * other)]])
    torch.testing.assert_close(graph.across[0, 0], torch.cat([across, across.flip(1)]))
    assert not graph.across[0, 1].any()


@quick
@given(seed=seeds, kind=st.sampled_from(["zero", "parallel", "opposite"]), size=st.integers(-30, 1))
def test_vectors_of_zeros_and_parallel_ones_have_bounded_gradients(
    seed: int, kind: str, size: int
) -> None:
    random = torch.Generator().manual_seed(seed)
    nodes = torch.randn(1, 2, 3, D, generator=random)
    factor = {"zero": 0.0, "parallel": 10.0**size, "opposite": -(10.0**size)}[kind]
    nodes[0, 0, 0] = factor * nodes[0, 0, 1]
    nodes.requires_grad_()
    graph = multimodal_graph(nodes, torch.ones(1, 2, 3, dtype=torch.bool))
    torch.autograd.backward(graph.mix(torch.randn(1, 2, 3, D, generator=random)).sum())
    assert nodes.grad is not None
    assert nodes.grad.isfinite().all()
    assert nodes.grad.abs().max() < 1e6


@pytest.mark.parametrize("depth", [1, 2, 7])
def test_a_layer_of_gcnii_by_hand_for_two_nodes(depth: int) -> None:
    """One modality, two utterances, one number a node."""
    layer = GraphConvolution(hidden=1, depth=depth, alpha=0.2, decay=0.5)
    with torch.no_grad():
        layer.weight.weight.copy_(torch.tensor([[3.0, -2.0]]))
    graph = Graph(torch.tensor([[[[0.6, 0.3], [0.3, 0.5]]]]), torch.zeros(1, 2, 1, 1))
    output = layer(graph, torch.tensor([[[[1.0], [2.0]]]]), torch.tensor([[[[4.0], [-1.0]]]]))
    theta = math.log(0.5 / depth + 1)
    first = theta * (3 * 1.2 - 2 * 4) + (1 - theta) * (0.8 * 1.2 + 0.2 * 4)
    second = theta * (3 * 1.3 - 2 * -1) + (1 - theta) * (0.8 * 1.3 + 0.2 * -1)
    torch.testing.assert_close(output.flatten(), torch.tensor([first, second]))


def projected(network: MMGCN | MMDFN, batch: Batch, b: int) -> dict[Node, Tensor]:
    """W_m f_m of each node that is there."""
    return {
        (name, t): network.project.layers[name](batch.features[name][b, t])
        for name in THREE.features
        for t in batch.present[name][b].nonzero().flatten().tolist()
    }


def turns_of(rows: dict[Node, Tensor], name: str) -> list[int]:
    return sorted(t for m, t in rows if m == name)


def passed(recurrence: nn.Module, rows: list[Tensor]) -> Tensor:
    states: Tensor = recurrence(torch.stack(rows)[None])[0][0]
    return states


def convolved(
    layer: nn.Module,
    edges: dict[tuple[Node, Node], float],
    rows: dict[Node, Tensor],
    initial: dict[Node, Tensor],
) -> dict[Node, Tensor]:
    """ReLU of GCNII, node by node."""
    assert isinstance(layer, GraphConvolution)
    result = {}
    for node, sums in mixed(edges, rows).items():
        learned = layer.weight.weight @ torch.cat([sums, initial[node]])
        kept = (1 - layer.alpha) * sums + layer.alpha * initial[node]
        result[node] = (layer.theta * learned + (1 - layer.theta) * kept).clamp(min=0)
    return result


def mmgcn_by_hand(network: MMGCN, batch: Batch, b: int) -> tuple[dict[Node, Tensor], ...]:
    nodes = projected(network, batch, b)
    spoken = turns_of(nodes, "text")
    if spoken:
        told = passed(network.context, [nodes["text", t] for t in spoken])
        for t, row in zip(spoken, told, strict=True):
            nodes["text", t] = row + network.speaker(batch.roles[b, t])
    edges = dense(nodes)
    initial = {node: network.enter(row).clamp(min=0) for node, row in nodes.items()}
    hidden = initial
    for layer in network.layers:
        hidden = convolved(layer, edges, hidden, initial)
    return nodes, hidden


def mmdfn_by_hand(network: MMDFN, batch: Batch, b: int) -> tuple[dict[Node, Tensor], ...]:
    rows = projected(network, batch, b)
    nodes = dict(rows)
    spoken = turns_of(rows, "text")
    if spoken:
        told = passed(network.context, [rows["text", t] for t in spoken])
        nodes.update({("text", t): row for t, row in zip(spoken, told, strict=True)})
    for name, role in itertools.product(THREE.features, range(3)):
        turns = [t for t in turns_of(rows, name) if batch.roles[b, t] == role]
        if turns:
            party = passed(network.party, [rows[name, t] for t in turns])
            for t, row in zip(turns, party, strict=True):
                nodes[name, t] = nodes[name, t] + network.weights[name] * row
    edges = dense(nodes)
    initial = {node: network.enter(row).clamp(min=0) for node, row in nodes.items()}
    hidden = dict(initial)
    states: dict[Node, tuple[Tensor, Tensor]] = {
        node: (torch.zeros(D), torch.zeros(D)) for node in nodes
    }
    for layer in network.layers:
        for node in nodes:
            states[node] = network.gate(hidden[node], states[node])
        gated = {node: state for node, (state, _) in states.items()}
        change = convolved(layer, edges, gated, initial)
        hidden = {node: hidden[node] + change[node] for node in nodes}
    return nodes, hidden


@quick
@given(dialogues=dialogues, seed=seeds, layers=st.integers(1, 3))
def test_mmgcn_is_what_a_loop_over_nodes_gives(
    dialogues: list[list[int]], seed: int, layers: int
) -> None:
    torch.manual_seed(seed)
    network = MMGCN(THREE, hidden=D, layers=layers).eval()
    batch = batch_of_dialogues(THREE, dialogues, seed)
    with torch.no_grad():
        compare(network, batch, [mmgcn_by_hand(network, batch, b) for b in range(len(dialogues))])


@quick
@given(
    dialogues=dialogues,
    seed=seeds,
    layers=st.integers(1, 3),
    party=st.sampled_from([None, {"audio": 3.0, "visual": 0.0}, {"text": 0.5}]),
)
def test_mmdfn_is_what_a_loop_over_nodes_gives(
    dialogues: list[list[int]], seed: int, layers: int, party: dict[str, float] | None
) -> None:
    torch.manual_seed(seed)
    network = MMDFN(THREE, hidden=D, layers=layers, party=party).eval()
    assert network.weights == {"audio": 1.0, "text": 1.0, "visual": 1.0, **(party or {})}
    batch = batch_of_dialogues(THREE, dialogues, seed)
    with torch.no_grad():
        compare(network, batch, [mmdfn_by_hand(network, batch, b) for b in range(len(dialogues))])


def compare(
    network: MMGCN | MMDFN, batch: Batch, expected: list[tuple[dict[Node, Tensor], ...]]
) -> None:
    """Every node's z, and the logits made of all z of an utterance, absent ones being zero."""
    output = network(batch)
    for b, t in batch.context.nonzero().tolist():
        nodes, hidden = expected[b]
        said = []
        for name in THREE.features:
            node = (name, t)
            z = (
                torch.cat([nodes[node], hidden[node]]).clamp(min=0)
                if node in nodes
                else torch.zeros(2 * D)
            )
            torch.testing.assert_close(output.embeddings[name][b, t], z, atol=1e-4, rtol=1e-3)
            said.append(output.embeddings[name][b, t])
        fused = output.embeddings["fused"][b, t]
        assert torch.equal(fused, torch.cat(said))
        torch.testing.assert_close(output.logits[b, t], network.read_out.head(fused))


@graph_networks
def test_half_precision_rounds_no_angle_to_one(kind: type[MMGCN] | type[MMDFN]) -> None:
    torch.manual_seed(0)
    network, batch = kind(THREE, hidden=8), batch_of_dialogues(THREE, [[0, 1, 2, 0, 1], [0, 1]], 0)
    batch.features = {name: torch.ones_like(rows) for name, rows in batch.features.items()}
    with torch.autocast("cpu", torch.bfloat16):
        loss = network(batch).logits[batch.context].square().mean()
    torch.autograd.backward(loss)
    for name, parameter in network.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name


@graph_networks
def test_many_layers_keep_apart_what_differs(kind: type[MMGCN] | type[MMDFN]) -> None:
    """At the authors' depths the nodes of a dialogue do not become one and the same."""
    torch.manual_seed(0)
    network = kind(THREE, hidden=16, layers=64 if kind is MMGCN else 32).eval()
    batch = batch_of_dialogues(THREE, [[0, 1] * 8], 0)
    with torch.no_grad():
        logits = network(batch).logits[0]
    assert logits.isfinite().all()
    assert logits.std(dim=0).min() > 1e-2


@graph_networks
@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ({"hidden": 7}, r"hidden is 7; expected an even number"),
        ({"hidden": 0}, r"hidden is 0; expected"),
        ({"dropout": -0.1}, r"dropout is -0\.1"),
        ({"layers": 0}, r"layers is 0; expected a whole number, 1 or more"),
        ({"alpha": 1.5}, r"alpha is 1\.5; expected a number in \[0, 1\]"),
        ({"alpha": math.nan}, r"alpha is nan"),
        ({"decay": 0.0}, r"decay is 0\.0; expected a number above 0"),
        ({"decay": math.inf}, r"decay is inf"),
    ],
)
def test_hyperparameters_out_of_range_are_refused(
    kind: type[MMGCN] | type[MMDFN], arguments: dict[str, float], sentence: str
) -> None:
    with pytest.raises(InputError, match=sentence):
        kind(THREE, **arguments)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("party", "sentence"),
    [
        ({"video": 1.0}, r"party names 'video'; expected one of the modalities audio, text, vis"),
        ({"audio": -1.0}, r"party\['audio'\] is -1\.0; expected a number, 0 or more"),
        ({"audio": math.nan}, r"party\['audio'\] is nan"),
        ({"audio": 0.0, "text": 0.0, "visual": 0.0}, r"party is 0 for every modality"),
    ],
)
def test_weights_of_the_party_are_checked(party: dict[str, float], sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        MMDFN(THREE, party=party)
