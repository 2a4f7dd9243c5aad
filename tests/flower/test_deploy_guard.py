"""The guard in front of the SuperLink; test_deploy_processes.py asks a running one."""

import asyncio
import contextlib
import socket
import threading
import time
from base64 import b64encode
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

pytest.importorskip("flwr")

import uvicorn
from flwr.app import Array, ArrayRecord, RecordDict
from flwr.supercore.inflatable.inflatable_object import get_all_nested_objects
from flwr.supercore.primitives.asymmetric import (
    generate_key_pairs,
    public_key_to_bytes,
    sign_message,
)

from fedmer.errors import InputError
from fedmer.flower.server.guard import LARGEST_BODY, UNSIGNED_BODY, BoundedProtocol, Guard
from fedmer.flower.server.superlink import put_guard


@pytest.mark.parametrize(
    ("path", "client", "expected"),
    [
        ("/v1/fleet/pull-messages", ("10.0.0.1", 1), "passed"),
        ("/health", ("10.0.0.1", 1), "passed"),
        ("/v1/control/start-run", ("127.0.0.1", 1), "passed"),
        ("/v1/runtime/acquire-task", ("::1", 1), "passed"),
        ("/v1/control/start-run", ("10.0.0.1", 1), 403),
        ("/v1/control/start-run", ("127.0.0.2", 1), 403),
        ("/v1/control/start-run", ("::ffff:127.0.0.1", 1), 403),
        ("/v1/control/start-run", None, 403),
        ("/v1/runtime/acquire-task", ("10.0.0.1", 1), 403),
        ("/docs", ("10.0.0.1", 1), 403),
        ("/openapi.json", ("10.0.0.1", 1), 403),
        ("/v1/fleet", ("10.0.0.1", 1), 403),
        ("/v1/fleetcontrol", ("10.0.0.1", 1), 403),
        ("//v1/control/start-run", ("10.0.0.1", 1), 403),
    ],
)
def test_guard_lets_strangers_through_to_the_fleet_only(path, client, expected):
    assert asked(path, client, [b"question"])[0] == expected
    if path.startswith("/v1/control") and expected == 403:
        assert "passed" not in asked(path, client, [b""], kind="websocket")


def asked(path, client, parts, headers=(), kind="http", seconds=5.0):
    """What came of a request to the guard: the status or "passed", and what was handed on.

    A part that is None never comes.
    """
    found: list[object] = []
    waiting = [
        {"type": "http.request", "body": part, "more_body": number < len(parts)}
        for number, part in enumerate(parts, start=1)
    ]

    async def application(scope, receive, send):
        found.extend(["passed", (await receive())["body"]])

    async def receive():
        message = waiting.pop(0)
        found.append("read")
        if message["body"] is None:
            await asyncio.Event().wait()
        return message

    async def send(message):
        found.append(message.get("status", "body"))

    scope = {"type": kind, "path": path, "client": client, "headers": list(headers)}
    asyncio.run(Guard(application, [KEY], seconds)(scope, receive, send))
    read = found.count("read")
    return [*(item for item in found if item != "read"), read]


PRIVATE, PUBLIC = generate_key_pairs()
KEY = public_key_to_bytes(PUBLIC)
STRANGER = ("10.0.0.1", 1)
OWN = ("127.0.0.1", 1)
FLEET = "/v1/fleet/push-object"
TIME = b"2026-01-01T00:00:00+00:00"


def signature(private: Any = PRIVATE, public: Any = PUBLIC) -> list[tuple[bytes, bytes]]:
    return [
        (b"flwr-public-key", b64encode(public_key_to_bytes(public))),
        (b"flwr-signature", b64encode(sign_message(private, TIME))),
        (b"flwr-timestamp", TIME),
    ]


@given(
    sizes=st.lists(st.sampled_from([0, 1, 1000, UNSIGNED_BODY, 2**20, LARGEST_BODY]), max_size=3),
    announce=st.booleans(),
    signed=st.booleans(),
    path=st.sampled_from([FLEET, "/v1/control/start-run"]),
    client=st.sampled_from([STRANGER, OWN]),
)
def test_only_a_node_may_send_much_and_nobody_too_much(sizes, announce, signed, path, client):
    parts = [bytes(size) for size in sizes] or [b""]
    size = sum(sizes)
    headers = signature() if signed else []
    length = str(size).encode()
    headers.append((b"content-length", length) if announce else (b"transfer-encoding", b"chunked"))
    *came, read = asked(path, client, parts, headers)
    trusted = signed if path == FLEET else client == OWN
    if path != FLEET and client == STRANGER:
        assert (came[0], read) == (403, 0)
    elif size <= (LARGEST_BODY if trusted else UNSIGNED_BODY):
        assert came == ["passed", b"".join(parts)]
    else:
        assert came == [413, "body"]
        # What is too long by its own account is not read at all.
        assert read == 0 or not announce


