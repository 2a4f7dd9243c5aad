"""The files of a run: its configuration, rows, result, votes, prototypes and two plots."""

import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from typing import Any

import pytorch_lightning as pl
import yaml
from pytorch_lightning.callbacks import EarlyStopping
from pytorch_lightning.callbacks.early_stopping import EarlyStoppingReason
from torch import Tensor

from fedmer.console import Console
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native
from fedmer.data.missing import modalities_in
from fedmer.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.federated import FederatedModule
from fedmer.files import write_atomically
from fedmer.metrics import TOTALS, Scores
from fedmer.prototypes import PrototypeSet
from fedmer.record.checkpoints import MONITOR
from fedmer.record.loggers import begin, keep_id
from fedmer.record.plots import CONFUSION, save_confusion, save_curves
from fedmer.record.probe import baselines
from fedmer.record.prototypes import FILE as PROTOTYPES
from fedmer.record.prototypes import PrototypeRecord
from fedmer.record.reading import check_rows, read_json, read_rows
from fedmer.record.rows import append_rows, restart_rows
from fedmer.record.subsets import subset_votes, write_subsets
from fedmer.record.tables import print_result
from fedmer.record.votes import FILE as VOTES
from fedmer.record.votes import write_votes
from fedmer.runs import CORPUS, RunFolder

METRICS = (
    "round",
    "clients",
    "lr",
    "train_loss",
    *(f"{part}_{name}" for part in ("val", "test") for name in TOTALS),
    "bytes_down",
    "bytes_up",
    "seconds",
    "epsilon",
)
_CURVES = ("train_loss", "val_weighted_f1", "test_weighted_f1")
FAILURES = ("round", "client", "why")
CLIENTS = (
    *("round", "client", "name", "examples", "train_loss", "weight"),
    *("class_weights", *TOTALS),
)
_ROWS = {"metrics.csv": METRICS, "clients.csv": CLIENTS, "failures.csv": FAILURES}
_PACKAGES = ("fedmer", "torch", "pytorch-lightning", "torchmetrics", "jsonargparse", "numpy")


