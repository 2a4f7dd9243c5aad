"""From the folder of a run to what can be attacked."""

import json
import tempfile
from pathlib import Path
from typing import Any

import yaml

from fedmer import safe_yaml
from fedmer.audit.recorder import Recorder
from fedmer.audit.subject import Subject
from fedmer.checkpoint_entries import check_checkpoint
from fedmer.cli import CLI, launch, prepare_process
from fedmer.defaults import DEFAULTS
from fedmer.errors import InputError
from fedmer.prepare import prepared
from fedmer.report.collect import Run
from fedmer.restoring import was_remote
from fedmer.runs import CHECKPOINTS, CONFIG, LAST

BEST = "best.ckpt"
_OF_SHADOWS = (
    *("seed_everything", "data", "partitioner", "conditions", "network", "loss", "local"),
    *("optimizer", "lr_scheduler"),
)
"""What networks follow from that learn without a federation."""


class _Restored(CLI):
    """A run that is tested with its clients in this process, so that all of it is built."""

    def test(self, **arguments: Any) -> None:
        self.model.executor = Recorder()
        self.trainer.test(**arguments)

    def after_test(self) -> None:
        """Say nothing."""


def restore(run: Run, rounds: int = 1, trusted: bool = False) -> Subject:
    """Build a finished run anew, as it was after the round that is kept of it.

    Args:
        run: The round selected by validation, or the last one where none was.
        rounds: How many more rounds to listen to.
        trusted: May it name classes that are neither fedmer's nor those of installed plugins?

    Raises:
        InputError: A file is missing or damaged, the corpus is not there or another one, or the
            clients are elsewhere.
    """
    places = [run.path / CHECKPOINTS / name for name in (BEST, LAST)]
    checkpoint = next((place for place in places if place.is_file()), None)
    if checkpoint is None:
        raise InputError(f"{run.path} has no checkpoint, so that it cannot go on; train it again.")
    saved = check_checkpoint(checkpoint)
    if was_remote(saved):
        raise InputError(
            f"{run.path} was trained on machines that keep their data; an audit needs the data of "
            "all clients. Audit a simulation with the same settings."
        )
    settings = _settings(run)
    prepare_process()
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / CONFIG
        config.write_text(yaml.safe_dump(settings), encoding="utf-8")
        given = ["--config", str(config), "--ckpt_path", str(checkpoint)]
        with prepared([*given, *(["--trust"] if trusted else [])], DEFAULTS) as words:
            done = launch("test", words, _Restored)
    _check_corpus(run, done.datamodule.corpus.fingerprint)
    return Subject(
        *(done.model, done.datamodule, rounds, int(saved["fedmer"]["round"]) + 1),
        saved["optimizer_states"][0],
        untold=json.dumps([settings.get(part) for part in _OF_SHADOWS], sort_keys=True),
    )


def _settings(run: Run) -> dict[str, Any]:
    """The run's configuration, for one process on the CPU that records nothing."""
    content = safe_yaml.read(run.path / CONFIG)
    if not isinstance(content, dict) or not isinstance(content.get("trainer"), dict):
        raise InputError(f"{run.path / CONFIG} is no configuration of a run; train it again.")
    path = (content.get("data") or {}).get("path")
    if path is not None and not Path(path).expanduser().exists():
        raise InputError(
            f"{path}, on which {run.path} was trained, is not there; put it back, or mend "
            f"data.path in {run.path / CONFIG}."
        )
    return {
        **content,
        "executor": {"class_path": "fedmer.plugins.executors.inline.Inline"},
        "trainer": {
            **content["trainer"],
            **{"accelerator": "cpu", "precision": "32-true", "devices": 1, "strategy": "auto"},
            **{"logger": False, "callbacks": None, "enable_progress_bar": False},
        },
    }


def _check_corpus(run: Run, found: str) -> None:
    if found != run.result["data"]["fingerprint"]:
        raise InputError(
            f"{run.path} was trained on another corpus than what is now in its place (fingerprint "
            f"{run.result['data']['fingerprint']}, now {found}); put the first one back."
        )
