"""Processes that never outlive the one that started them, and the environment Flower's run in.

A child runs under a keeper, a small process of ours. The keeper adopts whatever the child leaves
behind, and when it is asked to, or when our process is gone (however it went), it ends them all.
"""

import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import sysconfig
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from types import FrameType, TracebackType

from fedmer.errors import InputError
from fedmer.files import FolderLock
from fedmer.flower.deploy.logs import write_log

# From linux/prctl.h.
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36

_GRACE = 4.0
_TICK = 0.1


class Stopped(BaseException):
    """A signal asked this command to end, which is how it is meant to end."""


@contextlib.contextmanager
def stoppable() -> Iterator[None]:
    """Turn SIGINT, SIGTERM and SIGHUP into `Stopped`; later ones cannot disturb the tidying up."""
    numbers = [signal.SIGINT, signal.SIGTERM]
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:
        # Under nohup it is ignored, and has to stay so.
        numbers.append(signal.SIGHUP)

    def stop(number: int, frame: FrameType | None) -> None:
        for each in numbers:
            signal.signal(each, signal.SIG_IGN)
        raise Stopped

    before = {number: signal.signal(number, stop) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def flower_environment(home: Path, server: str) -> dict[str, str]:
    """The variables of every Flower process: this one's, without calls home or detours.

    Args:
        home: FLWR_HOME.
        server: The host that the processes dial, past any proxy.
    """
    given = dict(os.environ)
    for name in ("FLWR_INTERNAL_GRPC_CONTROL_API", "FLWR_INTERNAL_GRPC_FLEET_API"):
        # Each opens one more port, which nothing guards.
        given.pop(name, None)
    direct = ",".join(
        filter(None, (given.get("NO_PROXY", given.get("no_proxy")), server, "127.0.0.1,localhost"))
    )
    scripts = sysconfig.get_path("scripts")
    return given | {
        # Flower starts its own programs by name.
        "PATH": os.pathsep.join(filter(None, (scripts, given.get("PATH")))),
        "FLWR_HOME": str(home),
        "FLWR_TELEMETRY_ENABLED": "0",
        "FLWR_DISABLE_UPDATE_CHECK": "1",
        "FLWR_DISABLE_RUNTIME_DEPENDENCY_INSTALLATION": "1",
        "FLWR_SUPEREXEC_TASK_POLL_INTERVAL": "0.25",
        "NO_PROXY": direct,
        "no_proxy": direct,
        "PYTHONUNBUFFERED": "1",
    }


def only_one(folder: Path) -> FolderLock:
    """Keeps a second process of the same kind out of the folder of a server or a node."""
    return FolderLock(folder / ".lock", str(folder), "end that process first")


def is_in_use(folder: Path) -> bool:
    """Whether a process has the folder of a server or a node."""
    try:
        only_one(folder).check()
    except InputError:
        return True
    return False


def check_port(host: str, port: int) -> None:
    """Refuse a port that something listens on.

    Raises:
        InputError: Something does, or this machine's rules forbid the port.
    """
    with socket.socket() as probe:
        # As the server does: connections of the last one that are not quite gone do not matter.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise InputError(
                f"Port {port} cannot be used ({error.strerror}); end what listens there, or make a "
                "federation with another --port."
            ) from error


