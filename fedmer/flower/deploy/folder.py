"""What lies where in the folder of a federation and in the folder of a node.

``fedmer deploy init`` writes both kinds; a node's folder goes to the machine of its data.
"""

import contextlib
import ipaddress
import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fedmer.errors import InputError
from fedmer.files import flush_folder, write_atomically

# The name of the SuperLink in the Flower configuration: flwr run APP fedmer.
CONNECTION = "fedmer"

_LABEL = re.compile(r"[A-Za-z0-9_]([A-Za-z0-9_-]{0,61}[A-Za-z0-9_])?")

_APP = """\
[project]
name = "fedmer"
version = "1.0.0"
description = "Names the code that is installed on every machine; there is none in here."
license = "Apache-2.0"
dependencies = []

[tool.hatch.build.targets.wheel]
packages = ["."]

[tool.flwr.app]
publisher = "fedmer"

[tool.flwr.app.components]
serverapp = "fedmer.flower.server.relay:app"
clientapp = "fedmer.flower.node.client_app:app"

[tool.flwr.app.config]
relay = ""
"""


@dataclass(frozen=True)
class Federation:
    """The folder DIR of ``fedmer deploy init|server DIR``.

    Args:
        folder: Its absolute path.
        address: HOST:PORT as the nodes dial it.
        nodes: Their names, in order.
    """

    folder: Path
    address: str
    nodes: tuple[str, ...]

    @property
    def host(self) -> str:
        return split(self.address)[0]

    @property
    def port(self) -> int:
        return split(self.address)[1]

    @property
    def loopback(self) -> str:
        """Where this machine has to dial: the guard lets nobody else start runs."""
        return f"127.0.0.1:{self.port}"

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def authority_key(self) -> Path:
        return self.folder / "ca.key"

    @property
    def server(self) -> Path:
        return self.folder / "server"

    @property
    def certificate(self) -> Path:
        return self.server / "server.crt"

    @property
    def key(self) -> Path:
        return self.server / "server.key"

    @property
    def database(self) -> Path:
        """Flower's own, so that registrations survive a restart."""
        return self.server / "superlink.db"

    @property
    def log(self) -> Path:
        return self.server / "superlink.log"

    @property
    def activity(self) -> Path:
        """Who is connected, rounds, bytes; see :mod:`fedmer.flower.deploy.activity`."""
        return self.server / "activity.json"

    @property
    def home(self) -> Path:
        """FLWR_HOME of every Flower command on the server's machine."""
        return self.server / "flwr"

    @property
    def app(self) -> Path:
        """The Flower app, for ``flwr run``."""
        return self.server / "app"

    def node(self, name: str) -> "Node":
        return Node(self.folder / name, name, self.address)

    def public_key(self, name: str) -> Path:
        """Beside the server, as the node's folder may have moved to its machine."""
        return self.server / "keys" / f"{name}.pub"

    @classmethod
    def read(cls, folder: Path) -> "Federation":
        """Read ``federation.json``.

        Raises:
            InputError: There is none, or it does not say what it should.
        """
        folder = folder.absolute()
        path = folder / "federation.json"
        advice = "make a federation with 'fedmer deploy init' first"
        if (folder / "node.json").exists():
            advice = "this is a node's folder, name the server's"
        values = _read(path, advice)
        nodes = values.get("nodes")
        if not isinstance(nodes, list) or not nodes or not all(map(_is_name, nodes)):
            raise InputError(f"{path}: 'nodes' is not a list of names; restore the file.")
        return cls(folder, _address(path, values.get("address")), tuple(nodes))

    def write(self) -> None:
        _write(self.folder / "federation.json", {"address": self.address, "nodes": self.nodes})

    def node_ids(self) -> dict[str, int]:
        """Flower's number of each node, known once the server has been up.

        Raises:
            InputError: The server has not been up, or the file is damaged.
        """
        path = self.server / "nodes.json"
        values = _read(path, f"start 'fedmer deploy server {self.folder}' first")
        try:
            return {str(name): int(number) for name, number in values.items()}
        except (TypeError, ValueError) as error:
            raise InputError(f"{path} is damaged ({error}); restart the server.") from error

    def write_node_ids(self, numbers: Mapping[str, int]) -> None:
        # Text, as many readers of JSON round numbers of 64 bits.
        _write(self.server / "nodes.json", {name: str(number) for name, number in numbers.items()})

    def write_flower_files(self) -> None:
        """Write what ``flwr run`` reads; again at every start, as the folder may have moved."""
        self.home.mkdir(mode=0o700, exist_ok=True)
        self.app.mkdir(mode=0o700, exist_ok=True)
        write_atomically(self.app / "pyproject.toml", _APP)
        write_atomically(
            self.home / "config.toml",
            f'[superlink]\ndefault = "{CONNECTION}"\n\n[superlink.{CONNECTION}]\n'
            f'address = "{self.loopback}"\n'
            f"root-certificates = {json.dumps(str(self.authority), ensure_ascii=False)}\n",
        )


