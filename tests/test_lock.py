"""One process at a time records a run, and a dead one is in nobody's way."""

import os
import pty
import select
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

from fedmer.__main__ import main
from fedmer.loop import FederatedLoop
from fedmer.record.record import read_rows
from tests.test_resume import SMALL


def words(corpus: Path, *more: str) -> list[str]:
    return ["fit", "--data.path", str(corpus), "--name", "x", *SMALL, *more]


def start(arguments: list[str]) -> "subprocess.Popen[bytes]":
    return subprocess.Popen(
        [sys.executable, "-m", "fedmer", *arguments],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        start_new_session=True,
    )


def wait_for_rounds(process: "subprocess.Popen[bytes]", rows: Path, rounds: int) -> None:
    deadline = time.monotonic() + 120
    while not (rows.exists() and len(read_rows(rows)) >= rounds):
        assert process.poll() is None, process.stderr and process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_second_run_is_refused_and_a_killed_one_is_resumed_while_its_workers_live(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    more = ("--executor", "Workers", "--executor.workers", "2", "--trainer.max_epochs", "500")
    first = start(words(corpus_file, *more))
    rows = here / "runs" / "x" / "metrics.csv"
    last = "runs/x/checkpoints/last.ckpt"
    try:
        wait_for_rounds(first, rows, 2)
        said = f"x is in use by process {first.pid} on "
        for again in ((), ("--overwrite",), ("--ckpt_path", last)):
            assert main(words(corpus_file, "--trainer.max_epochs", "1", *again)) == 2
            assert said in capsys.readouterr().err, again
        unnamed = [word for word in words(corpus_file, "--ckpt_path", last) if word != "x"]
        unnamed.remove("--name")
        assert main(unnamed) == 2
        assert said in capsys.readouterr().err
        assert first.poll() is None
        workers = children(first.pid)
        assert len(workers) == 2
        for worker in workers:
            # So that they cannot notice in time that they are alone.
            os.kill(worker, signal.SIGSTOP)
    finally:
        first.kill()
        first.wait()
    try:
        done = len(read_rows(rows))
        more = ("--trainer.max_epochs", str(done + 1), "--ckpt_path", last)
        assert main(words(corpus_file, *more)) == 0
        numbers = [int(row["round"]) for row in read_rows(rows)]
        assert numbers == list(range(1, len(numbers) + 1))
    finally:
        for worker in workers:
            os.kill(worker, signal.SIGKILL)


def children(pid: int) -> list[int]:
    found = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [int(child) for child in found]


def test_a_terminal_that_hangs_up_ends_a_run_as_sigterm_does(here: Path, corpus_file: Path) -> None:
    pid, terminal = pty.fork()
    if pid == 0:
        # More rounds than there is time for; the terminal takes its output.
        command = [sys.executable, "-m", "fedmer", *words(corpus_file)]
        os.execv(sys.executable, [*command, "--trainer.max_epochs", "5000"])
    rows = here / "runs" / "x" / "metrics.csv"
    said = b""
    while not (rows.exists() and len(read_rows(rows)) >= 1):
        assert select.select([terminal], [], [], 120)[0], said
        said += os.read(terminal, 4096)
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 128 + signal.SIGHUP
    done = len(read_rows(rows))
    last = "runs/x/checkpoints/last.ckpt"
    assert not list((here / "runs").rglob(".*"))
    more = ("--trainer.max_epochs", str(done + 1), "--ckpt_path", last)
    assert main(words(corpus_file, *more)) == 0


def test_a_run_whose_folder_is_deleted_says_so(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish = FederatedLoop.finish

    def deleting(loop: FederatedLoop, *more: Any) -> Any:
        report = finish(loop, *more)
        if report.round == 1:
            shutil.rmtree("runs")
        return report

    with mock.patch.object(FederatedLoop, "finish", deleting):
        assert main(words(corpus_file, "--trainer.max_epochs", "3")) == 2
    said = capsys.readouterr().err
    assert "metrics.csv cannot be written: No such file or directory; see that its folder" in said
    assert "Traceback" not in said
