"""Files that survive: written beside their target, flushed to disk, renamed; and who may write."""

import contextlib
import errno
import fcntl
import json
import os
import secrets
import shutil
import socket
import tempfile
import time
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from types import TracebackType
from typing import IO

from fedmer.errors import InputError

PRIVATE, SHARED = 0o600, 0o666
"""Permissions of files: for their owner alone, and for whom the umask allows."""
_PREFIX, _SUFFIX = ".fedmer-", ".new"
_TEMPORARY, _LOCK = "fedmer-", ".lock"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
DISK = (*_FULL, errno.EROFS, errno.EIO)
"""What goes wrong with a disk, whatever is written."""


@contextlib.contextmanager
def replacing(path: Path, mode: int = PRIVATE) -> Iterator[IO[bytes]]:
    """Write a file that is either the old one or the new one, whatever happens in between.

    What is written goes into a file beside it, which takes its place once it is on the disk. If
    that fails, the old file stays and nothing else does; :func:`remove_leftovers` removes what a
    process leaves that is killed meanwhile.

    Args:
        path: The file; replaced if there is one.
        mode: Its permissions, before the umask: :data:`PRIVATE` or :data:`SHARED`.

    Raises:
        InputError: It cannot be written, such as on a full disk.
    """
    fresh = path.with_name(f"{_PREFIX}{secrets.token_hex(6)}{_SUFFIX}")
    with explained(path):
        try:
            with os.fdopen(os.open(fresh, os.O_RDWR | os.O_CREAT | os.O_EXCL, mode), "w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            fresh.replace(path)
        except BaseException:
            # On a file system that now fails even at this, the first failure says more.
            with contextlib.suppress(OSError):
                fresh.unlink(missing_ok=True)
            raise
        flush_folder(path.parent)


def write_atomically(path: Path, content: str | bytes, mode: int = PRIVATE) -> None:
    """Replace a file by a text, or by bytes, as :func:`replacing` does.

    Raises:
        InputError: It cannot be written.
    """
    with replacing(path, mode) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def append(path: Path, text: str) -> None:
    """Add a text to the end of a file, flushed to disk; if that fails, none of it is added.

    Only a process that is killed meanwhile leaves a part of it, after the last whole line.

    Raises:
        InputError: It cannot be written.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT
    with explained(path), os.fdopen(os.open(path, flags, PRIVATE), "ab") as file:
        before = file.tell()
        try:
            file.write(text.encode())
            file.flush()
            os.fsync(file.fileno())
        except BaseException:
            with contextlib.suppress(OSError):
                os.ftruncate(file.fileno(), before)
            raise


def make_private(folder: Path) -> None:
    """Make a folder that only its owner may enter; one that is there keeps its permissions.

    Folders above it that are missing are made too, as the umask has it.
    """
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.mkdir(mode=0o700, exist_ok=True)


def flush_folder(folder: Path) -> None:
    """See that what was renamed or removed in a folder is so on the disk too."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems have nothing to flush here, and say so.
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)


def remove_leftovers(folder: Path) -> None:
    """Remove what a killed process was writing in a folder; the caller has its lock."""
    for path in folder.glob(f"{_PREFIX}*{_SUFFIX}"):
        path.unlink(missing_ok=True)


@contextlib.contextmanager
def explained(path: Path) -> Iterator[None]:
    """Turn the system's errors while a file is written into a sentence.

    Raises:
        InputError: There was one.
    """
    try:
        yield
    except (OSError, RuntimeError) as error:
        # torch.save hides the system's error behind one of its own.
        of_system = error if isinstance(error, OSError) else error.__context__
        if not isinstance(of_system, OSError):
            raise
        raise unwritable(path, of_system) from error


def unwritable(path: Path, error: OSError) -> InputError:
    """The sentence for a file that could not be written."""
    why = error.strerror or str(error)
    if error.errno in _FULL:
        advice = "make room there"
    elif error.errno in (errno.ENOENT, errno.ENOTDIR):
        advice = "see that its folder is there"
    elif error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        advice = "see that its folder may be written"
    else:
        advice = "look at its folder and disk"
    return InputError(f"{path} cannot be written: {why}; {advice} and try again.")