@dataclass(frozen=True)
class Node:
    """The folder of one node, on the machine of its data.

    Args:
        folder: Its absolute path.
        name: Of the node, in ``federation.json``.
        address: HOST:PORT of the server.
    """

    folder: Path
    name: str
    address: str

    @property
    def host(self) -> str:
        return split(self.address)[0]

    @property
    def port(self) -> int:
        return split(self.address)[1]

    @property
    def authority(self) -> Path:
        return self.folder / "ca.crt"

    @property
    def key(self) -> Path:
        return self.folder / "key"

    @property
    def public_key(self) -> Path:
        return self.folder / "key.pub"

    @property
    def policy(self) -> Path:
        """What the node takes part in; its owner's to change."""
        return self.folder / "policy.json"

    @property
    def extractors(self) -> Path:
        """What features of this node's recordings are made with, where the federation says so."""
        return self.folder / "extractors.yaml"

    @property
    def state(self) -> Path:
        """What the node keeps between rounds; nothing of it ever leaves."""
        return self.folder / "state"

    @property
    def activity(self) -> Path:
        """Whether its server is there, rounds, bytes; nothing of it ever leaves."""
        return self.folder / "activity.json"

    @property
    def home(self) -> Path:
        """FLWR_HOME of the node."""
        return self.folder / "flwr"

    @property
    def log(self) -> Path:
        return self.folder / "node.log"

    @classmethod
    def read(cls, folder: Path) -> "Node":
        """Read ``node.json``.

        Raises:
            InputError: There is none, or it does not say what it should.
        """
        folder = folder.absolute()
        path = folder / "node.json"
        values = _read(path, "name the folder of a node that 'fedmer deploy init' made")
        if not _is_name(values.get("name")):
            raise InputError(f"{path}: 'name' is not a name; restore the file.")
        return cls(folder, values["name"], _address(path, values.get("server")))

    def write(self) -> None:
        _write(self.folder / "node.json", {"name": self.name, "server": self.address})


def split(address: str) -> tuple[str, int]:
    """The host and the port of an address.

    Raises:
        ValueError: It is not HOST:PORT.

    >>> split("server.example.org:8443")
    ('server.example.org', 8443)
    """
    host, _, port = address.rpartition(":")
    if not is_host(host) or not port.isdecimal() or not 0 < int(port) < 65536:
        raise ValueError(f"'{address}' is not HOST:PORT")
    return host, int(port)


def is_host(text: str) -> bool:
    """Whether it could be a host name or an IPv4 address.

    >>> is_host("server.example.org"), is_host("10.0.0.1"), is_host("10.0.0.256"), is_host("::1")
    (True, True, False, False)
    """
    if re.fullmatch(r"[\d.]*", text):
        # Four numbers that are no address would otherwise pass for a name.
        with contextlib.suppress(ValueError):
            ipaddress.IPv4Address(text)
            return True
        return False
    return len(text) < 254 and all(map(_LABEL.fullmatch, text.split(".")))


def write_private(path: Path, content: bytes) -> None:
    """Write a new file that nobody else can read at any moment."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    flush_folder(path.parent)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", value) is not None


def _address(path: Path, value: object) -> str:
    try:
        split(value if isinstance(value, str) else "")
    except ValueError as error:
        raise InputError(f"{path}: {value!r} is not HOST:PORT; restore the file.") from error
    return str(value)


def _read(path: Path, otherwise: str) -> dict[str, Any]:
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise InputError(f"{path} does not exist; {otherwise}.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InputError(f"{path} is not JSON ({error}); restore the file.") from error
    if not isinstance(values, dict):
        raise InputError(f"{path} holds no JSON object; restore the file.")
    return values


def _write(path: Path, values: Mapping[str, object]) -> None:
    write_atomically(path, json.dumps(values, indent=2) + "\n")
