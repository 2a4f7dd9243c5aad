"""Flower's SuperLink behind a guard, and what we ask of one that runs.

One port serves the nodes, who sign what they send, and the interfaces that start runs and hand out
tasks, where nobody has to prove anything. Whoever reached those could run code on every node. The
guard lets other machines through to the first only, and nobody send more than it can bear.

``python -m fedmer.flower.server.superlink KEYS OPTIONS`` takes the folder of the nodes' public
keys, and the options of ``flower-superlink``.
"""

import http.client
import logging
import ssl
import sys
from collections.abc import Collection, Mapping
from importlib import import_module
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import TYPE_CHECKING, Any

from fedmer.errors import InputError
from fedmer.flower.deploy.clock import HEALTH
from fedmer.flower.server.guard import Application, BoundedProtocol, Guard

if TYPE_CHECKING:
    from flwr.supercore.control import ControlHttpClient

_CONTROL = "/v1/control/list-nodes"

_ASKED = "ControlServicer.ListNodes"

# On Linux all of 127.0.0.0/8 is this machine, so this address can ask as one without a key.
_UNAUTHENTICATED = "127.0.0.2"


def put_guard(entry: ModuleType, keys: Collection[bytes] = ()) -> None:
    """Let the module of Flower's SuperLink serve behind the guard, or not at all.

    Args:
        entry: ``flwr.superlink.cli.flower_superlink``.
        keys: The public keys of the nodes, as their requests name them.

    Raises:
        InputError: This Flower starts its server in another way than the guard knows.
    """
    serve = getattr(entry, "_run_superlink_http_api", None)
    named = set(serve.__code__.co_names) if serve is not None else set()
    if not {"uvicorn", "run"} <= named or not hasattr(entry, "uvicorn"):
        from flwr.supercore.version import package_version

        raise InputError(
            f"Flower {package_version} starts its server in a way that fedmer cannot guard; "
            "install flwr 1.41."
        )
    run = entry.uvicorn.run

    def guarded(app: Application, **options: Any) -> None:
        # Headers of a proxy would let anyone claim to be 127.0.0.1, and a log of every
        # request would grow by the second. Flower uses no WebSockets.
        fixed = {"proxy_headers": False, "access_log": False, "http": BoundedProtocol, "ws": "none"}
        run(Guard(app, keys), **options | fixed)

    # We ask that every few seconds.
    logging.getLogger("flwr").addFilter(lambda said: said.getMessage() != _ASKED)

    # Only `run`: any other way of serving has to fail, as it would be unguarded.
    entry.uvicorn = SimpleNamespace(run=guarded)  # type: ignore[attr-defined]


def is_healthy(address: str, authority: Path) -> bool:
    """Whether the SuperLink answers."""
    try:
        return _status("GET", HEALTH, address, authority) == 200
    except OSError:
        return False


def is_guarded(address: str, authority: Path) -> bool:
    """Whether one without a key is refused, asked so where the system has an address for that."""
    if sys.platform != "linux" or not address.startswith("127."):
        return True
    return _status("POST", _CONTROL, address, authority, (_UNAUTHENTICATED, 0)) == 403


def register(address: str, authority: Path, keys: Mapping[str, bytes]) -> dict[str, int]:
    """Make the SuperLink know the nodes; those it knows already stay as they are.

    Args:
        address: HOST:PORT on this machine.
        authority: The certificate of the federation's authority.
        keys: The public key of each node, as ``ssh-keygen`` writes it.

    Returns:
        Flower's number of each node.

    Raises:
        InputError: A key cannot be read, or the SuperLink refuses it.
    """
    from flwr.proto.control_pb2 import ListNodesRequest, RegisterNodeRequest
    from httpx import HTTPError

    client = _control(address, authority)
    numbers: dict[str, int] = {}
    try:
        known = {
            node.public_key: node.node_id
            for node in client.ListNodes(ListNodesRequest()).nodes_info
            if node.status != "unregistered"
        }
        for name, text in keys.items():
            content = key_of(name, text)
            if content not in known:
                request = RegisterNodeRequest(public_key=content, name=name)
                known[content] = client.RegisterNode(request).node_id
            numbers[name] = known[content]
    except HTTPError as error:
        raise InputError(f"The SuperLink did not register the nodes ({error}).") from error
    finally:
        client.close()
    return numbers


def nodes_seen(address: str, authority: Path) -> dict[int, tuple[bool, float]]:
    """Which nodes are connected, and when they were last heard of.

    Args:
        address: HOST:PORT on this machine.
        authority: The certificate of the federation's authority.

    Returns:
        Flower's number of a node -> whether it is connected, and the time of its last heartbeat in
        seconds since 1970; 0 before its first.

    Raises:
        OSError: The SuperLink does not answer.
    """
    from flwr.common.constant import HEARTBEAT_PATIENCE
    from flwr.proto.control_pb2 import ListNodesRequest
    from httpx import HTTPError

    client = _control(address, authority)
    try:
        found = client.ListNodes(ListNodesRequest()).nodes_info
    except HTTPError as error:
        raise OSError(str(error)) from error
    finally:
        client.close()
    return {
        node.node_id: (
            node.status == "online",
            # Flower keeps the moment at which it stops to wait for the next one.
            max(0.0, node.online_until - HEARTBEAT_PATIENCE * node.heartbeat_interval),
        )
        for node in found
    }


def _control(address: str, authority: Path) -> "ControlHttpClient":
    from flwr.supercore.control import ControlHttpClient
    from flwr.supercore.interceptors import RuntimeVersionHttpInterceptor

    return ControlHttpClient.from_server_address(
        address,
        insecure=False,
        root_certificates=authority.read_bytes(),
        interceptors=[RuntimeVersionHttpInterceptor(component_name="flwr CLI")],
    )


def key_of(name: str, text: bytes) -> bytes:
    """A node's public key as its requests name it.

    Args:
        name: Of the node, for the message.
        text: As ``ssh-keygen`` writes it.

    Raises:
        InputError: It cannot be read.
    """
    from cryptography.hazmat.primitives.asymmetric import ec
    from cryptography.hazmat.primitives.serialization import load_ssh_public_key
    from flwr.supercore.primitives.asymmetric import public_key_to_bytes

    try:
        key = load_ssh_public_key(text)
    except ValueError as error:
        raise InputError(f"The public key of {name} is damaged ({error}).") from error
    if not isinstance(key, ec.EllipticCurvePublicKey):
        raise InputError(f"The public key of {name} is not an elliptic one.")
    return public_key_to_bytes(key)


def _status(
    method: str, path: str, address: str, authority: Path, source: tuple[str, int] | None = None
) -> int:
    context = ssl.create_default_context(cafile=str(authority))
    connection = http.client.HTTPSConnection(
        address, timeout=10, context=context, source_address=source
    )
    try:
        connection.request(method, path)
        return connection.getresponse().status
    except http.client.HTTPException as error:
        raise OSError(str(error)) from error
    finally:
        connection.close()


def main() -> int:
    """Be ``flower-superlink``, guarded."""
    keys = sorted(Path(sys.argv.pop(1)).glob("*.pub"))
    try:
        entry = import_module("flwr.superlink.cli.flower_superlink")
        put_guard(entry, [key_of(path.stem, path.read_bytes()) for path in keys])
    except (InputError, ImportError) as error:
        print(f"fedmer: error: {error}", file=sys.stderr)
        return 2
    entry.flower_superlink()
    return 0


if __name__ == "__main__":
    sys.exit(main())
