"""FedAvgM, FedAdam and FedYogi by hand, and where they become FedAvg."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary
from fedmer.plugins.aggregators.fed_adam import FedAdam
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_avg_m import FedAvgM
from fedmer.plugins.aggregators.fed_yogi import FedYogi
from tests.aggregators.rules import SEEDS, generator, join, quick, small_network, small_update
from tests.federations import federation, same_bits, weights_of


def two_rounds(rule: Aggregator) -> tuple[list[list[float]], nn.Module]:
    """Weights after each of two rounds whose pseudo-gradients are (-1, -3) and (1, 1)."""
    state = ServerState(small_network())
    optimizer = rule.server_optimizer(state.network.parameters())
    summaries = [Summary(0, examples=10), Summary(1, examples=30)]
    first = [small_update((5, 2), 4, 3), small_update((1, 6), 8, 2)]
    join(rule, state, optimizer, list(zip(summaries, first, strict=True)))
    weight = state.network.get_parameter("weight")
    after = [weight[0].tolist()]
    assert float(state.network.get_buffer("level")) == 7
    assert int(state.network.get_buffer("seen")) == 3
    x, y = after[0]
    second = [small_update((x - 4, y - 1)), small_update((x, y - 1))]
    join(rule, state, optimizer, list(zip(summaries, second, strict=True)))
    return [*after, weight[0].tolist()], state.network


def test_momentum_worked_out_by_hand() -> None:
    (one, two), _ = two_rounds(FedAvgM(momentum=0.5, lr=2))
    assert one == [1 + 2 * 1, 2 + 2 * 3]
    assert two == [3 - 2 * (1 - 0.5), 8 - 2 * (1 - 1.5)]


def test_averaging_goes_towards_the_mean_by_its_rate() -> None:
    (one, two), _ = two_rounds(FedAvg(lr=0.5))
    assert one == [1 + 0.5 * 1, 2 + 0.5 * 3]
    assert two == [1.5 - 0.5 * 1, 3.5 - 0.5 * 1]


def test_adam_worked_out_by_hand() -> None:
    (one, two), _ = two_rounds(FedAdam(lr=2, beta1=0.5, beta2=0.75, eps=2))
    # v: 4 -> 3.25 and 5.25 -> 2.6875 and 4.1875; m: -0.5 and -1.5 -> 0.25 and -0.25
    expected = [1 + 1 / (math.sqrt(3.25) + 2), 2 + 3 / (math.sqrt(5.25) + 2)]
    assert one == pytest.approx(expected)
    expected[0] -= 0.5 / (math.sqrt(2.6875) + 2)
    expected[1] += 0.5 / (math.sqrt(4.1875) + 2)
    assert two == pytest.approx(expected)


def test_yogi_worked_out_by_hand() -> None:
    (one, two), _ = two_rounds(FedYogi(lr=2, beta1=0.5, beta2=0.75, eps=2))
    # v: 4 -> 3.75 and 6.25 -> 3.5 and 6; m as Adam's
    expected = [1 + 1 / (math.sqrt(3.75) + 2), 2 + 3 / (2.5 + 2)]
    assert one == pytest.approx(expected)
    expected[0] -= 0.5 / (math.sqrt(3.5) + 2)
    expected[1] += 0.5 / (math.sqrt(6) + 2)
    assert two == pytest.approx(expected)


@quick
@given(seed=SEEDS, beta1=st.sampled_from([0.0, 0.5, 0.9]), beta2=st.sampled_from([0.5, 0.99]))
def test_adam_is_torchs_times_the_warm_up(seed: int, beta1: float, beta2: float) -> None:
    random = generator(seed)
    ours, theirs = (nn.Parameter(torch.zeros(5, dtype=torch.float64)) for _ in range(2))
    one = FedAdam(0.1, beta1, beta2, eps=1e-12).server_optimizer([ours])
    other = torch.optim.Adam([theirs], lr=0.1, betas=(beta1, beta2), eps=1e-12)
    for number in range(1, 6):
        gradient = torch.randn(5, generator=random, dtype=torch.float64)
        before = ours.detach().clone(), theirs.detach().clone()
        for parameter, optimizer in ((ours, one), (theirs, other)):
            parameter.grad = gradient.clone()
            optimizer.step()
        factor = (1 - beta1**number) / math.sqrt(1 - beta2**number)
        torch.testing.assert_close(ours - before[0], factor * (theirs - before[1]))


@quick
@given(seed=SEEDS, beta2=st.sampled_from([0.0, 0.5, 0.99]))
def test_yogis_second_moment_moves_towards_the_square_by_a_bounded_step(
    seed: int, beta2: float
) -> None:
    random = generator(seed)
    parameter = nn.Parameter(torch.zeros(20))
    optimizer = FedYogi(beta2=beta2).server_optimizer([parameter])
    before: Tensor = torch.full((20,), 1e-6)
    for _ in range(4):
        gradient = torch.randn(20, generator=random) * 10 ** torch.randn(20, generator=random)
        parameter.grad = gradient
        optimizer.step()
        after = optimizer.state[parameter]["second"]
        square = gradient.square()
        assert (after >= 0).all()
        step = (after - before).abs()
        assert (step <= (1 - beta2) * square * (1 + 1e-5) + 1e-6 * before).all()
        assert ((after - before) * (square - before) >= 0).all()
        before = after


def test_without_momentum_it_is_averaging_bit_for_bit() -> None:
    plain, still, moved = (
        federation(rule) for rule in (FedAvg(), FedAvgM(momentum=0), FedAvgM(momentum=0.5))
    )
    for number in range(2):
        for loop in (plain, still, moved):
            loop.run_round(number)
        assert same_bits(weights_of(plain), weights_of(still))
    assert not same_bits(weights_of(plain), weights_of(moved))


@pytest.mark.parametrize(
    "rule", [FedAdam(1e3, beta1=0, beta2=0, eps=1e3), FedYogi(2e3, beta1=0, eps=1e3)]
)
def test_with_a_large_eps_it_is_averaging(rule: Aggregator) -> None:
    plain, other = federation(FedAvg()), federation(rule)
    for number in range(2):
        start = weights_of(plain)
        plain.run_round(number)
        other.run_round(number)
        ours, theirs = weights_of(other), weights_of(plain)
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6, msg=name)
    assert max(float((theirs[n] - start[n]).abs().max()) for n in start) > 1e-4


@pytest.mark.parametrize("rule", [FedAvgM(), FedAdam(), FedYogi()])
def test_clients_that_send_back_what_they_got_move_nothing(rule: Aggregator) -> None:
    state = ServerState(small_network())
    optimizer = rule.server_optimizer(state.network.parameters())
    for _ in range(2):
        join(rule, state, optimizer, [(Summary(0, 3), small_update((1, 2)))])
    assert state.network.get_parameter("weight").tolist() == [[1, 2]]


@pytest.mark.parametrize(
    ("make", "sentence"),
    [
        (lambda: FedAvgM(momentum=1), "momentum is 1; expected a number from 0, below 1."),
        (lambda: FedAvgM(momentum=-0.1), "momentum is -0.1; expected"),
        (lambda: FedAvg(lr=-1), "lr is -1; expected a number above 0."),
        (lambda: FedAvgM(lr=0), "lr is 0; expected a number above 0."),
        (lambda: FedAdam(lr=math.nan), "lr is nan; expected a number above 0."),
        (lambda: FedAdam(eps=0), "eps is 0; expected a number above 0."),
        (lambda: FedYogi(beta1=1), "beta1 is 1; expected a number from 0, below 1."),
        (lambda: FedYogi(beta2=-1), "beta2 is -1; expected a number from 0, below 1."),
    ],
)
def test_values_out_of_range_are_refused(make, sentence: str) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(InputError, match=sentence):
        make()
