"""Configurations that suit a corpus, by name: the files of ``experiments/``."""

from collections.abc import Sequence
from functools import cache
from pathlib import Path

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown

_PACKAGE = Path(__file__).parent
_FOLDERS = (_PACKAGE / "experiments", _PACKAGE.parent / "experiments")
"""In a wheel the files lie in the package, in the repository beside it."""


def names() -> list[str]:
    """Names of all recipes, sorted.

    >>> "iemocap_speakers" in names()
    True
    """
    return sorted(_files())


def find(name: str) -> Path | None:
    """The file of a recipe, or None where no recipe has this name.

    >>> find("iemocap_speakers").name
    'iemocap_speakers.yaml'
    >>> find("no_such_recipe") is None
    True
    """
    return _files().get(name)


def as_files(words: Sequence[str]) -> list[str]:
    """The words of a command, in which recipes named behind ``--config`` are their files.

    A file of that name in the working folder is meant first.

    Raises:
        InputError: One is neither a recipe nor a file.

    >>> [Path(word).name for word in as_files(["--config", "meld", "--name", "meld"])]
    ['--config', 'meld.yaml', '--name', 'meld']
    """
    found = []
    for before, word in zip(["", *words], words, strict=False):
        if before in ("--config", "-c"):
            found.append(as_file(word))
        elif word.startswith("--config="):
            found.append(f"--config={as_file(word.removeprefix('--config='))}")
        else:
            found.append(word)
    return found


def as_file(value: str) -> str:
    """The file of a recipe; what is no name stays as it is.

    Raises:
        InputError: It is neither a recipe nor a file.
    """
    if not value.isidentifier() or Path(value).exists():
        return value
    file = find(value)
    if file is None:
        raise InputError(f"{unknown('recipe', value, names())}; there is no file '{value}' either.")
    return str(file)


@cache
def _files() -> dict[str, Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in folder.glob("*.yaml")} if folder else {}
