"""The command line over Lightning: ``fedmer fit|validate|test``."""

import errno
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import pytorch_lightning as pl
import yaml
from jsonargparse import ActionYesNo
from lightning_fabric.utilities.exceptions import MisconfigurationException
from pytorch_lightning.callbacks import Timer
from pytorch_lightning.callbacks.timer import Interval
from pytorch_lightning.cli import LightningArgumentParser, LightningCLI
from pytorch_lightning.loggers import Logger
from pytorch_lightning.utilities.exceptions import SIGTERMException

from fedmer.bundle.export import bundle_run
from fedmer.bundle.files import is_bundle
from fedmer.checkpoint_entries import check_checkpoint, restored
from fedmer.console import Console
from fedmer.contracts.condition import Condition
from fedmer.contracts.executor import Executor
from fedmer.contracts.partitioner import Partitioner
from fedmer.contracts.selector import Selector
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.describe import suggested_recipe
from fedmer.datamodule import FederatedDataModule
from fedmer.defaults import DEFAULTS, TRAINER_DEFAULTS
from fedmer.errors import InputError
from fedmer.federated import FederatedModule
from fedmer.foreign import ForeignError, foreign, sentence_of
from fedmer.network_average import ServerOptions
from fedmer.parsing import PARSER, Parser, ParserRefusal
from fedmer.parts import CLIENT_PARTS, add_client_parts
from fedmer.plugins import registry
from fedmer.prepare import prepared
from fedmer.record.checkpoints import BestRound, LastRound
from fedmer.record.loggers import publish, settle_wandb
from fedmer.record.noise import filter_noise
from fedmer.record.progress import RoundProgress
from fedmer.record.record import RunRecord, is_rehearsal
from fedmer.report.evaluated import print_evaluation
from fedmer.runs import CORPUS, MODEL, RunFolder, default_name, recover
from fedmer.sentences import cause
from fedmer.signals import hang_up_terminates
from fedmer.trainer_options import check_callback, check_options, has_progress_bar, is_over


@dataclass(frozen=True, eq=False)
class InMemory:
    """What Python gives to a run and no configuration can hold.

    Args:
        corpus: Instead of a file; the run keeps a copy.
        callbacks: Of Lightning, beside those of the configuration.
        loggers: Of Lightning, instead of those of the configuration.
    """

    corpus: ConversationCorpus | None = None
    callbacks: Sequence[pl.Callback] = ()
    loggers: Sequence[Logger] = ()


