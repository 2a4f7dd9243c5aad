"""A run that is killed anywhere can be finished, and one that is finished says so."""

import json
import shutil
from pathlib import Path
from typing import Any
from unittest import mock

import pytest
import torch

import fedmer.files
from fedmer.__main__ import main
from fedmer.record.record import RunRecord, read_rows
from fedmer.runs import RunFolder
from tests.test_resume import SMALL, assert_same_run

STOP = ("--trainer.callbacks", "EarlyStopping", "--trainer.callbacks.monitor", "train_loss")
STOP += ("--trainer.callbacks.mode", "max", "--trainer.callbacks.patience", "1")


class Killed(BaseException):
    """Stands for a kill: nothing after it in this process writes."""


def fit(corpus: Path, name: str, *more: str) -> int:
    rounds = ("--trainer.max_epochs", "3")
    return main(["fit", "--data.path", str(corpus), "--name", name, *rounds, *SMALL, *more])


def last(name: str) -> Path:
    return Path("runs") / name / "checkpoints" / "last.ckpt"


def killed_when_finishing(corpus: Path, name: str, *more: str) -> None:
    """Run as far as the checkpoint of the last round."""
    with mock.patch.object(RunRecord, "_finish", side_effect=Killed), pytest.raises(Killed):
        fit(corpus, name, *more)
    assert not (Path("runs") / name / "result.json").exists()


def assert_finished(one: str, other: str) -> None:
    assert_same_run(one, other)
    results = []
    for name in (one, other):
        folder = Path("runs") / name
        result: dict[str, Any] = json.loads((folder / "result.json").read_text())
        results.append({k: v for k, v in result.items() if k not in ("run", "command", "seconds")})
    assert results[0] == results[1]
    files = [{p.name for p in (Path("runs") / name).iterdir()} for name in (one, other)]
    assert files[0] == files[1]
    votes = [(Path("runs") / name / "test_votes.npz").read_bytes() for name in (one, other)]
    assert votes[0] == votes[1]


@pytest.mark.parametrize(
    "more",
    [
        (),
        pytest.param(
            ("--aggregator", "Local", "--executor", "Workers", "--executor.workers", "2"),
            marks=pytest.mark.slow,
        ),
        pytest.param(STOP, id="stopped early"),
    ],
)
def test_a_run_killed_after_its_last_checkpoint_is_finished(
    here: Path, corpus_file: Path, more: tuple[str, ...]
) -> None:
    assert fit(corpus_file, "straight", *more) == 0
    killed_when_finishing(corpus_file, "killed", *more)
    assert fit(corpus_file, "killed", *more, "--ckpt_path", str(last("killed"))) == 0
    assert_finished("straight", "killed")


def test_a_finished_run_says_so_and_is_completed_where_something_is_missing(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "straight") == 0
    shutil.copytree("runs/straight", "runs/other")
    before = {p: p.stat().st_mtime_ns for p in Path("runs/straight").rglob("*")}
    assert fit(corpus_file, "straight", "--ckpt_path", str(last("straight"))) == 0
    assert "runs/straight has all its 3 rounds, and its result" in capsys.readouterr().err
    assert {p: p.stat().st_mtime_ns for p in Path("runs/straight").rglob("*")} == before
    (here / "runs" / "other" / "test_votes.npz").unlink()
    assert fit(corpus_file, "other", "--ckpt_path", str(last("other"))) == 0
    assert_finished("straight", "other")


@pytest.mark.slow
def test_rows_of_every_checkpoint_are_there_wherever_a_write_is_the_last(
    here: Path, corpus_file: Path
) -> None:
    """Kill before every renaming and after every appended row, then resume."""
    assert fit(corpus_file, "straight") == 0
    whole = [row["round"] for row in read_rows(Path("runs/straight/metrics.csv"))]
    assert whole == ["1", "2", "3"]
    flush = fedmer.files.flush_folder
    at = 0
    while True:
        count = 0

        def killed_at(folder: Path, at: int = at) -> None:
            nonlocal count
            count += 1
            if count > at:
                raise Killed
            flush(folder)

        with mock.patch.object(fedmer.files, "flush_folder", killed_at):
            try:
                code = fit(corpus_file, "killed")
            except Killed:
                code = None
        if code == 0:
            break
        done = 0
        if last("killed").exists():
            done = torch.load(last("killed"), weights_only=True)["epoch"] + 1
            rows = read_rows(Path("runs/killed/metrics.csv"))
            assert [row["round"] for row in rows][:done] == whole[:done], at
        again = ("--ckpt_path", str(last("killed"))) if done else ("--overwrite",)
        assert fit(corpus_file, "killed", *again) == 0
        assert_finished("straight", "killed")
        shutil.rmtree("runs/killed")
        at += 4  # every fourth, as there are about twenty
    assert at > 8


def test_going_back_to_an_earlier_round_loses_no_row(here: Path, corpus_file: Path) -> None:
    assert fit(corpus_file, "run") == 0
    shutil.copy(last("run"), "third.ckpt")
    assert fit(corpus_file, "run", "--trainer.max_epochs", "5", "--ckpt_path", "third.ckpt") == 0
    assert len(read_rows(Path("runs/run/metrics.csv"))) == 5
    more = ("--trainer.max_epochs", "5", "--ckpt_path", "third.ckpt")
    with mock.patch.object(RunFolder, "go_back", side_effect=Killed), pytest.raises(Killed):
        fit(corpus_file, "run", *more)
    assert len(read_rows(Path("runs/run/metrics.csv"))) == 5
    with (
        mock.patch("fedmer.record.record.append_rows", side_effect=Killed),
        pytest.raises(Killed),
    ):
        fit(corpus_file, "run", *more)
    assert torch.load(last("run"), weights_only=True)["epoch"] == 2
    assert len(read_rows(Path("runs/run/metrics.csv"))) == 3
