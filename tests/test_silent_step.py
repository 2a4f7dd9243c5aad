"""A client's steps ask nothing of its device: whoever waits for a GPU at every step starves it.

The device here is ``meta``, which works out shapes and holds no numbers: whatever would wait for
an accelerator's answer, from ``.item()`` to indexing by a mask, fails on it.
"""

import copy
import dataclasses
import importlib
import inspect
import traceback
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning_fabric import Fabric
from lightning_fabric.accelerators import CPUAccelerator
from lightning_fabric.strategies import SingleDeviceStrategy
from torch import Tensor
from torch.optim import Adam

import fedmer
from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.client import ClientMemory
from fedmer.contracts.network import Network
from fedmer.local import LocalTrainer
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.plugins.aggregators.distance import Distance
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.registry import plugins
from fedmer.steps import LocalTraining
from tests.federations import clients_of, federation, network_for, small_corpus

OURS = Path(fedmer.__file__).parent
PACKED = {"CMN", "ICON", "M3Net", "MMDFN", "MMGCN"}
"""torch packs sequences for a recurrence by lengths that it wants on the CPU."""


class Silent(CPUAccelerator):
    """Lightning's way to the device that answers nothing."""

    def setup_device(self, device: torch.device) -> None:
        assert device.type == "meta"


def named(kind: str) -> list[object]:
    found = [plugin for plugin in plugins(kind) if plugin.package == "fedmer"]
    return [pytest.param(plugin.path, id=plugin.name) for plugin in found]


def imported(path: str) -> type:
    module, _, name = path.rpartition(".")
    kind: type = getattr(importlib.import_module(module), name)
    return kind


def silent(
    rule: Aggregator,
    monkeypatch: pytest.MonkeyPatch,
    network: Network | None = None,
    loss: SelfDistillation | None = None,
) -> tuple[LocalTrainer, Broadcast]:
    """The client side on the silent device, and what it may know in its second round."""
    corpus = small_corpus()
    (everything,) = clients_of(corpus, Central())
    clients = [dataclasses.replace(everything, train=everything.train[:3])]
    loop = federation(rule, corpus, clients)
    loop.state.rounds = 5
    loop.run_round(0)
    knowledge = loop.knowledge()
    own = network or network_for(corpus)
    weights = None
    if knowledge.weights is not None:
        personal = rule.personal_names(own)
        weights = {name: v for name, v in own.state_dict().items() if name not in personal}
    client = EmotionClient(
        copy.deepcopy(own),
        loss or SelfDistillation(),
        lambda parameters: Adam(parameters, foreach=True),
    )
    # There is no generator to seed.
    monkeypatch.setattr(client, "begin_step", lambda *place: None)
    strategy = SingleDeviceStrategy(device=torch.device("meta"))
    training = LocalTraining(batch_size=2, gradient_clip_val=1.0)
    trainer = LocalTrainer(
        client, clients, rule, training, Fabric(accelerator=Silent(), strategy=strategy)
    )
    return trainer, Broadcast(1, weights, knowledge.tensors)


def first_question(work: Callable[[], object]) -> str:
    """The line of fedmer that is the first to ask the device."""
    with pytest.raises(RuntimeError, match="meta") as caught:
        work()
    frames = traceback.extract_tb(caught.value.__traceback__)
    return [str(frame.line) for frame in frames if Path(frame.filename).is_relative_to(OURS)][-1]


def asked_first(trainer: LocalTrainer, received: Broadcast) -> str:
    def moved(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        return {name: tensor.to("meta") for name, tensor in tensors.items()}

    weights = None if received.weights is None else moved(received.weights)
    there = Broadcast(received.round, weights, moved(received.tensors))
    return first_question(lambda: trainer.work(0, there, ClientMemory()))


def question(trainer: LocalTrainer, received: Broadcast) -> str:
    """Part of the line that asks first: of the mean loss, or without training of the weights."""
    return "float(total)" if trainer.aggregator.trains(received) else "scalar.item()"


@pytest.mark.parametrize("path", named("aggregators"))
def test_with_every_rule_the_first_question_is_the_mean_loss(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trainer, received = silent(imported(path)(), monkeypatch)
    assert question(trainer, received) in asked_first(trainer, received)


@pytest.mark.parametrize("gate", ["violation", "literal"])
@pytest.mark.parametrize("correction", ["sample", "batch_proto"])
def test_so_it_is_with_every_gate_of_distance(
    gate: str, correction: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    sites = ("fused", "text")
    rule = Distance(gate=gate, correction=correction, sites=sites)  # type: ignore[arg-type]
    assert "float(total)" in asked_first(*silent(rule, monkeypatch))


@pytest.mark.parametrize("path", named("networks"))
def test_with_every_network_that_packs_no_sequences_too(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    kind = imported(path)
    small = {"hidden": 8, "heads": 2}
    known = inspect.signature(kind).parameters
    network = kind(small_corpus().shape, **{k: v for k, v in small.items() if k in known})
    first = asked_first(*silent(FedAvg(), monkeypatch, network))
    assert ("float(total)" in first) != (kind.__name__ in PACKED)


@pytest.mark.parametrize("teacher", ["fused", "global"])
@pytest.mark.parametrize("terms", [{}, {"class_weights": "local", "calibration": "prior"}])
def test_and_with_every_loss(
    teacher: str, terms: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    loss = SelfDistillation(teacher=teacher, **terms)  # type: ignore[arg-type]
    assert "float(total)" in asked_first(*silent(FedAvg(), monkeypatch, loss=loss))


@pytest.mark.parametrize("path", named("aggregators"))
def test_what_comes_over_flower_is_on_the_device_of_whoever_gets_it(
    path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("flwr")
    from flwr.app import RecordDict

    from fedmer.flower.node.client_side import fit
    from fedmer.flower.wire import header, put_broadcast

    trainer, received = silent(imported(path)(), monkeypatch)
    content = RecordDict({"round": header(received.round, 0)})
    put_broadcast(content, received)
    first = first_question(lambda: fit(trainer, content, RecordDict(), ClientMemory()))
    assert question(trainer, received) in first
