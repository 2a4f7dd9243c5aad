"""What a sweep keeps: a small file beside each trial, and the table of all."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from fedmer.errors import InputError
from fedmer.files import write_atomically
from fedmer.runs import CHECKPOINTS
from fedmer.sweep.command import of_fedmer
from fedmer.sweep.trials import Trial

ENTRIES = ("last", "selected")
PARTS = ("val", "test")
SCORES = ("accuracy", "weighted_f1", "macro_f1", "uar")
FINISHED, FAILED, INTERRUPTED = "finished", "failed", "interrupted"
RUNNING, WAITING = "running", "waiting"


@dataclass
class Record:
    """What is known of a trial.

    Args:
        arguments: Its command as the sweep file and the command line give it, before the sweep
            adds where it is kept.
        files: Configuration file among the arguments -> digest of its content.
        status: ``waiting``, ``running``, ``finished``, ``failed`` or ``interrupted``.
        exit_code: Of its last process; negative for the signal that ended it.
        seconds: Over all its processes.
        said: The last line of its log if it failed.
    """

    arguments: list[str]
    files: dict[str, str] = field(default_factory=dict)
    status: str = WAITING
    exit_code: int | None = None
    seconds: float = 0.0
    said: str = ""


@dataclass(frozen=True)
class Store:
    """The folder of a sweep.

    Args:
        folder: ``RUNS/SWEEP``. A trial has its run folder, ``TRIAL.log`` and ``TRIAL.json`` here.
    """

    folder: Path

    @property
    def table(self) -> Path:
        return self.folder / "trials.csv"

    def log(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def run(self, name: str) -> Path:
        return self.folder / name

    def checkpoint(self, name: str) -> Path:
        return self.run(name) / CHECKPOINTS / "last.ckpt"

    def settle(self, name: str, arguments: list[str]) -> Record:
        """The record of a trial, from an earlier sweep if that ran the same.

        An unfinished trial whose arguments have changed is one that waits; its old folder is
        replaced when it starts.

        Raises:
            InputError: A finished trial of this name had other arguments, or somebody else's
                folder has its name.
        """
        fresh = Record(arguments, _digests(arguments))
        kept = self._read(name)
        if kept is None:
            if self.run(name).exists():
                raise InputError(
                    f"{self.run(name)} exists, but not from this sweep; move it away, or choose "
                    "another --runs."
                )
            return fresh
        same = (kept.arguments, kept.files) == (fresh.arguments, fresh.files)
        if self.finished(name, kept):
            if not same:
                raise InputError(self._changed(name, kept, fresh))
            kept.status = FINISHED
            return kept
        if not same or kept.status == FINISHED:  # finished, and its folder deleted since
            return fresh
        if kept.status == RUNNING:
            kept.status = INTERRUPTED  # its sweep was killed
        return kept

    def finished(self, name: str, record: Record) -> bool:
        """Has the trial run to its end?"""
        if of_fedmer(record.arguments) is None:
            return record.status == FINISHED
        return record.status != FAILED and (self.run(name) / "result.json").exists()

    def resumable(self, name: str, record: Record) -> bool:
        """Is there a checkpoint that this very trial can go on from?"""
        return record.status in (INTERRUPTED, FAILED) and self.checkpoint(name).exists()

    def write(self, name: str, record: Record) -> None:
        path = self.folder / f"{name}.json"
        write_atomically(path, json.dumps(asdict(record), indent=2) + "\n")

    def wandb_config(self, name: str) -> Path:
        return self.folder / f"{name}.yaml"

    def write_wandb_config(self, trial: Trial) -> None:
        """Write a trial's parameters as W&B's agent hands them to the run that it starts."""
        said = {"wandb_version": 1, **{key: {"value": v} for key, v in trial.values.items()}}
        # JSON is YAML.
        write_atomically(self.wandb_config(trial.name), json.dumps(said, indent=2) + "\n")

    def write_table(self, trials: Sequence[Trial], records: Mapping[str, Record]) -> None:
        """Write ``trials.csv``: a row a trial, whatever has become of it."""
        parameters = list(trials[0].values)
        scores = [f"{e}_{p}_{s}" for e in ENTRIES for p in PARTS for s in SCORES]
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        head = ["trial", "status", "exit_code", "seconds", *parameters]
        writer.writerow([*head, "rounds", "selected_round", *scores, "bytes_down", "bytes_up"])
        for trial in trials:
            record = records[trial.name]
            result = self.result(trial.name) if record.status == FINISHED else {}
            seconds = round(record.seconds, 2)
            writer.writerow(
                [
                    *(trial.name, record.status, record.exit_code, seconds, *trial.values.values()),
                    *(result.get("rounds"), (result.get("selected") or {}).get("round")),
                    *(score(result, e, p, s) for e in ENTRIES for p in PARTS for s in SCORES),
                    *(result.get("bytes_down"), result.get("bytes_up")),
                ]
            )
        write_atomically(self.table, text.getvalue())

    def result(self, name: str) -> dict[str, Any]:
        """What ``result.json`` of a trial holds; empty if it wrote none."""
        path = self.run(name) / "result.json"
        content: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
        return content

    def last_line(self, name: str) -> str:
        """The last line of a trial's log that says something."""
        lines = self.log(name).read_text(encoding="utf-8", errors="replace").splitlines()
        return next((line.strip() for line in reversed(lines) if line.strip()), "")

    def _read(self, name: str) -> Record | None:
        path = self.folder / f"{name}.json"
        if not path.exists():
            return None
        try:
            return Record(**json.loads(path.read_text(encoding="utf-8")))
        except (OSError, ValueError, TypeError) as error:
            raise InputError(
                f"{path} is not what a sweep wrote; delete it and {self.run(name)} to run the "
                "trial again."
            ) from error

    def _changed(self, name: str, kept: Record, fresh: Record) -> str:
        files = [path for path in fresh.files if kept.files.get(path) != fresh.files[path]]
        before = " ".join(word for word in kept.arguments if word not in fresh.arguments)
        now = " ".join(word for word in fresh.arguments if word not in kept.arguments)
        if kept.arguments == fresh.arguments:
            what = f"{files[0]} has changed since"
        else:
            what = f"it had '{before}' where it now has '{now}'"
        return (
            f"{self.run(name)} is a finished trial, but {what}; give the sweep another name or "
            "another --runs, or delete that folder."
        )


def score(result: Mapping[str, Any], entry: str, part: str, name: str) -> float | None:
    """One number of a result, None where there is none."""
    found = ((result.get(entry) or {}).get("scores") or {}).get(part) or {}
    value: float | None = found.get(name)
    return value


def _digests(arguments: Sequence[str]) -> dict[str, str]:
    """Of every YAML file among the words: its content is part of what the trial is."""
    found = {}
    for word in arguments:
        path = Path(word.partition("=")[2] if word.startswith("--") else word)
        if path.suffix in (".yaml", ".yml") and path.is_file():
            found[str(path)] = hashlib.blake2b(path.read_bytes(), digest_size=8).hexdigest()
    return found
