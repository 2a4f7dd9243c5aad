"""A masked sum between a server, honest or not, and real node code: what it gives, and refuses."""

import copy
import math
import re
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, Context, Message, RecordDict
from flwr.common.secure_aggregation.secaggplus_constants import RECORD_KEY_CONFIGS, Key, Stage
from flwr.supercore.task_identity import TaskIdentity

from fedmer.contracts.masked_sum import MaskedSum
from fedmer.flower.class_rows import Rows
from fedmer.flower.node import masking
from fedmer.flower.node.policy import Policy
from fedmer.flower.records import take_failure
from fedmer.flower.server.masked_sum import MaskedTotal, masked_sum
from fedmer.flower.terms import MODULUS, grid, written

REQUEST = b"\1" * 32
STAGES = (Stage.SETUP, Stage.SHARE_KEYS, Stage.COLLECT_MASKED_VECTORS, Stage.UNMASK)

Tamper = Callable[[int, str, RecordDict], None]


class Nodes:
    """Nodes in this process, each with a folder, an update and what Flower keeps for it.

    It stands for Flower's grid. A dishonest server changes messages on their way, by ``tamper``.
    """

    def __init__(
        self,
        folder: Path,
        count: int,
        policy: Policy,
        messages: Any = None,
        rows: Rows = (),
        needed: int = 0,
    ) -> None:
        random = np.random.default_rng(0)
        self.run = SimpleNamespace(run_id=1)
        self.updates = {
            # Ids as large as Flower's, and in no order.
            (7919 * (n + 1)) % 2**31 + 2**40: random.normal(0, 0.1, 50).astype(np.float32)
            for n in range(count)
        }
        self.contexts: dict[int, Context] = {}
        self.tamper: Tamper = lambda node, stage, content: None
        self.dead: dict[int, str] = {}
        self.answers: dict[str, Message] = {}
        self.failures: dict[int, str] = {}
        for number, (node, update) in enumerate(self.updates.items()):
            own = folder / str(node)
            (own / "state").mkdir(parents=True)
            policy.write(own / "policy.json")
            state = RecordDict()
            masking.keep(state, update, messages[number] if messages else REQUEST, rows, needed)
            self.contexts[node] = Context(1, node, {"folder": str(own)}, state, {})

    def ask(self, node: int, content: RecordDict, context: Context | None = None) -> RecordDict:
        """Have real node code answer a message."""
        message = Message(content, node, "train")
        message.metadata.__dict__["_message_id"] = f"{node}-{len(self.answers)}"
        message.metadata.__dict__["_run_id"] = 1
        answer = masking.mask(message, context or self.contexts[node])
        self.answers[message.metadata.message_id] = answer
        failure = take_failure(answer.content)
        if failure is not None:
            self.failures[node] = failure
        found: RecordDict = answer.content
        return found

    def push_messages(self, messages: Iterable[Message]) -> list[str]:
        sent = []
        for message in messages:
            node = message.metadata.dst_node_id
            content = copy.deepcopy(message.content)
            stage = str(content.config_records[RECORD_KEY_CONFIGS][Key.STAGE])
            if self.dead.get(node) == stage:
                sent.append("nobody")
                continue
            self.tamper(node, stage, content)
            self.ask(node, content)
            sent.append(list(self.answers)[-1])
        return sent

    def pull_messages(self, messages: Iterable[str]) -> list[Message]:
        return [self.answers.pop(message) for message in list(messages) if message in self.answers]

    def get_node_ids(self) -> list[int]:
        return [node for node in self.updates if node not in self.dead]

    def sum(self, weights: Mapping[int, float] | None = None, **more: Any) -> MaskedTotal:
        """The server's side, honest but for ``tamper``."""
        if weights is None:
            weights = dict.fromkeys(self.updates, 1 / len(self.updates))
        chosen: dict[str, Any] = {
            "round": 0,
            "masked": MaskedSum(0.6, 1.0),
            "seconds": 6.0,
            "digest": REQUEST,
            "classes": {},
            "rows": (),
        }
        return masked_sum(self, weights, **(chosen | more))  # type: ignore[arg-type]

    def expected(self, weights: Mapping[int, float]) -> np.ndarray[Any, Any]:
        total = np.zeros(50)
        for node, weight in weights.items():
            total += weight * self.updates[node]
        return total


