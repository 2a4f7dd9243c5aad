"""Class means in a masked sum of real nodes: what comes out, what is refused, what crosses."""

from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ArrayRecord, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import Stage

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.flower.class_rows import rows_of, weighed
from fedmer.flower.node import client_side
from fedmer.flower.node.policy import Policy
from fedmer.flower.wire import header, put_broadcast
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_proc import FedProc
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy.secure_sum import SecureSum
from fedmer.prototypes import PrototypeSet
from fedmer.running_mean import ClientWeight, RunningMean
from fedmer.weights import FlatWeights, Layout
from tests.aggregators.test_masked_summaries import Carrying, small_network
from tests.federations import clients_of, federation, small_corpus
from tests.flower.test_masked_classes import AXES, WHOLE, mean_by_round
from tests.flower.test_masked_sum import Nodes, identity  # noqa: F401

SHAPES = {"body": (5,), "head": (3, 5), "fused": (3, 6), "text": (3, 4)}
SUMS = ("fused", "text")
ROWS, NEEDED = rows_of(list(SHAPES.items()), AXES, SUMS)
HEAD = torch.tensor([[4.0, 1.0, 1.0], [3.0, 1.0, 1.0], [2.0, 2.0, 0.0], [1.0, 0.0, 0.0]])
# The second class of one, and the first of the other, are held by too few.
FUSED = torch.tensor([[1.0, 1.0, 1.0], [1.0, 0.0, 2.0], [1.0, 0.0, 3.0], [1.0, 0.0, 1.0]])
TEXT = torch.tensor([[0.0, 1.0, 1.0], [1.0, 2.0, 1.0], [1.0, 3.0, 1.0], [0.0, 1.0, 0.0]])


@pytest.fixture
def four(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, 4, Policy(), rows=ROWS, needed=NEEDED)


def weights(head: bool = True) -> list[ClientWeight]:
    found = []
    for place, whole in enumerate(WHOLE):
        sums = {"fused": FUSED[place].clone(), "text": TEXT[place].clone()}
        found.append(ClientWeight(whole, HEAD[place].clone() if head else None, sums))
    return found


def expected_mean(nodes: Nodes, received: FlatWeights, lost: set[int], head: bool) -> Any:
    mean, layout = (
        RunningMean({"head": AXES["head"]}),
        Layout.of({n: torch.zeros(s) for n, s in SHAPES.items()}),
    )
    for place, (update, by) in enumerate(zip(nodes.updates.values(), weights(head), strict=True)):
        vector = torch.from_numpy(update).clone()
        vector[:20] += received.vectors[torch.float32]
        if by.classes is not None:
            by.classes[2] = 0
        by.sums["fused"][1] = by.sums["text"][0] = 0
        if place not in lost:
            mean.add(FlatWeights(layout, {torch.float32: vector}), by)
    return mean.result(received)


@pytest.mark.parametrize("head", [True, False])
@pytest.mark.parametrize("lost", [set(), {3}])
def test_each_summary_has_weights_of_its_own(
    four: Nodes, lost: set[int], head: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("fedmer.flower.server.masked_sum._ROLL_CALL", 0.1)
    four.dead = {list(four.updates)[place]: Stage.SETUP for place in lost}
    torch.manual_seed(0)
    received = FlatWeights.of({name: torch.randn(SHAPES[name]) for name in ("body", "head")})
    layout = Layout.of({name: torch.zeros(shape) for name, shape in SHAPES.items()})
    found, failures = mean_by_round(four, received, weights(head), layout, SUMS)
    assert set(failures) == lost
    for name, value in expected_mean(four, received, lost, head).items():
        torch.testing.assert_close(found[name], value, atol=1e-6, rtol=0)
    assert not found["fused"][1].any()
    assert found["fused"][0].all()


@pytest.mark.parametrize("given", [0, 3, 7])
def test_a_node_does_not_sum_its_class_means_without_weights_of_each_class(
    four: Nodes, given: int
) -> None:
    """A server could ask for the mean of one client's class by leaving them out."""
    share = {node: [0.25] * given for node in four.updates} if given else {}
    found = four.sum(classes=share, rows=weighed(ROWS, given))
    assert found.total is None
    assert all("or not of its network's and its summary's" in s for s in found.failures.values())
    assert four.failures.keys() == four.updates.keys()


@pytest.mark.parametrize("place", [1, 5])
def test_a_node_refuses_the_class_mean_of_few_and_names_the_class(four: Nodes, place: int) -> None:
    classes = {node: [0.25] * 6 for node in four.updates}
    for number, node in enumerate(four.updates):
        classes[node][place] = 0.5 if number < 2 else 0.0
    dishonest = MaskedSum(0.6, 1.0, class_holders=1, class_share=2.0)
    found = four.sum(classes=classes, rows=weighed(ROWS, 6), masked=dishonest)
    assert found.total is None
    assert all(f"and class {place % 3 + 1} has 2" in said for said in found.failures.values())


@pytest.mark.parametrize("make", [Distance, FedProto, FedProc])
@pytest.mark.parametrize("masked", [True, False])
def test_no_byte_of_a_class_mean_leaves_a_node(make: type[Aggregator], masked: bool) -> None:
    corpus = small_corpus()
    clients = clients_of(corpus, Dialogue(3))
    loop = federation(make(), corpus, clients, rounds=3, network_of=small_network)
    loop.run_round(0)
    loop.state.round = 1
    received = loop.aggregator.broadcast(loop.state)
    memory = loop.trainer.recall(0)
    summary, _ = loop.trainer.fit(0, received)
    means = PrototypeSet.unpack(summary.tensors)["fused"]
    assert means.known.any()
    privacy = [SecureSum()] if masked else []
    other = federation(
        make(), corpus, clients, executor=Carrying(), privacy=privacy, rounds=3,
        network_of=small_network,
    )  # fmt: skip
    content, state = RecordDict({"round": header(1, 0, masked)}), RecordDict()
    put_broadcast(content, received)
    answer, _ = client_side.fit(other.trainer, content, state, memory)
    crossing = b"".join(
        array.data
        for record in answer.values()
        if isinstance(record, ArrayRecord)
        for array in record.values()
    )
    rows = [row.numpy().tobytes() for row in means.means[means.known]]
    assert [row in crossing for row in rows] == [not masked] * len(rows)
