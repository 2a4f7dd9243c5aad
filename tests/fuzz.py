"""Mangled files for every reader: each is read, or is a sentence; in bounded memory and time.

By hand: ``python -m tests.fuzz --inputs 10000 [--seed 0] [--only npz pickle] [--keep FOLDER]``.

A file is a sound one with a few changes: bytes that are flipped, cut, doubled or joined with
another file's, and entries that are replaced by something odd or left out. A child process reads it
under a limit of memory and of time; whatever else it does than to succeed or to raise an
``InputError``, dying of a signal included, is a finding.
"""

import argparse
import collections
import contextlib
import csv
import io
import json
import multiprocessing as mp
import pickle
import random
import resource
import shutil
import sys
import tempfile
import time
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from fedmer.errors import InputError
from tests.mangle import ODD, bytes_changed, entries_changed, npz_changed, text_changed

MEMORY = 1_500_000_000
"""Bytes of address space that a reader may take beyond what its imports took."""
SECONDS = 60
"""That one input may take; a lot, since a machine may be busy."""

_MADE: dict[Path, "Sound"] = {}


class Sound:
    """Sound files to begin with, made once in a folder.

    Args:
        folder: Where to; with a checkpoint only if ``trained``.
        trained: Train a small network for two rounds, whose checkpoint is mangled.
    """

    def __init__(self, folder: Path, trained: bool = True) -> None:
        from fedmer.data.formats import native
        from tests.data.test_pickles import published
        from tests.federations import small_corpus
        from tests.report.made import make_run

        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        native.write(small_corpus(), folder / "small.npz")
        self.pickled = {
            (length, letters): tuple(published(length, letters, visual))
            for length, letters, visual in (
                *((12, True, True), (13, False, True), (9, True, True), (9, False, False)),
            )
        }
        self.run = make_run(folder / "run")
        np.savez(
            self.run / "prototypes.npz",
            rounds=np.array([1, 2]),
            **{"prototypes.a": np.ones((2, 6, 3)), "known.a": np.ones((2, 6), bool)},
        )
        (folder / "trials.csv").write_text("trial,seconds,aggregator,rounds\nrun,1,FedAvg,2\n")
        self.checkpoint = folder / "runs" / "a" / "checkpoints" / "last.ckpt"
        if trained:
            self.fit("--name", "a", "--runs", str(folder / "runs"), "--trainer.max_epochs", "2")

    @classmethod
    def once(cls, folder: Path) -> "Sound":
        """Those of a folder, made the first time; without a checkpoint."""
        if folder not in _MADE:
            _MADE[folder] = cls(folder, trained=False)
        return _MADE[folder]

    def fit(self, *more: str) -> int:
        """Train what the checkpoint is of."""
        return quietly(
            [
                *("fit", "--data.path", str(self.folder / "small.npz"), "--network", "EarlyFusion"),
                *("--partitioner.clients", "2", "--trainer.enable_progress_bar", "true", *more),
            ]
        )


def quietly(arguments: Sequence[str]) -> int:
    """The command line without its output; an exit code of 2 is an InputError's."""
    from fedmer.__main__ import main

    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        return main(list(arguments))


# Targets: each makes a mangled file and says how it is read.