@pytest.fixture(autouse=True)
def identity(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whose messages these are, which Flower's own processes know."""
    for name in ("_run_id", "_node_id", "_task_id"):
        monkeypatch.setattr(TaskIdentity, name, 1)


def weights_of(nodes: Nodes, *weights: float) -> dict[int, float]:
    return dict(zip(nodes.updates, weights, strict=True))


@pytest.fixture
def four(tmp_path: Path) -> Nodes:
    return Nodes(tmp_path, 4, Policy())


def test_an_honest_sum_is_the_weighted_sum(four: Nodes) -> None:
    weights = weights_of(four, 0.4, 0.3, 0.2, 0.1)
    found = four.sum(weights)
    assert found.total is not None
    assert found.failures == {}
    np.testing.assert_allclose(found.total, four.expected(weights), atol=1e-6)
    assert found.nodes == sorted(four.updates)


def test_a_node_that_is_lost_is_not_in_the_sum(four: Nodes, monkeypatch: Any) -> None:
    first = next(iter(four.updates))
    monkeypatch.setattr("fedmer.flower.server.masked_sum._ROLL_CALL", 0.1)
    four.dead = {first: Stage.COLLECT_MASKED_VECTORS}
    weights = weights_of(four, 0.4, 0.3, 0.2, 0.1)
    found = four.sum(weights)
    assert found.total is not None
    del weights[first]
    np.testing.assert_allclose(found.total, four.expected(weights), atol=1e-6)


@pytest.mark.parametrize(
    ("count", "weights", "said"),
    [
        (3, (1.0, 0.0, 0.0), "wants 3 nodes or more in a masked sum, and 1 have a weight above 0"),
        (4, (0.5, 0.5, 0.0, 0.0), "wants 3 nodes or more in a masked sum, and 2 have a weight"),
        (3, (1.0, 1e-9, 1e-9), "one node has 1 of the weight of this masked sum"),
        (3, (0.1, 0.81, 0.09), r"one node has 0\.81 of the weight .* allows 0\.8"),
        (2, (0.5, 0.5), "wants 3 nodes or more in a masked sum, and this one has 2"),
    ],
)
def test_weights_that_show_one_update_are_refused(
    tmp_path: Path, count: int, weights: tuple[float, ...], said: str
) -> None:
    nodes = Nodes(tmp_path, count, Policy())
    found = nodes.sum(weights_of(nodes, *weights))
    assert found.total is None
    assert set(found.failures) == set(nodes.updates)
    for sentence in found.failures.values():
        assert sentence.startswith("says: ")
        assert re.search(said, sentence)


def test_without_a_policy_the_largest_weight_may_be_any(tmp_path: Path) -> None:
    """As for virtual nodes, which are one person's."""
    nodes = Nodes(tmp_path, 3, Policy())
    for context in nodes.contexts.values():
        context.node_config = {}
    weights = weights_of(nodes, 1.0, 0.0, 0.0)
    found = nodes.sum(weights)
    assert found.total is not None
    np.testing.assert_allclose(found.total, nodes.expected(weights), atol=1e-6)


SETUP = {
    Key.STAGE: Stage.SETUP,
    Key.SAMPLE_NUMBER: 4,
    Key.SHARE_NUMBER: 4,
    Key.THRESHOLD: 3,
    Key.CLIPPING_RANGE: 1.0,
    Key.TARGET_RANGE: grid(4),
    Key.MOD_RANGE: MODULUS,
    Key.MAX_WEIGHT: 1.0,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        # A cohort of one that unmasks its own sum.
        ({Key.SAMPLE_NUMBER: 1, Key.SHARE_NUMBER: 1, Key.THRESHOLD: 1}, "and this one has 1"),
        ({Key.SAMPLE_NUMBER: 2, Key.SHARE_NUMBER: 2, Key.THRESHOLD: 2}, "and this one has 2"),
        ({Key.THRESHOLD: 2}, "2 of 4 nodes could unmask this sum, and its policy.json wants 3"),
        ({Key.THRESHOLD: 1}, "1 of 4 nodes could unmask"),
        ({Key.THRESHOLD: 5}, "5 of 4 nodes could unmask"),
        ({Key.SHARE_NUMBER: 5}, "has share_num 5, and fedmer's has 4"),
        # Others told one of these would add next to nothing.
        ({Key.MAX_WEIGHT: 1e9}, "has max_weight 1000000000.0, and fedmer's has 1.0"),
        ({Key.TARGET_RANGE: 2}, "has target_range 2, and"),
        ({Key.MOD_RANGE: 2**40}, "has mod_range"),
        ({Key.CLIPPING_RANGE: math.inf}, "set-up of the masked sum cannot be read"),
        ({Key.CLIPPING_RANGE: -1.0}, "set-up of the masked sum cannot be read"),
        ({Key.SAMPLE_NUMBER: 4.0}, "set-up of the masked sum cannot be read"),
    ],
)
def test_a_set_up_that_few_could_unmask_is_refused(
    four: Nodes, changes: dict[str, Any], said: str
) -> None:
    node = next(iter(four.updates))
    assert take_failure(four.ask(node, told(SETUP))) is None
    answer = four.ask(node, told(SETUP | changes))
    assert said in str(take_failure(answer))


