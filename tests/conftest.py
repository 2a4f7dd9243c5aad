"""What many tests start from."""

import os
from pathlib import Path

import pytest
import torch
from hypothesis import settings

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
