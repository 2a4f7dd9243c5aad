"""FedPer, FedRep, FedBN and Ditto: what stays stays, what travels is averaged, and nothing else."""

import copy
import io

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from fedmer.contracts.aggregator import Aggregator, ServerState
from fedmer.contracts.executor import Executor
from fedmer.contracts.network import Network
from fedmer.contracts.privacy import Privacy
from fedmer.data.corpus import ConversationCorpus
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.messages import Broadcast, Summary, Update
from fedmer.plugins.aggregators.ditto import Ditto
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_bn import FedBN
from fedmer.plugins.aggregators.fed_per import FedPer
from fedmer.plugins.aggregators.fed_rep import FedRep
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.privacy.clip_norm import ClipNorm
from fedmer.plugins.privacy.compression import Compression
from fedmer.plugins.privacy.gaussian_noise import GaussianNoise
from fedmer.plugins.selectors.uniform import Uniform
from tests.aggregators.personal import CLIENTS, CORPUS, HEADS, personal_of, ran, with_norms
from tests.aggregators.rules import few, join, small_network, small_update
from tests.federations import federation, same_bits, weights_of

RULES = [FedPer, FedRep, FedBN, Ditto]


class Overheard(Inline):
    """Keeps everything that crosses."""

    def __init__(self) -> None:
        super().__init__()
        self.down: list[Broadcast] = []
        self.up: list[tuple[Summary, Update | None]] = []

    def open(self, received: Broadcast, cohort: list[int]) -> None:  # type: ignore[override]
        self.down.append(copy.deepcopy(received))
        super().open(received, cohort)

    def collect(self, summary: Summary, update: Update | None) -> None:
        self.up.append((summary, copy.deepcopy(update)))
        super().collect(summary, update)


@pytest.mark.parametrize("rule", RULES)
def test_what_is_personal_is_in_no_message(rule: type[Aggregator]) -> None:
    overheard = Overheard()
    loop = ran(rule(), network_of=with_norms, executor=overheard)
    network = loop.state.network
    stays = set(rule().personal_names(network))
    assert bool(stays) == (rule is not Ditto)
    travels = network.state_dict().keys() - stays
    for received in overheard.down:
        assert received.weights is not None
        assert received.weights.keys() == travels
        assert received.tensors == {}
    assert len(overheard.up) == 2 * len(CLIENTS)
    # Adam moves a few numbers by the same steps in both networks of Ditto, but no matrix.
    mine = {v.numpy().tobytes() for v in personal_of(loop).values() if v.dim() > 1}
    assert bool(mine) == (rule is not FedBN)
    for summary, update in overheard.up:
        assert summary.tensors == {}
        assert update is not None
        assert update.weights.keys() == travels
        assert not any(value.numpy().tobytes() in mine for value in update.weights.values())


def test_the_heads_of_fed_per_are_those_that_the_network_names() -> None:
    loop = ran(FedPer())
    assert set(loop.trainer.personal) == HEADS == set(loop.trainer.client.network.class_parameters)
    start = weights_of(federation(FedPer(), CORPUS, CLIENTS))
    for name, value in weights_of(loop).items():
        assert torch.equal(value, start[name]) == (name in HEADS), name


def test_the_norms_of_fed_bn_are_all_layers_that_normalise() -> None:
    network = nn.ModuleDict(
        {
            "linear": nn.Linear(2, 2),
            "layer": nn.LayerNorm(2),
            "deep": nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2), nn.GroupNorm(1, 2)),
        }
    )
    stays = FedBN().personal_names(network)
    assert stays == {n for n in network.state_dict() if n.startswith(("layer", "deep.1", "deep.2"))}
    assert "deep.1.running_mean" in stays


@pytest.mark.parametrize("rule", [FedPer([]), FedBN()])
def test_with_nothing_personal_they_are_fed_avg_bit_for_bit(rule: Aggregator) -> None:
    def without_norms(corpus: ConversationCorpus, seed: int) -> Network:
        network = with_norms(corpus, seed)
        for _, layer in list(network.named_modules()):
            for child, inner in list(layer.named_children()):
                if isinstance(inner, nn.LayerNorm):
                    setattr(layer, child, nn.Identity())
        return network

    ours = ran(rule, network_of=without_norms)
    theirs = ran(FedAvg(), network_of=without_norms)
    assert ours.trainer.trained == []
    assert same_bits(weights_of(ours), weights_of(theirs))


@few
@given(
    examples=st.lists(st.integers(1, 50), min_size=1, max_size=4),
    values=st.lists(st.floats(-4, 4, width=32), min_size=8, max_size=8),
)
@pytest.mark.parametrize("rule", [FedPer(["level"]), FedRep(["level"]), Ditto()])
def test_what_travels_is_the_mean_by_examples_and_the_rest_stays(
    rule: Aggregator, examples: list[int], values: list[float]
) -> None:
    network = small_network()
    stays = rule.personal_names(network)
    cohort = []
    for client, count in enumerate(examples):
        sent = small_update((values[2 * client], values[2 * client + 1]), level=client + 1.0)
        kept = {name: value for name, value in sent.items() if name not in stays}
        cohort.append((Summary(client, count), kept))
    state = ServerState(network)
    join(rule, state, rule.server_optimizer(network.parameters()), cohort)
    share = torch.tensor(examples).double() / sum(examples)
    rows = torch.stack([update["weight"][0] for _, update in cohort]).double()
    expected = (share[:, None] * rows).sum(dim=0)
    torch.testing.assert_close(network.weight.detach().double()[0], expected, rtol=1e-5, atol=1e-5)
    assert (network.level.item() == 0) == bool(stays)


