"""Class means in a masked sum: what the server makes of them, and what it sees of each client."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.contracts.executor import client_weights
from fedmer.contracts.masked_sum import MaskedSum
from fedmer.contracts.privacy import Privacy
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.masked_round import into_sum, out_of_sum, withhold
from fedmer.messages import Broadcast, Summary, Update, Weights
from fedmer.plugins.aggregators._closed_form import ClosedForm
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_proc import FedProc
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_tgp import FedTGP
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.privacy.secure_sum import SecureSum
from fedmer.prototypes import Prototypes, PrototypeSet
from fedmer.running_mean import RunningMean
from tests.aggregators.rules import SEEDS, generator, quick
from tests.federations import clients_of, federation, weights_of

CORPUS = synthetic_corpus(seed=0, dialogues=9, features={"text": 6})
CLIENTS = clients_of(CORPUS, Dialogue(3))
MASKED = MaskedSum(0.6, 1.0)
OPEN = MaskedSum(0.6, 1.0, class_holders=1, class_share=2.0)
"""Withholds nothing."""
SITES = ("fused", "text")
RULES: list[Callable[[], Aggregator]] = [
    FedProto,
    FedProc,
    lambda: FedProc(heads="classwise"),
    Distance,
    lambda: Distance(heads="joint", sites=SITES, gamma=0.0, distance="cosine"),
    lambda: Distance(weighting="softmax", sites=SITES),
    lambda: Distance(radius="clip", gamma=0.5),
    lambda: Distance(weighting="counts", exchange="parameters"),
    lambda: Distance(exchange="prototypes", distance="squared"),
]


class AllClasses(SecureSum):
    """Sums the rows of a class that one client holds too."""

    masked_sum = OPEN

    def __init__(self) -> None:
        pass


class Carrying(Inline):
    """Takes part in a masked sum, and hides nothing; keeps what the server sees."""

    carries_masked_sums = True

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[Summary] = []

    def collect(self, summary: Summary, update: Update | None) -> None:
        self.seen.append(summary)
        super().collect(summary, update)


@st.composite
def cohorts(draw: st.DrawFn) -> tuple[list[Summary], dict[str, Tensor]]:
    """Summaries of clients that lack some classes, and prototypes of which some are known."""
    random = generator(draw(SEEDS))
    clients, classes = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    spread = draw(st.sampled_from([0.0, 0.1, 3.0]))
    widths = {site: draw(st.integers(1, 5)) for site in SITES}
    before = {}
    for site, width in widths.items():
        known = torch.rand(classes, generator=random) < 0.8
        before[site] = Prototypes(torch.randn(classes, width, generator=random), known)
    found = []
    for client in range(clients):
        sent = {}
        for site, old in before.items():
            counts = torch.randint(1, 50, (classes,), generator=random)
            counts *= torch.rand(classes, generator=random) < 0.7
            away = spread * torch.randn(old.means.shape, generator=random)
            means = (old.means + away) * (counts > 0)[:, None]
            sent[site] = Prototypes(means, counts > 0, counts)
        found.append(Summary(client, 1 + client, tensors=PrototypeSet(sent).pack()))
    first = draw(st.booleans())
    return found, {} if first else PrototypeSet(before).pack()


def masked_mean(
    rule: Aggregator, summaries: Sequence[Summary], state: ServerState, masked: MaskedSum
) -> tuple[list[Summary], Weights]:
    """What a server sees of each client, and what comes out of the sum."""
    received = Broadcast(1, None, dict(state.tensors))
    crossing = [into_sum(rule, masked, summary, None, received) for summary in summaries]
    seen = [summary for summary, _ in crossing]
    weights = withhold(masked, client_weights(rule, seen, state, masked=True))
    mean = RunningMean()
    for summary, update in crossing:
        assert update is not None
        mean.add(update.weights, weights[summary.client])
    rest, sums = out_of_sum(rule, masked, mean.result())
    assert rest is None
    return seen, sums


def stepped(
    rule: Aggregator, summaries: Sequence[Summary], before: Mapping[str, Tensor], **by: Any
):
    """What the server keeps after a step; a network of nothing."""
    state = ServerState(torch.nn.Module(), 1, tensors=dict(before))
    mean: Weights | None = None
    if by:
        summaries, mean = masked_mean(rule, summaries, state, **by)
    whole, rows = rule.weigh(summaries, state), rule.weigh_classes(summaries, state)
    if isinstance(rule, FedProc):
        FedProto.step(rule, state, summaries, whole, mean)
    else:
        rule.step(state, summaries, whole, mean)
    return whole, rows or {}, PrototypeSet.unpack(state.tensors)


@pytest.mark.parametrize("make", RULES)
@quick
@given(cohort=cohorts())
def test_a_sum_gives_the_prototypes_and_the_weights_that_the_server_would_work_out(
    make: Callable[[], Aggregator], cohort: tuple[list[Summary], dict[str, Tensor]]
) -> None:
    summaries, before = cohort
    plain, hidden = (stepped(make(), summaries, before, **by) for by in ({}, {"masked": OPEN}))
    for client, weight in plain[0].items():
        assert hidden[0][client] == pytest.approx(weight, rel=1e-9, abs=1e-12)
    for client, rows in plain[1].items():
        torch.testing.assert_close(hidden[1][client], rows)
    for site, expected in plain[2].items():
        found = hidden[2][site]
        assert torch.equal(found.known, expected.known)
        error = (found.means - expected.means).abs() * expected.known[:, None]
        assert float(error.max()) < 1e-5


@quick
@given(cohort=cohorts())
def test_a_class_that_few_hold_keeps_its_prototype(
    cohort: tuple[list[Summary], dict[str, Tensor]],
) -> None:
    summaries, before = cohort
    _, _, free = stepped(FedProto(), summaries, before, masked=OPEN)
    _, _, found = stepped(FedProto(), summaries, before, masked=MASKED)
    held = sum((summary.tensors["counts.fused"] > 0).long() for summary in summaries)
    summed = held >= min(3, len(summaries))
    if len(summaries) == 1:
        summed &= False  # one client has all of the weight
    old = PrototypeSet.unpack(before).get("fused")
    assert torch.equal(found["fused"].known, summed if old is None else summed | old.known)
    for label in range(len(summed)):
        if summed[label]:
            assert torch.equal(found["fused"].means[label], free["fused"].means[label])
        elif old is not None:
            assert torch.equal(found["fused"].means[label], old.means[label])


def small_network(corpus: ConversationCorpus, seed: int) -> EarlyFusion:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return EarlyFusion(corpus.shape, hidden=8)


def finished(rule: Aggregator, rounds: int = 3, privacy: Sequence[Privacy] = ()) -> Any:
    """A loop after some rounds, what its server saw, and the reports."""
    executor = Carrying()
    loop = federation(
        rule,
        CORPUS,
        CLIENTS,
        executor=executor,
        privacy=privacy,
        rounds=rounds,
        network_of=small_network,
    )
    reports = [loop.run_round(number) for number in range(rounds)]
    return loop, executor.seen, reports


WHOLE_RUNS = [FedProto, FedProc, lambda: FedProc(heads="classwise"), Distance]


@pytest.mark.parametrize("make", WHOLE_RUNS)
def test_masked_rounds_are_the_plain_ones(make: Callable[[], Aggregator]) -> None:
    plain, seen_before, _ = finished(make())
    hidden, seen, reports = finished(make(), privacy=[AllClasses()])
    assert all(not report.failures for report in reports)
    for name, value in weights_of(plain).items():
        torch.testing.assert_close(weights_of(hidden)[name], value, atol=2e-5, rtol=0)
    old, new = (PrototypeSet.unpack(loop.state.tensors)["fused"] for loop in (plain, hidden))
    assert torch.equal(old.known, new.known)
    torch.testing.assert_close(new.means, old.means, atol=1e-4, rtol=1e-4)
    # The same clients in the same order: what each would have sent is known.
    for before, now in zip(seen_before, seen, strict=True):
        assert "prototypes.fused" in before.tensors
        assert_shows_no_class_mean(now, before.tensors["prototypes.fused"])


def assert_shows_no_class_mean(seen: Summary, means: Tensor) -> None:
    classes, width = means.shape
    assert not any(name.startswith("prototypes.") for name in seen.tensors)
    for value in seen.tensors.values():
        assert value.shape == (classes,)
    numbers = torch.cat([value.double().flatten() for value in seen.tensors.values()])
    hidden = means[means != 0].double()
    assert len(hidden) > width
    assert not (numbers[:, None] - hidden).abs().lt(1e-9).any()


def test_what_a_rule_says_of_a_masked_sum_is_what_the_server_sees() -> None:
    named = {
        "prototype counts": "counts.",
        "held classes": "known.",
        "prototype distances": "distances.",
        "prototypes": "prototypes.",
    }
    for rule in (FedProto(), FedProc(), FedProc(heads="classwise"), Distance(),
                 Distance(weighting="counts"), Distance(exchange="parameters")):  # fmt: skip
        for reads, privacy in ((rule.reads, ()), (rule.reads_masked, (SecureSum(),))):
            _, seen, _ = finished(rule, 2, privacy)
            sites = {name.partition(".")[0] + "." for name in seen[-1].tensors}
            assert sites == {named[what] for what in reads if what in named}


def test_a_class_of_few_turns_is_not_in_the_sum() -> None:
    """With ``min_count`` beyond everybody's turns nobody holds anything."""
    for rule in (FedProto(min_count=10_000), Distance(min_count=10_000), FedProc(min_count=10_000)):
        loop, seen, _ = finished(rule, 1, [SecureSum()])
        prototypes = PrototypeSet.unpack(loop.state.tensors)["fused"]
        assert not prototypes.known.any()
        assert not prototypes.means.any()
        assert all(not value.any() for summary in seen for value in summary.tensors.values())


