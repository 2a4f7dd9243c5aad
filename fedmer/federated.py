"""The server, as a LightningModule: one epoch is one round, one batch is one client."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, Self

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import fedmer
from fedmer.checkpoint_entries import check_checkpoint
from fedmer.client import EmotionClient, LRSchedulerCallable, OptimizerCallable, adam
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.executor import Executor
from fedmer.contracts.network import Network
from fedmer.contracts.privacy import Privacy
from fedmer.contracts.selector import Selector
from fedmer.data.batch import Batch
from fedmer.data.corpus import CorpusShape
from fedmer.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.local import LocalTrainer, fabric_for
from fedmer.loop import FederatedLoop, Place, RoundReport
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.metrics import EmotionMetrics, Scores, count_votes, named
from fedmer.network_average import ServerOptions
from fedmer.plugins.aggregators._closed_form import ClosedForm
from fedmer.plugins.executors.inline import Inline
from fedmer.protection import in_order
from fedmer.restoring import check_clients, check_parts, made_of, shape_of, was_remote, weights_of
from fedmer.seeds import derive
from fedmer.steps import LocalTraining
from fedmer.trainer_options import check_precision

NetworkCallable = Callable[[CorpusShape], Network]
_LOGGED = ("train_loss", "lr", "epsilon")
"""Of a round's numbers, those that callbacks may monitor beside scores."""


