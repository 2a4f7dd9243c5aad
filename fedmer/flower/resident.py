"""A node's worker: a process that stays, with torch and all else imported.

Flower starts a process for every message. Were it to do the work, it would spend five seconds on
imports first; so it passes the message on to this one, over a local socket that only the node's own
user can reach.
"""

import os
import sys
import time
from collections.abc import Mapping
from multiprocessing.connection import Client, Connection, Listener
from typing import Any

from flwr.app import RecordDict

from fedmer.flower.records import portable

SOCKET = "FEDMER_WORKER"
"""The environment variable that says where the worker of this node listens."""
_START = 60.0
"""Seconds that a worker may take to start."""


def work(
    kind: str, content: RecordDict, own: Mapping[str, Any], state: RecordDict
) -> tuple[RecordDict, RecordDict]:
    """Have a message answered: by the worker, or here if there is none.

    Args:
        kind: ``describe``, ``fit`` or ``score``.
        content: Of the message.
        own: The node's configuration: its ``folder`` and its ``data``.
        state: What Flower keeps for the node.

    Returns:
        The answer, and the state as it is now.

    Raises:
        ConnectionError: The worker ended in the middle of it.
    """
    address = os.environ.get(SOCKET)
    if address is None:
        from fedmer.flower.node_work import answer

        return answer(kind, content, own, state), state
    try:
        with _call(address) as pipe:
            pipe.send((kind, portable(content), dict(own), portable(state)))
            result: tuple[RecordDict, RecordDict] = pipe.recv()
            return result
    except (EOFError, OSError) as error:
        raise ConnectionError("its worker ended in the middle of the work") from error


def _call(address: str) -> Connection:
    """Reach the worker, which may only just have started."""
    deadline = time.monotonic() + _START
    while True:
        try:
            return Client(address, family="AF_UNIX")
        except (FileNotFoundError, ConnectionRefusedError):
            if time.monotonic() > deadline:
                raise
            time.sleep(0.1)


def main(address: str) -> None:
    """Answer messages, one after the other, for as long as the process lives."""
    from fedmer.flower.node_work import answer

    with Listener(address, family="AF_UNIX") as listener:
        while True:
            try:
                with listener.accept() as pipe:
                    kind, content, own, state = pipe.recv()
                    answered = answer(kind, content, own, state)
                    pipe.send((portable(answered), portable(state)))
            except (EOFError, ConnectionError):
                # Whoever asked is gone; the next one may still come.
                continue


if __name__ == "__main__":
    main(sys.argv[1])
