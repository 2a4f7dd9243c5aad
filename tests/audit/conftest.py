"""Runs that several attacks are made on."""

from collections.abc import Callable
from pathlib import Path

import pytest

from fedmer.__main__ import main
from fedmer.audit.restore import restore
from fedmer.audit.subject import Subject
from fedmer.report.collect import collect

SMALL = [
    *("--network.hidden", "16", "--network.heads", "2", "--network.dropout", "0"),
    *("--partitioner.clients", "4", "--loss.calibration", "none"),
    *("--trainer.enable_progress_bar", "false"),
]

Fit = Callable[..., Path]


@pytest.fixture(scope="session")
def fit(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Fit:
    """Train a small federation; returns its folder."""
    runs = tmp_path_factory.mktemp("runs")

    def run(name: str, *more: str) -> Path:
        if not (runs / name).exists():
            given = ["--data.path", str(corpus_file), "--runs", str(runs), "--name", name]
            assert main(["fit", *given, *SMALL, *more]) == 0
        return runs / name

    return run


@pytest.fixture(scope="session")
def plain(fit: Fit) -> Path:
    """A run that has learnt almost nothing; tests must not change it."""
    idle = ("--optimizer.lr", "1e-7", "--trainer.max_epochs", "1")
    return fit("plain", "--aggregator", "FedAvg", *idle)


def subject_of(run: Path, rounds: int = 1) -> Subject:
    """A run of :func:`fit`, to be attacked."""
    return restore(collect([run]).runs[0], rounds)