@pytest.mark.parametrize("rule", RULES)
def test_a_client_that_never_trained_has_what_travels_and_the_personal_part_of_the_first_day(
    rule: type[Aggregator],
) -> None:
    first = weights_of(federation(rule(), CORPUS, CLIENTS, network_of=with_norms))
    loop = ran(rule(), 1, network_of=with_norms, selector=Uniform(0.5))
    (new,) = sorted(set(range(len(CLIENTS))) - set(loop.trainer.trained))[:1]
    loop.trainer.load(new, loop.knowledge())
    now, personal = weights_of(loop), set(loop.trainer.personal)
    for name, value in loop.trainer.weights.items():
        assert torch.equal(value, (first if name in personal else now)[name]), name
    (old, *_) = loop.trainer.trained
    loop.trainer.load(old, loop.knowledge())
    assert any(not torch.equal(loop.trainer.weights[name], first[name]) for name in personal)


@pytest.mark.parametrize("rule", RULES)
def test_workers_and_a_resumed_run_give_the_bits_of_inline(rule: type[Aggregator]) -> None:
    def start(executor: Executor | None = None) -> FederatedLoop:
        chosen = {"selector": Uniform(0.5), "network_of": with_norms, "executor": executor}
        return federation(rule(), CORPUS, CLIENTS, **chosen)  # type: ignore[arg-type]

    straight, elsewhere, broken, resumed = start(), start(Workers(2)), start(), start()
    for number in range(3):
        straight.run_round(number)
        elsewhere.run_round(number)
        if number < 2:
            broken.run_round(number)
    elsewhere.executor.close()
    saved = io.BytesIO()
    torch.save(broken.state_dict(), saved)
    saved.seek(0)
    resumed.load_state_dict(torch.load(saved, weights_only=True))
    resumed.state.network.load_state_dict(broken.state.network.state_dict())
    resumed.run_round(2)
    for other in (elsewhere, resumed):
        assert same_bits(weights_of(straight), weights_of(other))
        assert same_bits(personal_of(straight), personal_of(other))


@pytest.mark.parametrize("rule", [FedPer, FedBN])
def test_stacked_learns_what_inline_does(rule: type[Aggregator]) -> None:
    def still(corpus: ConversationCorpus, seed: int) -> Network:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return EarlyFusion(corpus.shape, hidden=8, heads=2, dropout=0.0)

    inline, stacked = (
        ran(rule(), network_of=still, executor=executor) for executor in (Inline(), Stacked())
    )
    for read in (weights_of, personal_of):
        ours, theirs = read(stacked), read(inline)
        assert ours.keys() == theirs.keys()
        for name, value in theirs.items():
            torch.testing.assert_close(ours[name], value, rtol=1e-3, atol=1e-4, msg=name)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (FedRep(), "FedRep trains in stages of its own. Use Inline."),
        (Ditto(), "Ditto changes what a client minimises. Use Inline."),
    ],
)
def test_stacked_says_what_it_cannot_train(rule: Aggregator, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        federation(rule, CORPUS, CLIENTS, executor=Stacked(), network_of=with_norms)


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (lambda: FedRep(head_epochs=0), "head_epochs is 0; expected at least 1."),
        (lambda: Ditto(-0.5), "strength is -0.5; expected 0 or more."),
        (lambda: Ditto(float("nan")), "strength is nan; expected 0 or more."),
    ],
)
def test_hyperparameters_out_of_range_are_refused(rule: object, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        rule()  # type: ignore[operator]


@pytest.mark.parametrize(
    ("rule", "sentence"),
    [
        (FedPer(["haed"]), "aggregator.personal names 'haed', and SDT has no such part; it has "),
        (FedRep([]), "aggregator.personal names nothing, so that there is no head"),
    ],
)
def test_parts_that_are_not_there_are_refused(rule: Aggregator, sentence: str) -> None:
    with pytest.raises(InputError, match=sentence):
        federation(rule, CORPUS, CLIENTS)


def test_a_network_without_heads_or_with_nothing_else_is_refused() -> None:
    network = nn.ModuleDict({"body": nn.Linear(1, 1)})
    with pytest.raises(InputError, match="names no parameter with a row a class"):
        FedPer().check(network)
    with pytest.raises(InputError, match="names all of ModuleDict, so that nothing travels"):
        FedPer(["body"]).check(network)
    with pytest.warns(UserWarning, match="keeps nothing back and is FedAvg"):
        FedBN().check(network)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(
    "mechanism", [ClipNorm(norm=1e-4), GaussianNoise(multiplier=0.1), Compression()]
)
def test_mechanisms_protect_what_travels_and_leave_the_rest(
    rule: type[Aggregator], mechanism: Privacy
) -> None:
    bare = ran(rule(), 1, network_of=with_norms)
    loop = ran(rule(), 1, network_of=with_norms, privacy=[mechanism])
    assert same_bits(personal_of(loop), personal_of(bare))
    assert not same_bits(weights_of(loop), weights_of(bare))
