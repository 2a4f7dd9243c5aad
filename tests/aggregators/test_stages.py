"""FedRep and Ditto, whose clients train in stages."""

from functools import partial

import pytest
import torch
from torch import Tensor

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator, ClientRound, Stage
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.ditto import Ditto
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.fed_rep import FedRep
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.networks.sdt import SDT
from fedmer.steps import LocalTraining
from tests.aggregators.personal import CLIENTS, CORPUS, HEADS, personal_of, ran
from tests.federations import federation, same_bits, weights_of

SGD = partial(torch.optim.SGD, lr=0.1, momentum=0.9, weight_decay=0.1)


class Watched(FedRep):
    """Remembers the weights before every step, and which stage it belongs to."""

    seen: list[tuple[Stage, dict[str, Tensor]]]

    def on_before_optimizer_step(self, context: ClientRound) -> None:
        network = context.client.network
        self.seen.append((context.stage, {n: p.clone() for n, p in network.named_parameters()}))


@pytest.mark.parametrize("optimizer", [SGD, partial(torch.optim.AdamW, lr=0.01, weight_decay=0.1)])
def test_the_body_of_fed_rep_stands_still_while_the_head_learns_and_then_the_head(
    optimizer: partial[torch.optim.Optimizer],
) -> None:
    """Neither momentum, nor weight decay, nor what another client did before moves it."""
    rule = Watched(head_epochs=2)
    rule.seen = []
    trainer = trainer_of(rule, optimizer, LocalTraining(epochs=2, batch_size=2))
    start = {name: value.clone() for name, value in trainer.weights.items()}
    received = Broadcast(0, {name: v for name, v in start.items() if name not in HEADS})
    for client in (1, 0):
        trainer.load(client, received)
        rule.seen.clear()
        trainer.fit(client, received)
        stages = [stage for stage, _ in rule.seen]
        steps = len(stages) // 2
        assert [s.frozen == HEADS for s in stages] == [False] * steps + [True] * steps
        heads, bodies = [], []
        for _, weights in rule.seen:
            heads.append({n: w for n, w in weights.items() if n in HEADS})
            bodies.append({n: w for n, w in weights.items() if n not in HEADS})
        assert all(same_bits(bodies[0], body) for body in bodies[: steps + 1])
        assert not any(same_bits(heads[i], heads[i + 1]) for i in range(steps))
        assert all(same_bits(heads[steps], head) for head in heads[steps:])
        assert not any(same_bits(bodies[i], bodies[i + 1]) for i in range(steps, 2 * steps - 1))
        assert same_bits(heads[steps], trainer.recall(client).weights)
        assert all(p.requires_grad for p in trainer.client.network.parameters())


def trainer_of(
    rule: Aggregator, optimizer: partial[torch.optim.Optimizer], training: LocalTraining
) -> LocalTrainer:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = SDT(CORPUS.shape, hidden=8, heads=2, dropout=0.0)
    client = EmotionClient(network, SelfDistillation(), optimizer)
    return LocalTrainer(client, CLIENTS, rule, training)


def test_clipping_counts_what_learns_and_not_what_stands_still() -> None:
    """With plain SGD a clipped step is as long as the norm allows, in each stage by itself."""
    plain, clip = partial(torch.optim.SGD, lr=1.0), 1e-3
    rule = Watched()
    rule.seen = []
    training = LocalTraining(batch_size=100, gradient_clip_val=clip)
    trainer = trainer_of(rule, plain, training)
    start = {n: v.clone() for n, v in trainer.weights.items() if n not in HEADS}
    trainer.fit(0, Broadcast(0, start))
    first, second = (weights for _, weights in rule.seen)
    last = dict(trainer.weights)
    for before, after in ((first, second), (second, last)):
        moved = torch.cat([(after[n] - before[n]).flatten() for n in before]).double().norm()
        assert moved.item() == pytest.approx(clip, rel=1e-2)


def test_ditto_without_a_pull_is_local_and_its_global_network_is_fed_avg_bit_for_bit() -> None:
    training = LocalTraining(epochs=2, batch_size=2)
    loss = SelfDistillation(calibration="prior")
    ditto, alone, average = (
        ran(rule, training=training, loss=loss) for rule in (Ditto(0), Local(), FedAvg())
    )
    assert same_bits(personal_of(ditto), personal_of(alone))
    assert same_bits(weights_of(ditto), weights_of(average))
    pulled = ran(Ditto(1.0), training=training, loss=loss)
    assert same_bits(weights_of(pulled), weights_of(average))
    assert not same_bits(personal_of(pulled), personal_of(alone))


def test_a_step_of_ditto_against_a_hand_computed_one() -> None:
    """With SGD, v becomes v - lr (grad F(v) + strength (v - w)), and at lr * strength = 1 it
    becomes w - lr grad F(v): the stronger the pull, the nearer to the global network."""
    rate, w = 0.05, {}
    plain = partial(torch.optim.SGD, lr=rate)
    training = LocalTraining(batch_size=100)
    ends = {}
    for strength in (0.0, 4.0, 1 / rate):
        trainer = trainer_of(Ditto(strength), plain, training)
        v = {name: value.clone() for name, value in trainer.weights.items()}
        w = {name: value + 0.1 for name, value in v.items()}
        slope = gradient(trainer, v)
        trainer.fit(0, Broadcast(0, w))
        ends[strength] = trainer.recall(0).weights
        for name, end in ends[strength].items():
            expected = v[name] - rate * (slope[name] + strength * (v[name] - w[name]))
            torch.testing.assert_close(end, expected, rtol=1e-4, atol=1e-6)
    apart = {
        strength: sum(float((end[name] - w[name]).square().sum()) for name in w)
        for strength, end in ends.items()
    }
    assert apart[0.0] > 1.5 * apart[4.0] > 3 * apart[1 / rate]


def gradient(trainer: LocalTrainer, at: dict[str, Tensor]) -> dict[str, Tensor]:
    """Of the first client's loss on all its dialogues at once."""
    network = trainer.client.network
    (batch,) = trainer._seen(0)
    network.train()
    loss = trainer.client.supervised_loss(trainer.client(batch), batch)
    found = torch.autograd.grad(loss, list(network.parameters()), allow_unused=True)
    names = [name for name, _ in network.named_parameters()]
    return {
        n: torch.zeros_like(at[n]) if g is None else g for n, g in zip(names, found, strict=True)
    }


def test_ditto_keeps_no_optimizer() -> None:
    keep = LocalTraining(optimizer_state="keep")
    with pytest.raises(InputError, match="Ditto trains two networks on every client; use 'reset'"):
        federation(Ditto(), CORPUS, CLIENTS, training=keep)


def test_a_pull_of_nothing_changes_no_bit() -> None:
    ours, theirs = (ran(rule, 1) for rule in (FedProx(0), FedAvg()))
    assert same_bits(weights_of(ours), weights_of(theirs))
