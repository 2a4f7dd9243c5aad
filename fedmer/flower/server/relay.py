"""The ServerApp: it lends its grid to the process that runs the federation.

A round is run where the user typed ``fedmer fit``, with its progress bar, checkpoints and Ctrl-C.
Flower gives the way to its nodes, the grid, to a ServerApp in a process of Flower's. So ours does
nothing but call functions on its grid for whoever sits at the other end of a local socket.
"""

import os
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Client, Connection, Listener
from typing import Any, TypeVar

os.environ.setdefault("FLWR_TELEMETRY_ENABLED", "0")

from flwr.app import Context, Error, Message, RecordDict
from flwr.serverapp import Grid, ServerApp
from flwr.supercore.inflatable.inflatable_utils import ObjectPushError

from fedmer.errors import InputError
from fedmer.files import TemporaryFolder
from fedmer.flower.records import portable, size

T = TypeVar("T")
_ATTEMPTS = 3
_PAUSE = 0.5
"""Seconds before the second attempt to send; twice as long before the third."""


def serve(grid: Grid, address: str) -> None:
    """Call functions on a grid for the process that listens at ``address``, until it hangs up."""
    with Client(address, family="AF_UNIX") as pipe:
        while True:
            try:
                function, arguments = pipe.recv()
            except (EOFError, ConnectionError):
                return
            try:
                answer, failure = function(grid, *arguments), None
            except Exception as error:  # noqa: BLE001 - raised again on the other side
                said = str(error)
                kind = "" if isinstance(error, InputError) else f"{type(error).__name__}: "
                answer, failure = None, kind + said
            pipe.send((answer, failure))


app = ServerApp()


@app.main()
def main(grid: Grid, context: Context) -> None:
    """Serve the process whose address stands in the run's configuration."""
    serve(grid, str(context.run_config["relay"]))


class Relay:
    """This process's end: calls functions on a grid that lives in another.

    The socket lies in a folder that only this user may enter, and goes away with the relay.
    """

    def __init__(self) -> None:
        self._folder = TemporaryFolder()
        self.address = str(self._folder.path / "relay")
        self._listener = Listener(self.address, family="AF_UNIX")
        self._pipe: Connection | None = None

    def wait(self, seconds: float, alive: Callable[[], str | None]) -> None:
        """Wait for the ServerApp.

        Args:
            seconds: How long.
            alive: None while it may still come, else what went wrong.

        Raises:
            InputError: It did not come.
        """
        deadline = time.monotonic() + seconds
        # Listener has no timeout of its own.
        socket: Any = self._listener._listener._socket  # type: ignore[attr-defined]
        socket.settimeout(0.2)
        while self._pipe is None:
            try:
                self._pipe = self._listener.accept()
            except TimeoutError:
                failure = alive()
                if failure is None and time.monotonic() > deadline:
                    failure = f"it did not start within {seconds:.0f} s"
                if failure is not None:
                    raise InputError(f"Flower's ServerApp cannot be used: {failure}") from None

    def call(self, function: Callable[..., T], *arguments: Any) -> T:
        """``function(grid, *arguments)``, in the ServerApp's process.

        Args:
            function: A module's own, so that the other process finds it by name.
            *arguments: What can be pickled.

        Raises:
            InputError: The ServerApp is gone, or the function failed.
        """
        assert self._pipe is not None
        try:
            self._pipe.send((function, arguments))
            answer, failure = self._pipe.recv()
        except (EOFError, OSError) as error:
            raise InputError(
                "The connection to Flower's server was lost; see that 'fedmer deploy server' is "
                "running, and go on from the last checkpoint."
            ) from error
        if failure is not None:
            raise InputError(f"Flower's server failed: {failure}")
        result: T = answer
        return result

    def close(self) -> None:
        """Hang up, which ends the ServerApp."""
        if self._pipe is not None:
            self._pipe.close()
        self._listener.close()
        self._folder.close()


def online(grid: Grid) -> list[int]:
    """Ids of the nodes that are connected now."""
    return list(grid.get_node_ids())


def push(
    grid: Grid, messages: Sequence[tuple[int, RecordDict]], kind: str, group: str, seconds: float
) -> list[tuple[str | None, int]]:
    """Send a message to each node; returns ids, None for one that was not taken, and bytes.

    Args:
        grid: Where to.
        messages: Node id and content.
        kind: Flower's message type.
        group: The round, for Flower's log.
        seconds: How long a message and its answer are good.
    """
    sizes = [size(content) for _, content in messages]
    for attempt in range(_ATTEMPTS):
        outgoing = [
            Message(content, node, kind, ttl=seconds, group_id=group) for node, content in messages
        ]
        try:
            return list(zip(grid.push_messages(outgoing), sizes, strict=True))
        except ObjectPushError:
            # Flower stores each part of a message once, by its digest. Where a late reply of an
            # earlier round holds an equal part, whoever stores it first ends the other's attempt.
            time.sleep(_PAUSE * (1 + attempt))
    return [(None, count) for count in sizes]


@dataclass(frozen=True)
class Reply:
    """What a node sent back.

    Args:
        message_id: Of the message that it answers.
        content: The answer, or None.
        error: What Flower says went wrong, else None.
        bytes: Of the answer, as Flower serialised it.
    """

    message_id: str
    content: RecordDict | None
    error: Error | None
    bytes: int


def pull(grid: Grid, message_ids: Sequence[str]) -> list[Reply]:
    """What has come back so far."""
    replies = []
    for message in grid.pull_messages(list(message_ids)):
        message_id = message.metadata.reply_to_message_id
        if message.has_error():
            replies.append(Reply(message_id, None, message.error, 0))
        else:
            content = message.content
            replies.append(Reply(message_id, portable(content), None, size(content)))
    return replies
