"""What stands between the network and Flower's SuperLink: who may ask what, how much, how slowly.

Flower reads a request whole before it looks at who sent it. So the guard looks first: at the
address, at the signature of whatever is longer than a question, at the length, and at the clock.
"""

import asyncio
from base64 import b64decode
from collections.abc import Awaitable, Callable, Collection, MutableMapping
from typing import Any

import h11
from flwr.common.constant import TIMESTAMP_HEADER
from flwr.supercore.constant import FLEET_HTTP_PUBLIC_KEY_HEADER, FLEET_HTTP_SIGNATURE_HEADER
from flwr.supercore.primitives.asymmetric import bytes_to_public_key, verify_signature
from uvicorn.protocols.http.h11_impl import H11Protocol

from fedmer.flower.deploy.clock import HEALTH

_Scope = MutableMapping[str, Any]
_Message = MutableMapping[str, Any]
_Receive = Callable[[], Awaitable[_Message]]
_Send = Callable[[_Message], Awaitable[None]]
Application = Callable[[_Scope, _Receive, _Send], Awaitable[None]]

_THIS_MACHINE = ("127.0.0.1", "::1")
_FOR_NODES = "/v1/fleet/"

LARGEST_BODY = 16 * 2**20
"""Bytes of a request. Flower sends arrays in pieces of 5 MiB, however large a network is, and the
bundle of an app may have 10."""
UNSIGNED_BODY = 64 * 2**10
"""Bytes of a request that nobody has signed: questions and heartbeats have less than 1 kB."""
_BODIES = 16
"""Longer ones that may be in memory at once."""
_SECONDS_FOR_BODY = 120.0
_SECONDS_FOR_HEADERS = 20.0
_SECONDS_TO_READ_ANSWER = 0.5
_CONNECTIONS = 4096
_CONNECTIONS_OF_ONE = 256
"""Of one address, behind which a whole institute may be."""


class _RefusedError(Exception):
    """A request that is answered without Flower.

    Args:
        status: Of HTTP.
        why: For whoever asked.
    """

    def __init__(self, status: int, why: str) -> None:
        super().__init__(why)
        self.status = status
        self.why = why


