"""What a node insists on: its own file decides, and a server that asks for more gets a sentence."""

import functools
import json
import math
import stat
from collections.abc import Mapping
from copy import deepcopy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

pytest.importorskip("flwr")

from flwr.app import ConfigRecord, RecordDict
from hypothesis import given
from hypothesis import strategies as st

from fedmer.__main__ import main
from fedmer.data.formats.native import write
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.node import work as node_work
from fedmer.flower.node.policy import OPEN, Policy, policy_for
from fedmer.flower.records import take_failure
from fedmer.flower.wire import header, put, put_broadcast, take
from fedmer.messages import Broadcast
from fedmer.parts import CLIENT_PARTS, build_trainer
from tests.federations import small_corpus
from tests.flower.test_messages_crossing import head
from tests.flower.test_parts import part

LIMITS = {
    "secure_sum": True,
    "smallest_cohort": 3,
    "threshold": 0.6,
    "largest_share": 0.8,
    "largest_message_mb": 256.0,
    "rules": None,
}


@pytest.fixture
def own(tmp_path: Path) -> dict[str, str]:
    """A node's folder, with the policy that a new one has."""
    write(small_corpus(), tmp_path / "corpus.npz")
    (tmp_path / "state").mkdir()
    policy_for(4).write(tmp_path / "policy.json")
    return {"data": str(tmp_path / "corpus.npz"), "folder": str(tmp_path)}


@functools.cache
def begun(rule: str) -> tuple[dict[str, Any], Broadcast]:
    """What every message of a run says, and its first broadcast."""
    corpus = small_corpus()
    settings = {key: deepcopy(DEFAULTS[key]) for key in CLIENT_PARTS}
    settings |= {"network": part("networks", "SDT", hidden=8, heads=2)}
    settings |= {"aggregator": part("aggregators", rule)}
    settings |= {"local": {"epochs": 1, "batch_size": 4}}
    settings |= {"seed": 0, "precision": "32-true"}
    trainer = build_trainer(settings, corpus.shape, {})
    weights = dict(trainer.weights.clone()) if trainer.exchanged else None
    return dict(head(settings, corpus, "none")), Broadcast(0, weights)


class Messages:
    """What a server may send to the node, in which a test changes something."""

    def __init__(self, own: Mapping[str, str], rule: str = "FedAvg") -> None:
        self.own = own
        self.head, self.received = begun(rule)
        self.counts = torch.ones(small_corpus().shape.classes, dtype=torch.int64)

    def describe(self, **changes: Any) -> RecordDict:
        content = RecordDict({"run": ConfigRecord(self.head | changes)})
        return node_work.answer("describe", content, self.own, RecordDict())

    def fit(
        self, keep: bool = False, state: RecordDict | None = None, **changes: Any
    ) -> RecordDict:
        return self.ask("fit", keep, state, changes, {})

    def ask(
        self,
        kind: str,
        keep: bool,
        state: RecordDict | None,
        run: Mapping[str, Any],
        numbers: Mapping[str, Any],
    ) -> RecordDict:
        content = RecordDict({"run": ConfigRecord(self.head | dict(run))})
        content["round"] = header(0, 0, keep)
        put_broadcast(content, self.received)
        put(content, "statistics", {"class_counts": self.counts, **numbers})
        return node_work.answer(kind, content, self.own, RecordDict() if state is None else state)


def said(answer: RecordDict) -> str:
    return str(take_failure(answer))


def test_a_new_node_has_safe_limits_for_its_owner_alone(tmp_path: Path) -> None:
    for nodes, cohort in ((2, 2), (3, 3), (12, 3)):
        folder = tmp_path / str(nodes)
        assert main(["deploy", "init", str(folder), "--nodes", str(nodes)]) == 0
        node = Federation.read(folder).node("node-1")
        assert json.loads(node.policy.read_text()) == LIMITS | {"smallest_cohort": cohort}
        assert stat.S_IMODE(node.policy.stat().st_mode) == 0o600
        assert Policy.read(node.policy) == policy_for(nodes)


@pytest.mark.parametrize(
    ("values", "why"),
    [
        ({"secure_sum": "yes"}, 'secure_sum is "yes"; expected true or false'),
        ({"secure_sum": 1}, "secure_sum is 1; expected true or false"),
        ({"smallest_cohort": 0}, "smallest_cohort is 0; expected a whole number"),
        ({"smallest_cohort": 2.5}, r"smallest_cohort is 2\.5; expected a whole number"),
        ({"threshold": 0.5}, r"threshold is 0\.5; expected a number above 0\.5"),
        ({"threshold": True}, "threshold is true"),
        ({"largest_share": 0}, "largest_share is 0; expected a number above 0"),
        ({"largest_share": math.nan}, "largest_share is NaN"),
        ({"largest_message_mb": -1}, "largest_message_mb is -1"),
        ({"rules": [3]}, "rules is"),
        ({"rules": "FedAvg"}, "rules is"),
        ({"secure": True}, "has secure; expected secure_sum, smallest_cohort"),
        ([1], "has no object; expected secure_sum"),
    ],
)
def test_a_policy_that_cannot_be_is_a_sentence(tmp_path: Path, values: Any, why: str) -> None:
    path = tmp_path / "policy.json"
    path.write_text(json.dumps(values))
    with pytest.raises(InputError, match=rf"^its policy\.json:? .*{why}"):
        Policy.read(path)


