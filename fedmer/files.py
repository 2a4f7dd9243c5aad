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
from collections.abc import Iterator
from multiprocessing.util import Finalize
from pathlib import Path
from types import TracebackType
from typing import IO

from fedmer.errors import InputError

PRIVATE, SHARED = 0o600, 0o666
"""Permissions of files: for their owner alone, and for whom the umask allows."""
_PREFIX, _SUFFIX = ".fedmer-", ".new"
_TEMPORARY = "fedmer-temporary-"
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
        self._claim: _Claim | None = None

    def check(self) -> None:
        """Refuse if another process has it, making nothing.

        Raises:
            InputError: One does.
        """
        claim = self._take(os.O_RDWR)
        if claim is not None:
            claim.close()

    def __enter__(self) -> "FolderLock":
        # None if its last owner removed it between our two steps.
        while (claim := self._take(os.O_RDWR | os.O_CREAT)) is None:
            pass
        self._claim = claim
        said = {"pid": os.getpid(), "host": socket.gethostname(), "since": time.time()}
        try:
            os.ftruncate(claim.file, 0)
            os.pwrite(claim.file, json.dumps(said).encode(), 0)
        except OSError as error:
            self.__exit__(None, None, None)
            raise unwritable(self.path, error) from error
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._claim is not None and self._claim.is_on(self.path):
            # A folder that has become unwritable keeps the file, which then locks nothing.
            with contextlib.suppress(OSError):
                self.path.unlink()
        if self._claim is not None:
            self._claim.close()

    def _take(self, flags: int) -> "_Claim | None":
        try:
            return _Claim.on(self.path, flags)
        except BlockingIOError as error:
            who = _holder(self.path)
            raise InputError(f"{self.what} is in use by {who}; {self.advice}.") from error
        except OSError as error:
            raise unwritable(self.path, error) from error


class _Claim:
    """A file or folder that this process has locked; a forked process closes its copy.

    Args:
        file: The descriptor.
    """

    def __init__(self, file: int) -> None:
        self.file = file
        mine = weakref.ref(self)

        def forget() -> None:
            claim = mine()
            if claim is not None:
                claim.close()

        os.register_at_fork(after_in_child=forget)

    @classmethod
    def on(cls, path: Path, flags: int) -> "_Claim | None":
        """Lock what lies at a path; None if nothing does, or no longer.

        Raises:
            BlockingIOError: Another process has it.
        """
        try:
            file = os.open(path, flags, 0o666)
        except FileNotFoundError:
            if flags & os.O_CREAT:
                raise
            return None
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BaseException:
            os.close(file)
            raise
        claim = cls(file)
        if claim.is_on(path):
            return claim
        claim.close()
        return None

    def is_on(self, path: Path) -> bool:
        """Is the path still that of the file that was locked?"""
        try:
            return self.file >= 0 and os.path.samestat(os.fstat(self.file), path.stat())
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Release it; in a forked process only the copy goes."""
        if self.file >= 0:
            os.close(self.file)
            self.file = -1


def _holder(path: Path) -> str:
    try:
        said = json.loads(path.read_bytes()[:4096])
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
        claim = None
        with explained(Path(tempfile.gettempdir())):
            while claim is None:
                self.path = Path(tempfile.mkdtemp(prefix=_TEMPORARY))
                # Before it was locked, another process may have taken it for one that is left.
                with contextlib.suppress(BlockingIOError):
                    claim = _Claim.on(self.path, os.O_RDONLY)
        # Processes that multiprocessing forked run these at their end, and no others; a process
        # forked from this one has the object too, but runs none of this one's.
        self._remove = Finalize(self, _remove_locked, (self.path, claim), exitpriority=0)

    def close(self) -> None:
        """Remove it."""
        self._remove()

    @staticmethod
    def remove_stale() -> None:
        """Remove what this user's processes have left that are gone."""
        for path in Path(tempfile.gettempdir()).glob(f"{_TEMPORARY}*"):
            # In use, or going away by itself.
            with contextlib.suppress(OSError):
                if path.is_symlink() or path.stat().st_uid != os.getuid():
                    continue
                claim = _Claim.on(path, os.O_RDONLY | os.O_DIRECTORY)
                if claim is not None:
                    _remove_locked(path, claim)


def _remove_locked(path: Path, claim: _Claim) -> None:
    shutil.rmtree(path, ignore_errors=True)
    claim.close()