class FederatedModule(pl.LightningModule):
    """A federation under Lightning's Trainer.

    ``max_epochs`` is the number of rounds. A round's batches are the places of its cohort; the
    server steps in the last of them, before validation. Checkpoints hold the global weights, the
    server optimizer, the rule's tensors and what clients keep, and hyperparameters.

    Callbacks get a :class:`~fedmer.loop.Place` for ``batch``. The ``outputs`` of
    ``on_train_batch_end`` are ``summary``, what that client said of its training
    (:class:`~fedmer.messages.Summary`; None if it failed or nobody has the place), and ``report``,
    the :class:`~fedmer.loop.RoundReport` in the last place of a round and else None. In
    ``on_train_epoch_end``, :attr:`report` and :attr:`scores` are the round's.

    Args:
        network: Corpus shape -> network.
        aggregator: The rule.
        selector: Who takes part in a round.
        executor: Where clients run.
        privacy: What protects what clients send: a mechanism, several in their order, or None.
        optimizer: Parameters -> optimizer, for every client.
        lr_scheduler: Optimizer -> scheduler of its rate, which is stepped once a round; None for
            one rate.
        loss: What clients minimise.
        local: How clients train in a round.
        evaluate_clients: Score every client's own holdout after every round, not only at the end.
        seed: Where initial weights, selection, order and dropout come from.
        server: What the server does beside its rule.
        start: ``analytic`` makes the first round one in closed form: nobody trains, and the
            network's head becomes the one that discriminant analysis gives on its embeddings; see
            :class:`~fedmer.plugins.aggregators.analytic.Analytic`.
        finish: ``analytic`` does the same in the last round.
    """

    def __init__(
        self,
        network: NetworkCallable,
        aggregator: Aggregator,
        selector: Selector,
        executor: Executor,
        privacy: Privacy | list[Privacy] | None = None,
        optimizer: OptimizerCallable = adam,
        loss: SelfDistillation | None = None,
        local: LocalTraining | None = None,
        evaluate_clients: bool = False,
        seed: int = 0,
        lr_scheduler: LRSchedulerCallable | None = None,
        server: ServerOptions | None = None,
        start: Literal["analytic"] | None = None,
        finish: Literal["analytic"] | None = None,
    ) -> None:
        super().__init__()
        self.server = server
        self.automatic_optimization = False
        self.make_network = network
        self.aggregator = aggregator
        if start or finish:
            self.aggregator = ClosedForm(aggregator, start is not None, finish is not None)
        self.selector = selector
        self.executor = executor
        self.privacy = in_order(privacy)
        self.make_optimizer = optimizer
        self.make_scheduler = lr_scheduler
        self.loss = loss or SelfDistillation()
        self.local = local or LocalTraining()
        self.evaluate_clients = evaluate_clients
        self.seed = seed
        self.network: Network | None = None
        self.report: RoundReport | None = None
        """What happened in the last round."""
        self.scores: dict[str, Scores] = {}
        """``val`` and ``test``, of the last evaluation."""
        self.client_scores: dict[int, Scores] = {}
        """Own holdouts by client id, of the last evaluation of clients."""
        self.votes: Tensor | None = None
        """``(N, C)``: how many networks named each class of the labelled utterances of ``test``, in
        the data's order, at the last evaluation."""
        self._votes: list[Tensor] = []
        self._loop: list[FederatedLoop] = []
        self._restored: dict[str, Any] | None = None

    @classmethod
    def load_from_checkpoint(  # type: ignore[override]
        cls,
        checkpoint_path: str | Path,
        map_location: Any = None,
        trust: bool = False,
        **parts: Any,
    ) -> Self:
        """The module of a checkpoint, with its hyperparameters and the weights of its network.

        ``module.network`` predicts. With a data module of the same emotions and features a Trainer
        validates, tests and predicts as with ``ckpt_path``, and ``fit`` starts from its weights.

        Args:
            checkpoint_path: Such as ``runs/NAME/checkpoints/best.ckpt``.
            map_location: The device to put it on.
            trust: Let it name classes that are neither fedmer's nor those of installed plugins,
                which are imported then.
            **parts: Arguments of the class, instead of the checkpoint's. Clients run in this
                process unless ``executor`` is given.

        Raises:
            InputError: It is damaged, or cannot be built here.
        """
        path = Path(checkpoint_path)
        saved = check_checkpoint(path)
        known = saved.get("hyper_parameters")
        module = cls(**{"executor": Inline(), **made_of(known, str(path), parts, trust), **parts})
        module.save_hyperparameters(known, logger=False)
        with torch.random.fork_rng(devices=[]):
            module.network = module._build(shape_of(saved))
        check_parts(saved, module.aggregator, module.network)
        module.network.load_state_dict(weights_of(saved))
        module._restored = saved
        return module if map_location is None else module.to(map_location)

    @property
    def loop(self) -> FederatedLoop:
        # In a list, since a working copy that were a submodule would be saved and averaged too.
        return self._loop[0]

    def setup(self, stage: str) -> None:
        """Build the network for the corpus, and the loop around it.

        Raises:
            InputError: Clients cannot train in the Trainer's precision.
        """
        if self._loop:
            return
        check_precision(str(self.trainer.precision))
        data = self._data
        if self._restored is not None:
            data.least_speakers = self._restored["FederatedDataModule"].get("speakers", 0)
            data.load_state_dict(self._restored["FederatedDataModule"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "weights"))
            self.network = self.network or self._build(data.shape)
            parts = (self.loss, self.make_optimizer, self.seed, self.make_scheduler)
            client = EmotionClient(self._build(data.shape), *parts)
        client.network.load_state_dict(self.network.state_dict())
        self.metrics = torch.nn.ModuleDict(
            {part: EmotionMetrics(data.shape.classes) for part in ("val", "test")}
        )
        fabric = fabric_for(self.trainer.strategy.root_device.type, self.trainer.precision)
        trainer = LocalTrainer(
            client,
            data.clients,
            self.aggregator,
            self.local,
            fabric,
            privacy=self.privacy,
            conditions=data.conditions,
        )
        trainer.schedule.check(self._rounds)
        if isinstance(self.aggregator, ClosedForm):
            self.aggregator.check_run(trainer.personal, self._rounds)
        self._loop = [
            FederatedLoop(
                self.network,
                self.aggregator,
                self.selector,
                self.executor,
                trainer,
                self.seed,
                self._rounds,
                self.server,
                data.crosses_besides(self.loss),
                data.mode,
            )
        ]
        if self._restored is not None and stage != "fit":
            self.on_load_checkpoint(self._restored)

    def configure_optimizers(self) -> Optimizer:
        return self.loop.optimizer

    def teardown(self, stage: str) -> None:
        self.executor.close()

    def cohort_loader(self) -> "DataLoader[int]":
        """Places ``0, 1, ...`` of the largest cohort.

        Places and not ids, because a cohort's size changes from round to round while Lightning
        counts the batches of an epoch once. A place beyond the cohort passes at once.
        """
        places: Any = range(self.selector.at_most(len(self.loop.sizes)))
        return DataLoader(places, batch_size=None)

    def on_train_epoch_start(self) -> None:
        # A round that is not evaluated has no scores, and not those of an earlier one.
        self.scores, self.client_scores = {}, {}
        self.cohort = self.loop.begin(self.current_epoch)

    def place(self, number: int) -> Place:
        """Who has a place in the cohort of this round."""
        client = self.cohort[number] if number < len(self.cohort) else None
        name = "" if client is None else self.loop.trainer.data[client].name
        return Place(number, self.current_epoch, client, name)

    def training_step(self, place: Place, batch_idx: int) -> dict[str, Any]:
        """Let the client of a place train, and the server step in the last place."""
        summary = None if place.client is None else self.loop.train(place.client)
        report = None
        if self.trainer.is_last_batch:
            optimizer: Any = self.optimizers()
            report = self.report = self.loop.finish(optimizer.step)
            if self.loop.finished:
                self.trainer.should_stop = True
            row = report.row(self.scores)
            self._log_round({name: value for name, value in row.items() if name in _LOGGED})
        return {"summary": summary, "report": report}

    def on_train_epoch_end(self) -> None:
        """Give every logger the round as one row, on an axis of rounds."""
        assert self.report is not None
        row = self.report.row(self.scores)
        for logger in self.loggers:
            logger.log_metrics({**row, "epoch": self.current_epoch}, step=int(row["round"]))
            logger.save()

    def on_validation_epoch_start(self) -> None:
        self.scores = {}

    def validation_step(self, batch: Batch | str, batch_idx: int, dataloader_idx: int = 0) -> None:
        if isinstance(batch, str):
            self._count_holdouts()
        else:
            self._count(("val", "test")[dataloader_idx], batch)

    def on_validation_epoch_end(self) -> None:
        self._log_scores("val")
        self._log_scores("test")
        if self.evaluate_clients and not self.client_scores:
            self.score_clients()

    def test_step(self, batch: Batch, batch_idx: int) -> None:
        self._count("test", batch)

    def on_test_epoch_end(self) -> None:
        self._log_scores("test")

    def predict_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Probabilities of the global network, ``(B, L, C)``.

        Raises:
            InputError: The rule has no global network.
        """
        if self.loop.trainer.personal:
            raise InputError(
                f"{self.aggregator.name} keeps a personal network on every client and "
                "no global one; 'fedmer predict' needs a rule that exchanges all of them."
            )
        known = self.loop.knowledge()
        return self.aggregator.logits(self.loop.evaluated, batch, known).softmax(dim=-1)

    def score_clients(self) -> dict[int, Scores]:
        """Score each client's own holdout, by its personal network or the global one."""
        self.client_scores = self.executor.score(self.loop.knowledge())
        return self.client_scores

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        checkpoint["fedmer"] = {
            "version": fedmer.__version__,
            "aggregator": self.aggregator.name,
            "network": type(self.network).__name__,
            "seed": self.seed,
            "sizes": self.loop.sizes,
            "remote": self.executor.remote is not None,
            **self.loop.state_dict(),
        }

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Restore what Lightning does not.

        Raises:
            InputError: The checkpoint is of another rule, another network or other clients.
        """
        saved = checkpoint["fedmer"]
        assert self.network is not None
        check_parts(checkpoint, self.aggregator, self.network)
        if self.trainer.state.fn == "fit":
            check_clients(checkpoint, self.loop.sizes, self.executor.remote is not None)
        if was_remote(checkpoint):
            # As they were, since the order of a cohort and of a sum goes by them.
            self.loop.sizes[:] = saved["sizes"]
        self.loop.load_state_dict(saved)

    @property
    def _rounds(self) -> int | None:
        epochs = self.trainer.max_epochs
        return epochs if epochs is not None and epochs >= 0 else None

    @property
    def _data(self) -> FederatedDataModule:
        data = getattr(self.trainer, "datamodule", None)
        if not isinstance(data, FederatedDataModule):
            raise InputError("FederatedModule needs a FederatedDataModule; pass it to the Trainer.")
        return data

    def _build(self, shape: CorpusShape) -> Network:
        try:
            return self.make_network(shape)
        except ValueError as error:
            raise InputError(str(error)) from error

    def _count(self, part: str, batch: Batch) -> None:
        if self._data.remote is not None and self.loop.trainer.personal:
            return  # every network is on a machine of its own, and none here
        knowledge = self.loop.knowledge()
        metrics: Any = self.metrics[part]
        predictions = [
            named(self.aggregator.logits(network, batch, knowledge), batch)
            for network in self.networks(knowledge)
        ]
        metrics.count(torch.cat(predictions), batch.labels[batch.labelled].repeat(len(predictions)))
        if part == "test":
            self._votes.append(count_votes(predictions, self._data.shape.classes))

    def _count_holdouts(self) -> None:
        """Add up how clients elsewhere scored their own holdouts."""
        metrics: Any = self.metrics["val"]
        for scores in self.score_clients().values():
            metrics.count_confusion(torch.tensor(scores.confusion, device=self.device))

    def networks(self, knowledge: Broadcast) -> Iterator[torch.nn.Module]:
        """The global network, or where clients keep personal weights each client's in turn.

        All counts go into one confusion matrix: a score is that of a client drawn at random.
        """
        trainer = self.loop.trainer
        if not trainer.trained:
            yield self.loop.evaluated
            return
        trainer.client.network.eval()
        for client in trainer.trained:
            trainer.load(client, knowledge)
            yield trainer.client.network

    def _log_scores(self, part: str) -> None:
        metrics: Any = self.metrics[part]
        if metrics.empty:
            return
        self.scores[part] = metrics.scores()
        self._log_round({f"{part}_{name}": v for name, v in self.scores[part].totals.items()})
        metrics.reset()
        if part == "test":
            self.votes = self._data.batches["test"].restore(torch.cat(self._votes)).cpu()
            self._votes = []

    def _log_round(self, values: dict[str, float]) -> None:
        # In a fit, loggers get the round as one row at its end.
        logger = self.trainer.state.fn != "fit" and bool(self.trainer.loggers)
        self.log_dict(values, logger=logger, on_step=False, on_epoch=True, batch_size=1)
