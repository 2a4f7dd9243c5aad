"""Other frameworks, each in an environment of its own that ``setup.sh`` makes."""

import json
import os
import subprocess
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from benchmarks.workloads import Cohort

HERE = Path(__file__).parent
PEERS = {"Flower 1.41, two actors": "flower", "pfl 0.6": "pfl"}
"""Title -> name of its environment and script."""


@dataclass(frozen=True)
class PeerRun:
    """What one run of a peer took.

    Args:
        first: Seconds of its first round.
        rounds: Seconds of every later round.
        start: Seconds that were no round: imports, data, starting actors, stopping them.
        memory: Megabytes of the largest process that trains, at the most.
        weights: Name -> tensor, after the last round.
    """

    first: float
    rounds: list[float]
    start: float
    memory: float
    weights: dict[str, Tensor]


def interpreter(peer: str) -> Path:
    """That of a peer's environment."""
    return HERE / f".venv-{peer}" / "bin" / "python"


def installed() -> dict[str, str]:
    """The peers whose environments are there."""
    return {title: peer for title, peer in PEERS.items() if interpreter(peer).exists()}


def run_peer(peer: str, workload: str, cohort: Cohort, rounds: int) -> PeerRun:
    """A fresh process of a peer over one row's clients."""
    with tempfile.TemporaryDirectory() as folder:
        weights = Path(folder) / "weights.pt"
        sizes = ["--workload", workload, "--cohort", str(cohort), "--rounds", str(rounds)]
        command = [str(interpreter(peer)), str(HERE / f"{peer}_rounds.py"), *sizes]
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--weights", str(weights)],
            check=True,
            capture_output=True,
            text=True,
            env={**os.environ, "PYTHONPATH": str(HERE.parents[1]), "OMP_NUM_THREADS": "1"},
        )
        took = time.perf_counter() - began
        found = json.loads(done.stdout.splitlines()[-1])
        return PeerRun(
            first=found["first"],
            rounds=found["rounds"],
            start=took - found["first"] - sum(found["rounds"]),
            memory=found["memory"],
            weights=torch.load(weights),
        )
