"""Letters to nodes, and what comes back of them in the end: an answer, or why there is none."""

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from flwr.app import RecordDict

from fedmer.flower.records import lost, portable, take_failure, why
from fedmer.flower.server.relay import Relay, Reply, online, pull, push

_PAUSES = (0.02, 0.5)
"""Seconds between two looks into the mailbox: at first, and after a long wait."""
_ROLL_CALL = 5.0
"""Seconds between two looks at who is connected."""
_GRACE = 5.0
"""Seconds that Flower keeps a message after nobody waits for it: else its own word for one that
expired, which says less, would now and then come before ours."""


@dataclass(frozen=True)
class Answer:
    """What came of one message.

    Args:
        content: The answer, or None.
        failure: Why there is none, as the end of a sentence about the node.
    """

    content: RecordDict | None
    failure: str = ""


class Mail:
    """One message to each of some clients.

    Args:
        relay: The way to Flower.
        messages: Client -> the id of its node, and what to send.
        kind: Flower's message type.
        group: The round, for Flower's log.
        seconds: How long to wait for an answer.
    """

    def __init__(
        self,
        relay: Relay,
        messages: Mapping[int, tuple[int, RecordDict]],
        kind: str,
        group: str,
        seconds: float,
    ) -> None:
        self._relay = relay
        self._seconds = seconds
        self._sent = time.monotonic()
        self._nodes = {client: node for client, (node, _) in messages.items()}
        self.down: Counter[int] = Counter()
        """Client -> bytes of its message, as Flower serialises it."""
        self.up: Counter[int] = Counter()
        """Client -> bytes of its answer, so far."""
        whole = [(node, portable(content)) for node, content in messages.values()]
        sent = relay.call(push, whole, kind, group, seconds + _GRACE) if messages else []
        self._waiting: dict[str, int] = {}
        self._lost: dict[int, Answer] = {}
        for client, (message_id, count) in zip(messages, sent, strict=True):
            self.down[client] += count
            if message_id is None:
                self._lost[client] = Answer(None, "could not be written to")
            else:
                self._waiting[message_id] = client
        self._called = time.monotonic()
        self._pause = _PAUSES[0]

    @property
    def open(self) -> bool:
        """Is anything still to come?"""
        return bool(self._waiting or self._lost)

    def receive(self) -> dict[int, Answer]:
        """Wait a moment; returns what has come since, by client, maybe nothing."""
        found, self._lost = self._lost, {}
        if self._waiting:
            for reply in self._relay.call(pull, list(self._waiting)):
                client = self._waiting.pop(reply.message_id)
                self.up[client] += reply.bytes
                found[client] = self._answer(reply)
        if self._waiting and not found:
            self._give_up(found)
            time.sleep(self._pause)
            self._pause = min(1.2 * self._pause, _PAUSES[1])
        return found

    def _give_up(self, found: dict[int, Answer]) -> None:
        now = time.monotonic()
        late = now > self._sent + self._seconds
        gone: set[int] = set()
        if now - self._called > _ROLL_CALL:
            self._called = now
            gone = set(self._waiting.values()) - self._connected()
        for message_id, client in list(self._waiting.items()):
            if late or client in gone:
                within = f"did not answer within {self._seconds:.0f} s"
                found[client] = Answer(None, within if late else lost(now - self._sent))
                del self._waiting[message_id]

    def _connected(self) -> set[int]:
        nodes = set(self._relay.call(online))
        return {client for client, node in self._nodes.items() if node in nodes}

    def _answer(self, reply: Reply) -> Answer:
        if reply.error is not None:
            return Answer(None, why(reply.error, time.monotonic() - self._sent))
        assert reply.content is not None
        failure = take_failure(reply.content)
        if failure is not None:
            return Answer(None, f"says: {failure}")
        return Answer(reply.content)
