"""Sweeps that really train: forked trials, interrupted ones, and what is refused beforehand."""

import csv
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from fedmer.__main__ import main
from fedmer.record.record import read_rows
from fedmer.sweep.file import read
from fedmer.sweep.processes import ask, start_server
from fedmer.sweep.run import Sweep
from tests.documented import SWEEPS
from tests.offline import read_offline

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parent.parent.parent
SMALL = [
    *("--network.hidden", "8", "--network.heads", "2", "--partitioner.clients", "8"),
    *("--trainer.max_epochs", "1"),
]


def sweep(here: Path, corpus: Path, parameters: dict[str, Any], *more: str) -> Path:
    path = here / "s.yaml"
    content = {
        "method": "grid",
        "parameters": parameters,
        "command": ["fedmer", "fit", "--data.path", str(corpus), *SMALL, "${args}", *more],
    }
    path.write_text(yaml.safe_dump(content, sort_keys=False))
    return path


def table(here: Path) -> dict[str, dict[str, str]]:
    with (here / "runs" / "s" / "trials.csv").open(newline="") as file:
        return {row["trial"]: row for row in csv.DictReader(file)}


def weights_and_scores(run: Path) -> list[dict[str, str]]:
    rows = read_rows(run / "metrics.csv")
    for row in rows:
        row.pop("seconds")
    return rows


@pytest.mark.parametrize(
    ("parameters", "said"),
    [
        ({"agregator": {"value": "FedAvg"}}, "unknown parameter 'agregator'; did you mean 'agg"),
        ({"trainer.max_epocks": {"value": 1}}, "did you mean 'trainer.max_epochs'?"),
        (
            {"aggregator": {"value": "FedProx"}, "aggregator.mo": {"value": 1}},
            "unknown parameter 'aggregator.mo'; did you mean 'aggregator.mu'?",
        ),
        ({"network.hiden": {"values": [8, 9]}}, "did you mean 'network.hidden'?"),
        ({"aggregator": {"values": ["FedAvg", "FedProks"]}}, "did you mean 'FedProx'?"),
        ({"local.epochs": {"values": [1, 2, "x"]}}, "parameter 'local.epochs': local.epochs is"),
        ({"config": {"values": ["gone.yaml"]}}, "parameter 'config': "),
        ({"name": {"values": ["a"]}}, "parameter 'name' is set by the sweep; remove it."),
    ],
)
def test_arguments_are_checked_before_anything_runs(
    here: Path,
    corpus_file: Path,
    capfd: pytest.CaptureFixture[str],
    parameters: dict[str, Any],
    said: str,
) -> None:
    seeds = {"seed_everything": {"values": [0, 1]}}
    path = sweep(here, corpus_file, {**seeds, **parameters})
    assert main(["sweep", str(path)]) == 2
    error = capfd.readouterr().err
    assert f"fedmer: error: {path}: " in error
    assert said in error
    assert [p.name for p in here.iterdir()] == ["s.yaml"]


