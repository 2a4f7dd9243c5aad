"""What the rules compute, against loops and autograd."""

import dataclasses
import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.client import EmotionClient
from fedmer.data.batch import Batch
from fedmer.data.corpus import UNLABELLED, CorpusShape
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.plugins.aggregators.base import Aggregator, ServerState, load_weights
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.executors.base import Collector, RunningMean
from fedmer.plugins.networks.base import NetworkOutput
from fedmer.plugins.networks.sdt import SDT

SHAPE = CorpusShape({"text": 3}, classes=4, speakers=2)
quick = settings(max_examples=25, deadline=None)
few = settings(max_examples=10, deadline=None)
SEEDS = st.integers(0, 1000)
PARTS = st.floats(0.01, 100)


def generator(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def client(seed: int) -> EmotionClient:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        network = SDT(SHAPE, hidden=4, heads=1, dropout=0.0)
    return EmotionClient(network, SelfDistillation()).eval()


def batch_of(seed: int, labelled: float = 0.7, size: tuple[int, int] = (2, 5)) -> Batch:
    """All turns there, some labelled; any label outside M."""
    random = generator(seed)
    context = torch.ones(size, dtype=torch.bool)
    return Batch(
        features={"text": torch.randn(*size, 3, generator=random)},
        present={"text": context},
        context=context,
        labelled=torch.rand(size, generator=random) < labelled,
        labels=torch.randint(0, SHAPE.classes, size, generator=random),
        roles=torch.zeros(size, dtype=torch.int64),
        positions=torch.arange(size[1]).expand(size),
    )


def masked(batch: Batch) -> Batch:
    """As it comes from a corpus: no label outside M."""
    return dataclasses.replace(batch, labels=batch.labels.masked_fill(~batch.labelled, UNLABELLED))


# --- weights and their mean -----------------------------------------------------------------


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
    assert weights == {3: 0.25, 8: 0.75}
    for update, summary in zip(updates, summaries, strict=True):
        mean.add(update, rule.weight(summary))
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
    assert sum(weights.values()) == pytest.approx(1)
    assert weights == {2 * i: n / sum(examples) for i, n in enumerate(examples)}


def test_a_rule_without_weights_says_what_it_lacks() -> None:
    class Half(FedAvg):
        weight = Aggregator.weight  # type: ignore[assignment]

    with pytest.raises(NotImplementedError, match="Half must override weight or weigh"):
        Half().weigh([Summary(0, 1)], ServerState(nn.Linear(1, 1)))


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
        mean.add(weights, part)
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
    torch.testing.assert_close(result["w"], exact.float())
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
        mean.add(weights, part)
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
    streamed, waiting = Collector(), Collector()
    for number, (weights, part) in enumerate(cohort):
        streamed.take(Update(number, weights), part)
    for number, (weights, _) in reversed(list(enumerate(cohort))):
        waiting.take(Update(number, weights), None)
    shares = {number: part / total for number, (_, part) in enumerate(cohort)}
    one, other = streamed.mean(shares), waiting.mean(shares)
    largest = max(float(weights["w"].abs().max()) for weights, _ in cohort)
    torch.testing.assert_close(one["w"], other["w"], rtol=0, atol=1e-14 * largest)
    assert streamed.nbytes == waiting.nbytes == len(cohort) * (6 * 8 + 2 * 8 + 3)


def test_a_mean_of_nothing_is_refused() -> None:
    mean = RunningMean()
    mean.add({"w": torch.ones(1)}, 0.0)
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


# --- FedProx --------------------------------------------------------------------------------


@few
@given(seed=SEEDS, mu=st.sampled_from([1e-3, 0.1, 10.0]))
def test_the_proximal_gradient_is_that_of_autograd(seed: int, mu: float) -> None:
    own, batch = client(seed), batch_of(seed)
    start = {n: v + torch.randn_like(v) for n, v in own.network.state_dict().items()}
    named = dict(own.network.named_parameters())
    torch.autograd.backward(own.training_step(batch, 0))
    plain = {name: p.grad.clone() for name, p in named.items() if p.grad is not None}
    assert plain.keys() == named.keys()
    apart = sum(((p - start[name]).square().sum() for name, p in named.items()), torch.zeros(()))
    pull = dict(zip(named, torch.autograd.grad(mu / 2 * apart, list(named.values())), strict=True))
    FedProx(mu).on_before_optimizer_step(own, Broadcast(0, start))
    for name, parameter in named.items():
        assert parameter.grad is not None
        torch.testing.assert_close(parameter.grad, plain[name] + pull[name], msg=name)
        assert (pull[name] != 0).any(), name


@few
@given(seed=SEEDS)
def test_no_leash_leaves_gradients_untouched(seed: int) -> None:
    own = client(seed)
    start = dict(client(seed + 1).network.state_dict())
    torch.autograd.backward(own.training_step(batch_of(seed), 0))
    before = [p.grad.clone() for p in own.network.parameters() if p.grad is not None]
    FedProx(0).on_before_optimizer_step(own, Broadcast(0, start))
    FedProx(1).on_before_optimizer_step(own, Broadcast(0, None))
    after = [p.grad for p in own.network.parameters() if p.grad is not None]
    assert len(before) == len(after) > 0
    assert all(torch.equal(one, other) for one, other in zip(before, after, strict=True))


@pytest.mark.parametrize("value", [-0.1, float("nan")])
def test_negative_strengths_are_refused(value: float) -> None:
    with pytest.raises(InputError, match=f"mu is {value}; expected 0 or more"):
        FedProx(value)
    with pytest.raises(InputError, match=f"strength is {value}; expected 0 or more"):
        FedProto(value)


# --- FedProto -------------------------------------------------------------------------------


def prototypes(seed: int, width: int = 3) -> dict[str, Tensor]:
    """Random prototypes of which some are known, and one surely is."""
    random = generator(seed)
    known = torch.rand(SHAPE.classes, generator=random) < 0.5
    known[seed % SHAPE.classes] = True
    return {
        "prototypes": torch.randn(SHAPE.classes, width, generator=random),
        "known": known,
    }


def said(seed: int, size: tuple[int, int], width: int = 3, offset: float = 0.0) -> NetworkOutput:
    random = generator(seed + 1)
    return NetworkOutput(
        logits=torch.randn(*size, SHAPE.classes, generator=random),
        embeddings={
            "fused": (torch.randn(*size, width, generator=random) + offset).requires_grad_()
        },
    )


@quick
@given(seed=SEEDS, strength=st.sampled_from([0.0, 0.5, 3.0]), labelled=st.sampled_from([0, 0.7, 1]))
def test_the_pull_to_prototypes_is_that_of_a_loop(
    seed: int, strength: float, labelled: float
) -> None:
    batch, output, sent = batch_of(seed, labelled), said(seed, (2, 5)), prototypes(seed)
    fused = output.embeddings["fused"]
    loss = FedProto(strength).client_loss(output, masked(batch), Broadcast(1, None, sent))
    assert loss is not None
    expected, turns = 0 * fused.sum(), 0
    counts = torch.zeros(2, 5, dtype=torch.bool)
    for b, t in batch.labelled.nonzero().tolist():
        turns += 1
        label = int(batch.labels[b, t])
        if sent["known"][label]:
            expected = expected + (fused[b, t] - sent["prototypes"][label]).square().sum() / 3
            counts[b, t] = True
    expected = strength * expected / max(turns, 1)
    torch.testing.assert_close(loss, expected)
    (ours,) = torch.autograd.grad(loss, [fused], retain_graph=True)
    (theirs,) = torch.autograd.grad(expected, [fused])
    torch.testing.assert_close(ours, theirs)
    assert (ours[~counts] == 0).all()
    # What stands in an unknown class's place, and labels outside M, cannot be seen.
    other = {**sent, "prototypes": sent["prototypes"].clone()}
    other["prototypes"][~sent["known"]] = 1e3
    again = FedProto(strength).client_loss(output, batch, Broadcast(1, None, other))
    assert again is not None
    assert torch.equal(loss, again)
    assert torch.equal(torch.autograd.grad(again, [fused])[0], ours)


def test_before_there_are_prototypes_nobody_is_pulled_and_the_head_predicts() -> None:
    output, received = said(0, (2, 5)), Broadcast(0)
    assert FedProto().client_loss(output, batch_of(0), received) is None
    assert FedProto().predict(output, received) is output.logits


@few
@given(seed=SEEDS)
def test_local_prototypes_are_mean_embeddings(seed: int) -> None:
    own = client(seed)
    batches = [masked(batch_of(seed, 0.4)), masked(batch_of(seed + 1, 0.4, (3, 2)))]
    with torch.no_grad():
        sent = FedProto().summarize(own, batches, Broadcast(0))
        for label in range(SHAPE.classes):
            rows = [
                own(batch).embeddings["fused"][b, t]
                for batch in batches
                for b, t in (batch.labelled & (batch.labels == label)).nonzero().tolist()
            ]
            mean = torch.stack(rows).mean(dim=0) if rows else torch.zeros(4)
            assert int(sent["counts"][label]) == len(rows)
            torch.testing.assert_close(sent["prototypes"][label], mean)
    assert set(sent) == {"prototypes", "counts"}


@quick
@given(seed=SEEDS, rounds=st.integers(1, 4), clients=st.integers(1, 4))
def test_global_prototypes_are_plain_means_over_holders_and_carry_over(
    seed: int, rounds: int, clients: int
) -> None:
    random = generator(seed)
    state = ServerState(nn.Linear(1, 1))
    expected: dict[int, Tensor] = {}
    rule = FedProto()
    for number in range(rounds):
        summaries = []
        for i in range(clients):
            counts = torch.randint(0, 5, (SHAPE.classes,), generator=random)
            counts *= torch.rand(SHAPE.classes, generator=random) < 0.4
            local = torch.randn(SHAPE.classes, 3, generator=random) * (counts > 0)[:, None]
            tensors = {"prototypes": local, "counts": counts}
            summaries.append(Summary(i, int(counts.sum()), tensors=tensors))
        for label in range(SHAPE.classes):
            held = [s.tensors for s in summaries if s.tensors["counts"][label] > 0]
            if held:
                expected[label] = torch.stack([h["prototypes"][label] for h in held]).mean(dim=0)
        state.round = number
        rule.step(state, summaries, rule.weigh(summaries, state), None)
        received = rule.broadcast(state)
        assert received.weights is None
        assert received.tensors["known"].tolist() == [
            label in expected for label in range(SHAPE.classes)
        ]
        for label, prototype in expected.items():
            torch.testing.assert_close(received.tensors["prototypes"][label], prototype)
        assert (received.tensors["prototypes"][~received.tensors["known"]] == 0).all()


@quick
@given(seed=SEEDS, turns=st.integers(1, 40), offset=st.sampled_from([0.0, 1000.0]))
def test_prediction_is_the_nearest_known_prototype(seed: int, turns: int, offset: float) -> None:
    sent = prototypes(seed)
    sent["prototypes"] += offset
    output = said(seed, (2, turns), offset=offset)
    received = Broadcast(1, None, sent)
    logits = FedProto().predict(output, received)
    assert logits.shape == (2, turns, SHAPE.classes)
    apart = (output.embeddings["fused"][:, :, None] - sent["prototypes"]).double().norm(dim=-1)
    apart[:, :, ~sent["known"]] = torch.inf
    torch.testing.assert_close(-logits.double(), apart, atol=1e-4, rtol=1e-4)
    assert sent["known"][logits.argmax(dim=-1)].all()
    assert torch.equal(FedProto(inference="head").predict(output, received), output.logits)


# --- Local ----------------------------------------------------------------------------------


def test_local_sends_nothing_and_changes_nothing() -> None:
    own, rule = client(0), Local()
    state = ServerState(own.network)
    before = {name: value.clone() for name, value in own.network.state_dict().items()}
    received = rule.broadcast(state)
    assert received.weights is None
    assert received.nbytes == 0
    assert rule.client_loss(own(batch_of(0)), batch_of(0), received) is None
    assert rule.summarize(own, [batch_of(0)], received) == {}
    summaries = [Summary(0, 1), Summary(1, 3)]
    rule.step(state, summaries, rule.weigh(summaries, state), None)
    after = own.network.state_dict()
    assert all(torch.equal(after[name], value) for name, value in before.items())
    assert state.tensors == {}
    assert not rule.averages
