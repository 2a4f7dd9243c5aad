"""What Lightning's loggers get beside the rows of rounds: the configuration, and what was found.

Every logger gets the configuration. Weights & Biases also gets the run's name and id, and at the
end a summary, tables, the confusion matrix and the model.
"""

import json
import os
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger, WandbLogger

from fedmer.errors import InputError
from fedmer.files import write_atomically
from fedmer.metrics import TOTALS
from fedmer.record.plots import CONFUSION
from fedmer.record.reading import read_json, read_rows
from fedmer.runs import MODEL, RunFolder

WANDB = "wandb.json"
"""Under which id a run is known to Weights & Biases."""

AXIS = "round"
"""What curves are over."""

_CLASSES = ("part", "round", "emotion", "precision", "recall", "f1", "utterances")
_CLIENTS = (
    *("client", "rounds", "examples", "train_loss", "weight"),
    *("holdout_utterances", "holdout_accuracy", "holdout_weighted_f1"),
)


def settle_wandb(loggers: Sequence[Logger], folder: RunFolder) -> None:
    """Call a run there as its folder is called, and go on under its id where it is continued.

    What was typed counts, and so do ``WANDB_NAME`` and ``WANDB_RUN_ID``.

    Args:
        loggers: Of the Trainer, before it starts: then W&B has not begun a run yet.
        folder: Of the run.

    Raises:
        InputError: The id that the folder keeps is none.
    """
    for logger in loggers:
        if not isinstance(logger, WandbLogger):
            continue
        # The arguments of ``wandb.init``, for which Lightning has no other name.
        given, path = logger._wandb_init, folder.path / WANDB
        if given["name"] is None and "WANDB_NAME" not in os.environ:
            given["name"] = folder.path.name
        unnamed = given["id"] is None and "WANDB_RUN_ID" not in os.environ
        if unnamed and folder.checkpoint is not None and path.is_file():
            given["id"] = _read_id(path)


def begin(loggers: Sequence[Logger], config: Mapping[str, Any], columns: Sequence[str]) -> None:
    """Tell loggers the configuration, and W&B what its curves are over.

    Args:
        loggers: Of the Trainer.
        config: Of the run, nested as its file is; of the loggers' own options they get nothing.
        columns: Of a round's row, :data:`AXIS` among them.
    """
    trainer = {name: value for name, value in config["trainer"].items() if name != "logger"}
    for logger in loggers:
        logger.log_hyperparams({**config, "trainer": trainer})
        if isinstance(logger, WandbLogger):
            for name in columns:
                # By name: of a rule for all names, as Lightning's is, W&B would add the axis to
                # rows of others, such as that of the tables.
                logger.experiment.define_metric(name, step_metric=None if name == AXIS else AXIS)


def keep_id(loggers: Sequence[Logger], path: Path) -> None:
    """Write down the run's id, for whoever goes on with it.

    Raises:
        InputError: The folder cannot be written.
    """
    for logger in loggers:
        if isinstance(logger, WandbLogger):
            write_atomically(path / WANDB, json.dumps({"id": logger.version}) + "\n")


def publish(loggers: Sequence[Logger], path: Path) -> None:
    """Give W&B what a finished run has found.

    Clients go by number: their names may be those of people, and may not leave the machine.

    Args:
        loggers: Of the Trainer.
        path: The run's folder; the model in it goes along, if there is one.

    Raises:
        InputError: A file of the run is damaged.
    """
    ours = [logger for logger in loggers if isinstance(logger, WandbLogger)]
    if not ours:
        return
    import wandb

    result = read_json(path / "result.json")
    shown = result["selected"] or result["last"]
    for logger in ours:
        run = logger.experiment
        media: dict[str, Any] = {
            "per_client": wandb.Table(list(_CLIENTS), _client_rows(path, result["holdouts"]))
        }
        if shown is not None:
            rows = _class_rows(shown, result["data"]["labels"])
            media["per_class"] = wandb.Table(list(_CLASSES), rows)
        if (path / CONFUSION).is_file():
            caption = "Counts on test; rows are the true emotion."
            media["confusion"] = wandb.Image(str(path / CONFUSION), caption=caption)
        run.log(media)
        run.summary.update(summary_of(result))
        if (path / MODEL).is_dir():
            about = {"run": path.name, "round": shown["round"]} if shown else {"run": path.name}
            artifact = wandb.Artifact(f"model-{run.id}", type="model", metadata=about)
            artifact.add_dir(str(path / MODEL))
            run.log_artifact(artifact)


def summary_of(result: Mapping[str, Any]) -> dict[str, Any]:
    """A run in one flat row: what was selected, what came last, baselines and costs.

    >>> scores = {"val": {name: 0.5 for name in TOTALS}}
    >>> result = {"selected": {"round": 3, "scores": scores}, "last": None, "baselines": {}}
    >>> result |= {name: 1 for name in ("rounds", "bytes_down", "bytes_up", "seconds")}
    >>> result |= {"clients": 2, "parameters": 9, "data": {"name": "a", "fingerprint": "f"}}
    >>> found = summary_of(result)
    >>> found["selected_round"], found["selected_val_weighted_f1"], found["total_bytes_up"]
    (3, 0.5, 1)
    """
    found: dict[str, Any] = {name: result[name] for name in ("rounds", "clients", "parameters")}
    found |= {f"total_{name}": result[name] for name in ("bytes_down", "bytes_up", "seconds")}
    found |= {"corpus": result["data"]["name"], "fingerprint": result["data"]["fingerprint"]}
    for which in ("selected", "last"):
        entry = result[which]
        if entry is not None:
            found[f"{which}_round"] = entry["round"]
            for part, scores in entry["scores"].items():
                found |= {f"{which}_{part}_{name}": scores[name] for name in TOTALS}
    for baseline, scores in result["baselines"].items():
        found |= {f"{baseline}_{name}": scores[name] for name in TOTALS}
    return found


def _class_rows(shown: Mapping[str, Any], labels: Sequence[str]) -> list[list[Any]]:
    return [
        [part, shown["round"], label]
        + [scores[name][place] for name in ("precision", "recall", "f1")]
        + [sum(scores["confusion"][place])]
        for part, scores in shown["scores"].items()
        for place, label in enumerate(labels)
    ]


def _client_rows(path: Path, holdouts: Mapping[str, Mapping[str, Any]]) -> list[list[Any]]:
    """One row a client that took part: its last round, and its holdout after the run."""
    took_part: dict[str, list[dict[str, str]]] = {}
    for row in read_rows(path / "clients.csv"):
        took_part.setdefault(row["client"], []).append(row)
    rows: list[list[Any]] = []
    for client in sorted(took_part, key=int):
        last = took_part[client][-1]
        own = holdouts.get(last["name"], {})
        numbers = [int(last["examples"]), float(last["train_loss"]), float(last["weight"])]
        scores = [own.get(name) for name in ("examples", "accuracy", "weighted_f1")]
        rows.append([int(client), len(took_part[client]), *numbers, *scores])
    return rows


def _read_id(path: Path) -> str:
    kept = read_json(path)
    found = kept.get("id") if isinstance(kept, dict) else None
    if not isinstance(found, str) or not re.fullmatch(r"[\w.-]{1,128}", found):
        raise InputError(f"{path} has no id of W&B; remove it to log to a run of its own.")
    return found