@pytest.mark.parametrize("content", [b"", b"{", b"\xff", b"[" * 100_000])
def test_a_damaged_policy_lets_nothing_through(own: dict[str, str], content: bytes) -> None:
    messages = Messages(own)
    (Path(own["folder"]) / "policy.json").write_bytes(content)
    for answer in (messages.describe(), messages.fit(keep=True)):
        assert "its policy.json cannot be read" in said(answer)


def test_a_missing_policy_is_the_safe_one(own: dict[str, str]) -> None:
    messages = Messages(own)
    (Path(own["folder"]) / "policy.json").unlink()
    assert "it sends its weights in a masked sum only" in said(messages.fit())
    assert take_failure(messages.fit(keep=True)) is None


def test_weights_leave_in_a_masked_sum_only(own: dict[str, str]) -> None:
    messages = Messages(own)
    plain = messages.fit()
    assert set(plain) == {"failure"}
    assert "start the run with --privacy SecureSum, or let its owner set secure_sum" in said(plain)
    state = RecordDict()
    assert set(messages.fit(keep=True, state=state)) == {
        *("summary", "summary.tensors", "summary.tensors.layout")
    }
    assert "update" in state
    # A rule without weights has none to mask.
    assert take_failure(Messages(own, "FedProto").fit()) is None
    Policy(secure_sum=False).write(Path(own["folder"]) / "policy.json")
    assert "update" in messages.fit()


def test_its_owner_lists_the_rules(own: dict[str, str]) -> None:
    Policy(secure_sum=False, rules=("FedAvg", "FedProx")).write(Path(own["folder"]) / "policy.json")
    assert take_failure(Messages(own).fit()) is None
    why = said(Messages(own, "FedProto").fit())
    assert why == "its policy.json allows the rules FedAvg, FedProx, and this run wants FedProto"


def test_a_large_message_is_refused(own: dict[str, str]) -> None:
    messages = Messages(own)
    Policy(largest_message_mb=0.01).write(Path(own["folder"]) / "policy.json")
    assert "its policy.json allows 0.01" in said(messages.fit(keep=True))
    assert "its policy.json allows 0.01" in said(messages.describe(settings="x" * 20_000))


@given(
    st.dictionaries(st.integers(0, 9), st.floats(0, 1), min_size=1),
    st.integers(1, 5),
    st.floats(0.01, 1),
    st.data(),
)
def test_no_sum_goes_through_that_one_node_dominates(
    weights: dict[int, float], cohort: int, share: float, data: st.DataObject
) -> None:
    kept = data.draw(st.lists(st.sampled_from(sorted(weights)), unique=True))
    policy = Policy(smallest_cohort=cohort, largest_share=share)
    try:
        policy.check_shares(weights, kept)
    except InputError:
        return
    counted = [weights[node] for node in kept if weights[node] > 0]
    assert len(counted) >= cohort
    assert max(counted) <= share * sum(counted) * (1 + 1e-12)


@given(st.integers(1, 60), st.integers(0, 61), st.integers(0, 61))
def test_no_two_sums_of_a_cohort_can_be_unmasked(nodes: int, threshold: int, both: int) -> None:
    """A node gives a share for one of two sums: each has to be short of it for one of them."""
    try:
        OPEN.check_cohort(nodes, threshold)
    except InputError:
        return
    assert not (both >= threshold and nodes - both >= threshold)


def test_a_masked_round_is_never_the_same_twice(own: dict[str, str]) -> None:
    """Else the sums with and without a node would differ by its update."""
    messages = Messages(own)
    updates = []
    for _ in range(2):
        state = RecordDict()
        assert take_failure(messages.fit(keep=True, state=state)) is None
        updates.append(state.array_records["update"]["difference"].numpy())
    sizes = [float(np.linalg.norm(update)) for update in updates]
    assert float(np.linalg.norm(updates[0] - updates[1])) > 0.1 * min(sizes)
    # In the open there is nothing to hide, and a run is repeated bit for bit.
    Policy(secure_sum=False).write(Path(own["folder"]) / "policy.json")
    one, other = (take(messages.fit(), "update") for _ in range(2))
    assert all(torch.equal(one[name], other[name]) for name in one)


