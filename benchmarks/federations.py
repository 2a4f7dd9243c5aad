"""The ways to train a round that ``bench_round.py`` compares, over the same clients and weights."""

from collections.abc import Callable
from itertools import count

import pytorch_lightning as pl
import torch
from torch.utils.data import DataLoader

from benchmarks.workloads import SHAPE, Cohort, build
from fedmer.client import EmotionClient, adam
from fedmer.contracts.executor import Executor
from fedmer.data.batch import collate
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import CorpusShape
from fedmer.datamodule import FederatedDataModule
from fedmer.federated import FederatedModule
from fedmer.local import LocalTrainer
from fedmer.loop import FederatedLoop
from fedmer.losses.distillation import SelfDistillation
from fedmer.plugins.aggregators.fed_avg import FedAvg
from fedmer.plugins.executors.inline import Inline
from fedmer.plugins.executors.stacked import Stacked
from fedmer.plugins.executors.workers import Workers
from fedmer.plugins.partitioners.central import Central
from fedmer.plugins.selectors.all import All
from fedmer.record.noise import filter_noise
from fedmer.steps import LocalTraining

Rounds = Callable[[int], None]
"""Trains so many more rounds."""


def plain_loss() -> SelfDistillation:
    """What other frameworks' clients minimise too: logits as they are."""
    return SelfDistillation(calibration="none")


def bare(workload: str, cohort: Cohort) -> Rounds:
    """Local training alone: every client's batch, made once, and a new Adam, on one network."""
    client = EmotionClient(build(workload), plain_loss())
    batches = [collate(own.train) for own in cohort.data()]

    def run(rounds: int) -> None:
        client.train()
        for _ in range(rounds):
            for batch in batches:
                optimizer = client.configure_optimizers()
                optimizer.zero_grad()
                torch.autograd.backward(client.training_step(batch, 0))
                optimizer.step()

    return run


def federation(workload: str, cohort: Cohort, executor: Executor) -> FederatedLoop:
    """FedAvg over all clients, one epoch of one batch each."""
    client = EmotionClient(build(workload), plain_loss())
    trainer = LocalTrainer(client, cohort.data(), FedAvg(), LocalTraining())
    return FederatedLoop(build(workload), FedAvg(), All(), executor, trainer, seed=0)


def looped(executor: Executor) -> Callable[[str, Cohort], Rounds]:
    """fedmer's loop over an executor, without a Trainer."""

    def make(workload: str, cohort: Cohort) -> Rounds:
        loop, numbers = federation(workload, cohort, executor), count()

        def run(rounds: int) -> None:
            for _ in range(rounds):
                loop.run_round(next(numbers))

        return run

    return make


class _Ready(FederatedDataModule):
    """Clients as the other ways have them, and nothing to validate on."""

    def __init__(self, cohort: Cohort) -> None:
        super().__init__(Central())
        self._clients = cohort.data()
        self.partitions, self.held = [[] for _ in self._clients], []

    @property
    def shape(self) -> CorpusShape:
        return SHAPE

    @property
    def clients(self) -> list[ClientData]:
        return self._clients

    def setup(self, stage: str) -> None:
        """Everything is there."""

    def val_dataloader(self) -> list[DataLoader]:  # type: ignore[type-arg]
        return []


def under_lightning(workload: str, cohort: Cohort) -> Rounds:
    """The same under Lightning's Trainer, as ``fedmer fit`` runs it, without tables and files."""
    filter_noise()
    module = FederatedModule(
        lambda shape: build(workload), FedAvg(), All(), Inline(), optimizer=adam, loss=plain_loss()
    )
    data = _Ready(cohort)

    def run(rounds: int) -> None:
        trainer = pl.Trainer(
            max_epochs=rounds,
            accelerator="cpu",
            logger=False,
            enable_checkpointing=False,
            enable_progress_bar=False,
            enable_model_summary=False,
            limit_val_batches=0,
        )
        trainer.fit(module, datamodule=data)

    return run


WAYS: dict[str, Callable[[str, Cohort], Rounds]] = {
    "bare loop": bare,
    "Inline": looped(Inline()),
    "Inline, under Lightning's Trainer": under_lightning,
    "Workers(2)": looped(Workers(2)),
    "Stacked": looped(Stacked(clients=32)),
}
"""Name -> workload, clients -> rounds."""
