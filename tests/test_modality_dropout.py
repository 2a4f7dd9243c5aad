"""Modality dropout: one mechanism for every network and executor."""

import importlib
from dataclasses import replace

import pytest
import torch

from fedmer.client import EmotionClient
from fedmer.contracts import Executor, Network
from fedmer.data.batch import Batch, batch_of
from fedmer.data.missing import drop_modalities
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins import registry
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.networks.late_fusion import LateFusion
from fedmer.plugins.partitioners.virtual_speaker import VirtualSpeaker
from fedmer.steps import LocalTraining
from tests.federations import clients_of, federation, same_bits, weights_of

CORPUS = synthetic_corpus(seed=0, dialogues=20, features={"text": 6, "audio": 4, "visual": 3})
BATCH = batch_of(CORPUS, range(12))


def masks(batch: Batch) -> torch.Tensor:
    """``(N, M)``."""
    return batch.pack(torch.stack(list(batch.present.values()), dim=-1))


def test_at_least_one_modality_of_an_utterance_stays() -> None:
    torch.manual_seed(0)
    for rate in (0.2, 0.6, 1.0):
        found = drop_modalities(BATCH, rate)
        assert torch.equal(masks(found).any(dim=1), masks(BATCH).any(dim=1))
        share = 1 - float(masks(found).sum() / masks(BATCH).sum())
        assert abs(share - (rate - rate**3 / 3)) < 0.05
        for name, rows in found.features.items():
            gone = ~found.present[name]
            assert (rows[gone] == 0).all()
            assert torch.equal(rows[~gone], BATCH.features[name][~gone])
        assert torch.equal(found.labels, BATCH.labels)
    before = torch.get_rng_state()
    assert drop_modalities(BATCH, 0.0) is BATCH
    assert torch.equal(torch.get_rng_state(), before)


def test_what_is_dropped_reaches_nobody() -> None:
    torch.manual_seed(0)
    found = drop_modalities(BATCH, 0.7)
    features = {
        name: rows.masked_fill(~found.present[name][..., None], float("nan"))
        for name, rows in BATCH.features.items()
    }
    poisoned = replace(BATCH, features=features)
    torch.manual_seed(0)
    again = drop_modalities(poisoned, 0.7)
    assert all(torch.equal(again.features[name], rows) for name, rows in found.features.items())


def trained(rate: float, executor: Executor, corpus=CORPUS):  # type: ignore[no-untyped-def]
    training = LocalTraining(batch_size=2, modality_dropout=rate)

    def network(corpus, seed):  # type: ignore[no-untyped-def]
        torch.manual_seed(0)
        return LateFusion(corpus.shape, hidden=8, heads=2, dropout=0.0)

    clients = clients_of(corpus, VirtualSpeaker(8))
    loop = federation(
        FedAvg(), corpus, clients, training=training, executor=executor, network_of=network
    )
    for number in range(2):
        loop.run_round(number)
    executor.close()
    return weights_of(loop)


def test_it_is_the_same_on_every_executor_and_nothing_at_zero() -> None:
    one = trained(0.4, Inline())
    assert same_bits(one, trained(0.4, Workers(2)))
    assert same_bits(one, trained(0.4, Inline()))
    assert not same_bits(one, trained(0.0, Inline()))
    assert not same_bits(one, trained(0.5, Inline()))


def test_stacked_clients_lose_modalities_each_by_itself() -> None:
    one, other = trained(0.4, Stacked(clients=3)), trained(0.4, Stacked(clients=3))
    assert same_bits(one, other)
    whole = trained(0.0, Stacked(clients=3))
    assert not torch.allclose(
        one["project.layers.text.weight"], whole["project.layers.text.weight"]
    )
    alone = synthetic_corpus(seed=0, dialogues=20, features={"text": 6})
    lossless = trained(1.0, Stacked(clients=3), alone)
    for name, value in trained(0.0, Inline(), alone).items():
        torch.testing.assert_close(lossless[name], value, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize("plugin", registry.plugins("networks"), ids=lambda plugin: plugin.name)
def test_every_network_learns_with_it(plugin: registry.Plugin) -> None:
    module, _, name = plugin.path.rpartition(".")
    kind: type[Network] = getattr(importlib.import_module(module), name)
    network = kind(CORPUS.shape)
    client = EmotionClient(network, SelfDistillation(), modality_dropout=0.9)
    client.begin_step(0, 0, 0)
    client.training_step(BATCH, 0).backward()  # type: ignore[no-untyped-call]
    gradients = [value.grad for value in network.parameters() if value.grad is not None]
    assert gradients
    assert all(torch.isfinite(gradient).all() for gradient in gradients)
    client.begin_step(0, 0, 0)
    with_less = client.training_step(BATCH, 0)
    client.modality_dropout = 0.0
    client.begin_step(0, 0, 0)
    assert not torch.equal(with_less, client.training_step(BATCH, 0))


def test_a_chance_out_of_range_is_refused_in_a_sentence() -> None:
    with pytest.raises(InputError, match=r"local.modality_dropout is 1.5; expected a chance"):
        LocalTraining(modality_dropout=1.5)
    with pytest.raises(InputError, match=r"local.modality_dropout is nan"):
        LocalTraining(modality_dropout=float("nan"))
