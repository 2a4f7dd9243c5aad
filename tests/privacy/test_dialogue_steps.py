"""The gradient of each dialogue by itself: what a naive loop gives, clipped, with noise."""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from fedmer.client import EmotionClient
from fedmer.contracts.network import Network
from fedmer.contracts.privacy import StepNoise
from fedmer.data.batch import Batch, Excerpt, collate
from fedmer.data.client_data import ClientData
from fedmer.dialogue_steps import AT_ONCE, DialogueSteps, clipped_sum
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.plugins import registry
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.networks.early_fusion import EarlyFusion
from fedmer.plugins.networks.sdt import SDT
from fedmer.plugins.networks.self_mm import SelfMM
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.privacy.dpsgd import DPSGD
from fedmer.steps import LocalTraining
from tests.federations import clients_of, small_corpus

CORPUS = small_corpus()
DIALOGUES = clients_of(CORPUS, Central(), standardise="none")[0].train
PLAIN = SelfDistillation(calibration="none")
SMALL = {"hidden": 8, "heads": 2}


def made(
    kind: type[Network], dropout: float = 0.0, loss: SelfDistillation = PLAIN
) -> EmotionClient:
    known = kind.__init__.__code__.co_varnames
    wanted = {**SMALL, "dropout": dropout, "missing_rate": 0.0}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = kind(CORPUS.shape, **{k: v for k, v in wanted.items() if k in known})
    network.train()
    return EmotionClient(network, loss, partial(torch.optim.SGD, lr=1.0))


def summed(client: EmotionClient, dialogues: Sequence[Excerpt], norm: float) -> Tensor:
    parameters = dict(client.network.named_parameters())
    total, _ = clipped_sum(client, parameters, dialogues, norm)
    return torch.cat([total[name].flatten() for name in parameters])


def naive(client: EmotionClient, dialogue: Excerpt) -> Tensor:
    """The gradient on one dialogue, by an ordinary backward pass."""
    client.network.zero_grad()
    batch = collate([dialogue])
    torch.autograd.backward(client.supervised_loss(client(batch), batch))
    found = [torch.zeros_like(p) if p.grad is None else p.grad for p in client.network.parameters()]
    return torch.cat([gradient.flatten() for gradient in found])


def every_network() -> list[type[Network]]:
    registry.load("networks")

    def below(kind: type[Network]) -> Iterator[type[Network]]:
        for part in kind.__subclasses__():
            yield part
            yield from below(part)

    names = {p.path.rpartition(".")[2] for p in registry.plugins("networks")}
    return [kind for kind in below(Network) if kind.__name__ in names]