class FolderLock:
    """Keeps every other process out of what it stands for, until it is left or the process dies.

    The system releases it with the process, however that ends. Processes forked from it do not hold
    it, so that those that outlive it are in nobody's way.

    Args:
        path: The lock's file, made on entry and removed on exit.
        what: What is locked, for the message.
        advice: What somebody who is kept out may do, for the message.

    Raises:
        InputError: On entry: another process has it, or the file cannot be made.
    """

    def __init__(self, path: Path, what: str, advice: str) -> None:
        self.path = path
        self.what = what
        self.advice = advice
        self._file: int | None = None

    def check(self) -> None:
        """Refuse if another process has it, making nothing.

        Raises:
            InputError: One does.
        """
        try:
            file = os.open(self.path, os.O_RDWR)
        except FileNotFoundError:
            return
        except OSError as error:
            raise unwritable(self.path, error) from error
        try:
            self._take(file)
        finally:
            os.close(file)

    def __enter__(self) -> "FolderLock":
        try:
            while True:
                file = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o666)
                self._file = file
                self._take(file)
                if self._is_current(file):
                    break
                # Its last owner removed it between our two steps.
                os.close(file)
            said = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
            os.ftruncate(file, 0)
            os.pwrite(file, json.dumps(said).encode(), 0)
            os.register_at_fork(after_in_child=_forgetting(weakref.ref(self)))
        except OSError as error:
            self.forget()
            raise unwritable(self.path, error) from error
        except BaseException:
            self.forget()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._file is not None and self._is_current(self._file):
            # A folder that has become unwritable keeps the file, which then locks nothing.
            with contextlib.suppress(OSError):
                self.path.unlink()
        self.forget()

    def _take(self, file: int) -> None:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise InputError(f"{self.what} is in use by {_holder(file)}; {self.advice}.") from error

    def _is_current(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), self.path.stat())
        except FileNotFoundError:
            return False

    def forget(self) -> None:
        """Close the file; in a forked process that does not release the lock."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _forgetting(lock: "weakref.ref[FolderLock]") -> Callable[[], None]:
    def forget() -> None:
        found = lock()
        if found is not None:
            found.forget()

    return forget


def _holder(file: int) -> str:
    try:
        said = json.loads(os.pread(file, 4096, 0))
        since = time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(float(said["since"])))
        return f"process {int(said['pid'])} on {str(said['host'])[:64]!r} since {since}"
    except (ValueError, TypeError, KeyError, OverflowError, OSError):
        # It has not said yet, or somebody else's file has this name.
        return "another process"


class TemporaryFolder:
    """A folder of this process in the temporary folder, for what need not survive.

    Nobody else may enter it. It goes away when it is closed; what a killed process has left is
    removed by the next that makes one, or calls :meth:`remove_stale`.

    Raises:
        InputError: It cannot be made.
    """

    def __init__(self) -> None:
        self.remove_stale()
        above = Path(tempfile.gettempdir())
        try:
            self.path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
            self._lock = _temporary_lock(self.path)
            self._lock.__enter__()
        except OSError as error:
            raise unwritable(above, error) from error
        self._remove = weakref.finalize(self, _remove_own, self.path, os.getpid())

    def close(self) -> None:
        """Remove it."""
        self._remove()

    @staticmethod
    def remove_stale() -> None:
        """Remove what this user's processes have left that are gone."""
        for path in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
            # In use, another user's, or going away by itself.
            with contextlib.suppress(OSError, InputError):
                # One without a lock is being made.
                if (path / _LOCK).stat().st_uid == os.getuid() and not path.is_symlink():
                    with _temporary_lock(path):
                        shutil.rmtree(path)


def _temporary_lock(path: Path) -> FolderLock:
    return FolderLock(path / _LOCK, str(path), "leave it alone")


def _remove_own(path: Path, owner: int) -> None:
    # A forked process has the object too, but not the folder.
    if os.getpid() == owner:
        shutil.rmtree(path, ignore_errors=True)