def told(values: Mapping[str, Any]) -> RecordDict:
    return RecordDict({RECORD_KEY_CONFIGS: ConfigRecord(dict(values))})


def up_to(nodes: Nodes, last: str) -> dict[int, RecordDict]:
    """Let an honest sum go on until the messages of a stage, which are not sent but returned."""
    kept: dict[int, RecordDict] = {}

    class HaltError(Exception):
        pass

    def hold(node: int, stage: str, content: RecordDict) -> None:
        if stage == last:
            kept[node] = copy.deepcopy(content)
            raise HaltError

    nodes.tamper = hold
    with pytest.raises(HaltError):
        nodes.sum()
    nodes.tamper = lambda node, stage, content: None
    return kept


def unmask(active: Iterable[int], dead: Iterable[int]) -> RecordDict:
    return told(
        {
            Key.STAGE: Stage.UNMASK,
            Key.ACTIVE_NODE_ID_LIST: list(active),
            Key.DEAD_NODE_ID_LIST: list(dead),
        }
    )


def test_of_each_peer_a_seed_or_a_key_and_once(four: Nodes) -> None:
    up_to(four, Stage.UNMASK)
    ids = list(four.updates)
    own, peer = ids[0], ids[1]
    once = "among those that were lost, or among the others, and once"
    for active, dead, said in (
        (ids, [peer], once),
        (ids, ids, once),
        (ids[:3], [], once),
        ([*ids, 5], [], once),
        ([own, own, own, *ids[1:]], [], once),
        (ids[1:], [own], "it was not lost in the masked sum"),
        (ids[:2], ids[2:], "fewer than 3 nodes are left"),
    ):
        assert said in str(take_failure(four.ask(own, unmask(active, dead))))
    answer = four.ask(own, unmask(ids, []))
    assert take_failure(answer) is None
    # Another wish of the same sum, from what Flower keeps now and from what it kept before.
    four.contexts[own].state.config_records["secaggplus_state"]["current_stage"] = (
        Stage.COLLECT_MASKED_VECTORS
    )
    for active, dead in ((ids, []), ([own, *ids[2:]], [peer])):
        said = str(take_failure(four.ask(own, unmask(active, dead))))
        assert said == "it has helped to unmask this sum already, and does so once"