def test_a_bad_option_of_the_command_or_behind_the_dashes_is_named(
    here: Path, corpus_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = sweep(here, corpus_file, {"seed_everything": {"values": [0, 1]}})
    assert main(["sweep", str(path), "--", "--nonsense", "1"]) == 2
    assert "the options after --: unknown option --nonsense; " in capfd.readouterr().err
    path.write_text(path.read_text().replace("--network.heads", "--network.haeds"))
    assert main(["sweep", str(path)]) == 2
    error = capfd.readouterr().err
    assert "s.yaml: command: " in error
    assert "haeds" in error


def test_trials_are_the_runs_that_fit_makes(
    here: Path, corpus_file: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (here / "prox.yaml").write_text("aggregator:\n  class_path: FedProx\n")
    # Only making the rule shows that its mu cannot be used.
    parameters = {"config": {"value": "prox.yaml"}, "aggregator.mu": {"values": [0.5, -1.0, 0.0]}}
    path = sweep(here, corpus_file, parameters)
    assert main(["sweep", str(path), "--jobs", "2"]) == 1
    assert "fedmer: error: mu is -1.0; expected 0 or more." in capfd.readouterr().out
    rows = table(here)
    assert [row["status"] for row in rows.values()] == ["finished", "failed", "finished"]
    assert rows["mu=-1"]["exit_code"] == "2"

    plain = ["--config", "prox.yaml", "--aggregator.mu", "0.5", "--name", "plain"]
    assert main(["fit", "--data.path", str(corpus_file), *SMALL, *plain]) == 0
    trial = here / "runs" / "s" / "mu=0.5"
    assert weights_and_scores(trial) == weights_and_scores(here / "runs" / "plain")
    last = read_rows(trial / "metrics.csv")[-1]
    assert rows["mu=0.5"]["last_test_weighted_f1"] == last["test_weighted_f1"]
    assert rows["mu=0.5"]["bytes_up"] == last["bytes_up"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGKILL])
def test_an_interrupted_sweep_goes_on_and_is_the_unbroken_one(
    here: Path, corpus_file: Path, stop: signal.Signals
) -> None:
    more = ("--local.epochs", "4", "--trainer.max_epochs", "4")
    path = sweep(here, corpus_file, {"seed_everything": {"values": [0, 1]}}, *more)
    process = subprocess.Popen(
        [sys.executable, "-m", "fedmer", "sweep", str(path)],
        env={**os.environ, "OMP_NUM_THREADS": "1"},
        start_new_session=True,
        stderr=subprocess.DEVNULL,
    )
    trial = here / "runs" / "s" / "seed_everything=0"
    record = trial / "metrics.csv"
    deadline = time.monotonic() + 240
    while not (record.exists() and len(read_rows(record)) >= 2):
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.02)
    process.send_signal(stop)
    assert process.wait(timeout=120) == (130 if stop == signal.SIGINT else -signal.SIGKILL)
    # A killed sweep cannot end its trial, which notices by itself.
    while str(trial).encode() in running(here) or b"forkserver" in running(here):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    assert not (trial / "result.json").exists()

    assert main(["sweep", str(path)]) == 0
    log = (here / "runs" / "s" / "seed_everything=0.log").read_text()
    commands = [line for line in log.splitlines() if line.startswith("$ ")]
    assert len(commands) == 2
    assert commands[1].endswith("--ckpt_path runs/s/seed_everything=0/checkpoints/last.ckpt")
    assert main(["sweep", str(path), "--runs", "straight"]) == 0
    for seed in (0, 1):
        one, other = (
            here / runs / "s" / f"seed_everything={seed}" for runs in ("runs", "straight")
        )
        assert weights_and_scores(one) == weights_and_scores(other)
        assert len(weights_and_scores(one)) == 4


def running(here: Path) -> bytes:
    """The command lines of all processes that work in the folder."""
    lines = []
    for process in Path("/proc").glob("[0-9]*"):
        if int(process.name) == os.getpid():
            continue
        try:
            if (process / "cwd").readlink() == here:
                lines.append((process / "cmdline").read_bytes())
        except OSError:
            continue
    return b"\n".join(lines)


def test_a_damaged_checkpoint_is_started_over(here: Path, corpus_file: Path) -> None:
    path = sweep(here, corpus_file, {"seed_everything": {"values": [0]}})
    assert main(["sweep", str(path)]) == 0
    trial = here / "runs" / "s" / "trial"
    before = weights_and_scores(trial)
    (trial / "result.json").unlink()
    (trial / "checkpoints" / "last.ckpt").write_bytes(b"cut short")
    record = here / "runs" / "s" / "trial.json"
    record.write_text(record.read_text().replace('"finished"', '"interrupted"'))
    assert main(["sweep", str(path)]) == 0
    assert weights_and_scores(trial) == before
    assert (trial / "result.json").exists()


def test_wandb_runs_are_offline_and_in_the_sweeps_folder(here: Path, corpus_file: Path) -> None:
    parameters = {"seed_everything": {"values": [0, 1]}}
    path = sweep(here, corpus_file, parameters, "--trainer.logger", "WandbLogger")
    path.write_text(path.read_text() + "name: gathered together\n")
    assert main(["sweep", str(path)]) == 0
    runs = list((here / "runs/gathered_together/wandb").glob("offline-run-*/run-*.wandb"))
    assert len(runs) == 2
    for seed, run in enumerate(sorted(map(read_offline, runs), key=lambda run: run.name)):
        name = f"seed_everything={seed}"
        assert (run.group, run.name, run.tags) == ("gathered together", name, (name,))
        assert run.config["seed_everything"] == seed
        assert run.config["network"]["init_args"]["hidden"] == 8
        assert [row["round"] for row in run.rows if "round" in row] == [1]
        assert run.summary["last_round"] == 1
    assert not (here / "wandb").exists()


@pytest.mark.parametrize("path", SWEEPS, ids=str)
def test_fit_takes_the_arguments_of_shipped_sweeps(
    monkeypatch: pytest.MonkeyPatch, path: Path
) -> None:
    monkeypatch.chdir(ROOT)
    sweep = Sweep(read(path), Path("nowhere"))
    sweep.settle()
    start_server()
    assert ask(sweep.questions()) is None
