"""A tutorial, done as a person would: files are saved, commands typed, and answers compared."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tests.documented import ROOT

TUTORIALS = sorted((ROOT / "docs" / "tutorials").glob("*.md"))
PATIENCE = 400.0
"""Seconds that a command may take on a busy machine."""

_SAVED = re.compile(r"\bas `(?P<file>[^`\n]+)`:\n\n```\w+\n(?P<text>.*?)^```$", re.M | re.S)
_TYPED = re.compile(r"^```\n(?P<session>\$ .*?)^```$", re.M | re.S)
_UNTIL_STOPPED = re.compile(r"fedmer deploy (server|node) ")


@dataclass(frozen=True)
class Save:
    """A file that the page shows whole, below "save this as ``NAME``:"."""

    file: str
    text: str


@dataclass(frozen=True)
class Type:
    """A line behind ``$``, and what the page shows below it, where ``...`` is some lines."""

    command: str
    shown: tuple[str, ...]


def steps(page: Path) -> list[Save | Type]:
    """What the page asks for, in its order."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[int, Save | Type]] = [
        (match.start(), Save(match["file"], match["text"])) for match in _SAVED.finditer(text)
    ]
    for match in _TYPED.finditer(text):
        for typed in re.split(r"^\$ ", match["session"], flags=re.M)[1:]:
            command, *shown = typed.replace("\\\n", " ").splitlines()
            found.append((match.start(), Type(command, tuple(shown))))
    return [step for _, step in sorted(found, key=lambda pair: pair[0])]


def missing(shown: tuple[str, ...], said: str) -> str | None:
    """The first line that was shown and not said, in this order; numbers and widths may differ."""
    left = iter(_plain(said))
    wanted = [line for line in _plain("\n".join(shown)) if line != "..."]
    return next((line for line in wanted if line not in left), None)


def _plain(text: str) -> list[str]:
    """Lines without numbers and their signs, blanks and the frames of tables."""
    bare = re.sub(r"[─━┏┓┡┩┳╇├┤┼└┘┴│┃]", " ", text)
    masked = re.sub(r"[\u2212+-]?\d+(\.\d+)*", "#", bare)
    return [line for line in (" ".join(line.split()) for line in masked.splitlines()) if line]


class Desk:
    """A folder in which the steps of a page are done.

    Args:
        folder: Empty.
        path: Folders of programs that are looked into first.
        replaced: What stands on the page -> what is typed instead.
    """

    def __init__(self, folder: Path, path: Path, replaced: Mapping[str, str]) -> None:
        self._folder = folder
        self._replaced = replaced
        self._running: list[subprocess.Popen[bytes]] = []
        self._environment = {
            **os.environ,
            "PATH": os.pathsep.join([str(path), os.environ["PATH"]]),
            "PYTHONPATH": str(ROOT),
            "COLUMNS": "100",
            "PIP_NO_INDEX": "1",
            "PIP_NO_BUILD_ISOLATION": "0",
            "PIP_DISABLE_PIP_VERSION_CHECK": "1",
        }

    def do(self, step: Save | Type) -> None:
        """Do one step, and compare."""
        if isinstance(step, Save):
            (self._folder / step.file).write_text(step.text, encoding="utf-8")
            return
        command = step.command
        for shown, typed in self._replaced.items():
            command = command.replace(shown, typed)
        output = self._folder / f".{len(list(self._folder.glob('.*.out')))}.out"
        with output.open("wb") as file:
            process = subprocess.Popen(
                ["bash", "-c", f"set -o pipefail; {command}"],
                cwd=self._folder,
                env=self._environment,
                stdout=file,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._running.append(process)
        deadline = time.monotonic() + PATIENCE
        while process.poll() is None and time.monotonic() < deadline:
            if _UNTIL_STOPPED.match(step.command) and not missing(step.shown, output.read_text()):
                return
            time.sleep(0.1)
        said = output.read_text()
        assert process.poll() == 0, f"{command}\n{said}"
        left_out = missing(step.shown, said)
        assert left_out is None, f"{command}\nThe page has {left_out!r}, and it said\n{said}"

    def close(self) -> None:
        """Type Ctrl-C where something runs until then."""
        for process in self._running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in self._running:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(60)
        left = [process for process in self._running if process.poll() is None]
        for process in left:
            os.killpg(process.pid, signal.SIGKILL)
        assert not left


def programs(folder: Path) -> Path:
    """An environment on top of this one, so that what a page installs is gone with it.

    Returns:
        The folder with ``fedmer``, ``pip`` and ``pytest``.
    """
    command = [sys.executable, "-m", "venv", "--without-pip", str(folder)]
    subprocess.run(command, check=True)
    (packages,) = folder.glob("lib/python*/site-packages")
    here = [entry for entry in sys.path if entry.endswith("site-packages")]
    (packages / "below.pth").write_text("\n".join(here) + "\n")
    for name in ("fedmer", "pip", "pytest"):
        program = folder / "bin" / name
        program.write_text(f'#!/bin/sh\nexec "{folder}/bin/python" -m {name} "$@"\n')
        program.chmod(0o755)
    return folder / "bin"
