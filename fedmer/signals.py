"""A terminal that hangs up ends a command as SIGTERM does."""

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType


@contextmanager
def hang_up_terminates() -> Iterator[list[int]]:
    """Let SIGHUP do what SIGTERM does, unless it is ignored, as under ``nohup``.

    Yields:
        The signal, once it has come.
    """
    caught: list[int] = []
    if (
        threading.current_thread() is not threading.main_thread()
        or signal.getsignal(signal.SIGHUP) is signal.SIG_IGN
    ):
        yield caught
        return

    def hang_up(number: int, frame: FrameType | None) -> None:
        caught.append(number)
        _leave_terminal()
        os.kill(os.getpid(), signal.SIGTERM)

    before = signal.signal(signal.SIGHUP, hang_up)
    try:
        yield caught
    finally:
        signal.signal(signal.SIGHUP, before)


def _leave_terminal() -> None:
    """Write to nowhere instead of to a terminal that is gone, where writing fails."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.__stdout__, sys.__stderr__):
        # One that was replaced or closed is not the terminal's.
        with suppress(OSError, ValueError, AttributeError):
            if stream is not None and os.isatty(stream.fileno()):
                os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