class CLI(LightningCLI):
    """LightningCLI with fedmer's swappable parts at the top level."""

    in_memory = InMemory()

    def add_arguments_to_parser(self, parser: LightningArgumentParser) -> None:
        add_client_parts(parser)
        parser.add_class_arguments(ServerOptions, "server")
        parser.add_subclass_arguments(Partitioner, "partitioner", help="Who holds what: %s")
        parser.add_argument(
            "--conditions",
            type=Condition | list[Condition] | None,
            default=None,
            help="What is wrong with some clients: a condition, or a list of them.",
        )
        parser.add_subclass_arguments(Selector, "selector", help="Who takes part: %s")
        parser.add_subclass_arguments(Executor, "executor", help="Where clients run: %s")
        for when in ("start", "finish"):
            parser.add_argument(
                f"--{when}",
                type=Literal["analytic"] | None,
                default=None,
                help=f"Make the {'first' if when == 'start' else 'last'} round one in closed form.",
            )
            parser.link_arguments(when, f"model.{when}")
        parser.add_argument("--name", type=str | None, default=None, help="Name of the run folder.")
        parser.add_argument("--runs", type=Path, default=Path("runs"), help="Where runs are kept.")
        parser.add_argument(
            "--overwrite",
            action=ActionYesNo,
            nargs="?",
            default=False,
            help="Replace a run folder of this name.",
        )
        parser.add_argument(
            "--traceback",
            action=ActionYesNo,
            nargs="?",
            default=False,
            help="Show where an exception in code that is not fedmer's came from.",
        )
        parser.set_defaults({key: DEFAULTS[key] for key in ("loss", "local")})
        for key in ("network", "privacy", "optimizer", "lr_scheduler"):
            parser.link_arguments(key, f"model.{key}")
        for key in ("aggregator", "selector", "executor", "loss", "local", "server"):
            parser.link_arguments(key, f"model.{key}", apply_on="instantiate")
        parser.link_arguments("partitioner", "data.partitioner", apply_on="instantiate")
        parser.link_arguments("conditions", "data.conditions")
        for key in ("model.seed", "data.seed"):
            parser.link_arguments("seed_everything", key, compute_fn=int)

    def parse_arguments(self, parser: LightningArgumentParser, args: Any) -> None:
        """Parse, and refuse a bad checkpoint before Lightning looks into it."""
        super().parse_arguments(parser, args)
        self.least_speakers = 0
        subcommand = self.config["subcommand"]
        seed = self.config[subcommand].seed_everything
        if not 0 <= seed < 2**32:
            raise InputError(f"--seed_everything is {seed}; expected a number from 0 to 2**32 - 1.")
        checkpoint = self.config[subcommand].ckpt_path
        if checkpoint:
            run = Path(checkpoint).resolve().parent.parent
            recover(run)
            saved = check_checkpoint(Path(checkpoint))
            # Checkpoints made before 0.1 do not say; their data does.
            self.least_speakers = saved.get(FederatedDataModule.__qualname__, {}).get("speakers", 0)
        elif subcommand != "fit":
            raise InputError(
                f"'fedmer {subcommand}' needs a trained network; name a checkpoint with "
                "--ckpt_path runs/NAME/checkpoints/last.ckpt."
            )

    def _parse_ckpt_path(self) -> None:
        """Take no settings from a checkpoint, as Lightning would: it may come from anybody."""

    def before_instantiate_classes(self) -> None:
        """Settle the run folder, writing nothing yet, and add what every run has."""
        config = self.config[self.subcommand]
        checkpoint = Path(config.ckpt_path) if config.ckpt_path else None
        if config.weights_only is None:
            config.weights_only = True
        if "verbose" in config:
            config.verbose = False  # our table says it
        check_options(config.trainer)
        if config.trainer.gradient_clip_val is not None:
            # A Trainer under manual optimization refuses to clip; the clients' steps are meant.
            config.local.gradient_clip_val = config.trainer.gradient_clip_val
            config.trainer.gradient_clip_val = None
        config.trainer.gradient_clip_algorithm = None
        shown = config.trainer.enable_progress_bar is not False
        ours = list(self.in_memory.callbacks)
        for callback in ours:
            check_callback(type(callback), getattr(callback, "_interval", None))
        own_bar = any(isinstance(callback, pl.callbacks.ProgressBar) for callback in ours)
        if shown and not own_bar and not has_progress_bar(config.trainer):
            ours.append(RoundProgress())
        if self.subcommand == "fit":
            parts = [config[key].class_path for key in ("aggregator", "network", "partitioner")]
            folder = RunFolder.choose(
                Path(config.runs),
                config.name,
                default_name(*(path.rpartition(".")[2] for path in parts)),
                overwrite=config.overwrite,
                checkpoint=checkpoint,
            )
            corpus = self.in_memory.corpus
            if corpus is not None:
                config.data.path = folder.path / CORPUS
            self.record = RunRecord(folder, self._repeatable_config(), corpus)
            config.trainer.default_root_dir = str(folder.path)
            ours.append(self.record)
            if config.trainer.enable_checkpointing:
                ours += [BestRound(), LastRound()]
        if config.trainer.max_time is not None:
            # The Trainer's own timer would end the run in the middle of a round.
            ours.append(Timer(config.trainer.max_time, interval=Interval.epoch))
            config.trainer.max_time = None
        self.trainer_defaults["callbacks"] = ours

    def instantiate_classes(self) -> None:
        settings = self._client_settings()
        hyperparameters = self._hyperparameters(settings)
        try:
            super().instantiate_classes()
        except MisconfigurationException as error:
            accelerator = self.config[self.subcommand].trainer.accelerator
            if accelerator in ("auto", "cpu"):
                raise
            raise InputError(
                f"--trainer.accelerator {accelerator} cannot be used on this machine ({error}) Use "
                "--trainer.accelerator cpu."
            ) from error
        except ValueError as error:
            # A parser makes its own error of whatever a class raises that it makes.
            raised = error.__cause__ or error.__context__ or error
            found = None if isinstance(raised, ValueError | ImportError) else foreign(raised)
            raise found or InputError(cause(error)) from error
        if self.model.executor.remote is not None:
            self.model.executor.remote.configure(settings)
        # Loggers get the whole configuration.
        self.model.save_hyperparameters(hyperparameters, logger=False)
        self.datamodule.least_speakers = self.least_speakers
        self.datamodule.given = self.in_memory.corpus

    def instantiate_trainer(self, **arguments: Any) -> pl.Trainer:
        """Make the Trainer, with loggers of Python where there are any."""
        loggers = {"logger": list(self.in_memory.loggers)} if self.in_memory.loggers else {}
        return super().instantiate_trainer(**arguments, **loggers)

    def fit(self, **arguments: Any) -> None:
        """Train, with the run folder to itself."""
        if is_rehearsal(self.trainer):
            self.trainer.fit(**arguments)
            return
        self._suggest_recipe()
        settle_wandb(self.trainer.loggers, self.record.folder)
        with self.record.folder:
            self.trainer.fit(**arguments)
            kept = is_bundle(self.record.folder.path / MODEL) and not self.record.finished
            if self.record.ended and not kept and self.record.folder.last.exists():
                self._bundle()
            if self.record.finished:
                publish(self.trainer.loggers, self.record.folder.path)

    def _bundle(self) -> None:
        """Leave the model by itself in the run's folder, if there is one for all clients."""
        if self.model.loop.trainer.personal:
            rule = type(self.model.aggregator).__name__
            print(f"No model by itself: {rule} keeps a personal network on every client.")
        else:
            where = bundle_run(self.record.folder.path, self.datamodule.validation)
            Console().print(f"The model by itself is in {where}", soft_wrap=True, highlight=False)

    def _suggest_recipe(self) -> None:
        """Tell who trains the embedded corpus's small network on a real one of a better start."""
        chosen, small = self.config["fit"].network, DEFAULTS["network"]
        options = chosen.get("init_args") or {}
        same = all(options.get(name) == value for name, value in small["init_args"].items())
        if not self.datamodule.path or chosen.class_path != small["class_path"] or not same:
            return
        recipe = suggested_recipe(self.datamodule.corpus)
        if recipe is not None:
            print(
                "fedmer: this is the small network of the embedded corpus; a recipe was made for "
                f"corpora like this one: --config {recipe}",
                file=sys.stderr,
            )

    def after_fit(self) -> None:
        if not self.record.ended:
            if any(is_over(callback) for callback in self.trainer_defaults["callbacks"]):
                raise InputError("--trainer.max_time was over before a first round; give more.")
            if not self.config["fit"].ckpt_path:
                raise InputError(
                    f"--trainer.max_epochs is {self.trainer.max_epochs}; expected at least 1 round."
                )
            raise InputError(
                f"The checkpoint has {self.trainer.current_epoch} rounds behind it and "
                f"--trainer.max_epochs is {self.trainer.max_epochs}; raise it to go on."
            )

    def after_validate(self) -> None:
        print_evaluation("val", self.model, self.datamodule)

    def after_test(self) -> None:
        print_evaluation("test", self.model, self.datamodule)

    def _client_settings(self) -> dict[str, Any]:
        """What a client that is built elsewhere has to know."""
        whole = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[self.subcommand]
        precision = whole["trainer"]["precision"] or "32-true"
        parts = {key: whole[key] for key in CLIENT_PARTS}
        return parts | {"seed": int(whole["seed_everything"]), "precision": str(precision)}

    def _hyperparameters(self, settings: dict[str, Any]) -> dict[str, Any]:
        """What a checkpoint says of the module that it is of, without where its clients run."""
        whole = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))[self.subcommand]
        own = {key: whole[key] for key in ("selector", "server", "start", "finish")}
        parts = {key: settings[key] for key in (*CLIENT_PARTS, "seed")}
        return {**parts, **own, "evaluate_clients": whole["model"]["evaluate_clients"]}

    def _repeatable_config(self) -> str:
        """The configuration without what names this one run."""
        whole = yaml.safe_load(self.parser.dump(self.config, skip_unset=False))
        ours = whole[self.subcommand]
        ours |= {"name": None, "overwrite": False, "ckpt_path": None, "traceback": False}
        text: str = yaml.safe_dump(ours, sort_keys=False)
        return text


