"""``fedmer deploy node``: run Flower's node and its worker, and announce what becomes of them."""

import json
import logging
import math
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from pathlib import Path

from fedmer.data.formats import read_corpus
from fedmer.errors import InputError
from fedmer.files import TemporaryFolder
from fedmer.flower.deploy.activity import note_contact
from fedmer.flower.deploy.certificates import check_node_key
from fedmer.flower.deploy.clock import wrong_clock
from fedmer.flower.deploy.folder import Node
from fedmer.flower.deploy.handshake import answers
from fedmer.flower.deploy.logs import announce
from fedmer.flower.deploy.metrics import Metrics
from fedmer.flower.deploy.processes import Kept, died, flower_environment, free_port, only_one
from fedmer.flower.node.policy import Policy
from fedmer.flower.node.resident import SOCKET

_SECONDS_TO_BE_KNOWN = 20.0
"""A server that is starting answers before it has registered the last of its nodes."""
_SECONDS_TO_BE_MISSED = 90.0
"""The server believes a node that vanished to be there for a minute, and lets no second one in."""
_TICK = 0.2
_PAUSE_IF_REFUSED = 5.0
_LONGEST_PAUSE = 10.0
_LOOK = 10.0
"""Seconds between two looks at the server."""
_CONNECTED = "SuperNode ID: "
_REFUSED = "[code: 2004]"


def serve(node: Node, data: Path, metrics: str | None) -> int:
    """Run a node until it ends.

    Args:
        node: Its folder.
        data: Its corpus.
        metrics: Where :class:`~fedmer.flower.deploy.metrics.Metrics` are to be had, if anywhere.

    Returns:
        The exit code, 1, once Flower's program has died.

    Raises:
        InputError: A file of the folder or the corpus cannot be used, or the server does not know
            the node.
    """
    for path in (node.authority, node.key, node.state):
        if not path.exists():
            raise InputError(f"{path} is missing; carry the node's folder here again.")
    check_node_key(node.key)
    try:
        Policy.read(node.policy)
    except InputError as error:
        raise InputError(f"{node.folder}: {error}.") from error
    read_corpus(data, math.inf)
    config = " ".join(
        f"{key}={_quoted(path)}" for key, path in (("folder", node.folder), ("data", data))
    )
    server = _Server(node)
    with only_one(node.folder), ExitStack() as stack:
        if metrics is not None:
            certificates = {"authority": node.authority}
            page = Metrics(metrics, node.activity, [node.name], certificates, server.reached)
            stack.enter_context(page)
        _wait_for_server(node)
        environment = flower_environment(node.home, node.host)
        # Nodes often share a machine, where more threads than cores cost far more than they give.
        environment.setdefault("OMP_NUM_THREADS", "1")
        program = shutil.which("flower-supernode", path=environment["PATH"])
        if program is None:
            raise InputError("There is no program flower-supernode; install 'fedmer[flower]'.")
        words = [program, "--root-certificates", str(node.authority), "--superlink", node.address]
        words += ["--auth-supernode-private-key", str(node.key), "--node-config", config]
        words += ["--host", "127.0.0.1", "--port", str(free_port())]
        private = stack.enter_context(closing(TemporaryFolder()))
        address = str(private.path / "worker")
        environment[SOCKET] = address
        work = [sys.executable, "-P", "-m", "fedmer.flower.node.resident", address]

        def start_worker() -> Kept:
            Path(address).unlink(missing_ok=True)
            return stack.enter_context(Kept(work, environment, node.folder / "worker.log"))

        def start_supernode() -> Kept:
            return stack.enter_context(Kept(words, environment, node.log))

        return _attend(node, server, start_supernode, start_worker)


def _attend(
    node: Node,
    server: "_Server",
    start_supernode: Callable[[], Kept],
    start_worker: Callable[[], Kept],
) -> int:
    connected = False
    known = any(_CONNECTED in log.read_text(errors="replace") for log in _logs(node))
    supernode, worker = start_supernode(), start_worker()
    patience = _SECONDS_TO_BE_MISSED if known else _SECONDS_TO_BE_KNOWN
    begun = time.monotonic()
    deadline = begun + patience
    refusal_announced = False
    while True:
        if supernode.exit_code is not None:
            refused = not connected and _REFUSED in supernode.output()
            if not refused or time.monotonic() > deadline:
                break
            if not refusal_announced:
                refusal_announced = True
                announce(
                    f"{node.name} is not let in, and tries again for {patience:.0f} s",
                    logging.WARNING,
                )
            time.sleep(_PAUSE_IF_REFUSED)
            supernode = start_supernode()
        if worker.exit_code is not None and time.monotonic() > begun + _PAUSE_IF_REFUSED:
            # It ends itself when its time is up; the next message finds another.
            announce(f"The worker of {node.name} has ended; another is started", logging.WARNING)
            worker, begun = start_worker(), time.monotonic()
        if not connected and _CONNECTED in supernode.output():
            connected = True
            announce(f"{node.name} is connected to {node.address}; Ctrl-C ends it")
            server.note(True)
        if connected:
            server.look()
        for line in worker.news():
            print(line, flush=True)
        time.sleep(_TICK)
    if refused:
        raise InputError(
            f"The server at {node.address} does not know the key of {node.name}; start the server "
            "with the DIR that was made together with this folder."
        )
    return died(f"The SuperNode of {node.name} has ended", supernode, node.log)


class _Server:
    """Announces when the server of a node cannot be reached, and when it can again.

    Args:
        node: Whose server.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._reached = False
        self._next = 0.0

    def reached(self) -> bool:
        """Whether it was, when it was last looked at."""
        return self._reached

    def note(self, reached: bool) -> None:
        """Keep whether it can be reached now, for whoever asks for the node's state."""
        note_contact(
            self._node.activity, {self._node.name: (reached, time.time() if reached else 0.0)}
        )
        self._reached = reached
        self._next = time.monotonic() + _LOOK

    def look(self) -> None:
        """Look, if it is time to."""
        if time.monotonic() < self._next:
            return
        node = self._node
        why = ""
        try:
            reached = answers(node.host, node.port, node.authority)
        except InputError as error:
            reached, why = False, f" ({error})"
        if self._reached and not reached:
            announce(
                f"{node.name} does not reach the server at {node.address}{why}; it tries again by "
                "itself",
                logging.WARNING,
            )
        elif reached and not self._reached:
            announce(f"{node.name} reaches the server at {node.address} again")
        self.note(reached)


def _wait_for_server(node: Node) -> None:
    pause = _TICK
    while not answers(node.host, node.port, node.authority):
        if pause == _TICK:
            announce(f"{node.name} is waiting for the server at {node.address}")
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)
    announced = False
    while wrong := wrong_clock(node.host, node.port, node.authority):
        # A clock that the network sets may be wrong for a while after the machine has started.
        if not announced:
            announced = True
            announce(f"{node.name} waits. {wrong}", logging.WARNING)
        time.sleep(_LOOK)


def _logs(node: Node) -> list[Path]:
    return sorted(node.folder.glob(f"{node.log.name}*"))


def _quoted(path: Path) -> str:
    if '"' in str(path):
        raise InputError(f"{path} has a quotation mark in it, which Flower cannot take; rename it.")
    return json.dumps(str(path), ensure_ascii=False)
