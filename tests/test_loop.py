"""A round without a Trainer, and what federated averaging must equal."""

import copy
import dataclasses

import pytest
import pytorch_lightning as pl
import torch
from lightning_fabric import Fabric
from torch.utils.data import DataLoader

from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.data.batch import EpochOrder, collate
from fedmer.data.client_data import ClientData
from fedmer.errors import InputError
from fedmer.local import LocalTrainer
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.aggregators.fed_proto import FedProto
from fedmer.plugins.aggregators.fed_prox import FedProx
from fedmer.plugins.aggregators.local import Local
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.selectors.uniform import Uniform
from fedmer.steps import LocalTraining
from tests.federations import (
    clients_of,
    federation,
    network_for,
    same_bits,
    small_corpus,
    weights_of,
)

KEEP = LocalTraining(epochs=2, batch_size=4, optimizer_state="keep")


def test_one_client_with_kept_optimizer_is_centralised_training_bit_for_bit() -> None:
    corpus = small_corpus()
    (client,) = clients_of(corpus, Central())
    loop = federation(FedAvg(), corpus, [client], training=KEEP)
    for number in range(3):
        loop.run_round(number)

    alone = EmotionClient(network_for(corpus), SelfDistillation())
    order = EpochOrder(len(client.train), seed=0)
    loader = DataLoader(client.train, batch_size=4, sampler=order, collate_fn=collate)
    trainer = pl.Trainer(
        max_epochs=6, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False,
    )  # fmt: skip
    trainer.fit(alone, loader)

    assert same_bits(weights_of(loop), dict(alone.network.state_dict()))


def test_identical_clients_are_one_client() -> None:
    corpus = small_corpus()
    (client,) = clients_of(corpus, Central())
    one = federation(FedAvg(), corpus, [client])
    many = federation(FedAvg(), corpus, [client] * 3)
    # Order and dropout are drawn by client id, so identical clients must also draw alike.
    many.trainer.fit = _as_client_zero(many.trainer)  # type: ignore[method-assign]
    for number in range(2):
        one.run_round(number)
        many.run_round(number)
    assert same_bits(weights_of(one), weights_of(many))


def _as_client_zero(trainer: LocalTrainer):  # type: ignore[no-untyped-def]
    original = trainer.fit

    def fit(client, received):  # type: ignore[no-untyped-def]
        summary, update = original(0, received)
        assert update is not None
        return dataclasses.replace(summary, client=client), dataclasses.replace(
            update, client=client
        )

    return fit


@pytest.mark.parametrize("optimizer_state", ["reset", "keep"])
def test_proximal_term_of_zero_is_averaging_bit_for_bit(optimizer_state: str) -> None:
    training = LocalTraining(epochs=2, optimizer_state=optimizer_state)  # type: ignore[arg-type]
    plain = federation(FedAvg(), training=training)
    leashed = federation(FedProx(mu=0), training=training)
    pulled = federation(FedProx(mu=1), training=training)
    for number in range(2):
        for loop in (plain, leashed, pulled):
            loop.run_round(number)
    assert same_bits(weights_of(plain), weights_of(leashed))
    assert not same_bits(weights_of(plain), weights_of(pulled))


@pytest.mark.parametrize("mu", [0.1, 10.0])
def test_proximal_term_keeps_clients_near(mu: float) -> None:
    def drift(rule: Aggregator) -> float:
        loop = federation(rule, training=LocalTraining(epochs=3))
        before = weights_of(loop)
        loop.run_round(0)
        after = weights_of(loop)
        return sum(float((after[n] - before[n]).square().sum()) for n in before)

    assert drift(FedProx(mu=mu)) < drift(FedAvg())


def test_a_round_is_a_pure_function_of_the_seed() -> None:
    torch.manual_seed(1)
    one = federation(FedAvg(), selector=Uniform(0.5))
    one.run_round(0)
    torch.manual_seed(2)
    other = federation(FedAvg(), selector=Uniform(0.5))
    other.run_round(0)
    different = federation(FedAvg(), selector=Uniform(0.5), seed=1)
    different.run_round(0)
    assert same_bits(weights_of(one), weights_of(other))
    assert not same_bits(weights_of(one), weights_of(different))


def test_training_leaves_the_global_generator_alone() -> None:
    loop = federation(FedAvg())
    torch.manual_seed(3)
    expected = torch.rand(4)
    torch.manual_seed(3)
    loop.run_round(0)
    assert torch.equal(torch.rand(4), expected)


