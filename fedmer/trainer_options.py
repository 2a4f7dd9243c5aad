"""What each option and callback of Lightning means here, and the sentences for those that cannot.

A Trainer's batch is a client and its optimizer is the server's, so what steers batches and steps
would do something else than it says. Nothing is ignored without a word: an option works, or it is
refused. The table of ``docs/trainer.md`` is made of these two.
"""

import importlib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from pytorch_lightning.callbacks import Callback, ProgressBar, Timer

from fedmer.errors import InputError

_PRECISIONS = ("32-true", "bf16-mixed", "16-mixed")
"""Of Lightning's, those in which weights are single precision."""


@dataclass(frozen=True)
class Option:
    """An option of the Trainer.

    Args:
        says: What it means here, or where it is refused what to use instead.
        only: The values that may be given; None is any.
        least: The smallest number that may be given.
    """

    says: str
    only: tuple[Any, ...] | None = None
    least: int | None = None

    def admits(self, value: Any) -> bool:
        """Whether a value may be given; 1 is a batch and 1.0 is all of them."""
        if self.only is not None:
            return any(type(value) is type(one) and value == one for one in self.only)
        return self.least is None or (value is not None and value >= self.least)


@dataclass(frozen=True)
class CallbackKind:
    """A callback of Lightning's, and whatever extends it.

    Args:
        says: What it does here, or what to use instead.
        refused: Can it not be used?
    """

    says: str
    refused: bool = False


_ALL_OF_IT = "a score is of a whole part; --trainer.check_val_every_n_epoch makes scores rarer."
_ONE_PROCESS = "the server is one process; --executor Workers or Flower trains clients in several."

OPTIONS: Mapping[str, Option] = {
    "accelerator": Option("Where the server and clients of its process compute: `cpu`, `gpu`."),
    "strategy": Option(_ONE_PROCESS, only=("auto", "single_device")),
    "devices": Option(
        _ONE_PROCESS + " The variable CUDA_VISIBLE_DEVICES chooses a GPU.", only=(1, "1", [0])
    ),
    "num_nodes": Option(_ONE_PROCESS, only=(1,)),
    "precision": Option("Of steps and scores: `32-true`, `bf16-mixed` or `16-mixed`."),
    "logger": Option("A row a round. Lightning's own loggers."),
    "callbacks": Option("Below."),
    "fast_dev_run": Option("One round, its evaluation, and no files."),
    "max_epochs": Option("The number of rounds; -1 is until something else ends the run."),
    "min_epochs": Option("Rounds that `EarlyStopping` and `max_time` let pass at the least."),
    "max_steps": Option("the server steps once a round; use --trainer.max_epochs.", only=(-1,)),
    "min_steps": Option("the server steps once a round; use --trainer.min_epochs.", only=(None,)),
    "max_time": Option("The run ends after the round in which the time is over."),
    "limit_train_batches": Option(
        "a batch of the Trainer's is a client; use --selector Uniform --selector.fraction.",
        only=(None, 1.0),
    ),
    "limit_val_batches": Option(_ALL_OF_IT, only=(None, 1.0)),
    "limit_test_batches": Option(_ALL_OF_IT, only=(None, 1.0)),
    "limit_predict_batches": Option(
        "'fedmer predict' names every utterance of a part.", only=(None, 1.0)
    ),
    "overfit_batches": Option(
        "a batch of the Trainer's is a client; for a few clients take a corpus of few dialogues, "
        "such as 'fedmer data synth' writes.",
        only=(0.0, 0),
    ),
    "val_check_interval": Option(
        "a round is scored at its end; use --trainer.check_val_every_n_epoch.", only=(None, 1.0)
    ),
    "check_val_every_n_epoch": Option("How many rounds between two that are scored.", least=1),
    "num_sanity_val_steps": Option(
        "a score is of a whole part; --trainer.fast_dev_run true tries everything once.", only=(0,)
    ),
    "log_every_n_steps": Option(
        "How often callbacks such as `DeviceStatsMonitor` log, in clients; rounds are all logged.",
        least=1,
    ),
    "enable_checkpointing": Option("`false` writes none: the run cannot be gone on with."),
    "enable_progress_bar": Option("`false` shows nothing of rounds, and the result at the end."),
    "enable_model_summary": Option("`true` prints the network's layers first."),
    "accumulate_grad_batches": Option(
        "a batch of the Trainer's is a client; use --local.batch_size.", only=(1,)
    ),
    "gradient_clip_val": Option(
        "Largest norm of the gradient of a client's step; 0 is no clipping. It becomes "
        "`--local.gradient_clip_val`."
    ),
    "gradient_clip_algorithm": Option("clients clip by the norm.", only=(None, "norm")),
    "deterministic": Option("Deterministic algorithms of torch."),
    "benchmark": Option("cuDNN looks for the fastest algorithms."),
    "inference_mode": Option("`false` scores under `torch.no_grad` instead."),
    "use_distributed_sampler": Option(_ONE_PROCESS, only=(True,)),
    "profiler": Option("`simple`, `advanced` or `pytorch`; a client is a batch."),
    "detect_anomaly": Option("Says which operation made NaN in a client's backward pass."),
    "barebones": Option(
        "a run without its record is no run; use --trainer.enable_progress_bar false and "
        "--trainer.enable_checkpointing false.",
        only=(False,),
    ),
    "plugins": Option("use --trainer.precision; rounds have one process and files.", only=(None,)),
    "sync_batchnorm": Option(_ONE_PROCESS, only=(False,)),
    "reload_dataloaders_every_n_epochs": Option(
        "clients keep their dialogues; --selector chooses clients in every round.",
        only=(0,),
    ),
    "default_root_dir": Option("use --runs for the folder of runs, and --name.", only=(None,)),
    "enable_autolog_hparams": Option(
        "the configuration is in config.yaml of the run folder and is not logged.", only=(True,)
    ),
    "model_registry": Option("checkpoints stay in the run folder.", only=(None,)),
}
"""Every option of ``Trainer``."""

