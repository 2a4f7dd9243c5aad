"""Configurations that suit a corpus, by name: the files of ``experiments/``."""

from functools import cache
from pathlib import Path

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


@cache
def _files() -> dict[str, Path]:
    folder = next((folder for folder in _FOLDERS if folder.is_dir()), None)
    return {path.stem: path for path in folder.glob("*.yaml")} if folder else {}