def test_a_clients_training_does_not_depend_on_who_trained_before() -> None:
    loop = federation(FedAvg(), training=KEEP)
    received = loop.aggregator.broadcast(loop.state)
    loop.trainer.fit(2, received)
    _, after_another = copy.deepcopy(loop.trainer.fit(5, received))
    fresh = federation(FedAvg(), training=KEEP)
    _, alone = fresh.trainer.fit(5, fresh.aggregator.broadcast(fresh.state))
    assert after_another is not None
    assert alone is not None
    assert same_bits(after_another.weights, alone.weights)


def test_the_report_counts_bytes_and_weights() -> None:
    loop = federation(FedAvg(), selector=Uniform(0.5))
    report = loop.run_round(0)
    size = sum(v.numel() * v.element_size() for v in loop.state.network.state_dict().values())
    assert report.bytes_down == 4 * size
    assert report.bytes_up == 4 * size + sum(s.nbytes for s in report.summaries)
    assert sum(report.weights.values()) == pytest.approx(1)
    examples = {s.client: s.examples for s in report.summaries}
    total = sum(examples.values())
    assert report.weights == {c: n / total for c, n in examples.items()}


def test_local_never_exchanges_and_remembers() -> None:
    loop = federation(Local(), training=LocalTraining(epochs=8))
    before = weights_of(loop)
    reports = [loop.run_round(number) for number in range(2)]
    assert same_bits(before, weights_of(loop))
    assert reports[0].bytes_down == 0
    assert loop.trainer.trained == list(range(8))
    assert reports[1].train_loss < reports[0].train_loss
    networks = [loop.trainer.memory[client].weights for client in (0, 1)]
    assert not same_bits(*networks)


def test_prototypes_are_all_that_fedproto_sends() -> None:
    loop = federation(FedProto())
    first, second = loop.run_round(0), loop.run_round(1)
    width, classes = 8, 6
    assert first.bytes_down == 0
    assert second.bytes_down == 8 * (classes * width * 4 + classes)
    assert first.bytes_up == 8 * (classes * width * 4 + classes + 24)
    assert loop.state.tensors["known.fused"].all()


@pytest.mark.parametrize("clip", [None, 1.0])
def test_a_loss_that_is_not_finite_names_the_client(clip: float | None) -> None:
    corpus = small_corpus()
    clients = clients_of(corpus, Central())
    broken = clients[0].train[0]
    broken.features["text"][0, 0] = float("inf")
    training = LocalTraining(gradient_clip_val=clip)
    loop = federation(FedAvg(), corpus, [ClientData("Ann", [broken])], training=training)
    with pytest.raises(InputError, match=r"Round 1: .*\(Ann was left out: its loss is nan\)"):
        loop.run_round(0)


def test_no_clients_are_refused() -> None:
    corpus = small_corpus()
    loop = federation(FedAvg(), corpus)
    empty = type(loop)(
        loop.state.network, loop.aggregator, loop.selector, loop.executor,
        LocalTrainer(loop.trainer.client, [], FedAvg(), LocalTraining()), 0,
    )  # fmt: skip
    with pytest.raises(InputError, match="There are no clients"):
        empty.begin(0)


def test_a_trained_network_beats_chance_on_what_it_saw() -> None:
    corpus = small_corpus()
    loop = federation(FedAvg(), corpus, training=LocalTraining(epochs=5, batch_size=4))
    losses = [loop.run_round(number).train_loss for number in range(4)]
    assert losses[-1] < losses[0]


def test_the_global_teacher_is_the_network_that_was_sent_without_dropout() -> None:
    loop = federation(FedAvg(), loss=SelfDistillation(teacher="global"))
    loop.run_round(0)
    sent = weights_of(loop)
    loop.run_round(1)
    teacher = loop.trainer.client.teacher
    assert teacher is not None
    assert not teacher.training
    assert same_bits(dict(teacher.state_dict()), sent)
    assert not same_bits(weights_of(loop), sent)
    other = federation(FedAvg())
    other.run_round(0)
    assert not same_bits(weights_of(other), sent)


def test_a_rule_without_a_global_network_has_no_global_teacher() -> None:
    with pytest.raises(InputError, match=r"loss\.teacher is 'global', but FedProto"):
        federation(FedProto(), loss=SelfDistillation(teacher="global"))


def test_half_precision_trains_to_almost_the_same_losses() -> None:
    exact = federation(FedAvg())
    halved = federation(FedAvg())
    fabric = Fabric(accelerator="cpu", devices=1, precision="bf16-mixed")
    own = halved.trainer
    halved.trainer = LocalTrainer(own.client, own.data, FedAvg(), own.training, fabric)
    halved.executor.bind(halved.trainer, halved.state)
    for number in range(3):
        expected, found = exact.run_round(number), halved.run_round(number)
        assert found.train_loss == pytest.approx(expected.train_loss, rel=0.02)
    assert weights_of(halved)["teacher.weight"].dtype == torch.float32
    assert not same_bits(weights_of(exact), weights_of(halved))
