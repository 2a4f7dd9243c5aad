"""ClipNorm: nobody changes more than the bound, and the bound follows a quantile."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from fedmer.contracts.privacy import ClientContext, ServerContext
from fedmer.errors import InputError
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.scaffold import SCAFFOLD
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy._changes import changes, norm
from fedmer.plugins.privacy.clip_norm import BELOW, ClipNorm
from tests.federations import clients_of, federation, same_bits, small_corpus, weights_of

CORPUS = small_corpus()
CLIENTS = clients_of(CORPUS, Dialogue(4))
NUMBERS = st.lists(st.floats(-1e3, 1e3, width=32), min_size=1, max_size=8)


@settings(max_examples=200, deadline=None)
@given(start=NUMBERS, change=NUMBERS, attached=NUMBERS, bound=st.floats(1e-3, 1e4))
def test_a_change_is_never_longer_than_the_bound_and_keeps_its_direction(
    start: list[float], change: list[float], attached: list[float], bound: float
) -> None:
    size = min(len(start), len(change))
    w, d, c = (torch.tensor(v).double() for v in (start[:size], change[:size], attached))
    received = Broadcast(0, {"w": w, "n": torch.tensor(3)})
    update = Update(0, {"w": w + d, "n": torch.tensor(7), "control/w": c})
    _, sent = ClipNorm(bound).on_client(Summary(0, 1), update, ClientContext(0, received))
    assert sent is not None
    before, after = changes(update, received), changes(sent, received)
    assert norm(after) <= bound * (1 + 1e-9)
    if norm(before) * (1 + 2e-6) <= bound:
        assert all(torch.allclose(after[n], before[n], atol=1e-9) for n in before)
    else:
        factor = norm(after) / norm(before)
        assert norm(after) == pytest.approx(bound, rel=1e-5)
        assert all(torch.allclose(after[n], factor * before[n], atol=1e-6) for n in before)
    assert int(sent.weights["n"]) == 7


@pytest.mark.parametrize("rule", [FedAvg(), SCAFFOLD()])
def test_a_round_moves_by_no_more_than_the_bound(rule: FedAvg) -> None:
    loop = federation(rule, CORPUS, CLIENTS, privacy=[ClipNorm(0.01)])
    start = weights_of(loop)
    loop.run_round(0)
    after = weights_of(loop)
    moved = norm({n: after[n] - start[n] for n in start if start[n].is_floating_point()})
    assert 0 < moved <= 0.01 * 1.001


def test_a_bound_that_nobody_reaches_changes_no_more_than_rounding() -> None:
    plain = federation(FedAvg(), CORPUS, CLIENTS)
    clipped = federation(FedAvg(), CORPUS, CLIENTS, privacy=[ClipNorm(1e6)])
    for loop in (plain, clipped):
        loop.run_round(0)
    for name, value in weights_of(plain).items():
        torch.testing.assert_close(value, weights_of(clipped)[name], atol=1e-6, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(quantile=st.floats(0.1, 0.9), bound=st.floats(0.05, 20), seed=st.integers(0, 100))
def test_the_bound_finds_the_quantile(quantile: float, bound: float, seed: int) -> None:
    """Of the norms 0.01, 0.02, ... 1, so that the bound is the quantile itself."""
    rule, lengths, tensors = ClipNorm(bound, quantile), [n / 100 for n in range(1, 101)], {}
    found = []
    for round in range(200):
        rule.begin(None, tensors)  # type: ignore[arg-type]
        reached = float(tensors["norm"])
        sent = [Summary(i, 1, tensors={BELOW: torch.tensor(n <= reached)}) for i, n in
                enumerate(lengths)]  # fmt: skip
        rule.follow(quantile, ServerContext(Broadcast(round), sent, {}, seed=seed + round,
                    tensors=tensors), cohort=100)  # fmt: skip
        found.append(reached)
    assert sum(found[-50:]) / 50 == pytest.approx(quantile, abs=0.06)


def test_the_noise_on_the_count_is_as_said() -> None:
    draws = []
    for seed in range(3000):
        tensors = {"norm": torch.tensor(1.0, dtype=torch.float64)}
        half = [Summary(i, 1, tensors={BELOW: torch.tensor(i < 50)}) for i in range(100)]
        context = ServerContext(Broadcast(0), half, {}, seed=seed, tensors=tensors)
        ClipNorm(1.0, 0.5, rate=1.0, count_noise=4.0).follow(0.5, context, cohort=100)
        draws.append(-math.log(float(tensors["norm"])))
    spread = torch.tensor(draws).std()
    assert float(spread) == pytest.approx(0.04, rel=0.05)
    assert abs(float(torch.tensor(draws).mean())) < 0.004


def test_a_run_that_goes_on_has_the_bound_that_it_had() -> None:
    def made():
        return federation(FedAvg(), CORPUS, CLIENTS, privacy=[ClipNorm(0.05, 0.5)])

    expected = made()
    for number in range(3):
        expected.run_round(number)
    first, second = made(), made()
    for number in range(2):
        first.run_round(number)
    second.state.network.load_state_dict(weights_of(first))
    second.load_state_dict(first.state_dict())
    second.run_round(2)
    assert same_bits(weights_of(second), weights_of(expected))
    assert second.protection.tensors == expected.protection.tensors
    assert float(second.protection.tensors[0]["norm"]) != 0.05


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ({"norm": 0}, "privacy.norm is 0; expected a finite number above 0"),
        ({"norm": math.inf}, "privacy.norm is inf"),
        ({"rate": -1}, "privacy.rate is -1"),
        ({"count_noise": 0}, "privacy.count_noise is 0"),
        ({"quantile": 1.5}, r"privacy.quantile is 1.5; expected a number in \[0, 1\]"),
    ],
)
def test_what_cannot_be_is_a_sentence(words: dict[str, float], said: str) -> None:
    with pytest.raises(InputError, match=said):
        ClipNorm(**words)
