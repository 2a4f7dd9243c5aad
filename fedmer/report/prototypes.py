"""The prototypes of a rule after every round: ``prototypes.npz``."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.report.arrays import read_arrays, write_arrays

FILE = "prototypes.npz"
_KEPT = ("prototypes", "known")


class PrototypeRecord:
    """Keeps every tensor of a rule whose name begins with 'prototypes' or 'known'.

    The file has ``rounds``, ``(R,)`` from 1, and under a tensor's own name ``(R, ...)``: for
    prototypes usually ``(R, C, D)``, for what is known ``(R, C)``. It is written anew after every
    round in which the rule has prototypes; such a file is small beside a checkpoint.

    Args:
        path: Where to.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._rounds: list[int] = []
        self._kept: list[dict[str, NDArray[Any]]] = []

    def restart(self, done: int) -> None:
        """Go on behind round ``done``; later rounds are forgotten."""
        self._rounds, self._kept = [], []
        if not self.path.exists():
            return
        arrays = read_arrays(self.path)
        for place, number in enumerate(arrays.pop("rounds").tolist()):
            if number <= done:
                self._rounds.append(number)
                self._kept.append({name: rows[place] for name, rows in arrays.items()})
        if self._rounds:
            self._write()
        else:
            self.path.unlink()

    def append(self, number: int, tensors: Mapping[str, Any]) -> None:
        """Keep the prototypes after a round, if there are any.

        Args:
            number: The round, from 1.
            tensors: A rule's tensors, of torch.
        """
        kept = {
            name: tensor.detach().cpu().numpy().copy()
            for name, tensor in tensors.items()
            if name.startswith(_KEPT)
        }
        if any(name.startswith("prototypes") for name in kept):
            self._rounds.append(number)
            self._kept.append(kept)
            self._write()

    def _write(self) -> None:
        # A rule may begin to keep a tensor later than another; before, nothing of it is known.
        shapes = {name: rows for kept in self._kept for name, rows in kept.items()}
        arrays: dict[str, NDArray[Any]] = {"rounds": np.array(self._rounds)}
        for name, like in shapes.items():
            nothing = np.zeros_like(like)
            arrays[name] = np.stack([kept.get(name, nothing) for kept in self._kept])
        write_arrays(self.path, arrays, compress=False)


def read_prototypes(
    path: Path,
) -> tuple[NDArray[np.int64], dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]]:
    """Rounds, and by name the ``(R, C, D)`` prototypes with ``(R, C)``: which were known.

    ``prototypes`` goes with ``known``, ``prototypes_text`` with ``known_text``. Without a mask a
    class is taken as known once its prototype is not zero.

    Raises:
        InputError: The file is damaged.
    """
    arrays = read_arrays(path)
    found = {}
    for name, rows in arrays.items():
        if name.startswith("prototypes") and rows.ndim == 3:
            values = rows.astype(np.float64)
            masks = [arrays.get(name.replace("prototypes", "known", 1)), arrays.get("known")]
            fitting = [m for m in masks if m is not None and m.shape == values.shape[:2]]
            found[name] = values, np.asarray([*fitting, values.any(axis=2)][0], dtype=np.bool_)
    return arrays["rounds"].astype(np.int64), found
