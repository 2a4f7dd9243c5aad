"""Bundles on the Hugging Face hub, by its own library, where a user is logged in."""

import re
from pathlib import Path
from typing import Any

from fedmer.bundle.files import CARD, DESCRIPTION, DIGESTS, WEIGHTS
from fedmer.errors import InputError

PREFIX = "hf://"
_NAME = re.compile(r"hf://([\w.-]+/[\w.-]+)(?:@([\w./-]+))?")


def push(folder: Path, target: str) -> str:
    """Upload a bundle; the repository is made, private, if there is none.

    Args:
        folder: The bundle.
        target: ``hf://OWNER/NAME``.

    Returns:
        Where it is now.

    Raises:
        InputError: The library is missing, the name is none, or the hub refuses.
    """
    name, revision = _name(target)
    library = _library(target)
    try:
        library.create_repo(name, private=True, exist_ok=True)
        library.upload_folder(repo_id=name, folder_path=folder, revision=revision)
    except (OSError, ValueError) as error:
        raise _refused(target, error) from error
    return f"https://huggingface.co/{name}"


def pull(source: str) -> Path:
    """Download a bundle; returns its folder in the library's cache.

    Args:
        source: ``hf://OWNER/NAME``, or ``hf://OWNER/NAME@REVISION``.

    Raises:
        InputError: The library is missing, the name is none, or the hub refuses.
    """
    name, revision = _name(source)
    library = _library(source)
    files = [DESCRIPTION, WEIGHTS, CARD, DIGESTS]
    try:
        return Path(library.snapshot_download(name, revision=revision, allow_patterns=files))
    except (OSError, ValueError) as error:
        raise _refused(source, error) from error


def _name(text: str) -> tuple[str, str | None]:
    found = _NAME.fullmatch(text)
    if found is None:
        raise InputError(f"{text} is no place on the hub; expected hf://OWNER/NAME.")
    return found[1], found[2]


def _library(text: str) -> Any:
    try:
        import huggingface_hub
    except ImportError:
        raise InputError(
            f"{text} is on the Hugging Face hub, which huggingface_hub talks to; install it with "
            "pip install huggingface_hub, or give a folder."
        ) from None
    return huggingface_hub


def _refused(text: str, error: Exception) -> InputError:
    # Its errors are those of requests, which extend OSError.
    said = " ".join(str(error).split())[:300]
    return InputError(f"{text}: the hub refuses ({said}); see that you are logged in.")