def main(arguments: Sequence[str], command_line: type[CLI] = CLI) -> int:
    """Run a subcommand of Lightning's; returns the exit code.

    Args:
        arguments: The subcommand and what follows it.
        command_line: What parses and runs them.

    Raises:
        InputError: Something given cannot be used, or code that is not fedmer's raised something.
    """
    try:
        return _run(arguments, command_line)
    except Exception as error:  # any, of anybody's code
        found = sentence_of(error)
        if isinstance(found, ForeignError) and "--traceback" in arguments:
            sys.stderr.write(found.trace)
        if found is None or found is error:
            raise
        raise found from error


def _run(arguments: Sequence[str], command_line: type[CLI]) -> int:
    prepare_process()
    chosen, *given = arguments
    with hang_up_terminates() as hung_up:
        try:
            with prepared(given, DEFAULTS) as words:
                launch(chosen, words, command_line)
        except SIGTERMException:
            return 128 + (signal.SIGHUP if hung_up else signal.SIGTERM)
        except OSError as error:
            if not hung_up or error.errno != errno.EIO:
                raise
            # A line was on its way to the terminal when that went.
            return 128 + signal.SIGHUP
    return 0


def prepare_process() -> None:
    """Import all plugins, and keep Lightning from saying what nobody needs."""
    filter_noise()
    for kind in registry.KINDS:
        registry.load(kind)


