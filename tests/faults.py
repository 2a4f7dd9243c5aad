"""A disk that fails from some step on."""

import errno
import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import fedmer.files


@contextmanager
def failing_from(step: int, code: int = errno.ENOSPC, kill: bool = False) -> Iterator[list[str]]:
    """Let opening, writing, flushing and renaming in :mod:`fedmer.files` fail.

    Args:
        step: The first step to fail, from 0; all later ones fail too.
        code: With which error.
        kill: Kill this process instead.

    Yields:
        What has failed so far.
    """
    failed: list[str] = []
    count = 0

    def pass_or_fail(what: str) -> None:
        nonlocal count
        count += 1
        if count > step:
            if kill:
                os.kill(os.getpid(), signal.SIGKILL)
            failed.append(what)
            raise OSError(code, os.strerror(code))

    class Handle:
        """A file whose writes are steps."""

        def __init__(self, file: Any) -> None:
            self._file = file

        def __enter__(self) -> "Handle":
            return self

        def __exit__(self, *error: object) -> None:
            self._file.close()

        def __getattr__(self, name: str) -> Any:
            return getattr(self._file, name)

        def write(self, content: Any) -> int:
            pass_or_fail("write")
            written: int = self._file.write(content)
            return written

    real = {name: getattr(os, name) for name in ("open", "fdopen", "fsync")}
    rename, path_open = Path.replace, Path.open

    def opened(path: Any, flags: int, *mode: int, **more: Any) -> int:
        if flags & os.O_CREAT:
            pass_or_fail("open")
        descriptor: int = real["open"](path, flags, *mode, **more)
        return descriptor

    def flushed(descriptor: int) -> None:
        folder = Path(f"/proc/self/fd/{descriptor}").is_dir()
        pass_or_fail("flush folder" if folder else "flush")
        real["fsync"](descriptor)

    def renamed(path: Path, target: Path) -> Path:
        pass_or_fail("rename")
        return rename(path, target)

    def appended(path: Path, mode: str = "r", *args: Any, **more: Any) -> Any:
        if mode != "ab":
            return path_open(path, mode, *args, **more)
        pass_or_fail("open")
        return Handle(path_open(path, mode, *args, **more))

    with (
        mock.patch.object(fedmer.files.os, "open", opened),
        mock.patch.object(fedmer.files.os, "fdopen", lambda *a: Handle(real["fdopen"](*a))),
        mock.patch.object(fedmer.files.os, "fsync", flushed),
        mock.patch.object(Path, "replace", renamed),
        mock.patch.object(Path, "open", appended),
    ):
        yield failed
