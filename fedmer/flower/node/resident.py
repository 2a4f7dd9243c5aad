"""A node's worker: a process that stays, with torch and all else imported.

Flower starts a process for every message. Were it to do the work, it would spend five seconds on
imports first; so it passes the message on to this one, over a local socket that only the node's own
user can reach.
"""

import logging
import os
import sys
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from math import ceil
from multiprocessing.connection import Client, Connection, Listener
from pathlib import Path
from typing import Any

from flwr.app import RecordDict

from fedmer.errors import InputError
from fedmer.flower.deploy.activity import note_messages
from fedmer.flower.deploy.folder import Node
from fedmer.flower.records import portable, size, take_failure
from fedmer.printable import printable

log = logging.getLogger(__name__)

SOCKET = "FEDMER_WORKER"
"""The environment variable that says where the worker of this node listens."""
_START = 60.0
"""Seconds that a worker may take to start."""


def work(
    kind: str, content: RecordDict, node: Mapping[str, Any], state: RecordDict
) -> tuple[RecordDict, RecordDict]:
    """Have a message answered: by the worker, or here if there is none.

    Args:
        kind: ``describe``, ``fit`` or ``score``.
        content: Of the message.
        node: The node's configuration: its ``folder`` and its ``data``.
        state: What Flower keeps for the node.

    Returns:
        The answer, and the state as it is now.

    Raises:
        ConnectionError: The worker ended in the middle of it.
    """
    address = os.environ.get(SOCKET)
    if address is None:
        from fedmer.flower.node.work import answer

        return answer(kind, content, node, state), state
    try:
        with _call(address) as pipe:
            pipe.send((kind, portable(content), dict(node), portable(state)))
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
    from fedmer.flower.node.work import answer

    logging.basicConfig(format="%(levelname)s : %(message)s", level=logging.INFO)
    with Listener(address, family="AF_UNIX") as listener:
        while True:
            try:
                with listener.accept() as pipe:
                    kind, content, node, state = pipe.recv()
                    answering = partial(answer, kind, content, node, state)
                    answered = _said(kind, content, answering)
                    finished = kind == "fit" and take_failure(answered) is None
                    note(node, content, answered, _round(content, 1) if finished else 0)
                    pipe.send((portable(answered), portable(state)))
            except (EOFError, ConnectionError):
                # Whoever asked is gone; the next one may still come.
                continue


def _said(kind: str, content: RecordDict, answer: Callable[[], RecordDict]) -> RecordDict:
    """Answer a message, and tell the node's log of it."""
    # A score is of the network as it is before the round that the message counts.
    what = f"{_of_round(content, 0 if kind == 'score' else 1)}{kind}"
    log.info("%s begins, %d kB came", what, _kilobytes(content))
    began = time.monotonic()
    answered = answer()
    seconds = time.monotonic() - began
    refused = take_failure(answered)
    if refused is None:
        log.info("%s done in %.1f s, %d kB go back", what, seconds, _kilobytes(answered))
    else:
        log.warning("%s refused after %.1f s: %s", what, seconds, printable(refused))
    return answered


def note(
    node: Mapping[str, Any], came: RecordDict, answer: RecordDict | None, round: int = 0
) -> None:
    """Write down for the node's owner what a message and its answer weighed.

    Args:
        node: The node's configuration: its ``folder`` and its ``data``.
        came: The message.
        answer: What goes back, if anything does.
        round: The round that is finished with it, from 1; 0 if none is.
    """
    # A folder that cannot be read any more is not what the message is about.
    with suppress(InputError):
        found = Node.read(Path(str(node["folder"])))
        name, up = found.name, 0 if answer is None else size(answer)
        note_messages(found.activity, {name: size(came)}, {name: up}, round, {name})


def _of_round(content: RecordDict, first: int) -> str:
    round = _round(content, first)
    return f"round {round}: " if round else ""


def _round(content: RecordDict, first: int) -> int:
    """The number of a round as a message has it, which has not been checked yet; 0 for none."""
    head: Any = content.get("round", {})
    number = head.get("round")
    return max(0, number + first) if type(number) is int else 0


def _kilobytes(content: RecordDict) -> int:
    """Of the arrays, which are nearly all of it."""
    return ceil(sum(r.count_bytes() for r in content.array_records.values()) / 1000)


if __name__ == "__main__":
    main(sys.argv[1])
