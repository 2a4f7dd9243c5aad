"""Whatever happens while a checkpoint is written, the one before is whole."""

import errno
import resource
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmer.__main__ import main
from fedmer.checkpoint_entries import check_checkpoint
from fedmer.errors import InputError
from fedmer.record.checkpoints import WholeCheckpoints
from tests.faults import failing_from
from tests.test_resume import SMALL, assert_same_run


def saved(number: int) -> dict[str, Any]:
    return {"fedmer": {}, "state_dict": {"weights": torch.full((50_000,), float(number))}}


def number_of(path: Path) -> float:
    content = torch.load(path, weights_only=True)
    return float(content["state_dict"]["weights"][-1])


def test_the_last_checkpoint_loads_whichever_step_of_writing_the_next_fails(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    elsewhere = tmp_path / "temporary"
    elsewhere.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(elsewhere))
    path = tmp_path / "checkpoints" / "last.ckpt"
    files = WholeCheckpoints()
    files.save_checkpoint(saved(0), path)
    step = 0
    while True:
        with failing_from(step) as failed:
            try:
                files.save_checkpoint(saved(1), path)
            except InputError as error:
                assert "last.ckpt cannot be written: No space left" in str(error)  # noqa: PT017
        if not failed:
            break
        # Renamed, it is the new one, though the folder could not be flushed.
        assert number_of(path) == float(failed == ["flush folder"]), failed
        files.save_checkpoint(saved(0), path)
        assert [p.name for p in path.parent.iterdir()] == ["last.ckpt"]
        step += 1
    assert step > 10  # torch writes in many pieces
    assert list(elsewhere.iterdir()) == []
    assert number_of(path) == 1.0


def test_a_file_that_may_not_grow_leaves_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "last.ckpt"
    files = WholeCheckpoints()
    files.save_checkpoint(saved(0), path)
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(InputError, match="File too large; make room there"):
            files.save_checkpoint(saved(1), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert number_of(path) == 0.0
    assert list(tmp_path.iterdir()) == [path]


@pytest.fixture
def small_disk(here: Path) -> Iterator[Path]:
    """A file system of a megabyte as the folder of runs, apart from the temporary folder."""
    runs = here / "runs"
    runs.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(runs)]
    if shutil.which("mount") is None or subprocess.run(command, capture_output=True).returncode:
        pytest.skip("a small file system can be mounted by root only")
    yield runs
    subprocess.run(["umount", str(runs)], check=True)


def fit(corpus: Path, name: str, *more: str) -> int:
    rounds = ("--trainer.max_epochs", "3", "--partitioner.clients", "8")
    return main(["fit", "--data.path", str(corpus), "--name", name, *SMALL, *rounds, *more])


@pytest.mark.slow
def test_a_run_goes_on_when_there_is_room_again(
    small_disk: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "straight") == 0
    whole = sum(p.stat().st_size for p in (small_disk / "straight").rglob("*") if p.is_file())
    shutil.move(small_disk / "straight", small_disk.parent / "straight")
    ended = []
    # Up to thrice the room that a run takes, as each checkpoint is written beside the one before.
    for share in range(1, 26, 3):
        with (small_disk / "other").open("wb") as other:
            other.write(bytes(max(0, (1 << 20) - whole * share // 8)))
        code = fit(corpus_file, "full")
        said = capsys.readouterr().err
        ended.append(code)
        last = small_disk / "full" / "checkpoints" / "last.ckpt"
        (small_disk / "other").unlink()
        if code:
            assert code == 2
            assert "No space left on device; make room there and try again." in said
            assert "Traceback" not in said
            again = ("--ckpt_path", str(last)) if last.exists() else ("--overwrite",)
            if last.exists():
                check_checkpoint(last)
                assert f"--ckpt_path {last.relative_to(Path.cwd())}" in said
            assert fit(corpus_file, "full", *again) == 0
        assert_same_run(str(small_disk.parent / "straight"), "full")
        assert not list(small_disk.rglob(".*"))
        shutil.rmtree(small_disk / "full")
    assert {0, 2} == set(ended)


@pytest.mark.slow
def test_a_run_goes_on_after_any_write_that_fails(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert fit(corpus_file, "straight") == 0
    step = 0
    while True:
        with failing_from(step, code=errno.EIO) as failed:
            ended = fit(corpus_file, "x")
        said = capsys.readouterr().err
        if not failed:
            break
        assert ended == 2, failed
        assert "cannot be written" in said
        assert "Traceback" not in said
        last = here / "runs" / "x" / "checkpoints" / "last.ckpt"
        again = ("--ckpt_path", str(last)) if last.exists() else ("--overwrite",)
        assert fit(corpus_file, "x", *again) == 0
        assert_same_run("straight", "x")
        shutil.rmtree(here / "runs" / "x")
        step += 997  # of several thousand, as torch writes in small pieces
    assert step > 5000
