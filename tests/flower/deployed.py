"""A federation of real processes on this machine: a server, nodes, and runs over them."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmer.__main__ import main
from fedmer.commands.deploy import init
from fedmer.data.formats.native import write
from fedmer.data.synthetic import synthetic_corpus
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.processes import free_port
from fedmer.flower.node.policy import Policy
from fedmer.record.rows import read_rows

PATIENCE = 240.0
"""Seconds that anything may take; a busy machine starts twenty processes in them."""
CONFIGURATION = """\
network: {class_path: SDT, init_args: {hidden: 8, heads: 2}}
aggregator: FedAvg
data: {holdout: 0}
"""


def belonging_to(folder: Path) -> dict[int, str]:
    """Every living process that was started for a folder: its command or its variables say so."""
    found = {}
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            said = (entry / "cmdline").read_bytes() + (entry / "environ").read_bytes()
            if int(entry.name) != os.getpid() and os.fsencode(folder) in said:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
    return found


def until(holds: Callable[[], object], what: Callable[[], str], seconds: float = PATIENCE) -> None:
    """Wait for something to hold, and fail with what there is if it does not."""
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what()
        time.sleep(0.05)


class Command:
    """``fedmer ...`` in the background, with its output in a file."""

    def __init__(self, *words: object, output: Path, environment: Mapping[str, str]) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedmer", *map(str, words)],
                stdout=file,
                stderr=subprocess.STDOUT,
                cwd=output.parent,
                env={**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "1000", **environment},
            )

    def said(self) -> str:
        return self._output.read_text()

    def until_it_says(self, text: str) -> None:
        until(lambda: text in self.said() or self.process.poll() is not None, self.said)
        assert text in self.said()

    def ends(self, number: signal.Signals | None = None, seconds: float = PATIENCE) -> int:
        """Wait for its end, after a signal if one is named; returns the exit code."""
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(seconds)


class Deployed:
    """A federation that is up.

    Args:
        folder: Everything of it lies in there.
        nodes: How many.
        timeout: Seconds that a node may take for its part of a round.
    """

    def __init__(self, folder: Path, nodes: int, timeout: float) -> None:
        self.folder = folder
        self.timeout = timeout
        self.corpus = folder / "corpus.npz"
        self.configuration = folder / "run.yaml"
        self.configuration.write_text(CONFIGURATION)
        write(synthetic_corpus(dialogues=20, features={"text": 8, "audio": 6}), self.corpus)
        split = ["--partitioner", "SpeakerGroup", "--partitioner.clients", str(nodes)]
        assert main(["data", "split", str(self.corpus), str(folder / "files"), *split]) == 0
        self._split = split
        self.metrics = free_port()
        day = timedelta(days=1)
        now = datetime.now(UTC)
        self.federation: Federation = init(
            folder / "federation", nodes, "127.0.0.1", free_port(), now - day, now + 90 * day
        )
        for number in range(nodes):
            self.insist(number, Policy(secure_sum=False, smallest_cohort=min(3, nodes)))
        self._started: list[Command] = []
        shutil.copy(Path(__file__).with_name("faulty.py"), folder / "sitecustomize.py")
        for number in range(nodes):
            self.misbehave(number, {})
        self.nodes = [self.start_node(number) for number in range(nodes)]
        self.server = self.start_server()

    def wait(self) -> None:
        """Until all of it is up."""
        self.server.until_it_says("Server is ready")
        for node in self.nodes:
            node.until_it_says("is connected")

    def start_server(self) -> Command:
        where = ("--metrics", self.metrics)
        return self._start("deploy", "server", self.federation.folder, *where)

    def start_node(self, number: int) -> Command:
        folder = self.federation.node(f"node-{number}").folder
        path = os.pathsep.join(filter(None, (str(self.folder), os.environ.get("PYTHONPATH"))))
        variables = {"PYTHONPATH": path, "FEDMER_FAULTS": str(self._faults(number))}
        words = ("deploy", "node", folder, "--data", self.data(number))
        return self._start(*words, environment=variables)

    def data(self, number: int) -> Path:
        """The corpus of a node."""
        return self.folder / "files" / f"client-{number}.npz"

    def misbehave(self, number: int, faults: Mapping[str, str]) -> None:
        """What a node does wrong from its next message on; see ``faulty.py``."""
        self.reached(number).unlink(missing_ok=True)
        self._faults(number).write_text(json.dumps(faults))

    def insist(self, number: int, policy: Policy) -> None:
        """What a node takes part in from its next message on."""
        policy.write(self.federation.node(f"node-{number}").policy)

    def reached(self, number: int) -> Path:
        """A file that a node makes when it begins to hang."""
        return self._faults(number).with_suffix(".reached")

    def fit(self, name: str, rounds: int, *more: str) -> Command:
        """``fedmer fit`` over the nodes."""
        return self._start(
            *("fit", "--config", self.configuration, "--data.path", self.public),
            *("--executor", "Flower", "--executor.federation", self.federation.folder),
            *("--executor.timeout", self.timeout, "--trainer.max_epochs", rounds),
            *("--name", name, *more),
        )

    def go_on(self, name: str, rounds: int, *more: str) -> Command:
        """``fedmer fit`` from the last checkpoint of a run."""
        return self.fit(name, rounds, "--ckpt_path", str(self.last(name)), *more)

    def inline(self, name: str, rounds: int) -> Command:
        """The same run, of the whole corpus on this machine."""
        return self._start(
            *("fit", "--config", self.configuration, "--data.path", self.corpus, *self._split),
            *("--trainer.max_epochs", rounds, "--name", name),
        )

    @property
    def public(self) -> Path:
        """The dialogues that the server may see."""
        return self.folder / "files" / "public.npz"

    def last(self, name: str) -> Path:
        return self.folder / "runs" / name / "checkpoints" / "last.ckpt"

    def weights(self, name: str) -> dict[str, Tensor]:
        """The global network at the end of a run."""
        content: dict[str, Any] = torch.load(self.last(name), weights_only=True)
        return {
            key: value for key, value in content["state_dict"].items() if key.startswith("network.")
        }

    def rows(self, name: str, file: str = "metrics.csv") -> list[dict[str, str]]:
        """Of a file of a run; none if there is no such file yet."""
        path = self.folder / "runs" / name / file
        return read_rows(path) if path.exists() else []

    def failures(self, name: str) -> dict[tuple[int, int], str]:
        """Round and node -> why it has no part in it."""
        rows = self.rows(name, "failures.csv")
        return {(int(row["round"]), int(row["client"])): row["why"] for row in rows}

    def close(self) -> None:
        """End everything, and see that nothing is left."""
        for command in self._started:
            if command.process.poll() is None:
                command.process.send_signal(signal.SIGTERM)
        for command in self._started:
            with contextlib.suppress(subprocess.TimeoutExpired):
                command.ends(seconds=30)
        with contextlib.suppress(AssertionError):
            until(lambda: not belonging_to(self.folder), str, 15)
        left = belonging_to(self.folder)
        for number in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(number, signal.SIGKILL)
        assert not left

    def _start(self, *words: object, environment: Mapping[str, str] | None = None) -> Command:
        output = self.folder / f"{len(self._started)}-{words[0]}.out"
        self._started.append(Command(*words, output=output, environment=environment or {}))
        return self._started[-1]

    def _faults(self, number: int) -> Path:
        return self.folder / f"faults-{number}.json"


@contextlib.contextmanager
def deployed(folder: Path, nodes: int, timeout: float = 60.0) -> Iterator[Deployed]:
    """Bring up a federation in an empty folder, and take everything down in the end."""
    found = Deployed(folder, nodes, timeout)
    try:
        yield found
    finally:
        found.close()


def same_bits(one: Mapping[str, Tensor], other: Mapping[str, Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[name], other[name]) for name in one)
