"""Kill runs at random moments, resume them, and compare them with the run that was never killed.

``python -m tests.crashes --kills 200 --seed 0``

After every kill the last checkpoint has to load. Every run is resumed until it ends; then its
weights, optimizers and memory are those of the unbroken run bit for bit, every round has its rows
once, ``result.json`` is there, and neither the folder of runs nor the temporary folder holds
anything else. Runs lie on a disk apart from the temporary folder, on the same, or on a small one
that is full now and then.
"""

import argparse
import itertools
import multiprocessing
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from fedmer.checkpoint_entries import check_checkpoint
from fedmer.data.formats.native import write
from fedmer.record.rows import read_rows
from tests.faults import failing_from
from tests.federations import small_corpus
from tests.test_resume import assert_equal

ROUNDS = 5
COMMON = [
    *("--partitioner.clients", "4"),
    *("--trainer.max_epochs", str(ROUNDS), "--trainer.accelerator", "cpu"),
]
SDT = ("--network", "SDT", "--network.hidden", "16", "--network.heads", "2")
EARLY = ("--network", "EarlyFusion", "--network.hidden", "16")
KEEP = ("--local.optimizer_state", "keep", "--executor.spool_gb", "0")
RUNS: dict[str, list[str]] = {
    "Inline": ["--executor", "Inline", *SDT, *KEEP, "--aggregator", "SCAFFOLD"],
    "Workers": ["--executor", "Workers", "--executor.workers", "2", *SDT, *KEEP],
    "Stacked": ["--executor", "Stacked", *EARLY, "--aggregator", "FedAdam"],
    # With a network that Stacked can take, another choice would mean other bits.
    "Auto": ["--executor", "Auto", *SDT, "--aggregator", "Local"],
    "Flower": ["--executor", "Flower", *SDT, *KEEP, "--aggregator", "FedProto"],
}
PLACES = ("apart", "same", "full")
SMALL_DISK = 4 << 20


@dataclass
class Place:
    """Where the runs of one kind lie.

    Args:
        kind: One of PLACES.
        runs: Their folder.
        temporary: The temporary folder.
        straight: The unbroken run's folder.
        seconds: How long that took.
    """

    kind: str
    runs: Path
    temporary: Path
    straight: Path
    seconds: float

    @property
    def run(self) -> Path:
        return self.runs / "x"

    @property
    def last(self) -> Path:
        return self.run / "checkpoints" / "last.ckpt"


