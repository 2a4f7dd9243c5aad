"""fedmer in Python: train as ``fedmer fit`` does, and look at what a run left."""

from collections.abc import Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
from pytorch_lightning.loggers import Logger

from fedmer import recipes
from fedmer.bundle.model import Model, load
from fedmer.bundle.prediction import Prediction
from fedmer.client import LRSchedulerCallable, OptimizerCallable
from fedmer.contracts.aggregator import Aggregator
from fedmer.contracts.condition import Condition
from fedmer.contracts.executor import Executor
from fedmer.contracts.partitioner import Partitioner
from fedmer.contracts.privacy import Privacy
from fedmer.contracts.selector import Selector
from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.federated import NetworkCallable
from fedmer.given import settings_of
from fedmer.losses.distillation import SelfDistillation
from fedmer.metrics import Scores
from fedmer.network_average import ServerOptions
from fedmer.prepare import settled
from fedmer.record.reading import read_json, read_rows
from fedmer.record.subsets import subset_scores
from fedmer.record.votes import SUBSETS, read_all_votes
from fedmer.report.result import check_result
from fedmer.runs import CONFIG
from fedmer.steps import LocalTraining

Part = Mapping[str, Any] | str
"""What a configuration says of a part: its class, or ``class_path`` and ``init_args``."""

GROUPS = {"loss": SelfDistillation, "local": LocalTraining, "server": ServerOptions}
"""What has options and no choice of a class."""


class Run:
    """A run, of Python or of the command line, by what stands in its folder.

    Args:
        folder: Such as ``runs/mine``.

    Raises:
        InputError: It is no run.

    >>> Run("nowhere")
    Traceback (most recent call last):
    fedmer.errors.InputError: nowhere is no run: it has no config.yaml; name a folder such as \
runs/NAME.
    """

    def __init__(self, folder: str | Path) -> None:
        self.folder = Path(folder).expanduser()
        if not (self.folder / CONFIG).is_file():
            raise InputError(
                f"{folder} is no run: it has no {CONFIG}; name a folder such as runs/NAME."
            )

    def __repr__(self) -> str:
        return f"Run({str(self.folder)!r})"

    @cached_property
    def result(self) -> dict[str, Any]:
        """All of ``result.json``: versions, baselines, holdouts, bytes, seconds and more.

        Raises:
            InputError: The run has not ended, or the file is damaged.
        """
        path = self.folder / "result.json"
        if not path.is_file():
            raise InputError(f"{self.folder} has no result yet; let the run end.")
        found: dict[str, Any] = read_json(path)
        try:
            check_result(found)
        except ValueError as error:
            raise InputError(f"{path} cannot be read as the result of a run ({error}).") from None
        return found

    @property
    def round(self) -> int:
        """The round, from 1, whose scores and model these are: selected by validation, or last."""
        return int(self._shown["round"])

    @property
    def scores(self) -> dict[str, Scores]:
        """``val`` and ``test`` of :attr:`round`, as far as the corpus has them."""
        return {part: Scores(**scores) for part, scores in self._shown["scores"].items()}

    @property
    def subsets(self) -> dict[str, Scores]:
        """Subset of the modalities, such as ``text+audio`` -> scores on ``test`` with these alone.

        They are of the last round, and of networks that are given the rest masked. Empty for a
        corpus of one modality.

        Raises:
            InputError: The file is damaged.
        """
        return subset_scores(read_all_votes(self.folder / SUBSETS))

    @property
    def rounds(self) -> list[dict[str, float | None]]:
        """``metrics.csv``, a row a round: scores and loss, bytes, seconds; None if not evaluated.

        Raises:
            InputError: The file is missing or damaged.
        """
        rows = read_rows(self.folder / "metrics.csv")
        return [{k: float(v) if v else None for k, v in row.items()} for row in rows]

    @property
    def clients(self) -> list[dict[str, str]]:
        """``clients.csv``, a row for each client of each round, as text.

        Raises:
            InputError: The file is missing or damaged.
        """
        return read_rows(self.folder / "clients.csv")

    @cached_property
    def model(self) -> Model:
        """The model of :attr:`round`.

        Raises:
            InputError: Every client keeps a personal network, so that there is none for all.
        """
        # Whoever made the run chose its classes.
        return load(self.folder, trust=True)

    def predict(self, conversation: Conversation) -> Prediction:
        """What the model says of a conversation.

        Raises:
            InputError: They do not fit each other.
        """
        return self.model.predict(conversation)

    @property
    def _shown(self) -> dict[str, Any]:
        found: dict[str, Any] | None = self.result["selected"] or self.result["last"]
        if found is None:
            raise InputError(f"No round of {self.folder} was evaluated; there are no scores.")
        return found