def free_port() -> int:
    """A port of this machine that nothing uses now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Kept:
    """A process that ends with this one, and its descendants with it.

    Args:
        words: The command.
        environment: All its variables.
        log: Where its output goes, after what is there; see :mod:`fedmer.flower.deploy.logs`.
    """

    def __init__(self, words: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self._log = log
        with log.open("ab") as file:
            self._start = self._shown = file.tell()
        self._supervisor = subprocess.Popen(
            # -P keeps what lies in the current folder from being imported as a module.
            [sys.executable, "-P", "-m", __name__, str(os.getpid()), str(log), *words],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            env=dict(environment),
            # A Ctrl-C in the terminal is for us; we end them in order.
            start_new_session=True,
        )

    def __enter__(self) -> "Kept":
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.stop()

    @property
    def exit_code(self) -> int | None:
        """None while it runs, 128 plus the signal if one ended it."""
        return self._supervisor.poll()

    def stop(self) -> None:
        """End it and whatever it started; returns when all of them are gone."""
        if self._supervisor.poll() is None:
            self._supervisor.terminate()
        self._supervisor.wait()

    def output(self) -> str:
        """What it has said so far; of much, the end."""
        with self._log.open("rb") as file:
            if os.fstat(file.fileno()).st_size >= self._start:
                # Else it is a new one, since the old one was long.
                file.seek(self._start)
            return file.read().decode(errors="replace")

    def news(self) -> list[str]:
        """The whole lines that it has said since this was last called."""
        with self._log.open("rb") as file:
            if os.fstat(file.fileno()).st_size < self._shown:
                self._shown = 0
            file.seek(self._shown)
            whole = file.read().rpartition(b"\n")[0]
        self._shown += len(whole) + bool(whole)
        return whole.decode(errors="replace").splitlines()

    def last_lines(self, count: int = 12) -> str:
        """The end of what it said, for a message."""
        lines = [line for line in self.output().splitlines() if line.strip()]
        return "\n".join(f"  {line}" for line in lines[-count:])


def died(what: str, process: Kept, log: Path) -> int:
    """Print that a process has ended, and the last that it printed; returns the exit code, 1."""
    print(f"{what}; the last lines of {log}:\n{process.last_lines()}", file=sys.stderr)
    return 1


def _keep(parent: int, log: Path, words: Sequence[str]) -> int:
    """Be the keeper: run the command until it ends, is to end, or the parent is gone."""
    asked = False

    def ask(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        asked = True

    signal.signal(signal.SIGTERM, ask)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Orphans come to us instead of to process 1, so that none is lost and none stays a zombie.
    _prctl(_PR_SET_CHILD_SUBREAPER, 1)
    child = subprocess.Popen(
        words, preexec_fn=_die_with_supervisor, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    assert child.stdout is not None
    writer = threading.Thread(target=write_log, args=(log, child.stdout), daemon=True)
    writer.start()
    code: int | None = None
    while code is None and not asked and os.getppid() == parent:
        time.sleep(_TICK)
        code = _reap(child.pid)
    ended = _end_all(child.pid)
    writer.join(_GRACE)
    return next((known for known in (code, ended) if known is not None), 128 + signal.SIGTERM)


def _end_all(child: int) -> int | None:
    """End every descendant, politely first; returns the child's exit code if it was among them."""
    code = None
    for number in (signal.SIGTERM, signal.SIGKILL):
        shown: set[int] = set()
        deadline = time.monotonic() + _GRACE
        while (left := _descendants(child)) and time.monotonic() < deadline:
            for pid in left - shown:
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.kill(pid, number)
            shown |= left
            time.sleep(_TICK / 2)
            ended = _reap(child)
            code = code if ended is None else ended
    return code


def _descendants(child: int) -> set[int]:
    """Every process below this one, the dead that nobody has waited for yet included."""
    parents: dict[int, int] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError, ValueError, IndexError):
            # The name in brackets may hold spaces and brackets itself.
            parents[int(entry.parent.name)] = int(entry.read_text().rpartition(")")[2].split()[1])
    if not parents:
        # A system without /proc, where Flower's own watch over its parent has to do.
        with contextlib.suppress(ProcessLookupError):
            os.kill(child, 0)
            return {child}
        return set()
    found: set[int] = set()
    newest = {os.getpid()}
    while newest:
        newest = {pid for pid, parent in parents.items() if parent in newest} - found
        found |= newest
    return found


def _reap(child: int) -> int | None:
    """Wait for all that have ended; returns the child's exit code if it was among them."""
    code = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            if ended[0] == child:
                status = os.waitstatus_to_exitcode(ended[1])
                code = status if status >= 0 else 128 - status
    return code


def _die_with_supervisor() -> None:
    _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.default_int_handler)


def _prctl(option: int, value: int) -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(_keep(int(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:]))
