"""The prototypes of a rule after every round: ``prototypes.npz``."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from fedmer.errors import InputError
from fedmer.record.arrays import read_arrays, write_arrays

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
        arrays = _read(self.path)
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
        for site, found in prototypes.items():
            kept[_MEANS + site] = found.means.detach().cpu().numpy().copy()
            kept[_KNOWN + site] = found.known.cpu().numpy().copy()
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
    arrays = _read(path)
    found = {}
    for name, rows in arrays.items():
        if name.startswith(_MEANS):
            known = arrays[_KNOWN + name.removeprefix(_MEANS)].astype(np.bool_)
            if not np.isfinite(rows[known]).all():
                raise InputError(f"{path}: '{name}' holds NaN or infinity; remove the file.")
            found[name.removeprefix(_MEANS)] = rows.astype(np.float64), known
    return arrays["rounds"].astype(np.int64), found


def _read(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of a record, each of the shape that the others have; other arrays are left out."""
    arrays = read_arrays(path)
    rounds = arrays.get("rounds")
    if rounds is None or rounds.ndim != 1 or rounds.dtype.kind not in "iu" or not len(rounds):
        raise InputError(f"{path} has no 'rounds', one number a row; remove the file.")
    kept = {"rounds": rounds}
    for name, rows in arrays.items():
        known = _KNOWN + name.removeprefix(_MEANS) if name.startswith(_MEANS) else name
        if not known.startswith(_KNOWN):
            continue
        sides, kinds = (2, "b") if known == name else (3, "iuf")
        mask = arrays.get(known)
        if (
            (rows.ndim, len(rows.shape) and len(rows)) != (sides, len(rounds))
            or rows.dtype.kind not in kinds
            or not rows.size
            or mask is None
            or mask.shape != rows.shape[:2]
        ):
            raise InputError(
                f"{path}: '{name}' is {rows.dtype} of shape {rows.shape}, no prototypes of "
                f"{len(rounds)} rounds; remove the file."
            )
        kept[name] = rows
    return kept
