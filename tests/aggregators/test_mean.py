"""Weights of clients, and the mean by these weights."""

import re
from collections.abc import Sequence

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmer.collector import Collector
from fedmer.contracts.aggregator import ServerState
from fedmer.errors import InputError
from fedmer.messages import Summary, Update, Weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.running_mean import ClientWeight, RunningMean
from fedmer.weights import load_weights
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import federation

PARTS = st.floats(0.01, 100)


def test_averaging_by_examples_worked_out_by_hand() -> None:
    network = nn.Linear(2, 1)
    network.register_buffer("seen", torch.tensor(5))
    state = ServerState(network)
    parameter = network.weight
    updates = [
        {
            "weight": torch.tensor([[1.0, 2.0]]),
            "bias": torch.tensor([4.0]),
            "seen": torch.tensor(9),
        },
        {
            "weight": torch.tensor([[5.0, -2.0]]),
            "bias": torch.tensor([8.0]),
            "seen": torch.tensor(7),
        },
    ]
    summaries = [Summary(3, examples=10), Summary(8, examples=30)]
    rule, mean = FedAvg(), RunningMean()
    weights = rule.weigh(summaries, state)
    assert weights == {3: 10, 8: 30}
    for update, weight in zip(updates, weights.values(), strict=True):
        mean.add(update, ClientWeight(weight))
    rule.step(state, summaries, weights, mean.result())
    assert network.weight.tolist() == [[4.0, -1.0]]
    assert network.bias.tolist() == [7.0]
    assert int(network.get_buffer("seen")) == 9
    assert network.weight is parameter
    assert rule.broadcast(state).weights is not None


@quick
@given(st.lists(st.integers(1, 10_000), min_size=1, max_size=8))
def test_weights_are_shares_of_the_examples(examples: list[int]) -> None:
    summaries = [Summary(2 * i, n) for i, n in enumerate(examples)]
    weights = FedAvg().weigh(summaries, ServerState(nn.Linear(1, 1)))
    assert weights == {2 * i: n for i, n in enumerate(examples)}


def test_a_rule_that_streams_may_not_weigh_by_the_whole_cohort() -> None:
    class Rank(FedAvg):
        streams = False

        def weigh(self, summaries: Sequence[Summary], state: ServerState) -> dict[int, float]:
            return {summary.client: place + 1.0 for place, summary in enumerate(summaries)}

    class Hasty(Rank):
        streams = True

    federation(Rank()).run_round(0)
    sentence = "weighs 0.125 by its own summary and .* says streams = False"
    with pytest.raises(InputError, match=sentence):
        federation(Hasty()).run_round(0)


@st.composite
def cohorts(draw: st.DrawFn, dtype: torch.dtype = torch.float32) -> list[tuple[Weights, float]]:
    """Up to six clients' weights of very different sizes, and how much each counts."""
    random = generator(draw(SEEDS))
    size = draw(st.sampled_from([1e-6, 1.0, 1e6]))
    return [
        (
            {
                "w": (size * torch.randn(3, 2, generator=random, dtype=torch.float64)).to(dtype),
                "seen": torch.randint(0, 9, (2,), generator=random),
                "on": torch.rand(3, generator=random) < 0.5,
            },
            part,
        )
        for part in draw(st.lists(PARTS, min_size=1, max_size=6))
    ]


def mean_of(cohort: list[tuple[Weights, float]]) -> Weights:
    mean = RunningMean()
    for weights, part in cohort:
        mean.add(weights, ClientWeight(part))
    return mean.result()


@quick
@given(cohorts())
def test_a_mean_lies_between_and_integers_take_the_largest(
    cohort: list[tuple[Weights, float]],
) -> None:
    result = mean_of(cohort)
    stacked = {name: torch.stack([w[name] for w, _ in cohort]) for name in result}
    parts = torch.tensor([part for _, part in cohort], dtype=torch.float64)
    assert (result["w"] >= stacked["w"].amin(dim=0)).all()
    assert (result["w"] <= stacked["w"].amax(dim=0)).all()
    exact = (stacked["w"].double() * parts[:, None, None]).sum(dim=0) / parts.sum()
    largest = float(stacked["w"].abs().max())
    # Clients may cancel out, so what is exact to the bit is measured against what went in.
    torch.testing.assert_close(result["w"], exact.float(), rtol=0, atol=1e-6 * largest)
    assert torch.equal(result["seen"], stacked["seen"].amax(dim=0))
    assert torch.equal(result["on"], stacked["on"].any(dim=0))
    assert {n: v.dtype for n, v in result.items()} == {n: v.dtype for n, v in cohort[0][0].items()}


