"""A node whose clock is too far from its server's says so: what it signs would be refused."""

import http.server
import ssl
import threading
import time
from collections.abc import Iterator
from email.utils import formatdate
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from fedmer.flower.deploy.clock import wrong_clock
from fedmer.flower.deploy.folder import Federation
from tests.flower.test_deploy_init import made


class Health(http.server.BaseHTTPRequestHandler):
    """A server whose clock is ahead of ours."""

    ahead = 0.0

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def date_time_string(self, timestamp: float | None = None) -> str:
        return formatdate(time.time() + self.ahead, usegmt=True)

    def log_message(self, format: str, *arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Federation, int]]:
    found = made(tmp_path_factory.mktemp("clock") / "federation")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(found.certificate, found.key)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Health) as server:
        server.socket = context.wrap_socket(server.socket, server_side=True)
        threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        yield found, server.server_port
        server.shutdown()


@pytest.mark.parametrize(
    ("ahead", "said"),
    [
        (0, ""),
        (-4, ""),
        (250, ""),
        (3600, "s behind the server's; set either."),
        (-3600, "s ahead of the server's; set either."),
        (-12, "s ahead of the server's; set either."),
    ],
)
def test_clocks_that_are_apart_are_told(
    served: tuple[Federation, int], monkeypatch: pytest.MonkeyPatch, ahead: float, said: str
) -> None:
    found, port = served
    monkeypatch.setattr(Health, "ahead", ahead)
    wrong = wrong_clock("127.0.0.1", port, found.authority)
    assert wrong.endswith(said)
    assert bool(wrong) == bool(said)


def test_nobody_there_has_no_clock(served: tuple[Federation, int], tmp_path: Path) -> None:
    assert wrong_clock("127.0.0.1", 9, served[0].authority) == ""