class RunRecord(pl.Callback):
    """Keeps the record of a run in its folder, and prints the result at its end.

    Rows are appended as rounds end, each before the checkpoint of its round. So a run that was
    killed has the rows of every checkpoint; with its first round a resumed run drops those that it
    repeats.
    ``result.json`` is written last: where it is, the rest is.

    Args:
        folder: Where to.
        config: The run's configuration as YAML, which ``fedmer fit --config`` repeats.
        corpus: What is to be kept beside it, since no file holds it.
    """

    def __init__(
        self, folder: RunFolder, config: str, corpus: ConversationCorpus | None = None
    ) -> None:
        self.folder = folder
        self.config = config
        self.corpus = corpus
        self.evaluated: dict[str, dict[str, Any]] = {}
        """``last`` and ``selected``: round and scores."""
        self.votes: dict[str, Tensor] = {}
        """The same rounds: votes on test, of :attr:`FederatedModule.votes`."""
        self.prototypes = PrototypeRecord(folder.path / PROTOTYPES)
        self.ended = False
        """Has the run all its rounds and its result?"""
        self.finished = False
        """Was its result written by this process?"""
        self._begun = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        assert isinstance(pl_module, FederatedModule)
        finished = pl_module.loop.finished
        done = trainer.current_epoch
        if finished or any(_has_stopped(callback, done) for callback in _callbacks(trainer)):
            # It was killed after that; one more round would make it another run.
            trainer.should_stop = True
        if not is_rehearsal(trainer):
            begin(trainer.loggers, yaml.safe_load(self.config), METRICS)

    def on_train_epoch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if self._begun:
            self.folder.keep()

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_rehearsal(trainer):
            return
        assert isinstance(pl_module, FederatedModule)
        report = pl_module.report
        assert report is not None
        self._begin(report.round)
        keep_id(trainer.loggers, self.folder.path)
        row = report.row(pl_module.scores)
        number = report.round + 1
        append_rows(self.folder.path / "metrics.csv", METRICS, [row])
        append_rows(self.folder.path / "clients.csv", CLIENTS, _client_rows(pl_module, number))
        failures = [
            {"round": number, "client": client, "why": why}
            for client, why in report.failures.items()
        ]
        append_rows(self.folder.path / "failures.csv", FAILURES, failures)
        self.prototypes.append(number, PrototypeSet.unpack(pl_module.loop.state.tensors))
        self._keep(number, pl_module.scores, pl_module.votes)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if is_rehearsal(trainer):
            self.ended = True
        elif not self._is_complete(trainer.current_epoch):
            self._begin(trainer.current_epoch)
            self.folder.keep()
            self._finish(trainer, pl_module)

    def on_fit_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Finish a run that was killed after its last round, which Lightning has nothing to do for.

        It then calls no other hook.
        """
        done, last, given = trainer.current_epoch, self.folder.last, self.folder.checkpoint
        all_done = done == trainer.max_epochs or trainer.global_step == trainer.max_steps
        if self.ended or not all_done or given is None or not last.exists():
            return
        if last.samefile(given) and not self._is_complete(done):
            # Lightning has moved it to the CPU by now.
            self._begin(done)
            self._finish(trainer, pl_module.to(trainer.strategy.root_device))

    def _begin(self, done: int) -> None:
        """Make the record that of a run with so many rounds."""
        if self._begun:
            return
        self._begun = True
        self.folder.go_back()
        if self.corpus is not None:
            native.write(self.corpus, self.folder.path / CORPUS)
        write_atomically(self.folder.path / "config.yaml", self.config)
        for name, columns in _ROWS.items():
            restart_rows(self.folder.path / name, columns, done)
        rows = read_rows(self.folder.path / "metrics.csv")
        whole = ("round", "bytes_down", "bytes_up")
        check_rows(rows, self.folder.path / "metrics.csv", whole, ("seconds",), _CURVES)
        self.prototypes.restart(done)

    def _is_complete(self, done: int) -> bool:
        """Is everything there already, of as many rounds? Says so."""
        if self._begun or self.folder.checkpoint is None:
            return False
        result = self.folder.path / "result.json"
        wanted = [result, self.folder.path / "curves.png"]
        wanted += [self.folder.path / VOTES] if self.votes else []
        if not all(path.exists() for path in wanted):
            return False
        try:
            kept = read_json(result)
        except InputError:
            return False  # what is damaged is made anew
        if not isinstance(kept, dict) or kept.get("rounds") != done:
            return False
        self.ended = True
        budget = " and, where its budget is spent, --privacy.target_epsilon"
        print(
            f"{self.folder.path} has all its {done} rounds, and its result; raise "
            f"--trainer.max_epochs{budget if kept.get('privacy') else ''} to go on.",
            file=sys.stderr,
        )
        return True

    def _finish(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        """Write what a finished run has, and print the result."""
        assert isinstance(pl_module, FederatedModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, FederatedDataModule)
        rows = read_rows(self.folder.path / "metrics.csv")
        if not pl_module.client_scores and any(map(len, data.held)):
            _announce(trainer, "scoring every client's holdout")
        pl_module.client_scores = pl_module.client_scores or pl_module.score_clients()
        if not data.remote:
            _announce(trainer, "training a linear probe on all utterances, to compare with")
        result = self._result(pl_module, data, rows)
        _announce(trainer, "writing votes and plots")
        path = self.folder.path
        if self.votes:
            counts = {name: votes.numpy() for name, votes in self.votes.items()}
            write_votes(path / VOTES, data.corpus, data.views("test"), counts)
            asked = subset_votes(pl_module, data)
            if asked:
                write_subsets(path, data, asked)
        save_curves(rows, path / "curves.png", result["selected"])
        shown = self.evaluated.get("selected") or self.evaluated.get("last")
        if shown and "test" in shown["scores"]:
            scores = Scores(**shown["scores"]["test"])
            save_confusion(scores, data.corpus.label_names, path / CONFUSION)
        write_atomically(path / "result.json", json.dumps(result, indent=2) + "\n")
        self.ended = self.finished = True
        print_result(Console(), result, path)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Say to whoever stopped the run how to go on."""
        last, config = self.folder.last, self.folder.path / "config.yaml"
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit | InputError | OSError)
        if stopped and last.exists() and config.exists():
            where = f"in round {trainer.current_epoch + 1}"
            if trainer.current_epoch == trainer.max_epochs:
                where = "after the last round"
            print(
                f"Stopped {where}. Go on with\n  fedmer fit --config {config} --ckpt_path {last}",
                file=sys.stderr,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self.evaluated, "votes": self.votes}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluated = dict(state_dict["evaluated"])
        # Checkpoints made before votes were kept have none.
        self.votes = dict(state_dict.get("votes", {}))

    def _keep(self, number: int, scores: Mapping[str, Scores], votes: Tensor | None) -> None:
        if not scores:
            return
        rounds = ["last"]
        entry = {"round": number, "scores": {part: asdict(s) for part, s in scores.items()}}
        self.evaluated["last"] = entry
        if "val" in scores:
            name = MONITOR.removeprefix("val_")
            best = self.evaluated.get("selected")
            if best is None or getattr(scores["val"], name) > best["scores"]["val"][name]:
                self.evaluated["selected"] = entry
                rounds.append("selected")
        if "test" in scores and votes is not None:
            self.votes |= dict.fromkeys(rounds, votes)

    def _result(
        self,
        module: FederatedModule,
        data: FederatedDataModule,
        rows: Sequence[Mapping[str, str]],
    ) -> dict[str, Any]:
        names = [client.name for client in module.loop.trainer.data.values()]
        by_client = module.client_scores
        spent = module.loop.protection.spent
        # Both are trained on all data pooled, which nobody has where clients are elsewhere.
        found = None if data.remote else baselines(data.corpus, data.partitions, data.views("val"))
        return {
            "run": self.folder.path.name,
            "command": shlex.join(["fedmer", *sys.argv[1:]]),
            "seed": module.seed,
            "versions": {name: version(name) for name in _PACKAGES},
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            "aggregator": module.aggregator.name,
            "personal": bool(module.loop.trainer.personal),
            "network": type(module.network).__name__,
            "parameters": sum(p.numel() for p in module.parameters()),
            "partitioner": "nodes" if data.remote else type(data.partitioner).__name__,
            "clients": len(names),
            "conditions": [
                {
                    "name": type(one).__name__,
                    "clients": [names[client] for client in among],
                    "test": type(one).__name__ in module.loop.trainer.conditions.at_test,
                }
                for one, among in module.loop.trainer.conditions.conditions
            ],
            "data": {
                "name": data.corpus.name,
                "fingerprint": data.corpus.fingerprint,
                "notes": list(data.corpus.notes),
                "extractors": {m: asdict(made) for m, made in data.corpus.extractors.items()},
                "labels": list(data.corpus.label_names),
                "modalities": dict(data.shape.features),
                "standardise": data.mode,
                "coverage": data.coverage,
            },
            "rounds": int(rows[-1]["round"]) if rows else 0,
            "last": self.evaluated.get("last"),
            "selected": self.evaluated.get("selected"),
            "baselines": asdict(found) if found else {},
            "holdouts": {
                names[client]: {
                    **scores.totals,
                    "examples": sum(map(sum, scores.confusion)),
                    "modalities": modalities_in(module.loop.trainer.data[client].train),
                }
                for client, scores in by_client.items()
            },
            "bytes_down": sum(int(row["bytes_down"]) for row in rows),
            "bytes_up": sum(int(row["bytes_up"]) for row in rows),
            "seconds": sum(float(row["seconds"]) for row in rows),
            "privacy": None if spent is None else spent.as_dict(),
        }


