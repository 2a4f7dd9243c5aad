"""Weights of classes under a masked sum: the plain class-wise mean, and no row of one node."""

import json
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import Stage
from hypothesis import given
from hypothesis import strategies as st

from fedmer.contracts.masked_sum import MaskedSum
from fedmer.errors import InputError
from fedmer.flower.class_rows import put_rows, rows_of
from fedmer.flower.node.policy import OPEN, Policy
from fedmer.flower.records import take_failure
from fedmer.flower.server.round import FlowerRound
from fedmer.flower.terms import Terms, read_classes, written_classes
from fedmer.plugins.executors.flower import _class_shares
from fedmer.running_mean import ClientWeight, RunningMean
from fedmer.weights import FlatWeights, Layout
from tests.flower.test_masked_sum import REQUEST, Nodes, identity, up_to  # noqa: F401

SHAPES = {"body": (10,), "head": (3, 5), "gain": (1,), "other": (2, 3, 4)}
AXES = {"head": 0, "other": 1}
ROWS, _ = rows_of(list(SHAPES.items()), AXES)
WHOLE = (0.4, 0.3, 0.2, 0.1)
# The first class is held by all, the second by three, the third by two, which is too few.
CLASSES = torch.tensor([[4.0, 1.0, 1.0], [3.0, 1.0, 1.0], [2.0, 2.0, 0.0], [1.0, 0.0, 0.0]])


@pytest.fixture
def four(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, 4, Policy(), rows=ROWS)


def by_node(nodes: Nodes, classes: torch.Tensor) -> dict[int, list[float]]:
    shares = classes.double() / classes.double().sum(dim=0)
    return dict(zip(nodes.updates, shares.tolist(), strict=True))


def sum_of(nodes: Nodes, classes: torch.Tensor, **more: Any) -> Any:
    weights = dict(zip(nodes.updates, WHOLE, strict=True))
    return nodes.sum(weights, classes=by_node(nodes, classes), rows=ROWS, **more)


def mean_by_round(
    nodes: Nodes,
    received: FlatWeights,
    weights: Sequence[ClientWeight],
    layout: Layout | None = None,
    sums: Sequence[str] = (),
) -> Any:
    """What a round makes of a masked sum, from weights of clients."""
    clients = dict(enumerate(nodes.updates))
    failures: dict[int, str] = {}
    network = SimpleNamespace(class_parameters=AXES)
    executor = SimpleNamespace(
        received=SimpleNamespace(round=0, weights=received),
        timeout=6.0,
        traffic=SimpleNamespace(down=0, up=0),
        failures=failures,
        absent=set(),
        leave_out=lambda client, why: failures.update({client: why}),
        trainer=SimpleNamespace(
            client=SimpleNamespace(network=network),
            aggregator=SimpleNamespace(sums=sums),
            fabric=SimpleNamespace(device=torch.device("cpu")),
        ),
    )
    made = FlowerRound.__new__(FlowerRound)
    made.executor = executor  # type: ignore[assignment]
    made.connection = SimpleNamespace(  # type: ignore[assignment]
        relay=SimpleNamespace(call=lambda function, *given: function(nodes, *given))
    )
    made._nodes, made._asked, made._update = clients, REQUEST, layout or Layout.of(received)
    made._down, made._up = Counter(), Counter()
    by = dict(enumerate(weights))
    shares = {client: weight.whole for client, weight in by.items()}
    return made.masked_mean(shares, _class_shares(by, sums), MaskedSum(0.6, 1.0)), failures


def with_classes(classes: torch.Tensor) -> list[ClientWeight]:
    return [ClientWeight(whole, rows) for whole, rows in zip(WHOLE, classes, strict=True)]


def plain_mean(nodes: Nodes, received: FlatWeights, classes: torch.Tensor, lost: set[int]) -> Any:
    mean = RunningMean(AXES)
    for client, update in enumerate(nodes.updates.values()):
        if client not in lost:
            vector = received.vectors[torch.float32] + torch.from_numpy(update)
            own = FlatWeights(received.layout, {torch.float32: vector})
            mean.add(own, ClientWeight(WHOLE[client], classes[client]))
    return mean.result(received)


@pytest.fixture
def received() -> FlatWeights:
    torch.manual_seed(0)
    return FlatWeights.of({name: torch.randn(shape) for name, shape in SHAPES.items()})