@dataclass
class Campaign:
    """All kills.

    Args:
        corpus: The file to train on.
        folder: Where everything lies.
        luck: What draws the moments.
    """

    corpus: Path
    folder: Path
    luck: random.Random
    count: Counter[str] = field(default_factory=Counter)

    def start(self, place: Place, name: str, words: list[str], kill_at: int | None) -> Any:
        given = ["fit", "--data.path", str(self.corpus), "--name", name, *COMMON, *words]
        given += ["--runs", str(place.runs)]
        log = self.folder / "log"
        process = multiprocessing.get_context("forkserver").Process(
            target=_fit, args=(given, str(place.temporary), str(log), kill_at)
        )
        process.start()
        return process

    def torture(self, place: Place, words: list[str], kills: int) -> None:
        """One run with so many kills, and then its end."""
        left = kills
        while True:
            more = list(words)
            if self.last_loads(place):
                more += ["--ckpt_path", str(place.last)]
            elif place.run.exists():
                more.append("--overwrite")
            filler = place.runs / "other"
            if place.kind == "full" and self.luck.random() < 0.5:
                room = shutil.disk_usage(place.runs).free
                filler.write_bytes(bytes(int(room * self.luck.uniform(0.3, 1.0))))
            by_write = left > 0 and self.luck.random() < 0.5
            # torch writes a checkpoint in 2,780 pieces, and there are five.
            process = self.start(
                place, "x", more, self.luck.randrange(14_000) if by_write else None
            )
            if left > 0 and not by_write:
                process.join(self.luck.uniform(0.0, place.seconds))
                process.kill()
            process.join(240)
            code = process.exitcode
            assert code is not None, "it hangs"
            full = filler.exists()
            filler.unlink(missing_ok=True)
            if code == -signal.SIGKILL:
                left -= 1
                self.count["kills"] += 1
                self.count["kills in a write"] += by_write
            elif code == 2 and full:
                self.count["ends on a full disk"] += 1
            else:
                assert code == 0, (code, (self.folder / "log").read_text()[-3000:])
                self.compare(place)
                return

    def last_loads(self, place: Place) -> bool:
        if not place.last.exists():
            self.count["before a checkpoint"] += place.run.exists()
            return False
        check_checkpoint(place.last)
        self.count["checkpoints loaded"] += 1
        return True

    def compare(self, place: Place) -> None:
        """See that the run is the unbroken one, and that nothing else is left."""
        one, other = (
            torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
            for run in (place.straight, place.run)
        )
        for key in ("state_dict", "optimizer_states", "fedmer", "global_step", "epoch"):
            assert_equal(one[key], other[key], key)
        for name in ("metrics.csv", "clients.csv"):
            rows = [read_rows(run / name) for run in (place.straight, place.run)]
            for row in itertools.chain(*rows):
                row.pop("seconds", None)
                if "Flower" in str(place.runs):
                    # Sizes of messages differ by the digits of a time.
                    row.pop("bytes_down", None)
                    row.pop("bytes_up", None)
            assert rows[0] == rows[1], name
        files = [
            {str(p.relative_to(run)) for p in run.rglob("*")} for run in (place.straight, place.run)
        ]
        assert files[0] == files[1], files
        assert (place.run / "result.json").exists()
        shutil.rmtree(place.run)
        assert {p.name for p in place.runs.iterdir()} <= {"straight"}, list(place.runs.iterdir())
        left = self.wait_for_empty(place.temporary)
        assert not left, left
        self.count["runs compared"] += 1

    def wait_for_empty(self, folder: Path) -> list[Path]:
        """What is there after a moment; Ray leaves the logs of its sessions, whatever one does."""
        deadline = time.monotonic() + 10
        while left := [p for p in folder.iterdir() if p.name != "ray"]:
            if time.monotonic() > deadline:
                break
            time.sleep(0.2)
        return left

    def everything(self, kills: int, executors: list[str]) -> None:
        """Share the kills out over executors and places."""
        kinds = [(e, p) for e in executors for p in PLACES]
        for number, (executor, kind) in enumerate(kinds):
            share = kills * (number + 1) // len(kinds) - kills * number // len(kinds)
            if not share:
                continue
            with self.place(executor, kind) as place:
                aim = self.count["kills"] + share
                while self.count["kills"] < aim:
                    now = min(aim - self.count["kills"], self.luck.randint(2, 6))
                    self.torture(place, RUNS[executor], now)
                    said = ", ".join(f"{n} {what}" for what, n in self.count.items())
                    print(f"{executor} {kind}: so far {said}", flush=True)

    @contextmanager
    def place(self, executor: str, kind: str) -> Iterator[Place]:
        home = self.folder / executor / kind
        runs = home / "runs"
        runs.mkdir(parents=True)
        shared = Path("/dev/shm")
        apart = kind == "apart" and shared.is_dir()
        temporary = Path(tempfile.mkdtemp(prefix="t", dir=shared if apart else self.folder))
        mounted = kind == "full" and not subprocess.call(
            ["mount", "-t", "tmpfs", "-o", f"size={SMALL_DISK}", "tmpfs", str(runs)]
        )
        try:
            began = time.monotonic()
            place = Place(kind, runs, temporary, runs / "straight", 0.0)
            process = self.start(place, "straight", RUNS[executor], None)
            process.join(240)
            assert process.exitcode == 0, (self.folder / "log").read_text()[-3000:]
            place.seconds = time.monotonic() - began
            yield place
        finally:
            if mounted:
                subprocess.check_call(["umount", "-l", str(runs)])
            shutil.rmtree(temporary, ignore_errors=True)


def _fit(arguments: list[str], temporary: str, log: str, kill_at: int | None) -> None:
    """Be the process of ``fedmer ARGUMENTS``, which may kill itself in a step of writing."""
    os.setsid()
    os.environ["TMPDIR"] = tempfile.tempdir = temporary
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    torch.set_num_threads(1)
    sys.argv = ["fedmer", *arguments]
    from fedmer.__main__ import main

    with failing_from(10**9 if kill_at is None else kill_at, kill=True):
        code = main(arguments)
    sys.exit(code)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else "")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--executors", nargs="+", choices=RUNS, default=list(RUNS))
    given = parser.parse_args()
    campaign(given.kills, given.seed, given.executors)


def campaign(kills: int, seed: int, executors: list[str]) -> Counter[str]:
    """Kill, resume and compare; returns how often what happened."""
    multiprocessing.get_context("forkserver").set_forkserver_preload(["fedmer.cli"])
    folder = Path(tempfile.mkdtemp(prefix="crashes-"))
    try:
        corpus = folder / "small.npz"
        write(small_corpus(), corpus)
        found = Campaign(corpus, folder, random.Random(seed))
        found.everything(kills, executors)
        return found.count
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
