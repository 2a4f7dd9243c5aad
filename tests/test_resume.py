"""A run that was stopped goes on as if it had not been."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from fedmer.__main__ import main
from fedmer.record.record import read_rows

SMALL = [
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8"),
    *("--local.optimizer_state", "keep", "--selector", "Uniform"),
]


def arguments(corpus: Path, name: str, rounds: int, *more: str) -> list[str]:
    return [
        *("fit", "--data.path", str(corpus), "--name", name),
        *("--trainer.max_epochs", str(rounds), *SMALL, *more),
    ]


def checkpoint(run: str, which: str = "last") -> dict[str, Any]:
    path = Path("runs") / run / "checkpoints" / f"{which}.ckpt"
    content: dict[str, Any] = torch.load(path, weights_only=True)
    return content


def assert_equal(one: Any, other: Any, where: str = "checkpoint") -> None:
    assert type(one) is type(other), where
    if isinstance(one, torch.Tensor):
        assert torch.equal(one, other), where
    elif isinstance(one, dict):
        assert one.keys() == other.keys(), where
        for key in one:
            assert_equal(one[key], other[key], f"{where}.{key}")
    elif isinstance(one, list):
        assert len(one) == len(other), where
        for index, (left, right) in enumerate(zip(one, other, strict=True)):
            assert_equal(left, right, f"{where}.{index}")
    else:
        assert one == other, where


def assert_same_run(one: str, other: str) -> None:
    """Weights, optimizers, prototypes, personal networks and the record are equal bit for bit."""
    left, right = checkpoint(one), checkpoint(other)
    for key in ("state_dict", "optimizer_states", "fedmer", "global_step", "epoch"):
        assert_equal(left[key], right[key], key)
    for file in ("metrics.csv", "clients.csv"):
        rows = [read_rows(Path("runs") / run / file) for run in (one, other)]
        for row in (*rows[0], *rows[1]):
            row.pop("seconds", None)
        assert rows[0] == rows[1]


@pytest.mark.parametrize(
    "rule",
    [
        *("FedAvg", "FedProto", "SCAFFOLD"),
        *(
            pytest.param(r, marks=pytest.mark.slow)
            for r in ("Local", "FedAdam", "FedTGP", "FedProc")
        ),
    ],
)
def test_resumed_run_is_the_unbroken_run(here: Path, corpus_file: Path, rule: str) -> None:
    more = ("--aggregator", rule)
    assert main(arguments(corpus_file, "straight", 3, *more)) == 0
    assert main(arguments(corpus_file, "broken", 1, *more)) == 0
    last = "runs/broken/checkpoints/last.ckpt"
    assert main(arguments(corpus_file, "broken", 3, *more, "--ckpt_path", last)) == 0
    assert_same_run("straight", "broken")


@pytest.mark.parametrize(
    ("stop", "code"), [(signal.SIGTERM, 143), (signal.SIGKILL, -signal.SIGKILL)]
)
def test_a_run_survives_being_killed(
    here: Path, corpus_file: Path, stop: signal.Signals, code: int
) -> None:
    more = ("--local.epochs", "3")
    assert main(arguments(corpus_file, "straight", 5, *more)) == 0
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmer", *arguments(corpus_file, "killed", 5, *more)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        stdout=subprocess.DEVNULL,
    )
    record = here / "runs" / "killed" / "metrics.csv"
    deadline = time.monotonic() + 120
    while not (record.exists() and len(read_rows(record)) >= 2):
        assert process.poll() is None, "the run ended before it could be stopped"
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    assert process.wait(timeout=60) == code
    assert len(read_rows(record)) < 5
    assert not (here / "runs" / "killed" / "result.json").exists()
    last = "runs/killed/checkpoints/last.ckpt"
    # Without a name, a checkpoint's own run is continued.
    again = [a for a in arguments(corpus_file, "", 5, *more, "--ckpt_path", last) if a]
    again.remove("--name")
    assert main(again) == 0
    assert_same_run("straight", "killed")
    assert [p.name for p in (here / "runs").iterdir() if p.name not in ("straight", "killed")] == []


def test_a_checkpoint_beyond_the_last_round_is_refused(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments(corpus_file, "done", 2)) == 0
    last = "runs/done/checkpoints/last.ckpt"
    assert main(arguments(corpus_file, "done", 1, "--ckpt_path", last)) == 2
    assert "The checkpoint has 2 rounds behind it" in capsys.readouterr().err


@pytest.mark.parametrize("damage", ["cut", "text", "foreign"])
def test_a_bad_checkpoint_is_refused_and_nothing_changes(
    here: Path, corpus_file: Path, capsys: pytest.CaptureFixture[str], damage: str
) -> None:
    assert main(arguments(corpus_file, "run", 1)) == 0
    last = here / "runs" / "run" / "checkpoints" / "last.ckpt"
    bad = here / "bad.ckpt"
    if damage == "cut":
        bad.write_bytes(last.read_bytes()[:2000])
    elif damage == "text":
        bad.write_text("not a checkpoint")
    else:
        torch.save({"state_dict": {}}, bad)
    before = {p: p.read_bytes() for p in (here / "runs").rglob("*") if p.is_file()}
    assert main(arguments(corpus_file, "run", 2, "--ckpt_path", str(bad))) == 2
    said = capsys.readouterr().err
    assert ("is not a checkpoint of fedmer" if damage == "foreign" else "cannot be read") in said
    assert {p: p.read_bytes() for p in (here / "runs").rglob("*") if p.is_file()} == before


@pytest.mark.parametrize(
    ("more", "words"),
    [
        (["--aggregator", "Local"], "made with aggregator Distance, but this run has Local"),
        (["--network.hidden", "16"], "network has other sizes than this run's"),
        (["--partitioner.clients", "7"], "8 clients hold other dialogues than this run's 7"),
        (["--seed_everything", "1"], "hold other dialogues than this run's"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    here: Path,
    corpus_file: Path,
    capsys: pytest.CaptureFixture[str],
    more: list[str],
    words: str,
) -> None:
    assert main(arguments(corpus_file, "run", 1)) == 0
    before = {p: p.read_bytes() for p in (here / "runs").rglob("*") if p.is_file()}
    last = "runs/run/checkpoints/last.ckpt"
    assert main(arguments(corpus_file, "run", 2, "--ckpt_path", last, *more)) == 2
    assert words in capsys.readouterr().err
    assert {p: p.read_bytes() for p in (here / "runs").rglob("*") if p.is_file()} == before
