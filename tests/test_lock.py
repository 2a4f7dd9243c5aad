"""One process at a time records a run, and a dead one is in nobody's way."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.report.record import read_rows
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


def test_a_hang_up_ends_a_run_as_sigterm_does(here: Path, corpus_file: Path) -> None:
    process = start(words(corpus_file, "--trainer.max_epochs", "500"))
    rows = here / "runs" / "x" / "metrics.csv"
    wait_for_rounds(process, rows, 1)
    process.send_signal(signal.SIGHUP)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 128 + signal.SIGHUP
    assert b"Go on with\n  fedmer fit --config runs/x/config.yaml" in said
    assert b"Traceback" not in said
