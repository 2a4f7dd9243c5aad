"""The prototypes of a rule after every round: ``prototypes.npz``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmer.report.arrays import read_arrays, write_arrays

if TYPE_CHECKING:
    from fedmer.prototypes import PrototypeSet

FILE = "prototypes.npz"
_MEANS, _KNOWN = "prototypes.", "known."


class PrototypeRecord:
    """Keeps the server's prototypes.

    The file has ``rounds``, ``(R,)`` from 1, and for every site ``prototypes.SITE``, ``(R, C, D)``,
    and ``known.SITE``, ``(R, C)``. It is written anew after every round in which the rule has
    prototypes; such a file is small beside a checkpoint.

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

    def append(self, number: int, prototypes: "PrototypeSet") -> None:
        """Keep the prototypes after a round, if there are any.

        Args:
            number: The round, from 1.
            prototypes: The server's.
        """
        kept = {}
        for site, own in prototypes.items():
            kept[_MEANS + site] = own.means.detach().cpu().numpy().copy()
            kept[_KNOWN + site] = own.known.cpu().numpy().copy()
        if kept:
            self._rounds.append(number)
            self._kept.append(kept)
            self._write()

    def _write(self) -> None:
        # A rule may have prototypes at a site later than at another; before, none are known there.
        shapes = {name: rows for kept in self._kept for name, rows in kept.items()}
        arrays: dict[str, NDArray[Any]] = {"rounds": np.array(self._rounds)}
        for name, like in shapes.items():
            nothing = np.zeros_like(like)
            arrays[name] = np.stack([kept.get(name, nothing) for kept in self._kept])
        write_arrays(self.path, arrays, compress=False)


def read_prototypes(
    path: Path,
) -> tuple[NDArray[np.int64], dict[str, tuple[NDArray[np.float64], NDArray[np.bool_]]]]:
    """Rounds, and by site the ``(R, C, D)`` prototypes with ``(R, C)``: which were known.

    Raises:
        InputError: The file is damaged.
    """
    arrays = read_arrays(path)
    found = {}
    for name, rows in arrays.items():
        if name.startswith(_MEANS):
            site = name.removeprefix(_MEANS)
            known = arrays[_KNOWN + site].astype(np.bool_)
            found[site] = rows.astype(np.float64), known
    return arrays["rounds"].astype(np.int64), found