_STEPS = "it works on the Trainer's steps, and those that learn are the clients'; "

CALLBACKS: Mapping[str, CallbackKind] = {
    "Callback": CallbackKind("Your own: an epoch is a round, a batch is a client."),
    "LambdaCallback": CallbackKind("The same, from functions."),
    "EarlyStopping": CallbackKind("Ends the run by `val_weighted_f1` or another score."),
    "Timer": CallbackKind("Ends the run when its time is over; with `interval: epoch`."),
    "Checkpoint": CallbackKind("Your own."),
    "ModelCheckpoint": CallbackKind("More checkpoints, beside `last.ckpt` and `best.ckpt`."),
    "OnExceptionCheckpoint": CallbackKind(
        "a round that was not finished cannot be gone on with; last.ckpt holds the one before.",
        refused=True,
    ),
    "ProgressBar": CallbackKind("Your own, in place of fedmer's."),
    "TQDMProgressBar": CallbackKind("In place of fedmer's."),
    "RichProgressBar": CallbackKind("In place of fedmer's."),
    "ModelSummary": CallbackKind("Prints the network's layers first."),
    "RichModelSummary": CallbackKind("The same as a table."),
    "DeviceStatsMonitor": CallbackKind("Use of the device, to a logger; psutil for the CPU's."),
    "BasePredictionWriter": CallbackKind("Your own, with `Trainer.predict` in Python."),
    "LearningRateMonitor": CallbackKind(
        "it looks at the server's optimizer; the clients' rate is 'lr' in metrics.csv and loggers.",
        refused=True,
    ),
    "LearningRateFinder": CallbackKind(_STEPS + "use 'fedmer sweep'.", refused=True),
    "BatchSizeFinder": CallbackKind(_STEPS + "use --local.batch_size.", refused=True),
    "GradientAccumulationScheduler": CallbackKind(_STEPS + "use --local.batch_size.", refused=True),
    "StochasticWeightAveraging": CallbackKind(
        _STEPS + "use --lr_scheduler, or --aggregator FedAvgM for a mean over rounds.",
        refused=True,
    ),
    "WeightAveraging": CallbackKind(
        _STEPS + "use --aggregator FedAvgM for a mean over rounds.", refused=True
    ),
    "EMAWeightAveraging": CallbackKind(
        _STEPS + "use --aggregator FedAvgM for a mean over rounds.", refused=True
    ),
    "ModelPruning": CallbackKind(
        "it gives weights other names, and clients and server exchange them by name; write a "
        "network.",
        refused=True,
    ),
    "BaseFinetuning": CallbackKind(
        _STEPS + "write a network whose frozen parameters ask for no gradient.", refused=True
    ),
    "BackboneFinetuning": CallbackKind(
        _STEPS + "write a network whose frozen parameters ask for no gradient.", refused=True
    ),
    "SpikeDetection": CallbackKind(
        "it looks at the Trainer's loss; a loss that is not finite is reported for every client.",
        refused=True,
    ),
    "ThroughputMonitor": CallbackKind(
        "the Trainer's batches are clients; metrics.csv has the seconds of a round.",
        refused=True,
    ),
}
"""Every callback that Lightning exports."""