def test_two_messages_at_a_time_are_answered_once(tmp_path: Path) -> None:
    """Both find what Flower kept before either was answered."""
    nodes = Nodes(tmp_path, 4, Policy())
    messages = up_to(nodes, Stage.COLLECT_MASKED_VECTORS)
    (node,) = messages
    twin = copy.deepcopy(nodes.contexts[node])
    assert take_failure(nodes.ask(node, copy.deepcopy(messages[node]))) is None
    said = str(take_failure(nodes.ask(node, messages[node], twin)))
    assert said == "its keys have masked a vector already, and does so once"
    # With other keys, but the same update.
    other = copy.deepcopy(nodes.contexts[node])
    masking.keep(other.state, nodes.updates[node], REQUEST)
    spare = copy.deepcopy(other)
    for context, failure in ((other, None), (spare, "its update is part of a masked sum already")):
        for peer in nodes.updates:
            nodes.contexts[peer] = nodes.contexts[peer] if peer != node else context
        for peer in nodes.updates:
            if peer != node:
                masking.keep(nodes.contexts[peer].state, nodes.updates[peer], REQUEST)
        found = nodes.sum()
        said = found.failures.get(node)
        assert said is None if failure is None else failure in str(said)


def test_an_update_is_used_once(four: Nodes) -> None:
    assert four.sum().total is not None
    found = four.sum()
    assert found.total is None
    assert all("it has no update for a masked sum" in said for said in found.failures.values())


def test_nodes_that_were_told_other_weights_give_noise(four: Nodes) -> None:
    """Each of them sees weights that it takes: only their masks can tell that they differ."""
    target, *others = four.updates
    mild = dict(zip(four.updates, (0.1, 0.3, 0.3, 0.3), strict=True))

    def lie(node: int, stage: str, content: RecordDict) -> None:
        if stage == Stage.COLLECT_MASKED_VECTORS and node != target:
            # The others count for nothing, and believe that one of them does not matter much.
            weak = {target: 0.4e-6} | dict.fromkeys(others, 0.2e-6)
            content.config_records["fitins.config"]["weights"] = written(weak)

    four.tamper = lie
    found = four.sum(mild)
    assert found.failures == {}
    assert found.total is not None
    error = np.abs(found.total - 0.1 * four.updates[target]).max()
    assert error > 0.05


@pytest.mark.parametrize("odd", [0, 3])
def test_nodes_that_were_told_to_learn_other_things_give_noise(tmp_path: Path, odd: int) -> None:
    messages = [REQUEST] * 4
    messages[odd] = b"\2" * 32
    nodes = Nodes(tmp_path, 4, Policy(), messages)
    found = nodes.sum()
    assert found.total is not None
    assert np.abs(found.total - nodes.expected(dict.fromkeys(nodes.updates, 0.25))).max() > 0.05


@pytest.mark.parametrize(
    ("stage", "change", "said"),
    [
        (Stage.SHARE_KEYS, {"5": [b"a", b"b"]}, "was set up for 4 nodes, and the keys of 5 came"),
        (
            Stage.COLLECT_MASKED_VECTORS,
            {Key.SOURCE_LIST: [], Key.CIPHERTEXT_LIST: []},
            "not one of each other",
        ),
    ],
)
def test_peers_are_those_of_the_set_up(
    four: Nodes, stage: str, change: dict[str, Any], said: str
) -> None:
    (node,) = messages = up_to(four, stage)
    messages[node].config_records[RECORD_KEY_CONFIGS].update(change)
    assert said in str(take_failure(four.ask(node, messages[node])))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"clip": 2.0}, "set up with another clip"),
        ({"weights": "[]"}, "weights of the masked sum cannot be read"),
        ({"weights": "[[1, 0.5]]"}, "are not those of its nodes"),
        ({"weights": "[" * 10_000}, "weights of the masked sum cannot be read"),
    ],
)
def test_what_a_server_tells_of_the_weights_is_checked(
    four: Nodes, change: dict[str, Any], said: str
) -> None:
    (node,) = messages = up_to(four, Stage.COLLECT_MASKED_VECTORS)
    messages[node].config_records["fitins.config"].update(change)
    assert said in str(take_failure(four.ask(node, messages[node])))


def test_an_update_beyond_the_clip_takes_no_part(four: Nodes) -> None:
    found = four.sum(masked=MaskedSum(0.6, 0.01))
    assert found.total is None
    assert all("beyond privacy.clip 0.01" in said for said in found.failures.values())
