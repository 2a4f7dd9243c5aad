"""The files of a run: config.yaml, metrics.csv, clients.csv, result.json and two plots."""

import csv
import io
import json
import platform
import shlex
import sys
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from rich.console import Console

from fedmer.data.datamodule import FederatedDataModule
from fedmer.federated import FederatedModule
from fedmer.metrics import TOTALS, Scores
from fedmer.report.checkpoints import MONITOR
from fedmer.report.plots import save_confusion, save_curves
from fedmer.report.probe import Baselines, baselines
from fedmer.report.tables import print_result
from fedmer.runs import CHECKPOINTS, RunFolder, write_atomically

METRICS = (
    "round",
    "clients",
    "train_loss",
    *(f"{part}_{name}" for part in ("val", "test") for name in TOTALS),
    "bytes_down",
    "bytes_up",
    "seconds",
)
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
        self.started = False

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        self.started = True
        if _rehearsal(trainer):
            return
        self.folder.open()
        write_atomically(self.folder.path / "config.yaml", self.config)
        done = trainer.current_epoch
        _restart(self.folder.path / "metrics.csv", METRICS, done)
        _restart(self.folder.path / "clients.csv", CLIENTS, done)

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
        _append(self.folder.path / "metrics.csv", METRICS, [row])
        _append(self.folder.path / "clients.csv", CLIENTS, _client_rows(pl_module, number))
        self._keep(number, pl_module.scores)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:
        if _rehearsal(trainer):
            return
        assert isinstance(pl_module, FederatedModule)
        data: Any = trainer.datamodule  # type: ignore[attr-defined]
        assert isinstance(data, FederatedDataModule)
        rows = read_rows(self.folder.path / "metrics.csv")
        result = self._result(pl_module, data, rows)
        path = self.folder.path
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
        if isinstance(exception, KeyboardInterrupt | SystemExit) and last.exists():
            config = self.folder.path / "config.yaml"
            print(
                f"Stopped in round {trainer.current_epoch + 1}. Go on with\n"
                f"  fedmer fit --config {config} --ckpt_path {last}",
                file=sys.stderr,
            )

    def state_dict(self) -> dict[str, Any]:
        return {"evaluated": self.evaluated}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.evaluated = dict(state_dict["evaluated"])

    def _keep(self, number: int, scores: Mapping[str, Scores]) -> None:
        if not scores:
            return
        entry = {"round": number, "scores": {part: asdict(s) for part, s in scores.items()}}
        self.evaluated["last"] = entry
        if "val" in scores:
            name = MONITOR.removeprefix("val_")
            best = self.evaluated.get("selected")
            if best is None or getattr(scores["val"], name) > best["scores"]["val"][name]:
                self.evaluated["selected"] = entry

    def _result(
        self,
        module: FederatedModule,
        data: FederatedDataModule,
        rows: Sequence[Mapping[str, str]],
    ) -> dict[str, Any]:
        names = [client.name for client in module.loop.trainer.data]
        own = module.client_scores or module.score_clients()
        found: Baselines = baselines(data.corpus, data.shares, data.views("val"))
        return {
            "run": self.folder.path.name,
            "command": shlex.join(["fedmer", *sys.argv[1:]]),
            "seed": module.seed,
            "versions": {name: version(name) for name in _PACKAGES},
            "machine": {"python": platform.python_version(), "processor": platform.machine()},
            "aggregator": type(module.aggregator).__name__,
            "network": type(module.network).__name__,
            "parameters": sum(p.numel() for p in module.parameters()),
            "partitioner": type(data.partitioner).__name__,
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
            "baselines": asdict(found),
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


def read_rows(path: Path) -> list[dict[str, str]]:
    """The rows of ``metrics.csv`` or ``clients.csv``, as text by column."""
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


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


def _restart(path: Path, columns: Sequence[str], done: int) -> None:
    """A file with its header and the complete rows of the rounds already done."""
    kept = [
        row
        for row in (read_rows(path) if path.exists() else [])
        if None not in row.values() and row["round"].isdigit() and int(row["round"]) <= done
    ]
    write_atomically(path, _as_csv(columns, kept, header=True))


def _append(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    with path.open("a", newline="", encoding="utf-8") as file:
        file.write(_as_csv(columns, rows, header=False))


def _as_csv(columns: Sequence[str], rows: Sequence[Mapping[str, Any]], header: bool) -> str:
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    if header:
        writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()
