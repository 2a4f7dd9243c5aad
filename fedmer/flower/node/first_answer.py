"""What a node told first of its data, so that it never tells it again of another part of them.

The counts and sums of all dialogues but some, for many choices of those some, are equations of
which the features and labels of single dialogues are the solution. So a node keeps back the same
dialogues for as long as it belongs to its federation: it draws them itself, at the first answer.
"""

import hashlib
import json
import secrets
from dataclasses import replace
from pathlib import Path
from typing import Any

from fedmer.data.remote import Request
from fedmer.errors import InputError
from fedmer.files import write_atomically

FILE = "holdout.json"


class FirstAnswer:
    """The node's own record, in its ``state``.

    Args:
        folder: That ``state``.
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE

    def settle(self, data: Path, request: Request, chosen: bool) -> Request:
        """The request as this node answers it: with the holdout of its first answer.

        Args:
            data: The node's file.
            request: From the server.
            chosen: Does the file itself say which dialogues are kept back?

        Raises:
            InputError: The file is another than then, or another fraction is asked for.
        """
        with data.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        if not self._path.exists():
            known: dict[str, Any] = {
                "fraction": request.holdout,
                "seed": secrets.randbits(63),
                "data": digest,
            }
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            write_atomically(self._path, json.dumps(known, indent=2) + "\n", 0o600)
        known = self._read()
        if known["data"] != digest:
            raise InputError(
                "its data have changed since it first described them, and the difference of two "
                "descriptions would tell what is new; if that may be known, its owner deletes "
                f"state/{FILE} of the node's folder"
            )
        if not chosen and request.holdout != known["fraction"]:
            raise InputError(
                f"it keeps back {known['fraction']:g} of its dialogues since its first run, and "
                f"this one asks for {request.holdout:g}; start it with --data.holdout "
                f"{known['fraction']:g}, or let its owner delete state/{FILE} of the node's folder"
            )
        return replace(request, holdout=known["fraction"], seed=known["seed"])

    def _read(self) -> dict[str, Any]:
        try:
            known: dict[str, Any] = json.loads(self._path.read_text(encoding="utf-8"))
            right = (
                isinstance(known["data"], str)
                and type(known["seed"]) is int
                and type(known["fraction"]) is float
                and 0 <= known["fraction"] < 1
            )
        except (OSError, ValueError, KeyError, TypeError, RecursionError):
            right = False
        if not right:
            raise InputError(
                f"its state/{FILE} cannot be read; its owner has to restore or delete it"
            )
        return known
