"""FedNova by hand, against its equation, and where it becomes FedAvg."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from fedmer.contracts.aggregator import ServerState
from fedmer.messages import Summary
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_nova import FedNova
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.steps import LocalTraining
from tests.aggregators.rules import SEEDS, generator, join, quick, small_network, small_update
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of


def test_two_clients_worked_out_by_hand() -> None:
    state, rule = ServerState(small_network()), FedNova()
    cohort = [
        (Summary(4, 10, steps=2), small_update((5, 2), level=10, seen=3)),
        (Summary(7, 30, steps=4), small_update((1, 10), level=20, seen=9)),
    ]
    weights = join(rule, state, rule.server_optimizer(state.network.parameters()), cohort)
    assert weights == pytest.approx({4: 0.4, 7: 0.6})
    # p = 1/4 and 3/4, tau_eff = 3.5; the normalised changes are (2, 0) and (0, 2).
    expected = [1 + 3.5 * 0.25 * 2, 2 + 3.5 * 0.75 * 2]
    assert state.network.get_parameter("weight")[0].tolist() == pytest.approx(expected)
    assert float(state.network.get_buffer("level")) == pytest.approx(16)
    assert int(state.network.get_buffer("seen")) == 9


@quick
@given(
    seed=SEEDS,
    cohort=st.lists(st.tuples(st.integers(1, 500), st.integers(1, 40)), min_size=1, max_size=6),
)
def test_the_streamed_step_is_that_of_the_paper(seed: int, cohort: list[tuple[int, int]]) -> None:
    random = generator(seed)
    network = torch.nn.Linear(3, 2, bias=False).double()
    start = network.weight.detach().clone()
    ends = [torch.randn(2, 3, generator=random, dtype=torch.float64) for _ in cohort]
    total = sum(n for n, _ in cohort)
    effective = sum(n / total * tau for n, tau in cohort)
    expected = start.clone()
    for (n, tau), end in zip(cohort, ends, strict=True):
        expected -= effective * n / total * (start - end) / tau
    rule = FedNova()
    messages = [
        (Summary(i, n, steps=tau), {"weight": end})
        for i, ((n, tau), end) in enumerate(zip(cohort, ends, strict=True))
    ]
    weights = join(
        rule, ServerState(network), rule.server_optimizer(network.parameters()), messages
    )
    torch.testing.assert_close(network.weight.detach(), expected)
    assert sum(weights.values()) == pytest.approx(1)


@quick
@given(seed=SEEDS, steps=st.integers(1, 60), examples=st.lists(st.integers(1, 500), min_size=1))
def test_equal_steps_are_averaging(seed: int, steps: int, examples: list[int]) -> None:
    random = generator(seed)
    updates = [{"weight": torch.randn(2, 3, generator=random)} for _ in examples]
    ends = []
    for rule in (FedNova(), FedAvg()):
        network = torch.nn.Linear(3, 2, bias=False)
        torch.nn.init.constant_(network.weight, 100.0)
        cohort = [
            (Summary(i, n, steps=steps), update)
            for i, (n, update) in enumerate(zip(examples, updates, strict=True))
        ]
        join(rule, ServerState(network), rule.server_optimizer(network.parameters()), cohort)
        ends.append(network.weight.detach())
    torch.testing.assert_close(*ends, rtol=1e-6, atol=1e-6)
    if steps & (steps - 1) == 0:  # dividing by a power of two rounds nothing
        assert torch.equal(*ends)


@pytest.mark.parametrize(("batch_size", "equal"), [(1000, True), (4, False)])
def test_clients_of_one_step_are_averaged_bit_for_bit(batch_size: int, equal: bool) -> None:
    corpus = small_corpus()
    clients = [*clients_of(corpus, Central()), *clients_of(corpus, VirtualSpeaker(8))[:2]]
    plain, by_step = (
        federation(rule, corpus, clients, training=LocalTraining(batch_size=batch_size))
        for rule in (FedAvg(), FedNova())
    )
    for number in range(2):
        plain.run_round(number)
        report = by_step.run_round(number)
    steps = {int(summary.steps) for summary in report.summaries}
    assert (steps == {1}) == equal
    assert same_bits(weights_of(plain), weights_of(by_step)) == equal