@quick
@given(cohorts(), st.lists(PARTS, min_size=1, max_size=8))
def test_the_mean_of_equal_weights_is_those_weights_bit_for_bit(
    cohort: list[tuple[Weights, float]], parts: list[float]
) -> None:
    weights = cohort[0][0]
    total = sum(parts)
    for shares in (parts, [part / total for part in parts]):
        result = mean_of([(weights, share) for share in shares])
        assert all(torch.equal(result[name], weights[name]) for name in weights)


@quick
@given(cohorts(torch.float64), st.data())
def test_the_order_of_clients_does_not_matter_to_a_mean(
    cohort: list[tuple[Weights, float]], data: st.DataObject
) -> None:
    one, other = mean_of(cohort), mean_of(data.draw(st.permutations(cohort)))
    largest = max(float(weights["w"].abs().max()) for weights, _ in cohort)
    torch.testing.assert_close(one["w"], other["w"], rtol=0, atol=1e-14 * largest)
    assert torch.equal(one["seen"], other["seen"])


@quick
@given(cohorts(torch.float64))
def test_a_mean_neither_keeps_nor_changes_what_it_was_given(
    cohort: list[tuple[Weights, float]],
) -> None:
    expected = {name: value.clone() for name, value in mean_of(cohort).items()}
    mean, before = RunningMean(), [{n: v.clone() for n, v in w.items()} for w, _ in cohort]
    for weights, part in cohort:
        mean.add(weights, ClientWeight(part))
    for (weights, _), copy in zip(cohort, before, strict=True):
        for name, value in weights.items():
            assert torch.equal(value, copy[name])
            value.zero_()
    result = mean.result()
    assert all(torch.equal(result[name], expected[name]) for name in expected)


@quick
@given(cohorts(torch.float64))
def test_collected_or_streamed_the_mean_is_the_same(cohort: list[tuple[Weights, float]]) -> None:
    total = sum(part for _, part in cohort)
    order = range(len(cohort))
    streamed, waiting = Collector(order), Collector(order, limit=50)
    for number, (weights, part) in enumerate(cohort):
        streamed.take(Update(number, weights), ClientWeight(part))
    for number, (weights, _) in reversed(list(enumerate(cohort))):
        waiting.take(Update(number, weights), None)
    shares = {number: part / total for number, (_, part) in enumerate(cohort)}
    parts = {client: ClientWeight(share) for client, share in shares.items()}
    one, other = streamed.mean(parts), waiting.mean(parts)
    largest = max(float(weights["w"].abs().max()) for weights, _ in cohort)
    torch.testing.assert_close(one["w"], other["w"], rtol=0, atol=1e-14 * largest)


def test_a_mean_of_nothing_is_refused() -> None:
    mean = RunningMean()
    mean.add({"w": torch.ones(1)}, ClientWeight(0.0))
    with pytest.raises(ValueError, match="positive sum"):
        mean.result()


@pytest.mark.parametrize(
    ("weights", "sentence"),
    [
        ({"weight": torch.zeros(1, 2)}, "1 names differ, first 'bias'"),
        (
            {"weight": torch.zeros(1, 2), "bias": torch.zeros(1), "more": torch.zeros(1)},
            "1 names differ, first 'more'",
        ),
        (
            {"weight": torch.zeros(2, 1), "bias": torch.zeros(1)},
            "'weight' has shape (2, 1), expected (1, 2).",
        ),
        ({"weight": torch.zeros(1, 2), "bias": torch.zeros(())}, "'bias' has shape (), expected"),
    ],
)
def test_weights_of_another_network_are_refused(weights: Weights, sentence: str) -> None:
    whole = f"Weights of another network: {sentence}"
    with pytest.raises(ValueError, match=re.escape(whole)):
        load_weights(nn.Linear(2, 1), weights)
