"""A bundle as a folder: a description, the tensors, a model card, and the digest of each."""

import hashlib
import json
from pathlib import Path
from typing import Any

from fedmer.bundle.contents import Contents
from fedmer.errors import InputError
from fedmer.files import PRIVATE, SHARED, write_atomically

DESCRIPTION, WEIGHTS, CARD, DIGESTS = (
    "model.json",
    "weights.safetensors",
    "README.md",
    "digests.json",
)
_MOST = 1 << 24
"""Bytes of a description or of digests, beyond any."""
_AGAIN = "copy or export it again"


def is_bundle(folder: Path) -> bool:
    """Is a folder a bundle, whole or not?"""
    return any((folder / name).is_file() for name in (DESCRIPTION, DIGESTS))


def write_bundle(contents: Contents, card: str, folder: Path, mode: int = SHARED) -> None:
    """Write a bundle; files of these names are replaced, the digests last.

    Args:
        contents: What to write.
        card: The model card, in Markdown.
        folder: Made if it is missing.
        mode: Permissions of its files, before the umask, as of :mod:`fedmer.files`.

    Raises:
        InputError: It cannot be written.
    """
    from safetensors.torch import save

    try:
        folder.mkdir(mode=0o700 if mode == PRIVATE else 0o777, parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}.") from error
    tensors = {name: value.contiguous() for name, value in contents.named_tensors().items()}
    files = {
        WEIGHTS: save(tensors, {"format": "pt"}),
        DESCRIPTION: (json.dumps(contents.describe(), indent=2) + "\n").encode(),
        CARD: card.encode(),
    }
    for name, content in files.items():
        write_atomically(folder / name, content, mode)
    digests = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
    write_atomically(folder / DIGESTS, json.dumps(digests, indent=2) + "\n", mode)


def read_bundle(folder: Path) -> Contents:
    """Read a bundle, running nothing in it.

    Digests find what was damaged, or changed by somebody who did not change them too; they do not
    say who wrote a bundle.

    Raises:
        InputError: A file is missing, differs from its digest, is of a newer version, or holds
            something else than a bundle does; the sentence names it.
    """
    digests = _json(folder / DIGESTS)
    if not isinstance(digests, dict) or not {DESCRIPTION, WEIGHTS} <= digests.keys():
        raise InputError(f"{folder / DIGESTS} names no digests of a model; {_AGAIN}.")
    for name in (DESCRIPTION, WEIGHTS, CARD):
        if name not in digests:
            continue
        if not (folder / name).is_file():
            raise InputError(f"{folder} lacks the file {name}; {_AGAIN}.")
        if _digest(folder / name) != digests[name]:
            raise InputError(
                f"{folder / name} is not what was exported: its digest differs from that in "
                f"{DIGESTS}. It was damaged or changed; {_AGAIN}."
            )
    description, tensors = _json(folder / DESCRIPTION), _tensors(folder / WEIGHTS)
    try:
        return Contents.of(description, tensors)
    except ValueError as error:
        said = str(error).removesuffix(".")
        raise InputError(f"{folder / DESCRIPTION} cannot be used: {said}.") from None


def _tensors(path: Path) -> dict[str, Any]:
    import torch
    from safetensors import SafetensorError
    from safetensors.torch import load

    try:
        found = load(path.read_bytes())
    except (SafetensorError, OSError, ValueError, KeyError) as error:
        raise InputError(f"{path} cannot be read ({error}); {_AGAIN}.") from None
    for name, tensor in found.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise InputError(f"{path} holds NaN or infinity in '{name}'; {_AGAIN}.")
    return found


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _json(path: Path) -> Any:
    if not path.is_file():
        raise InputError(f"{path.parent} lacks the file {path.name}; {_AGAIN}.")
    try:
        if path.stat().st_size > _MOST:
            raise ValueError("it has megabytes")
        return json.loads(path.read_bytes())
    except (OSError, ValueError, RecursionError) as error:
        raise InputError(f"{path} cannot be read ({error}); {_AGAIN}.") from None
