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
from torch import Tensor

from fedmer.console import Console
from fedmer.data.datamodule import FederatedDataModule
from fedmer.errors import InputError
from fedmer.federated import FederatedModule
from fedmer.files import write_atomically
from fedmer.metrics import TOTALS, Scores
from fedmer.prototypes import PrototypeSet
from fedmer.report.checkpoints import MONITOR
from fedmer.report.plots import save_confusion, save_curves
from fedmer.report.probe import baselines
from fedmer.report.prototypes import FILE as PROTOTYPES
from fedmer.report.prototypes import PrototypeRecord
from fedmer.report.rows import append_rows, read_rows, restart_rows
from fedmer.report.tables import print_result
from fedmer.report.votes import FILE as VOTES
from fedmer.report.votes import write_votes
from fedmer.runs import CHECKPOINTS, RunFolder

METRICS = (
    "round",
    "clients",
    "train_loss",
    *(f"{part}_{name}" for part in ("val", "test") for name in TOTALS),
    "bytes_down",
    "bytes_up",
    "seconds",
)
FAILURES = ("round", "client", "why")
CLIENTS = ("round", "client", "name", "examples", "train_loss", "weight", *TOTALS)
_PACKAGES = ("fedmer", "torch", "pytorch-lightning", "torchmetrics", "jsonargparse", "numpy")


class RunRecord(pl.Callback):
    """Keeps the record of a run in its folder, and prints the result at its end.

    Rows are appended as rounds end; a resumed run first drops the rows of rounds that it repeats.

    Args:
        folder: Where to.
        config: The run's configuration as YAML, which ``fedmer fit --config`` repeats.
    """

    def __init__(self, folder: RunFolder, config: str) -> None:
        self.folder = folder
        self.config = config
        self.evaluated: dict[str, dict[str, Any]] = {}
        """``last`` and ``selected``: round and scores."""
        self.votes: dict[str, Tensor] = {}
        """The same rounds: votes on test, of :attr:`FederatedModule.votes`."""
        self.prototypes = PrototypeRecord(folder.path / PROTOTYPES)
        self.started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = True
        if _rehearsal(trainer):
            return
        self.folder.open()
        write_atomically(self.folder.path / "config.yaml", self.config)
        done = trainer.current_epoch
        restart_rows(self.folder.path / "metrics.csv", METRICS, done)
        restart_rows(self.folder.path / "clients.csv", CLIENTS, done)
        restart_rows(self.folder.path / "failures.csv", FAILURES, done)
        self.prototypes.restart(done)

    def on_train_epoch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _rehearsal(trainer):
            return
        assert isinstance(pl_module, FederatedModule)
        report = pl_module.report
        assert report is not None
        number = report.round + 1
        row: dict[str, Any] = {
            "round": number,
            "clients": len(report.summaries),
            "train_loss": report.train_loss,
            "bytes_down": report.bytes_down,
            "bytes_up": report.bytes_up,
            "seconds": round(report.seconds, 4),
        }
        for part, scores in pl_module.scores.items():
            row |= {f"{part}_{name}": value for name, value in scores.totals.items()}
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
        if _rehearsal(trainer):
            return
        assert isinstance(pl_module, FederatedModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, FederatedDataModule)
        rows = read_rows(self.folder.path / "metrics.csv")
        result = self._result(pl_module, data, rows)
        path = self.folder.path
        if self.votes:
            counts = {name: votes.numpy() for name, votes in self.votes.items()}
            write_votes(path / VOTES, data.corpus, data.views("test"), counts)
        write_atomically(path / "result.json", json.dumps(result, indent=2) + "\n")
        save_curves(rows, path / "curves.png", result["selected"])
        shown = self.evaluated.get("selected") or self.evaluated.get("last")
        if shown and "test" in shown["scores"]:
            scores = Scores(**shown["scores"]["test"])
            save_confusion(scores, data.corpus.label_names, path / "confusion.png")
        print_result(Console(), result, path)

    def on_exception(
        self, trainer: pl.Trainer, pl_module: pl.LightningModule, exception: BaseException
    ) -> None:
        """Tell somebody who stopped the run how to go on."""
        last = self.folder.path / CHECKPOINTS / "last.ckpt"
        stopped = isinstance(exception, KeyboardInterrupt | SystemExit | InputError)
        if stopped and self.started and last.exists():
            config = self.folder.path / "config.yaml"
            print(
                f"Stopped in round {trainer.current_epoch + 1}. Go on with\n"
                f"  fedmer fit --config {config} --ckpt_path {last}",
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
        own = module.client_scores or module.score_clients()
        # Both are trained on all data pooled, which nobody has where clients are elsewhere.
        found = None if data.remote else baselines(data.corpus, data.shares, data.views("val"))
        return {
            "run": self.folder.path.name,
            "command": shlex.join(["fedmer", *sys.argv[1:]]),
            "seed": module.seed,
            "versions": {name: version(name) for name in _PACKAGES},
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            "aggregator": type(module.aggregator).__name__,
            "personal": not module.aggregator.averages,
            "network": type(module.network).__name__,
            "parameters": sum(p.numel() for p in module.parameters()),
            "partitioner": "nodes" if data.remote else type(data.partitioner).__name__,
            "clients": len(names),
            "data": {
                "name": data.corpus.name,
                "fingerprint": data.corpus.fingerprint,
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
                names[client]: {**scores.totals, "examples": sum(map(sum, scores.confusion))}
                for client, scores in own.items()
            },
            "bytes_down": sum(int(row["bytes_down"]) for row in rows),
            "bytes_up": sum(int(row["bytes_up"]) for row in rows),
            "seconds": sum(float(row["seconds"]) for row in rows),
        }


def _rehearsal(trainer: pl.Trainer) -> bool:
    """``--trainer.fast_dev_run`` tries everything once and leaves no trace."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


def _client_rows(module: FederatedModule, number: int) -> list[dict[str, Any]]:
    report, data = module.report, module.loop.trainer.data
    assert report is not None
    own = module.client_scores if module.evaluate_clients else {}
    return [
        {
            "round": number,
            "client": summary.client,
            "name": data[summary.client].name,
            "examples": summary.examples,
            "train_loss": summary.scalars["train_loss"],
            "weight": report.weights[summary.client],
            **(own[summary.client].totals if summary.client in own else {}),
        }
        for summary in report.summaries
    ]
