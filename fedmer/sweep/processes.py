"""The processes of trials: forked from one that has imported everything, or any command.

Importing torch and Lightning takes seconds. A fork server does it once, and each trial of fedmer is
forked from there in milliseconds, without the threads or the state of an earlier trial.
"""

import contextlib
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence
from multiprocessing import forkserver
from multiprocessing.connection import wait
from pathlib import Path

from fedmer.errors import InputError
from fedmer.sweep.check import Question, answer
from fedmer.terminal import at_home, exit_code


class Running:
    """The process of one trial, leader of its process group.

    A Ctrl-C in the terminal therefore reaches the sweep alone, which then ends its trials in order.

    Args:
        words: The command.
        fit: The arguments of fedmer if the command is fedmer's, else None.
        environment: All variables of the process.
        log: Where its output goes, after what is there.
    """

    def __init__(
        self,
        words: Sequence[str],
        fit: Sequence[str] | None,
        environment: Mapping[str, str],
        log: Path,
    ) -> None:
        self.began = time.monotonic()
        if fit is not None:
            process = _context().Process(target=_trial, args=(list(fit), dict(environment), log))
            process.start()
            self._process: multiprocessing.process.BaseProcess | subprocess.Popen[bytes] = process
        else:
            with log.open("ab") as file:
                try:
                    self._process = subprocess.Popen(
                        words,
                        stdin=subprocess.DEVNULL,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                        env=dict(environment),
                        start_new_session=True,
                    )
                except OSError as error:
                    raise InputError(
                        f"'{words[0]}' cannot be started ({error.strerror}); mend the command."
                    ) from error

    @property
    def exit_code(self) -> int | None:
        """None while it runs, minus the signal if one ended it."""
        if isinstance(self._process, subprocess.Popen):
            return self._process.poll()
        return self._process.exitcode

    @property
    def seconds(self) -> float:
        return time.monotonic() - self.began

    def stop(self) -> None:
        """Ask it to end; a run of fedmer does so after the client in progress."""
        self._signal(signal.SIGTERM, group=False)

    def kill(self) -> None:
        """End it and whatever it started."""
        self._signal(signal.SIGKILL, group=True)

    def _signal(self, number: signal.Signals, group: bool) -> None:
        pid = self._process.pid
        assert pid is not None
        with contextlib.suppress(ProcessLookupError):
            if self.exit_code is None:
                os.kill(pid, number)
        with contextlib.suppress(ProcessLookupError, PermissionError):
            if group:
                os.killpg(pid, number)


def start_server() -> None:
    """Start importing, in the background.

    Ctrl-C stays away from the server, which would die of it in the middle of an import.
    """
    multiprocessing.get_context("forkserver").set_forkserver_preload(["fedmer.cli"])
    blocked = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        forkserver.ensure_running()
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, blocked)


def ask(questions: Sequence[Question]) -> str | None:
    """What is wrong with the arguments of some trial, or None."""
    receiver, sender = multiprocessing.Pipe(duplex=False)
    process = _context().Process(target=answer, args=(list(questions), sender))
    process.start()
    sender.close()
    try:
        said: str | None = receiver.recv()
    except EOFError as error:
        raise RuntimeError("The process that checks arguments has died; see above.") from error
    finally:
        process.kill()
        process.join()
    return said


def _context() -> multiprocessing.context.ForkServerContext:
    return multiprocessing.get_context("forkserver")


def _trial(arguments: list[str], environment: dict[str, str], log: Path) -> None:
    """Be the process that ``fedmer ARGUMENTS`` would have been."""
    os.setsid()
    signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})
    os.environ.clear()
    os.environ.update(environment)
    file = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(file, 1)
    os.dup2(file, 2)
    threading.Thread(target=_end_with_the_sweep, daemon=True).start()
    sys.argv = ["fedmer", *arguments]
    from fedmer.cli import main

    code = 1
    try:
        code = exit_code(lambda: main([at_home(word) for word in arguments]))
    finally:
        # W&B finishes its run when Python exits; a forked process leaves without that.
        if "wandb" in sys.modules:
            sys.modules["wandb"].teardown(code)
    sys.exit(code)


def _end_with_the_sweep() -> None:
    """Stop this trial when the sweep is gone without having stopped it."""
    parent = multiprocessing.parent_process()
    assert parent is not None
    wait([parent.sentinel])
    os.kill(os.getpid(), signal.SIGTERM)
