"""What is attacked: runs of the command line, and subjects of parts that it cannot have."""

from collections.abc import Callable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
from torch import nn

from fedmer.audit.recorder import Recorder
from fedmer.audit.restore import restore
from fedmer.audit.subject import Subject
from fedmer.client import EmotionClient
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.network import Network, NetworkOutput
from fedmer.contracts.privacy import Privacy
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.datamodule import FederatedDataModule
from fedmer.local import LocalTrainer, LocalTraining
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.partitioners.dialogue import Dialogue
from fedmer.plugins.selectors.all import All
from fedmer.report.collect import collect
from tests.federations import small_corpus

Fit = Callable[..., Path]
"""Trains a small federation under a name, with more options; returns its folder."""


class Linear(Network):
    """One layer on the text, which at first finds all classes as likely."""

    reads_context = False

    def __init__(self, shape: CorpusShape) -> None:
        super().__init__(shape)
        self.head = nn.Linear(shape.features["text"], shape.classes)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def forward(self, batch: Batch) -> NetworkOutput:
        return NetworkOutput(self.head(batch.features["text"]))


def subject_with(
    make_network: Callable[[CorpusShape], Network] = Linear,
    rule: Aggregator | None = None,
    privacy: Sequence[Privacy] = (),
    training: LocalTraining | None = None,
    rounds: int = 1,
    lr: float = 0.1,
) -> Subject:
    """Four clients that take steps of SGD on all that they have."""
    corpus = small_corpus()
    data = FederatedDataModule(Dialogue(4), holdout=0.0)
    data._corpus = corpus
    data.setup("test")
    rule = rule or FedAvg()
    loss = SelfDistillation(calibration="none")
    training = training or LocalTraining(batch_size=100)

    def optimizer(parameters: Any) -> torch.optim.Optimizer:
        return torch.optim.SGD(parameters, lr=lr)

    torch.manual_seed(0)
    client = EmotionClient(make_network(corpus.shape), loss, optimizer)
    network = make_network(corpus.shape)
    network.load_state_dict(client.network.state_dict())
    trainer = LocalTrainer(client, data.clients, rule, training, privacy=privacy)
    loop = FederatedLoop(network, rule, All(), Recorder(), trainer, seed=0, rounds=9)
    module: Any = SimpleNamespace(
        **{"loop": loop, "aggregator": rule, "local": training, "privacy": tuple(privacy)},
        **{"loss": loss, "make_optimizer": optimizer, "make_scheduler": None, "server": None},
        **{"make_network": make_network, "seed": 0},
    )
    return Subject(module, data, rounds, 1, loop.optimizer.state_dict())


def subject_of(run: Path, rounds: int = 1) -> Subject:
    """A run, to be attacked."""
    return restore(collect([run]).runs[0], rounds)