@pytest.mark.parametrize("kind", every_network(), ids=lambda kind: kind.__name__)
def test_every_network_gives_the_gradient_of_each_dialogue_or_is_refused(
    kind: type[Network],
) -> None:
    """Of dialogues of different lengths, so that padding has no part in it either."""
    client, some = made(kind), DIALOGUES[:4]
    if kind is SelfMM:
        with pytest.raises(InputError, match="but SelfMM keeps 'centres' beside its parameters"):
            trainer_of(some, DPSGD(multiplier=1.0), kind)
        return
    assert len({len(dialogue) for dialogue in some}) > 1
    each = torch.stack([naive(client, dialogue) for dialogue in some])
    lengths = each.norm(dim=1)
    norm = float(lengths.median())
    expected = (each * (norm / lengths).clamp(max=1)[:, None]).sum(dim=0)
    torch.testing.assert_close(summed(client, some, norm), expected, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("kind", [EarlyFusion, SDT])
def test_the_loss_is_the_sum_of_each_dialogues_own(kind: type[Network]) -> None:
    client = made(kind, loss=SelfDistillation(calibration="none", teacher="global"))
    client.teacher = made(kind).network
    parts = dict(client.network.named_parameters())
    _, loss = clipped_sum(client, parts, DIALOGUES[:3], 1.0)
    batches = [collate([dialogue]) for dialogue in DIALOGUES[:3]]
    expected = sum(client.supervised_loss(client(batch), batch) for batch in batches)
    torch.testing.assert_close(loss, expected.detach())


CLIENTS = {kind: made(kind) for kind in (EarlyFusion, SDT)}


@settings(max_examples=30, deadline=None)
@given(
    kind=st.sampled_from([EarlyFusion, SDT]),
    place=st.integers(0, len(DIALOGUES) - 1),
    norm=st.floats(1e-3, 10),
    scale=st.sampled_from([0.0, 1.0, 1e3]),
)
def test_no_dialogue_is_longer_than_the_norm(
    kind: type[Network], place: int, norm: float, scale: float
) -> None:
    dialogue = DIALOGUES[place]
    features = {name: rows * scale for name, rows in dialogue.features.items()}
    found = summed(CLIENTS[kind], [replace(dialogue, features=features)], norm)
    assert float(found.double().norm()) <= norm


@pytest.mark.parametrize("kind", [EarlyFusion, SDT])
def test_a_dialogue_without_labels_adds_nothing(kind: type[Network]) -> None:
    nothing = torch.zeros_like(DIALOGUES[0].labelled)
    silent = replace(DIALOGUES[0], labelled=nothing)
    client = made(kind)
    assert not summed(client, [silent], 1.0).any()
    alone = summed(client, [DIALOGUES[1]], 1.0)
    torch.testing.assert_close(summed(client, [silent, DIALOGUES[1]], 1.0), alone)


@pytest.mark.parametrize("kind", [EarlyFusion, SDT])
def test_dropout_is_drawn_for_each_dialogue(kind: type[Network]) -> None:
    """One dialogue twice: under one mask the two would add up to twice the norm."""
    client = made(kind, dropout=0.5)
    twice = [DIALOGUES[0], DIALOGUES[0]]
    assert float(summed(client, twice, 1e-3).norm()) < 1.98e-3
    assert all(getattr(part, "bytewise", True) for part in client.network.modules())


def test_many_dialogues_go_through_a_network_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    client = made(EarlyFusion)
    numbers = sum(p.numel() for p in client.network.parameters())
    assert numbers * 5 < AT_ONCE
    whole = summed(client, DIALOGUES[:5], 0.1)
    monkeypatch.setattr("fedmer.dialogue_steps.AT_ONCE", 2 * numbers)
    torch.testing.assert_close(summed(client, DIALOGUES[:5], 0.1), whole, atol=1e-6, rtol=1e-4)


def trainer_of(
    dialogues: Sequence[Excerpt],
    privacy: DPSGD,
    kind: type[Network] = EarlyFusion,
    training: LocalTraining | None = None,
) -> LocalTrainer:
    data = [ClientData("one", dialogues)]
    local = training or LocalTraining(batch_size=4)
    return LocalTrainer(made(kind), data, FedAvg(), local, privacy=[privacy])


def moved(trainer: LocalTrainer, round: int = 0) -> Tensor:
    """What a round with SGD at a rate of 1 changes: less the gradients of its steps."""
    start = {name: value.clone() for name, value in trainer.weights.items()}
    _, update = trainer.fit(0, Broadcast(round, start))
    assert update is not None
    return torch.cat([(update.weights[name] - value).flatten() for name, value in start.items()])


def silent(count: int) -> list[Excerpt]:
    """Dialogues that nothing is learnt from, so that all that changes is noise."""
    return [replace(d, labelled=torch.zeros_like(d.labelled)) for d in DIALOGUES[:count]]


@pytest.mark.parametrize(
    ("dialogues", "steps", "batch"), [(3, 1, 3), (4, 1, 4), (5, 2, 4), (12, 3, 4)]
)
def test_the_noise_of_a_step_is_as_large_as_said(dialogues: int, steps: int, batch: int) -> None:
    """The multiplier times the norm, over the dialogues that a step has in the mean."""
    found = moved(trainer_of(silent(dialogues), DPSGD(norm=0.5, multiplier=3.0)))
    noise = found / (3.0 * 0.5 / batch * steps**0.5)
    assert len(noise) > 400
    assert float(noise.std()) == pytest.approx(1.0, rel=0.1)
    assert abs(float(noise.mean())) < 4 / len(noise) ** 0.5


def test_noise_is_new_in_each_round_and_the_same_when_a_round_is_repeated() -> None:
    first, again, other = (
        moved(trainer_of(silent(4), DPSGD(multiplier=1.0)), round) for round in (0, 0, 1)
    )
    assert torch.equal(first, again)
    assert abs(float(torch.corrcoef(torch.stack([first, other]))[0, 1])) < 0.2


def test_without_noise_a_full_batch_is_the_mean_of_clipped_gradients() -> None:
    trainer = trainer_of(DIALOGUES[:3], DPSGD(norm=0.05, multiplier=1e-9))
    expected = -summed(made(EarlyFusion), DIALOGUES[:3], 0.05) / 3
    torch.testing.assert_close(moved(trainer), expected, atol=1e-6, rtol=1e-4)


def test_each_dialogue_is_drawn_by_itself_with_the_probability_that_is_accounted() -> None:
    trainer = trainer_of(DIALOGUES[:10], DPSGD(multiplier=1.0))
    steps = trainer.steps
    assert isinstance(steps, DialogueSteps)
    plan = steps.plan(10, trainer.stages)
    assert (plan.dialogues, plan.batch, plan.count) == (10, 4, 3)
    rows = []
    for epoch in range(400):
        drawn = list(steps._batches(0, DIALOGUES[:10], epoch))
        assert len(drawn) == 3
        for one in drawn:
            assert one.expected == 4
            names = {dialogue.dialogue for dialogue in one.dialogues}
            rows.append([dialogue.dialogue in names for dialogue in DIALOGUES[:10]])
    found = torch.tensor(rows).double()
    torch.testing.assert_close(
        found.mean(dim=0), torch.full((10,), 0.4, dtype=torch.float64), atol=0.06, rtol=0
    )
    correlations = torch.corrcoef(found.T) - torch.eye(10)
    assert float(correlations.abs().max()) < 0.15
    sizes = found.sum(dim=1)
    assert float(sizes.var()) == pytest.approx(10 * 0.4 * 0.6, rel=0.2)


def test_a_step_that_nobody_is_drawn_for_is_noise_alone() -> None:
    trainer = trainer_of(DIALOGUES[:5], DPSGD(multiplier=1.0), training=LocalTraining(batch_size=1))
    steps = trainer.steps
    assert isinstance(steps, DialogueSteps)
    drawn = [one for epoch in range(20) for one in steps._batches(0, DIALOGUES[:5], epoch)]
    assert any(not one.dialogues for one in drawn)
    assert moved(trainer).isfinite().all()


@pytest.mark.parametrize("kind", [EarlyFusion, SDT])
def test_modalities_are_dropped_from_each_dialogue(kind: type[Network]) -> None:
    """At a chance of 1 one modality of each utterance is left, another one in another place."""
    still = DPSGD(norm=0.5, multiplier=1e-9)
    found = [
        moved(trainer_of(DIALOGUES[:3], still, kind, LocalTraining(modality_dropout=chance)))
        for chance in (0.0, 1.0)
    ]
    assert not torch.allclose(found[0], found[1], atol=1e-3)
    assert float(found[1].norm()) <= 0.5


class Remembers(EarlyFusion):
    """Keeps a sum of what it saw, in a buffer that does not travel."""

    stackable = False

    def __init__(self, shape, hidden: int = 8) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape, hidden)
        self.register_buffer("seen", torch.zeros(()), persistent=False)

    def forward(self, batch: Batch):  # type: ignore[no-untyped-def]
        self.seen += batch.features["text"].mean()
        return super().forward(batch)


class Normalises(EarlyFusion):
    def __init__(self, shape, hidden: int = 8) -> None:  # type: ignore[no-untyped-def]
        super().__init__(shape, hidden)
        self.norm = nn.BatchNorm1d(hidden)


def test_what_a_network_keeps_of_its_batches_is_refused() -> None:
    with pytest.raises(InputError, match=r"itself, but Normalises keeps 'norm.running_mean' bes"):
        trainer_of(DIALOGUES[:3], DPSGD(multiplier=1.0), Normalises)
    with pytest.raises(InputError, match="Remembers changes 'seen' by what it sees, which no noi"):
        moved(trainer_of(DIALOGUES[:3], DPSGD(multiplier=1.0), Remembers))


def test_a_frozen_parameter_gets_no_noise() -> None:
    trainer = trainer_of(silent(3), DPSGD(multiplier=1.0))
    steps = trainer.steps
    assert isinstance(steps, DialogueSteps)
    name, parameter = next(trainer.client.network.named_parameters())
    parameter.requires_grad_(False)
    before = parameter.clone()
    moved(trainer)
    assert torch.equal(parameter, before)
    assert steps.noise == StepNoise(1.0, 1.0)
    assert name in trainer.exchanged
