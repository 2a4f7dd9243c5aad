"""What many tests start from."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from hypothesis import settings

from fedmer.__main__ import main
from fedmer.data.formats.native import write
from tests.federations import small_corpus

# How long one example takes says more of the machine than of the code.
settings.register_profile("fedmer", deadline=None)
settings.load_profile("fedmer")


@pytest.fixture(autouse=True)
def one_thread() -> None:
    """Two threads of a small product only get in each other's way."""
    torch.set_num_threads(1)


@pytest.fixture(autouse=True)
def no_flush(monkeypatch: pytest.MonkeyPatch) -> None:
    """Waiting for the disk takes minutes in all, and no test pulls the plug."""
    monkeypatch.setattr(os, "fsync", lambda descriptor: None)


@pytest.fixture(scope="session")
def corpus_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A native corpus of twenty short dialogues; tests must not change it."""
    path = tmp_path_factory.mktemp("corpus") / "small.npz"
    write(small_corpus(), path)
    return path


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working folder."""
    monkeypatch.chdir(tmp_path)
    return tmp_path


SMALL = [
    *("--network.hidden", "16", "--network.heads", "2", "--network.dropout", "0"),
    *("--partitioner.clients", "4", "--loss.calibration", "none"),
    *("--trainer.enable_progress_bar", "false"),
]


@pytest.fixture(scope="session")
def fit(corpus_file: Path, tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """Train a small federation; returns its folder."""
    runs = tmp_path_factory.mktemp("runs")

    def run(name: str, *more: str) -> Path:
        if not (runs / name).exists():
            given = ["--data.path", str(corpus_file), "--runs", str(runs), "--name", name]
            assert main(["fit", *given, *SMALL, *more]) == 0
        return runs / name

    return run


@pytest.fixture(scope="session")
def plain(fit: Callable[..., Path]) -> Path:
    """A run that has learnt almost nothing; tests must not change it."""
    idle = ("--optimizer.lr", "1e-7", "--trainer.max_epochs", "1")
    return fit("plain", "--aggregator", "FedAvg", *idle)
