"""What must hold of every aggregation rule, those that join later included."""

import copy
import dataclasses
import importlib

import pytest
import torch
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.selector import Selector
from fedmer.data.synthetic import synthetic_corpus
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop, RoundReport
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.registry import plugins
from fedmer.plugins.selectors.uniform import Uniform
from tests.federations import (
    clients_of,
    federation,
    same_bits,
    weights_of,
)

every_rule = pytest.mark.parametrize(
    "path",
    [pytest.param(p.path, id=p.name) for p in plugins("aggregators") if p.package == "fedmer"],
)


def rule(path: str) -> Aggregator:
    """A built-in rule with its defaults."""
    module, _, name = path.rpartition(".")
    kind: type[Aggregator] = getattr(importlib.import_module(module), name)
    return kind()


CORPUS = synthetic_corpus(seed=0, dialogues=10, features={"text": 6, "audio": 4})


def start(path: str, selector: Selector | None = None, copies: int = 0) -> FederatedLoop:
    """Five clients of two dialogues each, or some copies of one that holds all ten."""
    split = Central() if copies else Dialogue(5)
    clients = clients_of(CORPUS, split) * max(copies, 1)
    loop = federation(rule(path), CORPUS, clients, selector)
    loop.state.rounds = 3
    return loop


def kept(loop: FederatedLoop) -> dict[str, Tensor]:
    """All tensors that a federation keeps, the server's and every client's."""
    found = {f"network.{name}": value for name, value in weights_of(loop).items()}

    def gather(name: str, value: object) -> None:
        if isinstance(value, Tensor):
            found[name] = value.clone()
        elif isinstance(value, dict):
            for key, inner in value.items():
                gather(f"{name}.{key}", inner)
        else:
            assert value is None or isinstance(value, (int, float, list, tuple, bool)), name

    gather("state", loop.state_dict())
    gather("optimizer", loop.optimizer.state_dict())
    return found


def assert_sound(loop: FederatedLoop, report: RoundReport, received: Broadcast) -> None:
    """What a round must leave behind, whatever the rule."""
    assert list(report.weights) == [summary.client for summary in report.summaries]
    assert sum(report.weights.values()) == pytest.approx(1)
    assert all(weight >= 0 for weight in report.weights.values())
    for name, value in kept(loop).items():
        assert value.isfinite().all(), name
        assert not value.requires_grad, name
    for sent in (received.tensors, *(summary.tensors for summary in report.summaries)):
        assert all(isinstance(value, Tensor) for value in sent.values())
    for summary in report.summaries:
        assert (type(summary.train_loss), type(summary.steps)) == (float, int)
    assert report.bytes_down == received.nbytes * len(report.summaries)


@every_rule
def test_two_rounds_are_sound_and_a_repeat_gives_the_same_bits(path: str) -> None:
    loops = [start(path), start(path)]
    hyperparameters = copy.deepcopy(vars(loops[0].aggregator))
    for number in range(2):
        for loop in loops:
            loop.state.round = number
            received = loop.knowledge()
            report = loop.run_round(number)
            assert_sound(loop, report, received)
        assert same_bits(kept(loops[0]), kept(loops[1]))
    assert vars(loops[0].aggregator) == hyperparameters, "a rule keeps no state in itself"
    assert_counted(loops[0], report)


def assert_counted(loop: FederatedLoop, report: RoundReport) -> None:
    """The bytes of a later round are at least those of what must have been sent."""
    if isinstance(loop.aggregator, Local):
        assert report.bytes_down == 0
        return
    assert report.bytes_down > 0
    if loop.aggregator.finished(loop.state):
        assert report.bytes_up == 8 * 3 * len(report.summaries)
        return
    assert report.bytes_up > 8 * 3 * len(report.summaries)
    if loop.trainer.exchanged:
        size = sum(weights_of(loop)[name].nbytes for name in loop.trainer.exchanged)
        assert min(report.bytes_up, report.bytes_down) >= size * len(report.summaries)


@every_rule
def test_some_clients_take_part_and_some_come_late(path: str) -> None:
    loop, seen = start(path, Uniform(0.4)), list[set[int]]()
    for number in range(3):
        loop.state.round = number
        received = loop.knowledge()
        report = loop.run_round(number)
        assert_sound(loop, report, received)
        seen.append({summary.client for summary in report.summaries})
    assert seen[1] - seen[0], "somebody joins in the second round"
    assert seen[2] & (seen[0] | seen[1]), "somebody comes back"


@every_rule
def test_stopped_and_resumed_is_the_unbroken_run(path: str) -> None:
    straight, broken = (start(path, Uniform(0.6)) for _ in range(2))
    for number in range(3):
        straight.run_round(number)
        if number < 2:
            broken.run_round(number)
    resumed = start(path, Uniform(0.6))
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    resumed.state.network.load_state_dict(broken.state.network.state_dict())
    resumed.optimizer.load_state_dict(copy.deepcopy(broken.optimizer.state_dict()))
    resumed.run_round(2)
    assert same_bits(kept(straight), kept(resumed))


def act_as_one(trainer: LocalTrainer) -> None:
    """Let every client draw order and dropout as client 0 does, and keep nothing."""
    original = trainer.fit

    def fit(client: int, received: Broadcast) -> tuple[Summary, Update | None]:
        trainer.load_state_dict({**trainer.state_dict(), "memory": {}})
        summary, update = original(0, received)
        renamed = None if update is None else dataclasses.replace(update, client=client)
        return dataclasses.replace(summary, client=client), renamed

    trainer.fit = fit  # type: ignore[method-assign]


@every_rule
def test_identical_clients_weigh_the_same_and_are_as_one(path: str) -> None:
    one, many = (start(path, copies=n) for n in (1, 3))
    for loop in (one, many):
        act_as_one(loop.trainer)
    for number in range(2):
        one.run_round(number)
        report = many.run_round(number)
        assert list(report.weights.values()) == pytest.approx([1 / 3] * 3)
        if not one.aggregator.trains(one.knowledge()):
            continue  # a sum over three copies of an utterance is that of three utterances
        pairs = [(weights_of(many), weights_of(one)), (many.state.tensors, one.state.tensors)]
        for ours, theirs in pairs:
            assert ours.keys() == theirs.keys()
            for name, value in theirs.items():
                torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)
