"""How a server or a node is: who is connected, rounds, bytes, and until when certificates hold."""

import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from fedmer.console import Console, in_bytes
from fedmer.errors import InputError
from fedmer.flower.deploy.activity import Activity, Contact
from fedmer.flower.deploy.certificates import ends
from fedmer.flower.deploy.folder import Federation, Node
from fedmer.flower.deploy.handshake import served_until
from fedmer.flower.deploy.processes import is_in_use
from fedmer.flower.deploy.renewal import ANEW

_NEAR = timedelta(days=30)
"""Before a server's certificate ends; from then on it is warned of."""
_NEAR_OF_AUTHORITY = timedelta(days=365)
"""The same of the authority, since every node has to get another."""


@dataclass(frozen=True)
class Status:
    """What ``fedmer deploy status`` shows.

    Args:
        name: Of the node, or empty for a server.
        address: HOST:PORT of the server.
        running: Whether a process serves the folder.
        round: The last round that was finished.
        nodes: Name -> what is known of it; of a node's folder that node alone.
        certificates: ``server`` and ``authority`` -> when they end; that of a server which is
            elsewhere is there if it answers.
        warnings: Sentences on what is wrong, or soon will be.
    """

    name: str
    address: str
    running: bool
    round: int
    nodes: Mapping[str, Contact]
    certificates: Mapping[str, datetime]
    warnings: tuple[str, ...]

    @classmethod
    def of(cls, folder: Path) -> "Status":
        """Look at the folder of a server or of a node.

        Raises:
            InputError: It is neither, or a file in it is damaged.
        """
        if (folder / "node.json").exists():
            return _of_node(Node.read(folder))
        if (folder / "federation.json").exists():
            return _of_server(Federation.read(folder))
        raise InputError(
            f"{folder} is neither a federation's folder nor a node's; name one that "
            "'fedmer deploy init' made."
        )

    def show(self) -> None:
        """Print it as a table and sentences."""
        from rich.table import Table

        console = Console()
        what = (
            f"{self.name}, a node of {self.address},"
            if self.name
            else f"The server at {self.address}"
        )
        state = "is running" if self.running else "is not running"
        console.print(f"{what} {state}; last finished round: {self.round or 'none'}")
        table = Table()
        for heading in ("node", "", "last seen"):
            table.add_column(heading)
        for heading in ("round", "to it", "from it"):
            table.add_column(heading, justify="right")
        for name, contact in self.nodes.items():
            table.add_row(
                name,
                "connected" if contact.connected else "not connected",
                _ago(contact.seen),
                str(contact.round),
                in_bytes(contact.down),
                in_bytes(contact.up),
            )
        console.print(table)
        for name, end in sorted(self.certificates.items(), reverse=True):
            console.print(f"The certificate of the {name} {_end(end)}")
        for sentence in self.warnings:
            console.print(f"Warning: {sentence}", soft_wrap=True)

    def json(self) -> dict[str, Any]:
        """All of it, for other programs: times as ISO 8601 writes them."""
        return {
            "name": self.name,
            "address": self.address,
            "running": self.running,
            "round": self.round,
            "nodes": {
                name: {
                    "connected": contact.connected,
                    "last_seen": _written(datetime.fromtimestamp(contact.seen, UTC))
                    if contact.seen
                    else None,
                    "round": contact.round,
                    "bytes_down": contact.down,
                    "bytes_up": contact.up,
                }
                for name, contact in self.nodes.items()
            },
            "certificates": {name: _written(end) for name, end in self.certificates.items()},
            "warnings": list(self.warnings),
        }


def certificate_warnings(found: Federation) -> list[str]:
    """What is to be done about certificates that end soon, or have ended.

    Raises:
        InputError: One cannot be read.
    """
    warnings = []
    now = datetime.now(UTC)
    end, last = ends(found.certificate), ends(found.authority)
    if end - now < _NEAR:
        warnings.append(
            f"The server's certificate {_end(end, now)}; renew it with 'fedmer deploy renew "
            f"{found.folder}' and restart the server"
        )
    if last - now < _NEAR_OF_AUTHORITY:
        warnings.append(
            f"The federation's authority {_end(last, now)}, and nodes then take no certificate of "
            f"it; {ANEW}"
        )
    return warnings


def _of_server(found: Federation) -> Status:
    known = Activity.read(found.activity)
    running = is_in_use(found.server)
    certificates = {"server": ends(found.certificate), "authority": ends(found.authority)}
    warnings = certificate_warnings(found)
    if running:
        served, wrong = _served("127.0.0.1", found.port, found.authority)
        if wrong:
            warnings.append(wrong)
        elif served != certificates["server"]:
            warnings.append(
                f"The server that is running has the certificate that {_end(served)}, and not the "
                "one in its folder; restart it"
            )
    nodes = {name: _now(known.of(name), running) for name in found.nodes}
    return Status("", found.address, running, known.round, nodes, certificates, tuple(warnings))


def _of_node(node: Node) -> Status:
    known = Activity.read(node.activity)
    running = is_in_use(node.folder)
    certificates = {"authority": ends(node.authority)}
    served, wrong = _served(node.host, node.port, node.authority)
    warnings = [wrong] if wrong else []
    if served is not None:
        certificates["server"] = served
        if served - datetime.now(UTC) < _NEAR:
            warnings.append(f"The server's certificate {_end(served)}; tell whoever runs it")
    nodes = {node.name: _now(known.of(node.name), running)}
    round = known.round
    return Status(node.name, node.address, running, round, nodes, certificates, tuple(warnings))


def _served(host: str, port: int, authority: Path) -> tuple[datetime | None, str]:
    """When the certificate of what answers there ends, and what is wrong with it."""
    try:
        served = served_until(host, port, authority)
    except InputError as error:
        return None, str(error).removesuffix(".")
    return served, "" if served else f"Nobody answers at {host}:{port}"


def _now(contact: Contact, running: bool) -> Contact:
    """What was written last says nothing of now if nobody is there to write it."""
    return contact if running else replace(contact, connected=False)


def _end(end: datetime | None, now: datetime | None = None) -> str:
    assert end is not None
    left = end - (now or datetime.now(UTC))
    if left < timedelta(0):
        return f"ended on {end:%Y-%m-%d}"
    return f"ends on {end:%Y-%m-%d}, in {left.days} days"


def _ago(seen: float) -> str:
    if not seen:
        return "never"
    left = max(0.0, time.time() - seen)
    for size, unit in ((86400, "days"), (3600, "h"), (60, "min")):
        if left >= 2 * size:
            return f"{left / size:.0f} {unit} ago"
    return f"{left:.0f} s ago"


def _written(moment: datetime) -> str:
    return moment.isoformat(timespec="seconds")