def launch(chosen: str, words: Sequence[str], command_line: type[CLI] = CLI) -> CLI:
    """Parse and run one subcommand.

    Args:
        chosen: Its name.
        words: What follows it, made ready for the parser.
        command_line: What parses and runs them.

    Raises:
        InputError: Something given cannot be used.
    """

    class One(command_line):  # type: ignore[misc, valid-type]
        """The same with one subcommand, since a parser of each takes a quarter of a second."""

        @staticmethod
        def subcommands() -> dict[str, set[str]]:
            return {chosen: LightningCLI.subcommands()[chosen]}

    with _explained():
        return One(
            FederatedModule,
            FederatedDataModule,
            save_config_callback=None,
            seed_everything_default=0,
            parser_class=Parser,
            parser_kwargs=dict(PARSER),
            trainer_defaults=dict(TRAINER_DEFAULTS),
            auto_configure_optimizers=False,
            load_from_checkpoint_support=False,
            args=[chosen, *words],
        )


@contextmanager
def _explained() -> Iterator[None]:
    """Turn what is raised against an option or a checkpoint into a sentence."""
    try:
        yield
    except ParserRefusal as refusal:
        raise InputError(refusal.sentence) from refusal
    except MisconfigurationException as error:
        raise InputError(str(error)) from error
    except (LookupError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        checkpoint = restored(error)
        if checkpoint is None or isinstance(error, InputError):
            raise
        raise InputError(
            f"{checkpoint} cannot be restored ({type(error).__name__}: {error}); it was "
            "changed, or is of another version. Use another one, such as best.ckpt beside it."
        ) from error