def test_a_signature_has_to_be_of_a_known_node():
    stranger, public = generate_key_pairs()
    wrong = [
        signature(stranger, public),
        signature(stranger, PUBLIC),
        signature()[1:],
        [(name, b"!") for name, _ in signature()],
        [(name, b64encode(b"no key")) for name, _ in signature()],
    ]
    length = (b"content-length", str(2**20).encode())
    for headers in wrong:
        assert asked(FLEET, STRANGER, [bytes(2**20)], [*headers, length]) == [413, "body", 0]


def test_a_body_that_does_not_arrive_is_given_up():
    assert asked(FLEET, STRANGER, [b"begun", None], seconds=0.05)[0] == 408


def test_pieces_of_any_network_pass():
    content = RecordDict({"update": ArrayRecord({"w": Array(np.arange(2**23, dtype=np.float32))})})
    pieces = [part.deflate() for part in get_all_nested_objects(content).values()]
    assert sum(map(len, pieces)) > LARGEST_BODY
    assert max(map(len, pieces)) < LARGEST_BODY / 2


@pytest.fixture
def served() -> Iterator[int]:
    """The port of a server whose connections are bounded."""

    class Strict(BoundedProtocol):
        seconds_for_headers = 0.5
        most_connections = 5

    async def application(scope, receive, send):
        await send({"type": "http.response.start", "status": 200, "headers": [LENGTH]})
        await send({"type": "http.response.body", "body": b"ok"})

    chosen = uvicorn.Config(
        Guard(application), port=0, http=Strict, ws="none", lifespan="off", log_level="critical"
    )
    server = uvicorn.Server(chosen)
    thread = threading.Thread(target=server.run)
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.01)
    yield server.servers[0].sockets[0].getsockname()[1]
    server.should_exit = True
    thread.join(10)


LENGTH = (b"content-length", b"2")
QUESTION = b"GET /health HTTP/1.1\r\nHost: x\r\n"


def connected(port: int) -> socket.socket:
    return socket.create_connection(("127.0.0.1", port), timeout=10)


def hung_up(connection: socket.socket) -> bool:
    """Whether the server ends the connection, within the connection's patience."""
    try:
        while connection.recv(2**16):
            pass
    except ConnectionError:
        pass
    except TimeoutError:
        return False
    return True


def test_a_connection_that_asks_nothing_is_ended(served):
    with connected(served) as silent, connected(served) as slow, connected(served) as second:
        slow.sendall(QUESTION)
        # Again: the first question is answered, the second never ends.
        second.sendall(QUESTION + b"\r\n")
        assert second.recv(1000).endswith(b"ok")
        second.sendall(QUESTION)
        assert hung_up(silent)
        assert hung_up(slow)
        assert hung_up(second)


def test_endless_headers_are_refused(served):
    with connected(served) as endless:
        endless.sendall(QUESTION)
        try:
            for number in range(1000):
                endless.sendall(b"x-%d: " % number + b"a" * 1000 + b"\r\n")
        except ConnectionError:
            return
        assert b" 400 " in endless.recv(1000)


def test_what_is_too_long_is_cut_off(served):
    with connected(served) as long:
        long.sendall(b"POST /v1/fleet/x HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n")

        def send_on() -> None:
            for _ in range(2000):
                long.sendall(b"10000\r\n" + bytes(2**16) + b"\r\n")
                time.sleep(0.001)

        with pytest.raises(ConnectionError):
            send_on()


def test_one_connection_too_many_is_not_taken(served):
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(connected(served)) for _ in range(5)]
        opened[-1].sendall(QUESTION + b"\r\n")
        assert opened[-1].recv(1000).startswith(b"HTTP/1.1 200")
        assert hung_up(stack.enter_context(connected(served)))


def test_flower_that_cannot_be_guarded_is_not_started():
    def elsewhere() -> None:
        """Serves in some other way."""

    def known() -> None:
        uvicorn.run()

    for entry in (
        SimpleNamespace(),
        SimpleNamespace(uvicorn=SimpleNamespace(run=elsewhere)),
        SimpleNamespace(_run_superlink_http_api=known),
        SimpleNamespace(_run_superlink_http_api=elsewhere, uvicorn=SimpleNamespace(run=elsewhere)),
    ):
        with pytest.raises(InputError, match=r"in a way that fedmer cannot guard; install flwr"):
            put_guard(entry)
    served: list[dict[str, object]] = []
    library = SimpleNamespace(
        run=lambda app, **options: served.append({"app": app, **options}), Server=None
    )
    entry = SimpleNamespace(_run_superlink_http_api=known, uvicorn=library)
    put_guard(entry)
    entry.uvicorn.run(app=None, proxy_headers=True)
    assert isinstance(served[0]["app"], Guard)
    assert served[0]["proxy_headers"] is False
    assert served[0]["http"] is BoundedProtocol
    assert not hasattr(entry.uvicorn, "Server")
