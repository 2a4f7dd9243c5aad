"""Running the trials of a sweep, a few at a time, and going on where an earlier sweep stopped."""

import os
import signal
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Any

from fedmer.sweep import command
from fedmer.sweep.check import Question, representative
from fedmer.sweep.file import SweepFile
from fedmer.sweep.processes import Running
from fedmer.sweep.show import Display
from fedmer.sweep.store import FAILED, FINISHED, INTERRUPTED, RUNNING, WAITING, Record, Store
from fedmer.sweep.trials import Trial, folder_name, trials

_TICK = 0.05
_PATIENCE = 60.0
"""Seconds that a trial has to end after it was asked to, which is as long as a client takes."""


@dataclass
class Sweep:
    """A sweep on this machine.

    Args:
        file: What to run.
        runs: The folder of all runs; the sweep's is below it.
        more: Words to append to every trial's command.
    """

    file: SweepFile
    runs: Path
    more: Sequence[str] = ()
    trials: list[Trial] = field(init=False)
    store: Store = field(init=False)
    records: dict[str, Record] = field(init=False, default_factory=dict)

    def __post_init__(self) -> None:
        self.trials = trials(self.file)
        self.store = Store(self.runs / folder_name(self.file.name))

    def arguments(self, trial: Trial) -> list[str]:
        """A trial's command as the file and the command line give it."""
        filled = command.fill(self.file.command, self.file.program, trial.values)
        return [*filled, *self.more]

    def words(self, trial: Trial) -> list[str]:
        """A trial's command as it would be started now, with where it is kept."""
        words = self.arguments(trial)
        if command.of_fedmer(words) is None:
            return words
        folder = self.store.folder
        if _logs_to_wandb(words):
            words.append(f"--trainer.logger.save_dir={folder}")
        words += ["--runs", str(folder), "--name", trial.name]
        record = self.records.get(trial.name)
        if record is not None and self.store.resumable(trial.name, record):
            words += ["--ckpt_path", str(self.store.checkpoint(trial.name))]
        elif self.store.run(trial.name).exists():
            words.append("--overwrite")
        return words

    @property
    def of_fedmer(self) -> bool:
        """Do the trials run ``fedmer fit``?"""
        return command.of_fedmer(self.arguments(self.trials[0])) is not None

    def questions(self) -> list[Question]:
        """What the parser of ``fedmer fit`` must accept of the trials left, before any runs."""
        place = next(i for i, word in enumerate(self.file.command) if word in command.ARGUMENTS)
        macro, program = self.file.command[place], self.file.program
        before = command.of_fedmer(command.fill(self.file.command[:place], program, {}))
        after = command.fill(self.file.command[place + 1 :], program, {})
        return [
            Question(
                before or ["fit"],
                {
                    name: command.fill([macro], program, {name: value})
                    for name, value in trial.values.items()
                },
                [*after, *self.more],
            )
            for trial in representative(self.file.parameters, self.left)
        ]

    def settle(self) -> None:
        """Look at what earlier sweeps have left.

        Raises:
            InputError: A finished trial was another one.
        """
        for trial in self.trials:
            self.records[trial.name] = self.store.settle(trial.name, self.arguments(trial))

    @property
    def left(self) -> list[Trial]:
        """The trials that are not finished."""
        return [t for t in self.trials if self.records[t.name].status != FINISHED]

    def environment(self, trial: Trial) -> dict[str, str]:
        """Variables of a trial's process: W&B writes to the sweep's folder, in one group.

        Tags that the sweep was started with stay.
        """
        more = {
            "WANDB_DIR": str(self.store.folder),
            "WANDB_RUN_GROUP": self.file.name,
            "WANDB_NAME": trial.name,
            "WANDB_TAGS": ",".join([*filter(None, [os.environ.get("WANDB_TAGS")]), *trial.tags]),
        }
        if self.file.project is not None:
            more["WANDB_PROJECT"] = self.file.project
        if _logs_to_wandb(self.arguments(trial)):
            more["WANDB_SWEEP_PARAM_PATH"] = str(self.store.wandb_config(trial.name))
        return {"WANDB_MODE": "offline", "WANDB_SILENT": "true", **os.environ, **more}

    def run(self, jobs: int, display: Display) -> int | None:
        """Run what is left.

        Args:
            jobs: How many trials at a time.
            display: Shows every start and end.

        Returns:
            The signal that stopped it, or None if every trial has had its utterance.
        """
        waiting = deque(self.left)
        running: dict[str, tuple[Trial, Running, bool]] = {}
        self._save_table()
        with _signals() as caught:
            while running or (waiting and not caught):
                while waiting and not caught and len(running) < jobs:
                    trial = waiting.popleft()
                    resumed = self.store.resumable(trial.name, self.records[trial.name])
                    running[trial.name] = (trial, self._start(trial), resumed)
                    display.started(trial.name)
                if caught:
                    _end([process for _, process, _ in running.values()], caught)
                time.sleep(_TICK)
                for name, (trial, process, resumed) in list(running.items()):
                    code = process.exit_code
                    if code is None:
                        continue
                    del running[name]
                    self._note(trial, process, code, bool(caught), resumed)
                    display.ended(name, self.records[name])
                    if self.records[name].status == WAITING:
                        waiting.appendleft(trial)
            return caught[0] if caught else None

    def _start(self, trial: Trial) -> Running:
        record, log = self.records[trial.name], self.store.log(trial.name)
        words = self.words(trial)
        record.status = RUNNING
        self.store.write(trial.name, record)
        if _logs_to_wandb(words):
            self.store.write_wandb_config(trial)
        with log.open("a", encoding="utf-8") as file:
            file.write("$ " + " ".join(words) + "\n")
        return Running(words, command.of_fedmer(words), self.environment(trial), log)

    def _note(
        self, trial: Trial, process: Running, code: int, stopped: bool, resumed: bool
    ) -> None:
        """Write down how a trial has ended."""
        record = self.records[trial.name]
        record.seconds += process.seconds
        record.exit_code = code
        record.said = "" if code == 0 or stopped else self.store.last_line(trial.name)
        if code == 0:
            record.status = FINISHED
        elif stopped:
            record.status = INTERRUPTED
        elif code == 2 and resumed:
            # The checkpoint was refused: it is damaged.
            record.status = WAITING
        else:
            record.status = FAILED
        self.store.write(trial.name, record)
        self._save_table()

    def _save_table(self) -> None:
        self.store.write_table(self.trials, self.records)


def _logs_to_wandb(words: Sequence[str]) -> bool:
    return any(word.endswith("WandbLogger") for word in words)


def _end(processes: Sequence[Running], caught: Sequence[int]) -> None:
    """Ask every process to end; kill those that do not, or all at once at a second signal."""
    for process in processes:
        process.stop()
    deadline = time.monotonic() + _PATIENCE
    while any(p.exit_code is None for p in processes):
        if len(caught) > 1 or time.monotonic() > deadline:
            break
        time.sleep(_TICK)
    for process in processes:
        process.kill()
    while any(p.exit_code is None for p in processes):
        time.sleep(_TICK)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Ctrl-C, SIGTERM and SIGHUP, noted instead of obeyed."""
    caught: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        caught.append(number)

    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup it is ignored, and has to stay so.
        numbers.append(signal.SIGHUP)
    before: Mapping[int, Any] = {number: signal.signal(number, note) for number in numbers}
    try:
        yield caught
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
