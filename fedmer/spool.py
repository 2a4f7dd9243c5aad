"""What clients leave behind, in memory up to a limit and in mapped files beyond."""

from collections.abc import Iterator, Mapping, MutableMapping, Sequence
from dataclasses import is_dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from fedmer.errors import InputError
from fedmer.files import TemporaryFolder, explained


class Spool(MutableMapping[int, Any]):
    """Client id -> dataclasses, dictionaries, lists, numbers and tensors, nested as you like.

    What was put in first stays in memory; once ``limit`` bytes of tensors are reached, the rest
    goes into files of a temporary folder. Reading from there maps a file, so that only what is
    touched is read. The folder goes away with the spool.

    Args:
        limit: Bytes of tensors to hold in memory, 0 or more.

    Raises:
        InputError: ``limit`` is negative.

    >>> spool = Spool(limit=16)
    >>> spool[3] = {"weights": torch.ones(4)}
    >>> spool[5] = {"weights": torch.zeros(4)}
    >>> spool.held, spool.written
    (16, 1)
    >>> spool[5]
    {'weights': tensor([0., 0., 0., 0.])}
    """

    def __init__(self, limit: float = float("inf")) -> None:
        if not limit >= 0:
            raise InputError(f"The limit of a spool is {limit} bytes; expected 0 or more.")
        self.limit = limit
        self.held = 0
        """Bytes of tensors in memory."""
        self._memory: dict[int, Any] = {}
        self._files: dict[int, Path] = {}
        self._folder: TemporaryFolder | None = None

    @property
    def written(self) -> int:
        """How many clients' things are in files."""
        return len(self._files)

    def __setitem__(self, client: int, value: Any) -> None:
        if client in self._memory:
            self.held -= _size(self._memory.pop(client))
        size = _size(value)
        if self.held + size <= self.limit:
            self._memory[client] = value
            self.held += size
            if client in self._files:
                self._files.pop(client).unlink()
            return
        if self._folder is None:
            self._folder = TemporaryFolder()
        path = self._folder.path / f"{client}.pt"
        # A file of its own, since somebody may still look at the one that this replaces.
        fresh = path.with_suffix(".new")
        with explained(fresh), fresh.open("wb") as file:
            torch.save(value, file)
        fresh.replace(path)
        self._files[client] = path

    def __getitem__(self, client: int) -> Any:
        if client in self._memory:
            return self._memory[client]
        # This process wrote the file into a folder of its own, so that it may hold any class.
        return torch.load(self._files[client], mmap=True, map_location="cpu", weights_only=False)

    def __delitem__(self, client: int) -> None:
        if client in self._memory:
            self.held -= _size(self._memory.pop(client))
        else:
            self._files.pop(client).unlink()

    def __iter__(self) -> Iterator[int]:
        yield from sorted([*self._memory, *self._files])

    def __len__(self) -> int:
        return len(self._memory) + len(self._files)

    def __contains__(self, client: object) -> bool:
        return client in self._memory or client in self._files


def _size(value: Any) -> int:
    if isinstance(value, Tensor):
        return value.numel() * value.element_size()
    if is_dataclass(value):
        return sum(map(_size, vars(value).values()))
    if isinstance(value, Mapping):
        return sum(map(_size, value.values()))
    if isinstance(value, Sequence) and not isinstance(value, str):
        return sum(map(_size, value))
    return 0