def test_the_mean_is_the_plain_class_wise_one(four: Nodes, received: FlatWeights) -> None:
    found, failures = mean_by_round(four, received, with_classes(CLASSES))
    assert failures == {}
    held = CLASSES.clone()
    held[:, 2] = 0  # two nodes hold it, so that it keeps its rows
    for name, value in plain_mean(four, received, held, set()).items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    assert torch.equal(found["head"][2], received["head"][2])
    assert torch.equal(found["other"][:, 2], received["other"][:, 2])
    assert not torch.equal(found["head"][1], received["head"][1])


@pytest.mark.parametrize("stage", [Stage.SETUP, Stage.COLLECT_MASKED_VECTORS])
def test_a_node_that_is_lost_leaves_the_mean_of_the_others(
    four: Nodes, received: FlatWeights, stage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmer.flower.server.masked_sum._ROLL_CALL", 0.1)
    four.dead = {list(four.updates)[3]: stage}
    found, failures = mean_by_round(four, received, with_classes(CLASSES))
    assert list(failures) == [3]
    held = CLASSES.clone()
    held[:, 2] = 0
    for name, value in plain_mean(four, received, held, {3}).items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)


def test_a_class_that_too_few_hold_after_a_loss_before_the_keys_keeps_its_rows(
    four: Nodes, received: FlatWeights
) -> None:
    four.dead = {next(iter(four.updates)): Stage.SETUP}
    found, failures = mean_by_round(four, received, with_classes(CLASSES))
    assert list(failures) == [0]
    assert torch.equal(found["head"][1], received["head"][1])
    assert not torch.equal(found["head"][0], received["head"][0])


