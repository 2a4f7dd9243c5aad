"""``fedmer deploy server``: run Flower's server, and announce which nodes come and go."""

import logging
import os
import sys
import time
from contextlib import ExitStack

from fedmer.errors import InputError
from fedmer.flower.deploy.activity import note_contact
from fedmer.flower.deploy.certificates import LOOPBACK, check_server
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.logs import announce
from fedmer.flower.deploy.metrics import Metrics
from fedmer.flower.deploy.processes import Kept, check_port, died, flower_environment, only_one
from fedmer.flower.deploy.status import certificate_warnings
from fedmer.flower.server.superlink import is_guarded, is_healthy, nodes_seen, register

_SECONDS_TO_START = 120.0
_TICK = 0.2
_LOOK = 10.0
"""Seconds between two looks at who is there."""
_DAY = 86400.0


def serve(found: Federation, listen: str | None, metrics: str | None) -> int:
    """Run the server of a federation until it ends.

    Args:
        found: Its folder.
        listen: The interface; by default that of this machine alone if nodes dial it there.
        metrics: Where :class:`~fedmer.flower.deploy.metrics.Metrics` are to be had, if anywhere.

    Returns:
        The exit code, 1, once the server has died.

    Raises:
        InputError: A file of the folder is missing or wrong, the port is in use, or this Flower
            lets anybody start runs.
    """
    for path in (
        found.authority,
        found.certificate,
        found.key,
        *map(found.public_key, found.nodes),
    ):
        if not path.is_file():
            raise InputError(f"{path} is missing; restore it, or make a federation anew.")
    check_server(found.certificate, found.key)
    listen = listen or ("127.0.0.1" if found.host in LOOPBACK else "0.0.0.0")
    nodes = _Nodes(found)
    with only_one(found.server), ExitStack() as stack:
        if metrics is not None:
            certificates = {"server": found.certificate, "authority": found.authority}
            page = Metrics(metrics, found.activity, found.nodes, certificates, nodes.answered)
            stack.enter_context(page)
        check_port(listen, found.port)
        found.write_flower_files()
        environment = flower_environment(found.home, found.host)
        # The Flower client in this process reads them, too.
        os.environ.update(environment)
        words = [sys.executable, "-P", "-m", "fedmer.flower.server.superlink"]
        words.append(str(found.public_key("any").parent))
        words += ["--ssl-ca-certfile", str(found.authority)]
        words += ["--ssl-certfile", str(found.certificate), "--ssl-keyfile", str(found.key)]
        words += ["--host", listen, "--port", str(found.port), "--database", str(found.database)]
        words += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        with Kept(words, environment, found.log) as superlink:
            return _attend(found, superlink, nodes)


def _attend(found: Federation, superlink: Kept, nodes: "_Nodes") -> int:
    patience = time.monotonic() + _SECONDS_TO_START
    while superlink.exit_code is None and not is_healthy(found.loopback, found.authority):
        if time.monotonic() > patience:
            return died("The SuperLink does not answer", superlink, found.log)
        time.sleep(_TICK)
    if superlink.exit_code is None:
        if not is_guarded(found.loopback, found.authority):
            raise InputError("Unauthenticated clients can start runs here; install flwr 1.41.")
        keys = {name: found.public_key(name).read_bytes() for name in found.nodes}
        found.write_node_ids(register(found.loopback, found.authority, keys))
        count = f"{len(keys)} node{'s' * (len(keys) > 1)}"
        announce(f"Server is ready at {found.address} for {count}; Ctrl-C ends it")
    while superlink.exit_code is None:
        time.sleep(_TICK)
        nodes.look()
    return died("The SuperLink has ended", superlink, found.log)


def _warnings(found: Federation) -> list[str]:
    try:
        return certificate_warnings(found)
    except InputError as error:
        # What serves already has read it, and goes on.
        return [str(error)]


class _Nodes:
    """Announces which nodes come and go, and once a day when a certificate ends.

    Args:
        found: Whose nodes.
    """

    def __init__(self, found: Federation) -> None:
        self._found = found
        self._online: set[str] = set()
        self._answers = False
        self._next = 0.0
        self._warn = 0.0

    def answered(self) -> bool:
        """Whether the SuperLink did, when it was last looked at."""
        return self._answers

    def look(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK
        if time.monotonic() > self._warn:
            self._warn = time.monotonic() + _DAY
            for sentence in _warnings(self._found):
                announce(sentence, logging.WARNING)
        try:
            seen = nodes_seen(self._found.loopback, self._found.authority)
        except OSError:
            # Busy, or about to end, which is announced where it is seen.
            self._answers = False
            return
        self._answers = True
        never = (False, 0.0)
        numbers = self._found.node_ids()
        contacts = {name: seen.get(number, never) for name, number in numbers.items()}
        note_contact(self._found.activity, contacts)
        names = {name for name, (connected, _) in contacts.items() if connected}
        for name in sorted(names - self._online):
            announce(f"{name} is connected")
        for name in sorted(self._online - names):
            announce(f"{name} is not connected any more; it may be off or cut off", logging.WARNING)
        self._online = names
