"""From a file to clients: reads, splits, holds out, standardises."""

import warnings
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from fedmer.conditions import ClientConditions
from fedmer.contracts.condition import Condition
from fedmer.contracts.executor import Executor
from fedmer.contracts.partitioner import Partitioner
from fedmer.data.batch import Excerpt, excerpt
from fedmer.data.client_data import ClientData
from fedmer.data.corpus import Conversation, ConversationCorpus, CorpusShape
from fedmer.data.describe import shared_speakers, shared_speakers_warning
from fedmer.data.evaluation import EvaluationBatches
from fedmer.data.formats import TableOptions, read_corpus
from fedmer.data.formats.memory import MAX_GB
from fedmer.data.holdout import hold_out
from fedmer.data.leave_out import leave_session_out
from fedmer.data.partition import ClientPartition, Sample
from fedmer.data.remote import RemoteClients, Request
from fedmer.data.standardise import Standardise, Statistics, federated_statistics, moments
from fedmer.data.standardise import statistics as combine
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.losses.distillation import SelfDistillation
from fedmer.printable import printable

HOLDOUTS = "holdouts"
"""What the validation loader gives instead of a batch where clients score their own holdouts."""


class FederatedDataModule(pl.LightningDataModule):
    """A corpus, split over clients.

    The global network is validated on the corpus's validation part, or where it has none on the
    clients' holdouts together, and tested on its test part.

    Where the executor's clients have their data on machines of their own, ``path`` is what the
    server may look at: a file with a validation or a test part, or nothing.

    Args:
        partitioner: Who holds what.
        path: A corpus file, recognised by its content; None makes the synthetic corpus.
        standardise: Features to zero mean and unit variance by the training clients' statistics:
            ``federated`` (of all clients, from their counts, sums and sums of squares), ``local``
            (each client by its own; what belongs to no client by the federated ones), or ``none``.
        holdout: Fraction of its dialogues, in [0, 1), that every client with at least five keeps
            back for validation. By default 0.1 where the corpus has no validation part, else 0.
        test_session: Test on this session instead of the corpus's own test part, and train on all
            others.
        seed: Where the split and the holdout come from.
        max_gb: What the corpus file may unpack to, in 10^9 bytes. A file that takes more is
            refused before it fills the memory.
        columns: For a table: field or modality -> name of its column.
        labels: For a table: the emotions in their order; by default the alphabetical one.
        conditions: What is wrong with some clients of a simulation, or with what is tested on: a
            condition, or several in their order. What is validated on never changes.

    Raises:
        InputError: ``holdout`` is out of range.
    """

    def __init__(
        self,
        partitioner: Partitioner,
        path: Path | None = None,
        standardise: Standardise = "federated",
        holdout: float | None = None,
        test_session: str | None = None,
        seed: int = 0,
        max_gb: float = MAX_GB,
        columns: dict[str, str] | None = None,
        labels: list[str] | None = None,
        conditions: Condition | list[Condition] | None = None,
    ) -> None:
        super().__init__()
        if holdout is not None and not 0 <= holdout < 1:
            raise InputError(f"data.holdout is {holdout}; expected a number in [0, 1).")
        self.partitioner = partitioner
        self.path = path
        self.mode = standardise
        self.holdout = holdout
        self.test_session = test_session
        self.seed = seed
        self.max_gb = max_gb
        self.table = TableOptions(columns, labels, seed)
        self.given: ConversationCorpus | None = None
        """A corpus in memory, which is taken instead of reading ``path``."""
        self._conditions = conditions
        self._corpus: ConversationCorpus | None = None
        self._split = False
        self.least_speakers = 0
        """The most people in a dialogue that the network has to have room for, at least: those of
        the data that a checkpoint was trained on."""
        self.remote: RemoteClients | None = None
        """The clients, if their data is elsewhere."""
        self.statistics: dict[str, Statistics] | None = None
        self.batches: dict[str, EvaluationBatches] = {}
        """``val`` and ``test``, as the loaders made last give them out."""

    @property
    def corpus(self) -> ConversationCorpus:
        """The corpus; read on first use."""
        if self._corpus is None:
            corpus = self._whole() or synthetic_corpus()
            if self.test_session is not None:
                corpus = leave_session_out(corpus, self.test_session)
            self._corpus = corpus
        return self._corpus

    def _whole(self) -> ConversationCorpus | None:
        """What was given, or what the file holds; None where there is neither."""
        if self.given is None and self.path:
            return read_corpus(self.path, self.max_gb, self.table)
        return self.given

    @property
    def shape(self) -> CorpusShape:
        shape = self.corpus.shape
        return replace(shape, speakers=max(shape.speakers, self.least_speakers))

    def setup(self, stage: str) -> None:
        """Split the corpus; once, whatever the stage.

        Raises:
            InputError: The corpus cannot be read or split, or lacks a part that is needed.
        """
        if self._split:
            return
        self._split = True
        if stage == "fit" and self._meet():
            return
        corpus = self.corpus
        for part in ("train", "test") if stage == "fit" else ():
            if not corpus.part(part):
                raise InputError(
                    f"{corpus.name} has no {part} part; mark at least one dialogue as '{part}'."
                )
        for note in corpus.notes if stage == "fit" else ():
            print(f"{printable(corpus.name)}: {printable(note)}")
        if stage == "fit" and shared_speakers(corpus):
            warnings.warn(f"{corpus.name}: {shared_speakers_warning(corpus)}", stacklevel=2)
        train = corpus.part("train")
        everything = self.partitioner.split(corpus, train, self.seed) if train else []
        fraction = self.holdout
        if fraction is None:
            fraction = 0.0 if corpus.part("val") else 0.1
        self.partitions, self.held = hold_out(everything, fraction, self.seed)
        if stage == "fit" and not self.views("val"):
            warnings.warn(
                f"{corpus.name} has nothing to validate on: no validation part, and no dialogues "
                "kept back (a client needs at least five). No round can be selected.",
                stacklevel=2,
            )
        if stage == "fit":
            self._warn_of_classes(self._class_counts())
        self.statistics = federated_statistics(corpus, self.partitions)

    def _class_counts(self) -> Tensor:
        """``(C,)``, how often clients learn each class."""
        total = torch.zeros(self.shape.classes, dtype=torch.int64)
        for sample in (sample for client in self.partitions for sample in client.samples):
            labels = self.corpus.conversations[sample.dialogue].labels[sample.labelled]
            total += torch.from_numpy(labels).bincount(minlength=len(total))
        return total

    def _warn_of_classes(self, counts: Tensor) -> None:
        names = [printable(name) for name in self.corpus.label_names]
        missing = [name for name, count in zip(names, counts.tolist(), strict=True) if not count]
        if len(missing) == len(names) - 1:
            (only,) = set(names) - set(missing)
            warnings.warn(
                f"{self.corpus.name}: every labelled utterance to learn from is '{only}', so that "
                "a "
                "network can learn to say nothing else; see that the labels were read as meant.",
                stacklevel=3,
            )
        elif missing:
            warnings.warn(
                f"{self.corpus.name}: no client has an utterance of {', '.join(missing)} to learn "
                "from, "
                "so that no network learns to name it.",
                stacklevel=3,
            )

    def _meet(self) -> bool:
        """Ask the executor for clients whose data is elsewhere; are there any?"""
        module: Any = self.trainer.lightning_module if self.trainer is not None else None
        executor: Executor | None = module.executor if module is not None else None
        if executor is None or executor.remote is None:
            return False
        if self._conditions:
            raise InputError(
                "--conditions change clients of a simulation, and those of this federation are on "
                "machines of their own; leave them out."
            )
        public = self._whole()
        fraction = self.holdout
        if fraction is None:
            fraction = 0.0 if public is not None and public.part("val") else 0.1
        remote = executor.remote.meet(Request(self.mode, fraction, self.seed))
        self.remote = remote
        self._corpus = remote.corpus(public, "federation")
        self._warn_of_classes(torch.stack([known.counts for known in remote.known.values()]).sum(0))
        self.partitions, self.held = [], []
        if self.mode == "federated":
            self.statistics = combine(known.moments for known in remote.known.values())
        else:
            self.statistics = {}
        return True

    @property
    def conditions(self) -> ClientConditions:
        """What is wrong with some clients, and with which."""
        clients, classes = len(self.partitions), self.shape.classes
        return ClientConditions(self._conditions, clients, classes, self.seed)

    @property
    def clients(self) -> list[ClientData]:
        """What every client holds, standardised, by id, under the run's conditions.

        Raises:
            InputError: A condition cannot hold for a client.
        """
        if self.remote is not None:
            return self.remote.clients
        result, conditions = [], self.conditions
        for number, (client, held) in enumerate(zip(self.partitions, self.held, strict=True)):
            statistics = self._statistics_of(client)
            data = ClientData(
                client.name,
                [excerpt(self.corpus, sample, statistics) for sample in client.samples],
                [excerpt(self.corpus, sample, statistics) for sample in held],
            )
            result.append(conditions.data(number, data))
        return result

    def views(self, part: str) -> list[Sample]:
        """The samples that ``val`` or ``test`` is scored on."""
        dialogues = self.corpus.part(part)
        if part == "val" and not dialogues:
            return [sample for held in self.held for sample in held]
        return [v for dialogue in dialogues for v in self.partitioner.views(self.corpus, dialogue)]

    @property
    def validation(self) -> list[Conversation]:
        """The dialogues that no round learns from and that are not for the test."""
        chosen = self.corpus.part("val") or sorted(
            {sample.dialogue for held in self.held for sample in held}
            - {sample.dialogue for client in self.partitions for sample in client.samples}
        )
        return [self.corpus.conversations[i] for i in chosen]

    def excerpts(self, part: str) -> list[Excerpt]:
        """``val`` or ``test``, standardised; ``test`` under the run's conditions.

        Raises:
            InputError: A condition cannot hold for it.
        """
        # Where clients are elsewhere and each goes by its own, the server has none to go by.
        statistics = None if self.mode == "none" else self.statistics or None
        found = [excerpt(self.corpus, sample, statistics) for sample in self.views(part)]
        return self.conditions.tested(found) if part == "test" and found else found

    @property
    def coverage(self) -> float:
        """Share of the labelled training utterances that a client learns from or keeps back; 1
        where clients are elsewhere, since nobody else has any."""
        if self.remote is not None:
            return 1.0
        owned = sum(int(s.labelled.sum()) for c in self.partitions for s in c.samples)
        owned += sum(int(s.labelled.sum()) for held in self.held for s in held)
        dialogues = [self.corpus.conversations[i] for i in self.corpus.part("train")]
        return owned / sum(int((dialogue.labels >= 0).sum()) for dialogue in dialogues)

    def train_dataloader(self) -> DataLoader[Any]:
        """Places in the cohort, from the module: clients, not rows, are a round's batches."""
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        loader: DataLoader[Any] = module.cohort_loader()
        return loader

    def on_after_batch_transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """Say of a place in the cohort who has it."""
        if not isinstance(batch, int):
            return batch
        assert self.trainer is not None
        module: Any = self.trainer.lightning_module
        return module.place(batch)

    def val_dataloader(self) -> list[DataLoader[Any]]:
        """During ``fit`` validation and test, for the record of every round; else validation."""
        assert self.trainer is not None
        parts = ["val", "test"] if self.trainer.state.fn == "fit" else ["val"]
        return [self._loader(part) for part in parts]

    def test_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:
        return self._loader("test")

    def state_dict(self) -> dict[str, Any]:
        """What a checkpoint needs to treat other files as this one was treated."""
        assert self.statistics is not None
        return {
            "labels": list(self.corpus.label_names),
            "features": dict(self.shape.features),
            "speakers": self.shape.speakers,
            "extractors": {m: made.to_json() for m, made in self.corpus.extractors.items()},
            "statistics": {
                name: {
                    "mean": torch.from_numpy(kept.mean),
                    "deviation": torch.from_numpy(kept.deviation),
                }
                for name, kept in self.statistics.items()
            },
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Take over the statistics of the training run.

        Raises:
            InputError: The checkpoint was trained on other emotions or other features.
        """
        for what, ours in (
            ("emotions", list(self.corpus.label_names)),
            ("features", dict(self.shape.features)),
        ):
            saved = state_dict["labels" if what == "emotions" else what]
            if saved != ours:
                raise InputError(
                    f"The checkpoint was trained on the {what} {saved}, but {self.corpus.name} has "
                    f"{ours}; give the corpus that it was trained on."
                )
        self.statistics = {
            name: Statistics(saved["mean"].numpy(), saved["deviation"].numpy())
            for name, saved in state_dict["statistics"].items()
        }

    def crosses_besides(self, loss: SelfDistillation) -> dict[str, str]:
        """What of clients' data crosses outside of rounds -> the option that ends it.

        Args:
            loss: What clients minimise.
        """
        found = {}
        if self.mode == "federated":
            found["the sums of clients' features"] = "--data.standardise local"
        if loss.calibration != "none":
            found["the class counts of the loss's calibration"] = "--loss.calibration none"
        if loss.class_weights == "global":
            found["the class counts of the loss's weights"] = "--loss.class_weights local"
        asked = bool(self.holdout) or (self.holdout is None and not self.corpus.part("val"))
        if any(map(len, self.held)) or (self.remote is not None and asked):
            found["the scores of clients' holdouts"] = "--data.holdout 0"
        return found

    def _statistics_of(self, client: ClientPartition) -> Mapping[str, Statistics] | None:
        if self.mode == "none":
            return None
        if self.mode == "local":
            return combine([moments(self.corpus, client)])
        return self.statistics

    def _loader(self, part: str) -> "DataLoader[Any]":
        self.batches[part] = EvaluationBatches(self.excerpts(part))
        rows: Any = self.batches[part]
        if part == "val" and not len(rows) and self.remote is not None and self.remote.held:
            rows = [HOLDOUTS]
        return DataLoader(rows, batch_size=None, collate_fn=_as_it_is)


def _as_it_is(batch: Any) -> Any:
    return batch