def is_rehearsal(trainer: pl.Trainer) -> bool:
    """``--trainer.fast_dev_run`` tries everything once and leaves no trace."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _callbacks(trainer: pl.Trainer) -> list[pl.Callback]:
    found: list[pl.Callback] = trainer.callbacks  # type: ignore[attr-defined]
    return found


def _has_stopped(callback: pl.Callback, rounds: int) -> bool:
    """Has early stopping ended the run after so many rounds?"""
    if not isinstance(callback, EarlyStopping):
        return False
    reason = callback.stopping_reason is not EarlyStoppingReason.NOT_STOPPED
    return reason and callback.stopped_epoch + 1 == rounds


def _announce(trainer: pl.Trainer, work: str) -> None:
    """Say what a person still waits for, unless they want to see no progress."""
    if trainer.progress_bar_callback is not None:
        print(f"after the last round: {work}", flush=True)


def _client_rows(module: FederatedModule, number: int) -> list[dict[str, Any]]:
    report, data = module.report, module.loop.trainer.data
    assert report is not None
    by_client = module.client_scores if module.evaluate_clients else {}
    return [
        {
            "round": number,
            "client": summary.client,
            "name": data[summary.client].name,
            "examples": summary.examples,
            "train_loss": summary.train_loss,
            "weight": report.weights[summary.client],
            "class_weights": _listed(report.class_weights.get(summary.client)),
            **(by_client[summary.client].totals if summary.client in by_client else {}),
        }
        for summary in report.summaries
    ]


def _listed(weights: Tensor | None) -> str:
    """Numbers of classes in one cell."""
    return "" if weights is None else " ".join(f"{weight:.6g}" for weight in weights.tolist())
