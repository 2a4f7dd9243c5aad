"""The folder of a run: its name, who may write into it, and what becomes of an older run there."""

import contextlib
import os
import shutil
import time
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType

from fedmer.errors import InputError
from fedmer.files import (
    FolderLock,
    TemporaryFolder,
    flush_folder,
    make_private,
    remove_leftovers,
    replacing,
)

CHECKPOINTS = "checkpoints"
LAST = "last.ckpt"
CONFIG = "config.yaml"
CORPUS = "corpus.npz"
"""The corpus of a run that got it in memory."""
MODEL = "model"
"""The folder of a run that its bundle is in."""
_MARKS = (CONFIG, "metrics.csv", "result.json", CHECKPOINTS)


@dataclass
class RunFolder:
    """Where a run is recorded; entered for as long as it is, by one process at a time.

    An older run that is to be replaced is kept aside, under a hidden name beside it, until the new
    one has a checkpoint. If it ends without one the older run is put back, and if it is killed
    before, whoever looks at the folder next does so.

    Args:
        path: The folder; made on entry, not before.
        replace: An older run is there, and is to go.
        checkpoint: The run goes on from here.

    Raises:
        InputError: On entry: another process records a run there, or it cannot be made.
    """

    path: Path
    replace: bool = False
    checkpoint: Path | None = None
    _open: contextlib.ExitStack = field(default_factory=contextlib.ExitStack, repr=False)

    @property
    def last(self) -> Path:
        """The checkpoint after the last complete round."""
        return self.path / CHECKPOINTS / LAST

    @classmethod
    def choose(
        cls,
        runs: Path,
        name: str | None,
        default: str,
        overwrite: bool = False,
        checkpoint: Path | None = None,
    ) -> "RunFolder":
        """Settle where a run goes, writing nothing.

        Args:
            runs: The folder of all runs.
            name: Chosen by hand, or None.
            default: The name to take otherwise, with a number added if it is taken.
            overwrite: May a folder named by hand be replaced?
            checkpoint: The checkpoint to go on from; without a name its own run is continued.

        Raises:
            InputError: The folder exists and is neither continued nor may be replaced, another
                process is at work there, or it could not be written.
        """
        if name is not None and (not name or Path(name).name != name or name in (".", "..")):
            raise InputError(f"--name is '{name}'; expected a plain folder name, without slashes.")
        if name is None and checkpoint is not None:
            folder = checkpoint.resolve().parent
            if folder.name == CHECKPOINTS and (folder.parent / "config.yaml").exists():
                _lock(folder.parent).check()
                return cls(folder.parent, checkpoint=checkpoint)
        path = runs / (name or default)
        if name is None:
            number = 2
            while path.exists():
                path, number = runs / f"{default}-{number}", number + 1
        if path.is_symlink():
            path = path.resolve()
        _check_writable(path.parent)
        recover(path)
        _lock(path).check()
        taken = path.exists() and not _vacant(path)
        if name is not None and taken and checkpoint is None:
            if not overwrite:
                raise InputError(
                    f"{path} exists; choose another --name, replace it with --overwrite, or "
                    f"continue it with --ckpt_path {path / CHECKPOINTS / LAST}."
                )
            if not path.is_dir() or not any((path / mark).exists() for mark in _MARKS):
                raise InputError(f"{path} is not the folder of a run; it is not overwritten.")
        _check_writable(path)
        return cls(path, replace=taken and checkpoint is None, checkpoint=checkpoint)

    def __enter__(self) -> "RunFolder":
        with contextlib.ExitStack() as stack:
            try:
                if not self.path.parent.exists():
                    self.path.parent.mkdir(parents=True)
                    stack.callback(_remove_if_empty, self.path.parent)
                stack.enter_context(_lock(self.path))
                TemporaryFolder.remove_stale()
                _settle(self.path)
                if self.replace:
                    self.path.rename(_aside(self.path))
                    flush_folder(self.path.parent)
                stack.callback(self._end)
                # Among the checkpoints are personal networks, which are their clients' own.
                make_private(self.path)
                make_private(self.path / CHECKPOINTS)
                for folder in (self.path, self.path / CHECKPOINTS):
                    remove_leftovers(folder)
            except OSError as error:
                raise InputError(_unwritable(self.path, error.strerror or str(error))) from error
            self._open = stack.pop_all()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._open.close()

    def go_back(self) -> None:
        """Let the run end with the round that it goes on from, before later rows are dropped.

        Whoever is killed between the two would else find a last checkpoint without its rows.
        """
        given = self.checkpoint
        if given is not None and self.last.exists() and not given.samefile(self.last):
            with given.open("rb") as source, replacing(self.last) as target:
                shutil.copyfileobj(source, target)

    def keep(self) -> None:
        """Part with the older run: the new one has a complete round."""
        aside = _aside(self.path)
        if aside.exists():
            # By another name first, as half a run must never be put back.
            aside.rename(_discarded(self.path))
            flush_folder(self.path.parent)
            shutil.rmtree(_discarded(self.path), ignore_errors=True)

    def _end(self) -> None:
        # On a disk that fails, what cannot be put back now is by the next process that looks.
        with contextlib.suppress(OSError):
            _settle(self.path)
        for folder in (self.path / CHECKPOINTS, self.path):
            _remove_if_empty(folder)


def recover(path: Path) -> None:
    """Put a run back in its place whose replacement was killed before its first checkpoint.

    Raises:
        InputError: The replacement is still at work.
    """
    if _aside(path).exists() or _discarded(path).exists():
        with _lock(path):
            _settle(path)


def default_name(*parts: str) -> str:
    """Rule, network, split and the time of day: ``FedAvg-SDT-Speaker-20260131-120000``."""
    return "-".join([*parts, time.strftime("%Y%m%d-%H%M%S")])


def _settle(path: Path) -> None:
    """Leave one run where there may be an older one aside; the caller has the lock."""
    aside = _aside(path)
    if aside.exists():
        if (path / CHECKPOINTS / LAST).exists():
            RunFolder(path).keep()
        else:
            if path.exists():
                shutil.rmtree(path)
            aside.rename(path)
            flush_folder(path.parent)
    if _discarded(path).exists():
        shutil.rmtree(_discarded(path))


def _lock(path: Path) -> FolderLock:
    advice = "wait until it has ended, or choose another --name"
    return FolderLock(path.with_name(f".{path.name}.lock"), str(path), advice)


def _aside(path: Path) -> Path:
    return path.with_name(f".{path.name}.replaced")


def _discarded(path: Path) -> Path:
    return path.with_name(f".{path.name}.discarded")


def _vacant(path: Path) -> bool:
    """Is there nothing, as a run leaves it that was killed before its first checkpoint?"""
    return path.is_dir() and all(p.is_dir() or p.name.startswith(".") for p in path.rglob("*"))


def _remove_if_empty(folder: Path) -> None:
    # Which it is not, in general; or it is gone.
    with contextlib.suppress(OSError):
        folder.rmdir()


def _check_writable(path: Path) -> None:
    above = next(p for p in [path, *path.absolute().parents] if p.exists())
    if not above.is_dir():
        raise InputError(_unwritable(path, f"{above} is a file"))
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(_unwritable(path, f"{above} is not writable"))


def _unwritable(path: Path, why: str) -> str:
    return f"The run folder {path} cannot be written: {why}; choose another place with --runs."
