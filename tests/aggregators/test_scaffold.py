"""SCAFFOLD by hand, its invariant, and where it becomes FedAvg."""

import pytest
import torch
from torch import Tensor

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import ClientRound, ServerState
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast, Summary
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.steps import LocalTraining
from tests.aggregators.rules import client, join
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

CONTROL = "control/"


def train(rule: SCAFFOLD, own: ClientRound, gradients: list[float]) -> list[Tensor]:
    """Drive the client half with constant gradients; the gradients that the optimizer sees."""
    seen = []
    first = next(own.client.network.parameters())
    for value in gradients:
        for parameter in own.client.network.parameters():
            parameter.grad = torch.full_like(parameter, value)
        rule.on_before_optimizer_step(own)
        own.steps += 1
        assert first.grad is not None
        seen.append(first.grad.clone())
    return seen


def controls(tensors: dict[str, Tensor]) -> set[float]:
    return {
        float(x) for n, v in tensors.items() if n.startswith(CONTROL) for x in v.flatten().unique()
    }


def test_two_rounds_worked_out_by_hand() -> None:
    rule, here = SCAFFOLD(), client(0)
    state = ServerState(client(1).network, sizes=[10, 30, 40])
    optimizer = rule.server_optimizer(state.network.parameters())
    memories: list[dict[str, Tensor]] = [{}, {}, {}]

    def take_part(number: int, i: int, gradients: list[float]) -> tuple[Summary, dict[str, Tensor]]:
        state.round = number
        own = ClientRound(here, rule.broadcast(state), memories[i])
        seen[i] = [float(g.unique()) for g in train(rule, own, gradients)]
        attached = rule.attach(own, [])
        assert not attached.keys() & here.network.state_dict().keys()
        return Summary(i, state.sizes[i]), {**here.network.state_dict(), **attached}

    seen: dict[int, list[float]] = {}
    join(rule, state, optimizer, [take_part(0, 0, [1, 3]), take_part(0, 1, [4])])
    assert seen == {0: [1, 3], 1: [4]}
    assert [controls(memory) for memory in memories] == [{2}, {4}, set()]
    # The cohort holds half of all examples, and its mean change is 2/4 + 4 * 3/4.
    assert controls(state.tensors) == {0.5 * 3.5}
    assert same_bits(dict(state.network.state_dict()), dict(here.network.state_dict()))

    join(rule, state, optimizer, [take_part(1, 0, [1, 5]), take_part(1, 2, [8])])
    assert seen[0] == [1 + 1.75 - 2, 5 + 1.75 - 2]
    assert seen[2] == [8 + 1.75]
    assert [controls(memory) for memory in memories] == [{3}, {4}, {8}]
    assert controls(state.tensors) == {(10 * 3 + 30 * 4 + 40 * 8) / 80}
    assert all(name.startswith(CONTROL) for memory in memories for name in memory)


def memory_of(loop: FederatedLoop, i: int) -> dict[str, Tensor]:
    rule: dict[str, Tensor] = loop.trainer.state_dict()["memory"].get(i, {}).get("rule", {})
    return rule


def test_the_servers_control_stays_the_mean_of_the_clients() -> None:
    loop = federation(SCAFFOLD(), selector=Uniform(0.4))
    total, taken = sum(loop.sizes), set()
    for number in range(4):
        report = loop.run_round(number)
        taken |= {summary.client for summary in report.summaries}
        for name, control in loop.state.tensors.items():
            mean = sum(
                loop.sizes[i] / total * memory_of(loop, i)[name].double() for i in sorted(taken)
            )
            torch.testing.assert_close(control.double(), mean, rtol=1e-4, atol=1e-7, msg=name)
        assert loop.state.tensors
    assert len(taken) > len(report.summaries)


def test_the_control_is_option_two_of_the_paper_for_sgd() -> None:
    rate = 0.05
    loop = federation(SCAFFOLD(), training=LocalTraining(epochs=2, batch_size=1))
    loop.trainer.client.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=rate)
    loop.run_round(0)
    for i in (0, 3):
        received = loop.aggregator.broadcast(loop.state)
        old = dict(memory_of(loop, i))
        summary, update = loop.trainer.fit(i, received)
        assert update is not None
        assert received.weights is not None
        steps = summary.steps
        assert steps > 1
        for name, control in memory_of(loop, i).items():
            parameter = name.removeprefix(CONTROL)
            moved = (received.weights[parameter] - update.weights[parameter]) / (steps * rate)
            expected = old[name] - received.tensors[name] + moved
            torch.testing.assert_close(control, expected, rtol=1e-3, atol=1e-4, msg=name)


def test_the_first_round_is_averaging_bit_for_bit() -> None:
    plain, corrected = federation(FedAvg()), federation(SCAFFOLD())
    reports = [loop.run_round(0) for loop in (plain, corrected)]
    assert same_bits(weights_of(plain), weights_of(corrected))
    parameters = sum(4 * p.numel() for p in plain.state.network.parameters())
    assert reports[1].bytes_up - reports[0].bytes_up == 8 * parameters
    assert reports[1].bytes_down == reports[0].bytes_down
    reports = [loop.run_round(1) for loop in (plain, corrected)]
    assert not same_bits(weights_of(plain), weights_of(corrected))
    assert reports[1].bytes_down - reports[0].bytes_down == 8 * parameters


def test_one_client_corrects_nothing() -> None:
    corpus = small_corpus()
    (alone,) = clients_of(corpus, Central())
    training = LocalTraining(batch_size=4)
    plain, corrected = (
        federation(rule, corpus, [alone], training=training) for rule in (FedAvg(), SCAFFOLD())
    )
    for loop in (plain, corrected):
        # Adam would blow up the rounding of gradients that are zero, such as a key's bias has.
        loop.trainer.client.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=0.05)
    for number in range(3):
        plain.run_round(number)
        corrected.run_round(number)
        # The server's control is the client's, up to the rounding of its steps.
        for name, control in corrected.state.tensors.items():
            torch.testing.assert_close(control, memory_of(corrected, 0)[name], msg=name)
        ours, theirs = weights_of(corrected), weights_of(plain)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-4, atol=1e-5, msg=name)


def test_the_correction_comes_after_clipping() -> None:
    clip = 1e-3
    training = LocalTraining(batch_size=1000, gradient_clip_val=clip)
    loop = federation(SCAFFOLD(), training=training)
    here: EmotionClient = loop.trainer.client
    here.optimizer = lambda parameters: torch.optim.SGD(parameters, lr=1.0)
    names = [name for name, _ in loop.state.network.named_parameters()]
    loop.state.tensors = {
        CONTROL + name: torch.full_like(loop.state.network.get_parameter(name), 0.5)
        for name in names
    }
    received: Broadcast = loop.aggregator.broadcast(loop.state)
    assert received.weights is not None
    summary, update = loop.trainer.fit(0, received)
    assert update is not None
    assert summary.steps == 1
    own = memory_of(loop, 0)
    norm = torch.cat([own[CONTROL + name].flatten() for name in names]).norm()
    assert float(norm) == pytest.approx(clip, rel=1e-3)
    for name in names:
        moved = received.weights[name] - update.weights[name]
        if own[CONTROL + name].any():
            torch.testing.assert_close(moved, own[CONTROL + name] + 0.5, rtol=1e-4, atol=1e-5)