def npz(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    from fedmer.data.describe import describe
    from fedmer.data.formats import read_corpus

    path.write_bytes(npz_changed(draw, (sound.folder / "small.npz").read_bytes()))
    return lambda: describe(read_corpus(path))


def feature_pickle(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    from fedmer.data.describe import describe
    from fedmer.data.formats import read_corpus

    parts = draw.choice(list(sound.pickled.values()))
    protocol = draw.randrange(6)
    if draw.random() < 0.5:
        parts = tuple(entries_changed(draw, list(parts)))
        with contextlib.suppress(UnicodeEncodeError):
            path.write_bytes(pickle.dumps(parts, protocol))
            return lambda: describe(read_corpus(path))
    content = pickle.dumps(parts, protocol)
    others = [pickle.dumps(parts, other) for other in range(6)]
    for _ in range(draw.choice((1, 1, 2, 4))):
        content = bytes_changed(draw, content, others)
    path.write_bytes(content)
    return lambda: describe(read_corpus(path))


def checkpoint(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    import torch

    from fedmer.checkpoint_entries import check_checkpoint

    if draw.random() < 0.5:
        content = bytes_changed(draw, sound.checkpoint.read_bytes())
        path.write_bytes(content)
    else:
        content = torch.load(sound.checkpoint, weights_only=True)
        odd = (*ODD, torch.ones(3), torch.ones(2, 2, dtype=torch.int64), torch.tensor(float("nan")))
        torch.save(entries_changed(draw, content, odd), path)
    return lambda: check_checkpoint(path)


def restored(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    """A checkpoint that is gone on from, or tested."""
    checkpoint(draw, sound, path)
    config = str(sound.folder / "runs" / "a" / "config.yaml")
    runs = path.parent / "restored"
    shutil.rmtree(runs, ignore_errors=True)
    more = ["--runs", str(runs), "--name", "x", "--trainer.max_epochs", "3"]
    command = draw.choice((["test"], ["fit", *more]))
    return lambda: quietly([command[0], "--config", config, *command[1:], "--ckpt_path", str(path)])


def _run(draw: random.Random, sound: Sound, path: Path) -> Path:
    """A run folder one file of which is mangled."""
    folder = path.parent / "runs" / "run"
    shutil.rmtree(folder.parent, ignore_errors=True)
    shutil.copytree(sound.run, folder)
    shutil.copy(sound.folder / "trials.csv", folder.parent)
    name = draw.choice([file.name for file in sorted(sound.run.iterdir())] + ["../trials.csv"])
    content = (folder / name).read_bytes()
    if name.endswith(".npz"):
        content = npz_changed(draw, content)
    elif draw.random() < 0.3:
        content = bytes_changed(draw, content)
    elif name.endswith(".csv"):
        content = text_changed(draw, content.decode()).encode()
    else:
        plain = [odd for odd in ODD if isinstance(odd, int | float | str | list | dict | None)]
        tree = entries_changed(draw, json.loads(json.dumps(yaml.safe_load(content))), plain)
        with contextlib.suppress(TypeError, ValueError, UnicodeEncodeError):
            content = (json.dumps(tree) if name == "result.json" else yaml.dump(tree)).encode()
    (folder / name).write_bytes(content)
    return folder


def run_folder(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    from fedmer.record.prototypes import read_prototypes
    from fedmer.report.collect import collect
    from fedmer.report.report import make_report

    folder = _run(draw, sound, path)

    def read() -> None:
        found = collect([sound.run, folder])
        make_report(found, None)
        for run in found.runs:
            _ = run.rounds, run.clients, run.votes
        if (folder / "prototypes.npz").exists():
            read_prototypes(folder / "prototypes.npz")

    return read


def page(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    """The whole command, figures included."""
    folder = _run(draw, sound, path)
    target = path.parent / "report"
    return lambda: quietly(["report", str(sound.run), str(folder), "--out", str(target)])


def table(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    from fedmer.report.audit import audit_file

    text_file = io.StringIO()
    columns = ["row", "support_a", "accuracy_a", "f1_a", "accuracy", "weighted_f1"]
    csv.writer(text_file).writerows([columns, ["x", 10, 50.0, 40.0, 50.0, 40.0]])
    text = text_changed(draw, text_file.getvalue()).encode(errors="replace")
    path.write_bytes(bytes_changed(draw, text) if draw.random() < 0.3 else text)
    return lambda: audit_file(path)


def configuration(draw: random.Random, sound: Sound, path: Path) -> Callable[[], Any]:
    from fedmer import safe_yaml

    content = (sound.run / "config.yaml").read_bytes()
    for _ in range(draw.choice((1, 2, 4))):
        words = (
            b"&a [*a, *a]",
            b"*b",
            b"!!python/name:os.system",
            b"<<: *a",
            b"? [",
            b"%TAG ! x\n",
        )
        at = draw.randrange(len(content) + 1)
        content = content[:at] + draw.choice(words) + content[at:]
        content = bytes_changed(draw, content) if draw.random() < 0.5 else content
    path.write_bytes(content)
    return lambda: safe_yaml.read(path)


TARGETS: Mapping[str, tuple[Callable[[random.Random, Sound, Path], Callable[[], Any]], float]] = {
    "npz": (npz, 0.3),
    "pickle": (feature_pickle, 0.3),
    "checkpoint": (checkpoint, 0.1),
    "run": (run_folder, 0.2),
    "table": (table, 0.04),
    "configuration": (configuration, 0.04),
    "page": (page, 0.005),
    "restored": (restored, 0.005),
}
"""Name -> what mangles and reads, and its fraction of the inputs."""


# A child that reads.


def _serve(pipe: Connection, sound: Sound, folder: Path) -> None:
    """Read mangled files until nobody asks any more."""
    import torch

    import fedmer.cli  # noqa: F401 - so that its size is not counted as a reader's

    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    virtual = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (virtual + MEMORY, resource.RLIM_INFINITY))
    while True:
        try:
            name, seed = pipe.recv()
        except EOFError:
            return
        try:
            read = TARGETS[name][0](random.Random(seed), sound, folder / "mangled")
            try:
                code = read()
                pipe.send("refused" if code == 2 else "read")
            except InputError:
                pipe.send("refused")
        except BaseException:  # noqa: BLE001 - whatever it is, it is what is looked for
            pipe.send(traceback.format_exc())


class Reader:
    """A child process that mangles and reads, replaced when it dies.

    Args:
        sound: What to begin with.
        folder: For the mangled files; emptied at the end.
    """

    def __init__(self, sound: Sound, folder: Path) -> None:
        self.sound = sound
        self.folder = folder
        self._child: Any = None

    def ask(self, name: str, seed: int) -> str:
        """``read``, ``refused``, or what went wrong: a traceback, a death, or too long a time."""
        if self._child is None:
            context = mp.get_context("spawn")
            self._pipe, theirs = context.Pipe()
            self._child = context.Process(target=_serve, args=(theirs, self.sound, self.folder))
            self._child.start()
            theirs.close()
        try:
            self._pipe.send((name, seed))
            # The first answer waits for the imports.
            if not self._pipe.poll(SECONDS + 60):
                self.close()
                return f"took more than {SECONDS} s"
            return str(self._pipe.recv())
        except (EOFError, OSError):
            self._child.join()
            code = self._child.exitcode
            self.close()
            return f"the reader died with exit code {code}"

    def close(self) -> None:
        """End the child."""
        if self._child is not None:
            self._pipe.close()
            self._child.terminate()
            self._child.join()
            self._child = None


def main() -> int:
    """Fuzz by hand; the exit code is 1 if there were findings."""
    parser = argparse.ArgumentParser(description=__doc__, allow_abbrev=False)
    parser.add_argument("--inputs", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", nargs="*", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--keep", type=Path, help="a folder for the files of findings")
    options = parser.parse_args()
    counts: collections.Counter[tuple[str, str]] = collections.Counter()
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as place:
        sound = Sound(Path(place) / "sound")
        reader = Reader(sound, Path(place))
        draw = random.Random(options.seed)
        fractions = [TARGETS[name][1] for name in options.only]
        for number in range(options.inputs):
            name, seed = draw.choices(options.only, fractions)[0], draw.getrandbits(60)
            answer = reader.ask(name, seed)
            found = answer not in ("read", "refused")
            counts[name, "FOUND" if found else answer] += 1
            if found:
                print(f"{number}: {name} {seed}: {answer}", flush=True)
                if options.keep:
                    shutil.copytree(place, options.keep / f"{name}-{seed}", dirs_exist_ok=True)
            if (number + 1) % 1000 == 0:
                print(f"{number + 1} inputs, {time.monotonic() - started:.0f} s", flush=True)
        reader.close()
    for (name, answer), count in sorted(counts.items()):
        print(f"{name:14} {answer:8} {count}")
    return any(answer == "FOUND" for _, answer in counts)


if __name__ == "__main__":
    sys.exit(main())
