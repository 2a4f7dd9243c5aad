"""The folder of a run: its name, who may write into it, and writing that survives."""

import os
import shutil
import time
from dataclasses import dataclass
from pathlib import Path

from fedmer.errors import InputError

CHECKPOINTS = "checkpoints"
_MARKS = ("config.yaml", "metrics.csv", "result.json", CHECKPOINTS)


@dataclass(frozen=True)
class RunFolder:
    """Where a run is recorded.

    Args:
        path: The folder; made by :meth:`open`, not before.
        replace: Remove what is there first.
        resume: Keep what is there and go on.
    """

    path: Path
    replace: bool = False
    resume: bool = False

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
            InputError: The folder exists and is neither continued nor may be replaced, or it
                could not be written.
        """
        if name is not None and (not name or Path(name).name != name or name in (".", "..")):
            raise InputError(f"--name is '{name}'; expected a plain folder name, without slashes.")
        if name is None and checkpoint is not None:
            own = checkpoint.resolve().parent
            if own.name == CHECKPOINTS and (own.parent / "config.yaml").exists():
                return cls(own.parent, resume=True)
        path = runs / (name or default)
        if name is None:
            number = 2
            while path.exists():
                path, number = runs / f"{default}-{number}", number + 1
        elif path.exists() and checkpoint is None:
            if not overwrite:
                raise InputError(
                    f"{path} exists; choose another --name, replace it with --overwrite, or "
                    f"continue it with --ckpt_path {path / CHECKPOINTS / 'last.ckpt'}."
                )
            if not path.is_dir() or not (
                any((path / mark).exists() for mark in _MARKS) or not any(path.iterdir())
            ):
                raise InputError(f"{path} is not the folder of a run; it is not overwritten.")
        _check_writable(path)
        return cls(path, replace=path.exists() and checkpoint is None, resume=path.exists())

    def open(self) -> None:
        """Make the folder, empty unless the run is continued.

        Raises:
            InputError: It cannot be made.
        """
        try:
            if self.replace:
                shutil.rmtree(self.path)
            (self.path / CHECKPOINTS).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InputError(_unwritable(self.path, error.strerror or str(error))) from error


def default_name(*parts: str) -> str:
    """Rule, network, split and the time of day: ``FedAvg-SDT-Speaker-20260131-120000``."""
    return "-".join([*parts, time.strftime("%Y%m%d-%H%M%S")])


def _check_writable(path: Path) -> None:
    above = next(p for p in [path, *path.absolute().parents] if p.exists())
    if not above.is_dir():
        raise InputError(_unwritable(path, f"{above} is a file"))
    if not os.access(above, os.W_OK | os.X_OK):
        raise InputError(_unwritable(path, f"{above} is not writable"))


def _unwritable(path: Path, why: str) -> str:
    return f"The run folder {path} cannot be written: {why}; choose another place with --runs."
