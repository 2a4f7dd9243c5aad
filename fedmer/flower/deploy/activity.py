"""What has happened between a server and its nodes, as a file in the folder of each.

Several processes write it: the one that serves, and those that train. What they write is counted
and looked at, and nothing depends on it: a file that is damaged begins anew, and a disk that is
full stops nobody.
"""

import contextlib
import fcntl
import json
import os
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from fedmer.errors import InputError
from fedmer.files import write_atomically

_LATEST = 1e11
"""Seconds since 1970, beyond which no calendar goes here."""


@dataclass(frozen=True)
class Contact:
    """What is known of one node and its server.

    Args:
        connected: Were they, when they last looked?
        seen: When they last heard of each other, in seconds since 1970; 0 for never.
        round: The last round that the node finished, from 1; 0 before its first.
        down: Bytes of all messages from the server, since the folder was made.
        up: And of all to it.
    """

    connected: bool = False
    seen: float = 0.0
    round: int = 0
    down: int = 0
    up: int = 0


@dataclass(frozen=True)
class Activity:
    """Everything that is known.

    Args:
        round: The last that was finished, from 1; 0 before the first.
        nodes: Name -> what is known of that node.
    """

    round: int = 0
    nodes: Mapping[str, Contact] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> "Activity":
        """Read it; nothing is known yet where there is no file.

        Raises:
            InputError: The file cannot be read or is damaged.
        """
        try:
            values = json.loads(path.read_bytes())
            nodes = {str(name): _contact(contact) for name, contact in values["nodes"].items()}
            return cls(_count(values["round"]), nodes)
        except FileNotFoundError:
            return cls()
        except (OSError, ValueError, TypeError, KeyError, AttributeError) as error:
            raise InputError(
                f"{path} cannot be read ({error}); delete it, and counting begins anew."
            ) from error

    @classmethod
    def known(cls, path: Path) -> "Activity":
        """The same where nothing may depend on it: a damaged file says nothing."""
        try:
            return cls.read(path)
        except InputError:
            return cls()

    def of(self, name: str) -> Contact:
        """What is known of a node."""
        return self.nodes.get(name, Contact())


def note_contact(path: Path, seen: Mapping[str, tuple[bool, float]]) -> None:
    """Write down who is connected.

    Args:
        path: The file.
        seen: Node -> whether it is, and when it was last heard of; an earlier time than the one
            that is known changes nothing.
    """

    def changed(known: Activity) -> Activity:
        nodes = dict(known.nodes)
        for name, (connected, when) in seen.items():
            contact = known.of(name)
            nodes[name] = replace(contact, connected=connected, seen=max(contact.seen, when))
        return replace(known, nodes=nodes)

    _change(path, changed)


def note_messages(
    path: Path,
    down: Mapping[str, int],
    up: Mapping[str, int],
    round: int = 0,
    finished: Collection[str] = (),
) -> None:
    """Add what messages weighed.

    Args:
        path: The file.
        down: Node -> bytes from the server, as Flower serialises them.
        up: Node -> bytes to it.
        round: The round that is over, from 1; 0 where the messages belong to none.
        finished: The nodes that had a part in it.
    """

    def changed(known: Activity) -> Activity:
        nodes = dict(known.nodes)
        for name in {*down, *up, *finished}:
            contact = known.of(name)
            nodes[name] = Contact(
                contact.connected,
                contact.seen,
                round if round and name in finished else contact.round,
                contact.down + down.get(name, 0),
                contact.up + up.get(name, 0),
            )
        return Activity(round or known.round, nodes)

    _change(path, changed)


def _change(path: Path, change: Callable[[Activity], Activity]) -> None:
    # Whoever serves or trains goes on without it.
    with contextlib.suppress(InputError, OSError), _alone_in(path.parent):
        changed = change(Activity.known(path))
        write_atomically(path, json.dumps(asdict(changed), indent=2) + "\n")


@contextlib.contextmanager
def _alone_in(folder: Path) -> Iterator[None]:
    """Wait until no other process changes the file."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _contact(values: Any) -> Contact:
    connected, seen = values["connected"], values["seen"]
    if type(connected) is not bool or type(seen) not in (int, float) or not 0 <= seen < _LATEST:
        raise ValueError("a node's entry is none")
    return Contact(
        connected, float(seen), *(_count(values[key]) for key in ("round", "down", "up"))
    )


def _count(value: Any) -> int:
    if type(value) is not int or value < 0:
        raise ValueError(f"{value!r} is no count")
    return value