def fit(
    corpus: ConversationCorpus | str | Path | None = None,
    *,
    aggregator: Aggregator | type[Aggregator] | Part | None = None,
    network: NetworkCallable | Part | None = None,
    partitioner: Partitioner | type[Partitioner] | Part | None = None,
    selector: Selector | type[Selector] | Part | None = None,
    executor: Executor | type[Executor] | Part | None = None,
    privacy: Privacy | Sequence[Privacy] | Part | None = None,
    conditions: Condition | Sequence[Condition] | Part | None = None,
    optimizer: OptimizerCallable | Part | None = None,
    lr_scheduler: LRSchedulerCallable | Part | None = None,
    loss: SelfDistillation | Mapping[str, Any] | None = None,
    local: LocalTraining | Mapping[str, Any] | None = None,
    server: ServerOptions | Mapping[str, Any] | None = None,
    start: Literal["analytic"] | None = None,
    finish: Literal["analytic"] | None = None,
    rounds: int | None = None,
    seed: int | None = None,
    data: Mapping[str, Any] | None = None,
    trainer: Mapping[str, Any] | None = None,
    callbacks: Sequence[pl.Callback] = (),
    logger: Logger | Sequence[Logger] = (),
    config: str | Path | Sequence[str | Path] = (),
    name: str | None = None,
    runs: str | Path | None = None,
    overwrite: bool = False,
    checkpoint: str | Path | None = None,
    progress: bool = True,
) -> Run:
    """Train a federation, with the defaults and the record of ``fedmer fit``.

    A part is an instance (``fedmer.FedProx(mu=0.1)``), a class, its name, or what a configuration
    says of it. What fedmer has to give something first is a class, or a ``functools.partial`` of
    one: ``partial(torch.optim.AdamW, lr=1e-3)``. A network's class makes one of these itself:
    ``fedmer.SDT(hidden=64)``. The run makes its own parts of the same arguments, so that those
    given stay as they are. What is left out is as with ``fedmer fit``.

    Args:
        corpus: What to train on: of :func:`fedmer.corpus`, or a file. The run keeps a copy of one
            that is in memory. None is the synthetic corpus.
        aggregator: The rule.
        network: Of every client.
        partitioner: Who holds what.
        selector: Who takes part in a round.
        executor: Where clients run.
        privacy: What protects what clients send: a mechanism, or several in their order.
        conditions: What is wrong with some clients: a condition, or several in their order.
        optimizer: Of every client.
        lr_scheduler: Of a client's learning rate, stepped once a round.
        loss: What clients minimise.
        local: How every client trains in a round.
        server: What the server does beside its rule.
        start: ``analytic`` makes the first round one in closed form.
        finish: ``analytic`` does the same in the last round.
        rounds: How many.
        seed: Of everything that is random.
        data: Other options of ``--data``, such as ``{"standardise": "local"}``.
        trainer: Other options of ``--trainer``, such as ``{"accelerator": "cpu"}``.
        callbacks: Of Lightning; an epoch is a round, a batch is a client
            (:class:`fedmer.loop.Place`).
        logger: Of Lightning.
        config: Configuration files, or names of recipes; arguments count more.
        name: Of the run's folder.
        runs: The folder of all runs.
        overwrite: Replace a run of this name.
        checkpoint: Go on from here, such as ``runs/NAME/checkpoints/last.ckpt``.
        progress: Show rounds as they pass.

    Returns:
        The run, which is in its folder.

    Raises:
        InputError: Something given cannot be used, or do not go together.
    """
    from fedmer.cli import CLI, InMemory, launch, prepare_process

    prepare_process()
    parts = {
        "aggregator": aggregator,
        "network": network,
        "partitioner": partitioner,
        "selector": selector,
        "executor": executor,
        "privacy": privacy,
        "conditions": conditions,
        "optimizer": optimizer,
        "lr_scheduler": lr_scheduler,
        "loss": loss,
        "local": local,
        "server": server,
        "data": data,
        "trainer": trainer,
        "start": start,
        "finish": finish,
        "name": name,
        "runs": runs,
        "seed_everything": seed,
        "ckpt_path": checkpoint,
    }
    content = {key: settings_of(part, key) for key, part in parts.items() if part is not None}
    for group in GROUPS:
        if group in content:
            content[group] = _options(content[group], group)
    content["overwrite"] = overwrite
    chosen = content.setdefault("trainer", {})
    chosen |= {"max_epochs": rounds} if rounds is not None else {}
    chosen |= {} if progress else {"enable_progress_bar": False}
    held = corpus if isinstance(corpus, ConversationCorpus) else None
    if isinstance(corpus, str | Path):
        content.setdefault("data", {})["path"] = str(Path(corpus).expanduser())
    files = [config] if isinstance(config, str | Path) else config

    class Given(CLI):
        in_memory = InMemory(
            held, callbacks, [logger] if isinstance(logger, Logger) else list(logger)
        )

    with settled(content, [Path(recipes.as_file(str(file))) for file in files], DEFAULTS) as words:
        done = launch("fit", words, Given)
    return Run(done.record.folder.path)


def _options(settings: Any, group: str) -> dict[str, Any]:
    """The options of a group, however they were given."""
    made = GROUPS[group]
    found: dict[str, Any] = (
        settings if isinstance(settings, dict) else {"class_path": str(settings)}
    )
    if "class_path" in found:
        if found["class_path"] != f"{made.__module__}.{made.__qualname__}":
            raise InputError(
                f"{group} is {found['class_path']}; expected a fedmer.{made.__name__}, or its "
                "options by name."
            )
        found = found.get("init_args", {})
    return dict(found)