def check_options(trainer: Any) -> None:
    """Refuse what cannot mean anything here.

    Args:
        trainer: The parsed options of the Trainer.

    Raises:
        InputError: An option or a callback is refused; says what to use instead.
    """
    for name, option in OPTIONS.items():
        value = trainer.get(name)
        if option.admits(value):
            continue
        given = f"--trainer.{name} {_shown(value)}"
        if option.least is not None:
            raise InputError(f"{given} cannot be used; expected {option.least} or more.")
        raise InputError(f"{given} cannot be used: {option.says}")
    for kind, options in _callbacks(trainer.callbacks):
        check_callback(kind, options.get("interval"))


def check_callback(kind: type, interval: Any = None) -> None:
    """Refuse a callback that cannot mean anything here.

    Args:
        kind: Its class.
        interval: When it looks, for a timer.

    Raises:
        InputError: It is refused; says what to use instead.
    """
    known = kind_of(kind)
    if known is not None and known.refused:
        raise InputError(f"The callback {kind.__name__} cannot be used: {known.says}")
    if issubclass(kind, Timer) and interval != "epoch":
        raise InputError(
            f"The callback {kind.__name__} would end the run in the middle of a round; add "
            "--trainer.callbacks.interval epoch, or use --trainer.max_time."
        )


def has_progress_bar(trainer: Any) -> bool:
    """Whether there is a progress bar among the callbacks of the parsed options."""
    return any(issubclass(kind, ProgressBar) for kind, _ in _callbacks(trainer.callbacks))


def kind_of(kind: type) -> CallbackKind | None:
    """The entry of a callback, or of the first of Lightning's that it extends."""
    for parent in kind.__mro__:
        if parent.__module__.startswith("pytorch_lightning.") and parent.__name__ in CALLBACKS:
            return CALLBACKS[parent.__name__]
    return None


def tables() -> str:
    """The two tables of the documentation, in Markdown."""
    options = [
        (f"`{name}`", _meaning(option.says, option.only)) for name, option in OPTIONS.items()
    ]
    callbacks = [
        (f"`{name}`", "refused: " + kind.says if kind.refused else kind.says)
        for name, kind in CALLBACKS.items()
    ]
    return _table("`--trainer.` option", options) + "\n" + _table("callback", callbacks)


def _meaning(says: str, only: tuple[Any, ...] | None) -> str:
    if only is None:
        return says
    values = " or ".join(f"`{_shown(value)}`" for value in only)
    return f"only {values}: {says}"


def _table(title: str, rows: Iterable[tuple[str, str]]) -> str:
    lines = [f"| {title} | |", "|---|---|", *(f"| {name} | {says} |" for name, says in rows)]
    return "\n".join(lines) + "\n"


def _shown(value: Any) -> str:
    """A value as it is typed."""
    if value is None or isinstance(value, bool):
        return {None: "null", True: "true", False: "false"}[value]
    return str(value)


def _callbacks(given: Any) -> list[tuple[type, Mapping[str, Any]]]:
    """Class and options of every callback of parsed options."""
    several = given if isinstance(given, list) else [] if given is None else [given]
    found = []
    for one in several:
        module, _, name = one.class_path.rpartition(".")
        kind: type = getattr(importlib.import_module(module), name)
        found.append((kind, one.get("init_args") or {}))
    return found


def check_precision(precision: str) -> None:
    """See that weights stay in single precision, as what clients and the server send is.

    Args:
        precision: Of Lightning's Trainer.

    Raises:
        InputError: They do not.
    """
    if precision not in _PRECISIONS:
        raise InputError(
            f"trainer.precision is '{precision}', but what clients send each other stays in single "
            f"precision; use one of {', '.join(_PRECISIONS)}."
        )


def is_over(callback: Callback) -> bool:
    """Has a timer run out?"""
    return isinstance(callback, Timer) and (callback.time_remaining() or 0) <= 0