def test_a_class_that_too_few_hold_after_a_later_loss_ends_the_sum(
    four: Nodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its rows are in the total already, which nobody then helps to unmask."""
    monkeypatch.setattr("fedmer.flower.server.masked_sum._ROLL_CALL", 0.1)
    four.dead = {next(iter(four.updates)): Stage.COLLECT_MASKED_VECTORS}
    found = sum_of(four, CLASSES)
    assert found.total is None
    assert len(found.failures) == 3
    for said in found.failures.values():
        assert "wants 3 nodes or more behind a class's rows in a masked sum, and class 2" in said


@pytest.mark.parametrize(
    ("column", "said"),
    [
        ((1.0, 0.0, 0.0, 0.0), "and class 3 has 1; start the run with --privacy.class_holders 3"),
        ((1.0, 1.0, 0.0, 0.0), "and class 3 has 2"),
        ((9.0, 1.0, 0.5, 0.0), r"one node has 0.857 of the weight of class 3 .* allows 0.8"),
    ],
)
def test_nodes_refuse_rows_that_one_of_them_dominates(
    four: Nodes, column: tuple[float, ...], said: str
) -> None:
    classes = CLASSES.clone()
    classes[:, 2] = torch.tensor(column)
    # A server that does not withhold what it should.
    found = sum_of(four, classes, masked=MaskedSum(0.6, 1.0, class_holders=1, class_share=2.0))
    assert found.total is None
    assert set(found.failures) == set(four.updates)
    with pytest.raises(InputError, match=said):
        Policy().check_class_shares(by_node(four, classes), list(four.updates), 3)
    OPEN.check_class_shares(by_node(four, classes), list(four.updates), 3)


def test_nodes_that_were_told_other_weights_of_classes_give_noise(four: Nodes) -> None:
    """Each of them sees weights that it takes: only their masks can tell that they differ."""
    target, *others = four.updates

    def lie(node: int, stage: str, content: RecordDict) -> None:
        if stage == Stage.COLLECT_MASKED_VECTORS and node != target:
            weak = {target: [1e-6 * 0.4] * 3} | dict.fromkeys(others, [1e-6 * 0.2] * 3)
            content.config_records["fitins.config"]["classes"] = written_classes(weak)

    four.tamper = lie
    even = torch.ones(4, 3)
    found = sum_of(four, even)
    assert found.failures == {}
    assert found.total is not None
    expected = 0.25 * four.updates[target]
    assert np.abs(found.total[:10] - np.array(WHOLE[0]) * expected[:10] / 0.25).max() > 0.05
    assert np.abs(found.total[10:25] - expected[10:25]).max() > 0.05


@pytest.mark.parametrize("rows", [ROWS, ((0, 1, 3, 5, 0),)])
def test_nodes_whose_networks_have_other_rows_give_noise(tmp_path: Path, rows: Any) -> None:
    nodes = Nodes(tmp_path, 4, Policy(), rows=rows)
    found = sum_of(nodes, torch.ones(4, 3))
    assert found.total is not None
    whole = sum(w * u for w, u in zip(WHOLE, nodes.updates.values(), strict=True))
    # Numbers that no weight of a class has to do with.
    error = np.abs(found.total[25] - whole[25])
    assert error < 1e-6 if rows == ROWS else error > 0.05


@pytest.mark.parametrize(
    ("classes", "said"),
    [
        ("[]x", "weights of classes of the masked sum cannot be read"),
        ("[" * 10_000, "weights of classes of the masked sum cannot be read"),
        (
            "[[1, [0.5]]]",
            "are not those of its nodes, or not of its network's and its summary's classes",
        ),
        (None, "weights of classes of the masked sum cannot be read"),
    ],
)
def test_what_a_server_tells_of_classes_is_checked(
    four: Nodes, classes: str | None, said: str
) -> None:
    (node,) = messages = up_to(four, Stage.COLLECT_MASKED_VECTORS)
    told = messages[node].config_records["fitins.config"]
    if classes is None:
        del told["classes"]
    else:
        told["classes"] = classes
    assert said in str(take_failure(four.ask(node, messages[node])))


def test_weights_of_other_classes_than_the_networks_are_refused(four: Nodes) -> None:
    found = four.sum(classes=by_node(four, torch.ones(4, 2)), rows=ROWS)
    assert found.total is None
    assert all("or not of its network's and its" in said for said in found.failures.values())


@given(
    st.integers(1, 4).flatmap(
        lambda count: st.dictionaries(
            st.integers(0, 2**64),
            st.lists(st.floats(0, 1e300), min_size=count, max_size=count),
        )
    )
)
def test_weights_of_classes_come_back(classes: dict[int, list[float]]) -> None:
    assert read_classes(written_classes(classes)) == classes


@given(
    st.text(max_size=20)
    | st.lists(
        st.tuples(st.integers(), st.lists(st.floats() | st.text(max_size=2), max_size=3))
    ).map(json.dumps)
)
def test_garbage_is_refused(text: str) -> None:
    try:
        found = read_classes(text)
    except InputError:
        return
    assert all(0 <= weight < math.inf for own in found.values() for weight in own)


def test_a_digest_is_of_the_classes_and_of_where_their_rows_lie() -> None:
    terms = [
        Terms(REQUEST, {1: 1.0}, 2, 1.0),
        Terms(REQUEST, {1: 1.0}, 2, 1.0, {1: [0.5]}, ROWS),
        Terms(REQUEST, {1: 1.0}, 2, 1.0, {1: [0.6]}, ROWS),
        Terms(REQUEST, {1: 1.0}, 2, 1.0, {1: [0.5]}, ROWS[:1]),
    ]
    assert len({own.digest for own in terms}) == 4


@given(st.lists(st.lists(st.integers(1, 3), min_size=1, max_size=3), min_size=1, max_size=4))
def test_rows_are_those_of_the_tensors(shapes: list[list[int]]) -> None:
    axes = {str(i): len(shape) // 2 for i, shape in enumerate(shapes)}
    shapes = [[2 if n == len(s) // 2 else size for n, size in enumerate(s)] for s in shapes]
    named = {str(i): torch.randn(shape) for i, shape in enumerate(shapes)}
    vector = torch.cat([value.flatten() for value in named.values()]).double().numpy()
    target = np.zeros_like(vector)
    rows, _ = rows_of([(n, v.shape) for n, v in named.items()], axes)
    put_rows(target, vector, [2.0, 0.0], rows)
    expected = []
    for name, value in named.items():
        factors = torch.tensor([2.0, 0.0]).view([-1, *[1] * (value.dim() - axes[name] - 1)])
        expected.append((value * factors).flatten())
    np.testing.assert_allclose(target, torch.cat(expected).numpy(), rtol=1e-6)


@given(
    st.integers(1, 3).flatmap(
        lambda count: st.lists(
            st.lists(st.just(0.0) | st.floats(0.01, 100), min_size=count, max_size=count),
            min_size=3,
            max_size=6,
        )
    )
)
def test_what_a_server_does_not_withhold_nodes_accept(rows: list[list[float]]) -> None:
    classes = dict(enumerate(rows))
    hidden = MaskedSum(0.6, 1.0).withheld(classes)
    left = {c: [0.0 if k in hidden else w for k, w in enumerate(own)] for c, own in classes.items()}
    totals = [sum(column) or 1.0 for column in zip(*left.values(), strict=True)]
    told = {c: [w / t for w, t in zip(own, totals, strict=True)] for c, own in left.items()}
    Policy().check_class_shares(told, list(told), len(rows[0]))
