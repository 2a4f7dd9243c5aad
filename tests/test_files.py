"""Files are the old ones or the new ones, and one process at a time may write."""

import errno
import os
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.files import (
    SHARED,
    FolderLock,
    TemporaryFolder,
    append,
    make_private,
    remove_leftovers,
    replacing,
)
from tests.faults import failing_from


@contextmanager
def written(path: Path, how: str) -> Iterator[None]:
    with replacing(path) as file:
        if how == "bytes":
            file.write(b"new" * 1000)
        elif how == "arrays":
            np.savez(file, new=np.arange(1000))
        else:
            torch.save({"new": torch.arange(1000)}, file)
    yield


def write(path: Path, how: str) -> None:
    with written(path, how):
        pass


@pytest.mark.parametrize("how", ["bytes", "arrays", "torch"])
def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path: Path, how: str) -> None:
    path = tmp_path / "file"
    steps = 0
    while True:
        path.write_text("old")
        with failing_from(steps) as failed:
            try:
                write(path, how)
            except InputError as error:
                assert "No space left on device; make room there" in str(error)  # noqa: PT017
        if not failed:
            break
        # Only the flush of the folder comes after the renaming.
        assert path.read_bytes() == b"old" or failed == ["flush folder"], failed
        assert list(tmp_path.iterdir()) == [path], failed
        steps += 1
    assert steps >= 4  # opened, written, flushed, renamed
    assert path.read_bytes() != b"old"


def test_what_is_not_an_error_of_the_system_stays_as_it_is(tmp_path: Path) -> None:
    path = tmp_path / "file"
    path.write_text("old")

    def fail() -> None:
        with replacing(path) as file:
            file.write(b"new")
            raise RuntimeError("mine")

    with pytest.raises(RuntimeError, match="mine"):
        fail()
    assert (path.read_text(), list(tmp_path.iterdir())) == ("old", [path])


def test_a_failed_append_adds_nothing(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    append(path, "one\n")
    for step in range(3):
        with failing_from(step) as failed, pytest.raises(InputError, match="cannot be written"):
            append(path, "two\n")
        assert failed
        assert path.read_text() == "one\n"
    append(path, "two\n")
    assert path.read_text() == "one\ntwo\n"


def test_a_full_disk_is_a_sentence_whatever_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def full(kind: str) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), "runs/x/events")

    monkeypatch.setattr("fedmer.plugins.registry.plugins", full)
    assert main(["plugins"]) == 2
    said = "fedmer: error: runs/x/events cannot be written: No space left on device; make room"
    assert said in capsys.readouterr().err


def test_leftovers_of_a_killed_process_are_removed(tmp_path: Path) -> None:
    script = "import os, pathlib, sys; from fedmer.files import replacing\n"
    script += "with replacing(pathlib.Path(sys.argv[1])) as f: os.kill(os.getpid(), 9)"
    killed = subprocess.run([sys.executable, "-c", script, str(tmp_path / "x")], check=False)
    assert killed.returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    (tmp_path / "mine").touch()
    remove_leftovers(tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["mine"]


def lock(folder: Path) -> FolderLock:
    return FolderLock(folder / ".lock", "runs/x", "wait for it")


def test_a_second_owner_is_told_of_the_first(tmp_path: Path) -> None:
    said = rf"runs/x is in use by process {os.getpid()} on '.+' since 20..-.+; wait for it\."
    with lock(tmp_path):
        with pytest.raises(InputError, match=said), lock(tmp_path):
            raise AssertionError
        with pytest.raises(InputError, match=said):
            lock(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    lock(tmp_path).check()
    assert list(tmp_path.iterdir()) == []
    (tmp_path / ".lock").write_text("of somebody who was killed")
    with lock(tmp_path):
        pass
    (tmp_path / "sub").touch()
    with pytest.raises(InputError, match="cannot be written"), lock(tmp_path / "sub"):
        raise AssertionError


def test_a_forked_process_does_not_keep_the_lock(tmp_path: Path) -> None:
    ready, go = os.pipe(), os.pipe()
    with lock(tmp_path):
        child = os.fork()
        if child == 0:
            os.write(ready[1], b"x")
            os.read(go[0], 1)
            os._exit(0)
        os.read(ready[0], 1)
    try:
        with lock(tmp_path):
            pass
    finally:
        os.write(go[1], b"x")
        os.waitpid(child, 0)


def test_folder_of_a_killed_process_goes_with_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    script = "import sys, time; from fedmer.files import TemporaryFolder; f = TemporaryFolder()\n"
    script += "(f.path / 'spool').write_text('x'); print('ready', flush=True); time.sleep(600)"
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        env={**os.environ, "TMPDIR": str(tmp_path)},
    )
    assert process.stdout is not None
    process.stdout.readline()
    mine = TemporaryFolder()
    assert len(list(tmp_path.iterdir())) == 2, "one in use was removed"
    process.kill()
    process.wait()
    process.stdout.close()
    other = TemporaryFolder()
    assert set(tmp_path.iterdir()) == {mine.path, other.path}
    mine.close()
    del other
    assert list(tmp_path.iterdir()) == []


def test_private_is_private_whatever_the_umask(tmp_path: Path) -> None:
    mask = os.umask(0)
    try:
        make_private(tmp_path / "above" / "own")
        append(tmp_path / "rows", "1\n")
        with replacing(tmp_path / "new") as file:
            file.write(b"1")
        with replacing(tmp_path / "shared", SHARED) as file:
            file.write(b"1")
        (tmp_path / "group").mkdir(0o750)
        make_private(tmp_path / "group")
    finally:
        os.umask(mask)
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.rglob("*")}
    assert modes == {
        **{"above": 0o777, "own": 0o700, "group": 0o750},
        **{"rows": 0o600, "new": 0o600, "shared": 0o666},
    }