@pytest.mark.parametrize("make", WHOLE_RUNS)
def test_noise_on_summaries_is_added_before_the_sum(make: Callable[[], Aggregator]) -> None:
    """With hardly any of it the result is that without a sum, distances of noisy means included."""
    noise = {"multiplier": 1e-3, "norm": 1.0, "summary_norm": 2.0, "count_norm": 4.0}
    plain, before, _ = finished(make(), 2, [GaussianNoise(**noise)])
    hidden, seen, reports = finished(make(), 2, [GaussianNoise(**noise), AllClasses()])
    old, new = (PrototypeSet.unpack(loop.state.tensors)["fused"] for loop in (plain, hidden))
    assert torch.equal(old.known, new.known)
    torch.testing.assert_close(new.means, old.means, atol=1e-3, rtol=1e-3)
    assert reports[-1].spent is not None
    for one, other in zip(before, seen, strict=True):
        assert_shows_no_class_mean(other, one.tensors["prototypes.fused"])
        means = one.tensors["prototypes.fused"]
        assert float(means.norm()) < 2.1


def test_a_mean_beyond_the_range_is_a_sentence() -> None:
    said = "its prototypes.fused reach .*, beyond privacy.summary_clip 0.001; raise it"
    with pytest.raises(InputError, match=said):
        finished(FedProto(), 1, [SecureSum(summary_clip=1e-3)])
    for value in (0.0, float("inf"), float("nan")):
        with pytest.raises(InputError, match=r"privacy.summary_clip is .*; expected a finite"):
            SecureSum(summary_clip=value)


@pytest.mark.parametrize("kind", [FedProto, FedProc, FedTGP, Distance])
def test_a_class_of_no_turns_cannot_be_too_small(kind: Any) -> None:
    with pytest.raises(InputError, match="min_count is 0; expected at least 1"):
        kind(min_count=0)


@pytest.mark.parametrize(
    ("rule", "said"),
    [
        (FedTGP(), "clients of FedTGP send none, while its server reads of each: prototypes"),
        (Local(), "clients of Local send none; use a rule that exchanges weights"),
    ],
)
def test_a_rule_that_needs_each_clients_means_says_so(rule: Aggregator, said: str) -> None:
    with pytest.raises(InputError, match=said):
        finished(rule, 1, [SecureSum()])


def test_a_round_in_closed_form_has_no_class_means_and_the_next_one_does() -> None:
    loop, seen, _ = finished(ClosedForm(Distance(), start=True), 2, [SecureSum()])
    assert [set(summary.tensors) for summary in seen[::3]] == [set(), {"counts.fused"}]
    assert PrototypeSet.unpack(loop.state.tensors)["fused"].known.any()
