"""Rules under which a part of every network stays with its client."""

import copy

import pytest
import torch
from torch import nn

from fedmer.contracts import Aggregator
from fedmer.loop import FederatedLoop
from fedmer.plugins.aggregators.fed_adam import FedAdam
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.selectors.uniform import Uniform
from tests.federations import federation, same_bits, weights_of

HEADS = ("teacher.", "students.")


def with_personal_heads(rule: type[Aggregator]) -> Aggregator:
    class Personal(rule):  # type: ignore[misc, valid-type]
        def personal_names(self, network: nn.Module) -> list[str]:
            return [name for name in network.state_dict() if name.startswith(HEADS)]

    return Personal()


def run(loop: FederatedLoop, rounds: range) -> FederatedLoop:
    for number in rounds:
        loop.run_round(number)
    loop.executor.close()
    return loop


@pytest.mark.parametrize("rule", [FedAvg, FedProx, FedAdam, SCAFFOLD])
def test_heads_stay_with_their_clients_and_the_body_is_everybodys(rule: type[Aggregator]) -> None:
    loop = federation(with_personal_heads(rule))
    start = weights_of(loop)
    report = run(loop, range(2)).state.network and loop.run_round(2)
    heads = [name for name in start if name.startswith(HEADS)]
    assert loop.trainer.personal == heads
    for name, value in weights_of(loop).items():
        assert torch.equal(value, start[name]) == (name in heads), name
    received = loop.knowledge()
    assert received.weights is not None
    assert not received.weights.keys() & set(heads)
    assert report.bytes_down == received.nbytes * 8
    loop.trainer.load(0, received)
    mine = loop.trainer.weights.clone()
    loop.trainer.load(1, received)
    same = {name: torch.equal(value, mine[name]) for name, value in loop.trainer.weights.items()}
    assert all(same[name] for name in same if name not in heads)
    assert not all(same[name] for name in heads)
    assert loop.trainer.trained == list(range(8))


def test_workers_and_a_resumed_run_give_the_same_bits() -> None:
    def start(executor: Inline | Workers | None = None) -> FederatedLoop:
        rule = with_personal_heads(FedAvg)
        return federation(rule, selector=Uniform(0.6), executor=executor)

    straight = run(start(), range(3))
    elsewhere = run(start(Workers(2)), range(3))
    broken = run(start(), range(2))
    resumed = start()
    resumed.load_state_dict(copy.deepcopy(broken.state_dict()))
    resumed.state.network.load_state_dict(broken.state.network.state_dict())
    run(resumed, range(2, 3))
    for other in (elsewhere, resumed):
        assert same_bits(weights_of(straight), weights_of(other))
        assert straight.trainer.trained == other.trainer.trained
        for client in straight.trainer.trained:
            one, two = straight.trainer.recall(client), other.trainer.recall(client)
            assert same_bits(one.weights, two.weights)