class Guard:
    """An ASGI application that hands on what may pass, with its body whole, and refuses the rest.

    Other machines reach the fleet's interface only, and there only a node whose key is known may
    send more than a few kilobytes.

    Args:
        application: Who answers otherwise.
        keys: The public keys of the nodes, as their requests name them.
        seconds: That a body may take to arrive.
    """

    def __init__(
        self,
        application: Application,
        keys: Collection[bytes] = (),
        seconds: float = _SECONDS_FOR_BODY,
    ) -> None:
        self._application = application
        self._keys = frozenset(keys)
        self._seconds = seconds
        self._large = asyncio.Semaphore(_BODIES)

    async def __call__(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if scope["type"] == "lifespan":
            await self._application(scope, receive, send)
        elif scope["type"] != "http":
            # A WebSocket that is closed before it was accepted is refused with 403.
            await send({"type": "websocket.close", "code": 1008})
        else:
            try:
                await self._hand_on(scope, receive, send)
            except _RefusedError as refused:
                await _refuse(refused, send)

    async def _hand_on(self, scope: _Scope, receive: _Receive, send: _Send) -> None:
        if not _may_ask(scope):
            raise _RefusedError(403, "Only the machine of the server may ask for this.")
        headers = dict(scope["headers"])
        limit = UNSIGNED_BODY
        trusted = _is_of_this_machine(scope) and not scope["path"].startswith(_FOR_NODES)
        announced = _announced(headers)
        if announced is None or announced > UNSIGNED_BODY:
            if trusted or self._is_signed(headers):
                limit = LARGEST_BODY
            elif announced is not None:
                raise _RefusedError(413, "Without a node's signature this is too long.")
        if announced is not None and announced > limit:
            raise _RefusedError(413, "This is too long.")
        if limit == UNSIGNED_BODY:
            await self._pass(scope, await self._body(receive, limit), receive, send)
            return
        async with self._large:
            await self._pass(scope, await self._body(receive, limit), receive, send)

    async def _pass(self, scope: _Scope, body: bytes, receive: _Receive, send: _Send) -> None:
        first: list[_Message] = [{"type": "http.request", "body": body, "more_body": False}]

        async def received() -> _Message:
            return first.pop() if first else await receive()

        await self._application(scope, received, send)

    async def _body(self, receive: _Receive, limit: int) -> bytes:
        parts: list[bytes] = []
        size = 0
        try:
            async with asyncio.timeout(self._seconds):
                while True:
                    message = await receive()
                    if message["type"] != "http.request":
                        raise _RefusedError(400, "The request was not finished.")
                    parts.append(message.get("body", b""))
                    size += len(parts[-1])
                    if size > limit:
                        raise _RefusedError(413, "This is too long.")
                    if not message.get("more_body", False):
                        return b"".join(parts)
        except TimeoutError:
            raise _RefusedError(408, "The request took too long to arrive.") from None

    def _is_signed(self, headers: dict[bytes, bytes]) -> bool:
        """Whether a known node signed the time that stands beside its key.

        How old that time may be is for Flower to say, which looks at all of it once more.
        """
        try:
            key = b64decode(headers[FLEET_HTTP_PUBLIC_KEY_HEADER.encode()], validate=True)
            signature = b64decode(headers[FLEET_HTTP_SIGNATURE_HEADER.encode()], validate=True)
            time = headers[TIMESTAMP_HEADER.encode()]
            return key in self._keys and verify_signature(bytes_to_public_key(key), time, signature)
        except (KeyError, ValueError):
            return False


def _is_of_this_machine(scope: _Scope) -> bool:
    client = scope.get("client")
    return client is not None and client[0] in _THIS_MACHINE


def _may_ask(scope: _Scope) -> bool:
    path: str = scope["path"]
    return _is_of_this_machine(scope) or path == HEALTH or path.startswith(_FOR_NODES)


def _announced(headers: dict[bytes, bytes]) -> int | None:
    """How long the body will be; None if that is not said before it comes."""
    if b"transfer-encoding" in headers:
        return None
    return int(headers.get(b"content-length", b"0"))


async def _refuse(refused: _RefusedError, send: _Send) -> None:
    body = f"{refused.why}\n".encode()
    headers = [
        (b"content-type", b"text/plain; charset=utf-8"),
        (b"content-length", str(len(body)).encode()),
        # What is still on its way is not waited for.
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": refused.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


class BoundedProtocol(H11Protocol):
    """HTTP for one connection, which has to ask something soon and is one of not too many.

    h11 itself refuses headers beyond 16 kB.
    """

    seconds_for_headers = _SECONDS_FOR_HEADERS
    most_connections = _CONNECTIONS
    most_of_one_address = _CONNECTIONS_OF_ONE

    _patience: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        address = self.client[0] if self.client else ""
        of_this_one = sum(
            isinstance(other, BoundedProtocol) and (other.client or ("",))[0] == address
            for other in self.connections
        )
        crowded = address not in _THIS_MACHINE and of_this_one > self.most_of_one_address
        if crowded or len(self.connections) > self.most_connections:
            transport.abort()
            return
        self._wait_for_headers()

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        if self.cycle is not None and not self.cycle.response_complete:
            self._stop_waiting()
        elif self._patience is None:
            self._wait_for_headers()

    def on_response_complete(self) -> None:
        # Asked first, as another request may begin in there.
        unread = self.conn.their_state is h11.SEND_BODY
        super().on_response_complete()
        if unread:
            # Answered in the middle of its body; a closed transport would read on and on.
            self.loop.call_later(_SECONDS_TO_READ_ANSWER, self.transport.abort)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait_for_headers(self) -> None:
        self._patience = self.loop.call_later(self.seconds_for_headers, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._patience is not None:
            self._patience.cancel()
            self._patience = None
