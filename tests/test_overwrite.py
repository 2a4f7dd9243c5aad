"""An older run of the same name goes when the new one has a complete round, and not before."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import pytest

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.loop import FederatedLoop
from fedmer.runs import RunFolder, recover


def old_run(runs: Path) -> dict[Path, bytes]:
    (runs / "x" / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "metrics.csv", "mine.txt", "checkpoints/last.ckpt"):
        (runs / "x" / name).write_text(f"old {name}")
    return content(runs)


def content(runs: Path) -> dict[Path, bytes]:
    return {p: p.read_bytes() for p in runs.rglob("*") if p.is_file() and p.suffix != ".lock"}


def replacing(runs: Path) -> RunFolder:
    return RunFolder.choose(runs, "x", "default", overwrite=True)


def steps(folder: RunFolder) -> Iterator[str]:
    """What a run does in its folder, a step at a time."""
    with folder:
        yield "entered"
        (folder.path / "config.yaml").write_text("new")
        yield "wrote its first rows"
        folder.last.write_text("new")
        yield "wrote its first checkpoint"
        folder.keep()
        yield "kept"


@pytest.mark.parametrize("until", [1, 2, 3, 4])
def test_one_whole_run_is_left_wherever_the_new_one_ends(tmp_path: Path, until: int) -> None:
    before = old_run(tmp_path)
    run = steps(replacing(tmp_path))
    for _ in range(until):
        next(run)
    run.close()
    if until < 3:
        assert content(tmp_path) == before
    else:
        assert set(content(tmp_path).values()) == {b"new"}
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


@pytest.mark.parametrize("until", [1, 2, 3, 4])
def test_one_whole_run_is_left_wherever_the_new_one_is_killed(tmp_path: Path, until: int) -> None:
    before = old_run(tmp_path)
    child = os.fork()
    if child == 0:
        run = steps(replacing(tmp_path))
        for _ in range(until):
            next(run)
        os.kill(os.getpid(), signal.SIGKILL)
    os.waitpid(child, 0)
    recover(tmp_path / "x")
    if until < 3:
        assert content(tmp_path) == before
    else:
        assert set(content(tmp_path).values()) == {b"new"}
    with pytest.raises(InputError, match="x exists; choose another"):
        RunFolder.choose(tmp_path, "x", "default")


def test_what_a_run_leaves_that_was_killed_in_its_first_round_is_no_run(tmp_path: Path) -> None:
    (tmp_path / "x" / "checkpoints").mkdir(parents=True)
    (tmp_path / "x" / "checkpoints" / ".fedmer-0123.new").touch()
    folder = RunFolder.choose(tmp_path, "x", "default")
    assert not folder.replace
    with folder:
        assert not list((tmp_path / "x" / "checkpoints").iterdir())
    assert list(tmp_path.iterdir()) == []


def test_a_run_that_fails_or_is_refused_leaves_the_old_one(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fit(*more: str) -> int:
        small = ("--data.path", str(corpus_file), "--network.hidden", "8", "--network.heads", "2")
        name = ("--name", "x", "--overwrite", "--trainer.max_epochs", "1")
        return main(["fit", *small, "--partitioner.clients", "4", *name, *more])

    before = old_run(here / "runs")
    assert fit("--trainer.max_epochs", "0") == 2
    assert fit("--local.batch_size", "0") == 2
    with mock.patch.object(FederatedLoop, "finish", side_effect=InputError("no round today")):
        assert fit("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "runs/x") == 2
    assert "no round today" in capsys.readouterr().err
    assert content(here / "runs") == before
    assert fit("--trainer.logger", "CSVLogger", "--trainer.logger.save_dir", "runs/x") == 0
    assert not any(value.startswith(b"old") for value in content(here / "runs").values())
    assert (here / "runs" / "x" / "result.json").exists()
    assert list((here / "runs" / "x").rglob("lightning_logs/version_0/metrics.csv"))
    assert [p.name for p in (here / "runs").iterdir()] == ["x"]