def numbers_of(answer: RecordDict) -> dict[str, Any]:
    assert take_failure(answer) is None, said(answer)
    numbers = take(answer, "numbers")
    return {name: value.tolist() for name, value in numbers.items()} | dict(
        answer.config_records["description"]
    )


def test_many_requests_are_answered_by_the_same_numbers(own: dict[str, str]) -> None:
    """The sums over all dialogues but some tell single dialogues, if there are many of them."""
    messages = Messages(own)
    for kind in ("federated", "none", "local"):
        first = numbers_of(messages.describe(standardise=kind))
        assert first["held"] == 3
        for seed in (0, 1, 2**40):
            assert numbers_of(messages.describe(standardise=kind, seed=seed)) == first
    for holdout in (0.0, 0.1, 0.5):
        why = said(messages.describe(holdout=holdout))
        assert "it keeps back 0.2 of its dialogues since its first run, and this one asks" in why
        assert "start it with --data.holdout 0.2" in why
        assert why == said(messages.fit(keep=True, holdout=holdout))
    # Another node of the same data keeps back others.
    path = Path(own["folder"]) / "state" / "holdout.json"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    before = path.read_text()
    path.unlink()
    messages.describe()
    assert path.read_text() != before


def test_changed_data_are_not_described_again_without_a_word(own: dict[str, str]) -> None:
    messages = Messages(own)
    first = numbers_of(messages.describe())
    write(small_corpus(seed=1), Path(own["data"]))
    for answer in (messages.describe(), messages.fit(keep=True)):
        assert "its data have changed since it first described them" in said(answer)
        assert "its owner deletes state/holdout.json" in said(answer)
    (Path(own["folder"]) / "state" / "holdout.json").unlink()
    assert numbers_of(messages.describe()) != first
    (Path(own["folder"]) / "state" / "holdout.json").write_text('{"fraction": 2.0}')
    assert "its state/holdout.json cannot be read" in said(messages.describe())


def deep(levels: int) -> str:
    return '{"a":' * levels + "1" + "}" * levels


@pytest.mark.parametrize(
    ("run", "numbers", "why"),
    [
        ({"seconds": math.inf}, {}, "it was given inf seconds for its answer; expected above 0"),
        ({"seconds": math.nan}, {}, "it was given nan seconds"),
        ({"seconds": -1.0}, {}, r"it was given -1.0 seconds"),
        ({"seconds": 1e9}, {}, "at most 604800"),
        ({"seconds": "soon"}, {}, "it was given soon seconds"),
        ({"settings": deep(25)}, {}, "the settings are no JSON object of at most 24 levels"),
        ({"settings": deep(10_000)}, {}, "the settings are no JSON object"),
        ({"settings": "[]"}, {}, "the settings are no JSON object"),
        ({"settings": " " * 100_001}, {}, "the settings have 100001 characters"),
        ({"standardise": "twice"}, {}, "it was asked to standardise by 'twice'"),
        ({"holdout": 1.0}, {}, "a fraction in [0, 1)"),
        ({"holdout": math.nan}, {}, "a fraction in [0, 1)"),
        ({"speakers": 10**9}, {}, "its message has speakers 1000000000; expected 1 to 1000"),
        ({"begin": -1}, {}, "its message has begin -1"),
        ({"attempt": "../x"}, {}, "the attempt is called '../x', expected 32 hexadecimal digits"),
        ({}, {"more": torch.ones(10**6)}, "its statistics are of another network: 1 names differ"),
        ({}, {"class_counts": torch.tensor([-1] * 6)}, "its counts of the emotions are below 0"),
        ({"standardise": "federated"}, {}, "its statistics are of another network"),
    ],
)
def test_what_a_server_sends_is_measured_first(
    own: dict[str, str], run: dict[str, Any], numbers: dict[str, Any], why: str
) -> None:
    messages = Messages(own)
    if "class_counts" in numbers:
        numbers = {"class_counts": -messages.counts}
    answer = messages.ask("fit", True, None, run, numbers)
    assert why in said(answer)
    assert not list((Path(own["folder"]) / "state").rglob("*.pt"))


def test_deviations_are_above_nought(own: dict[str, str]) -> None:
    messages = Messages(own)
    numbers = {}
    for name, width in small_corpus().shape.features.items():
        numbers |= {f"{name}.mean": torch.zeros(width), f"{name}.deviation": torch.ones(width)}
    run = {"standardise": "federated"}
    assert take_failure(messages.ask("fit", True, None, run, numbers)) is None
    numbers["audio.deviation"] = torch.zeros(4)
    answer = messages.ask("fit", True, None, run, numbers)
    assert "its deviations of audio are not above 0" in said(answer)
