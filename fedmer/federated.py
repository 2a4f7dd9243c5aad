"""The server, as a LightningModule: one epoch is one round, one batch is one client."""

from collections.abc import Callable, Iterator
from typing import Any, Literal

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.optim import Optimizer
from torch.utils.data import DataLoader

import fedmer
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
from fedmer.local import LocalTrainer, LocalTraining, fabric_for
from fedmer.loop import FederatedLoop, RoundReport
from fedmer.losses.distillation import SelfDistillation
from fedmer.messages import Broadcast
from fedmer.metrics import EmotionMetrics, Scores, count_votes, named
from fedmer.network_average import ServerOptions
from fedmer.plugins.aggregators._closed_form import ClosedForm
from fedmer.protection import in_order
from fedmer.seeds import derive

PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Of Lightning's, those in which weights are single precision."""


class FederatedModule(pl.LightningModule):
    """A federation under Lightning's Trainer.

    ``max_epochs`` is the number of rounds. A round's batches are the places of its cohort; the
    server steps in the last of them, before validation. Checkpoints hold the global weights, the
    server optimizer, the rule's tensors and what clients keep.

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
        network: Callable[[CorpusShape], Network],
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
        """``(N, C)``: how many networks named each class of the labelled turns of ``test``, in the
        data's order, at the last evaluation."""
        self._votes: list[Tensor] = []

    @property
    def loop(self) -> FederatedLoop:
        # In a list, since a working copy that were a submodule would be saved and averaged too.
        return self._loop[0]

    def setup(self, stage: str) -> None:
        """Build the network for the corpus, and the loop around it.

        Raises:
            InputError: The Trainer's precision is not one of :data:`PRECISIONS`.
        """
        if self.network is not None:
            return
        if self.trainer.precision not in PRECISIONS:
            raise InputError(
                f"trainer.precision is '{self.trainer.precision}', but what clients send each "
                f"other stays in single precision; use one of {', '.join(PRECISIONS)}."
            )
        data = self._data
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(derive(self.seed, "weights"))
            self.network = self._build(data.shape)
            client = EmotionClient(
                self._build(data.shape),
                self.loss,
                self.make_optimizer,
                self.seed,
                self.make_scheduler,
            )
        client.network.load_state_dict(self.network.state_dict())
        self.metrics = torch.nn.ModuleDict(
            {part: EmotionMetrics(data.shape.classes) for part in ("val", "test")}
        )
        device = self.trainer.strategy.root_device
        fabric = fabric_for(device.type, self.trainer.precision)
        trainer = LocalTrainer(
            client, data.clients, self.aggregator, self.local, fabric, privacy=self.privacy
        )
        trainer.schedule.check(self._rounds)
        if isinstance(self.aggregator, ClosedForm):
            self.aggregator.check(self.network, trainer.personal, self._rounds)
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
            )
        ]

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

    def training_step(self, place: int, batch_idx: int) -> None:
        if place < len(self.cohort):
            self.loop.train(self.cohort[place])
        if self.trainer.is_last_batch:
            optimizer: Any = self.optimizers()
            self.report = self.loop.finish(optimizer.step)
            if self.aggregator.finished(self.loop.state):
                self.trainer.should_stop = True
            rate = self.loop.trainer.schedule.rate(self.report.round)
            self._log_round({"train_loss": self.report.train_loss, "lr": rate})

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
        output = self.loop.evaluated(batch)
        return self.aggregator.predict(output, self.loop.knowledge()).softmax(dim=-1)

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
            InputError: The checkpoint is of another rule or another network.
        """
        saved = checkpoint["fedmer"]
        names = {"aggregator": self.aggregator.name, "network": type(self.network).__name__}
        for what, name in names.items():
            if saved[what] != name:
                raise InputError(
                    f"The checkpoint was made with {what} {saved[what]}, but this run has {name}; "
                    "pass the config.yaml beside it with --config."
                )
        assert self.network is not None
        shapes = {f"network.{name}": v.shape for name, v in self.network.state_dict().items()}
        theirs = {n: v.shape for n, v in checkpoint["state_dict"].items() if n in shapes}
        if shapes != theirs:
            raise InputError(
                "The checkpoint's network has other sizes than this run's; pass the config.yaml "
                "beside it with --config, and the corpus that it was trained on."
            )
        known = self._data.remote is None or len(saved["sizes"]) != len(self.loop.sizes)
        if self.trainer.state.fn == "fit" and known and saved["sizes"] != self.loop.sizes:
            raise InputError(
                f"The checkpoint's {len(saved['sizes'])} clients hold other dialogues than this "
                f"run's {len(self.loop.sizes)}; pass the config.yaml beside it with --config, "
                "and the same corpus."
            )
        elsewhere = saved.get("remote", False)
        if self.trainer.state.fn == "fit" and elsewhere != (self.executor.remote is not None):
            raise InputError(
                "The checkpoint is of a run whose clients were elsewhere than this run's; go on "
                "with the same --executor and --executor.federation."
            )
        if elsewhere:
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
            named(self.aggregator.predict(network(batch), knowledge), batch)
            for network in self._networks(knowledge)
        ]
        metrics.count(torch.cat(predictions), batch.labels[batch.labelled].repeat(len(predictions)))
        if part == "test":
            self._votes.append(count_votes(predictions, self._data.shape.classes))

    def _count_holdouts(self) -> None:
        """Add up how clients elsewhere scored their own holdouts."""
        metrics: Any = self.metrics["val"]
        for scores in self.score_clients().values():
            counts = torch.tensor(scores.confusion).flatten()
            names = torch.arange(len(scores.confusion))
            pairs = torch.cartesian_prod(names, names).repeat_interleave(counts, dim=0)
            truth, prediction = pairs.to(self.device).unbind(dim=1)
            metrics.count(prediction, truth)

    def _networks(self, knowledge: Broadcast) -> Iterator[torch.nn.Module]:
        """The global network, or where there is none each client's own in turn.

        All clients' counts go into one confusion matrix, so that a score is that of a client drawn
        at random.
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
        # Lightning's loggers take a metric called "step" for their axis, which else counts clients.
        axis = {"step": float(self.current_epoch + 1)} if self.trainer.state.fn == "fit" else {}
        self.log_dict({**values, **axis}, on_step=False, on_epoch=True, batch_size=1)
