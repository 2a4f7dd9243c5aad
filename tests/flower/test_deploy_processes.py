"""``fedmer deploy server|node`` as real processes: they come up, refuse, and leave nothing."""

import contextlib
import http.client
import os
import re
import signal
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from fedmer.__main__ import main
from fedmer.commands.deploy import init
from fedmer.flower.deploy.certificates import ends
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.processes import Kept, flower_environment, free_port, only_one
from fedmer.flower.deploy.status import Status
from fedmer.flower.server.superlink import register
from tests.flower.deployed import belonging_to

pytestmark = pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")

DAY = timedelta(days=1)
PATIENCE = 60.0

# A child with a grandchild in a session of its own, as Flower has; neither cares for SIGTERM.
STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, signal.SIG_IGN)
leaf = "import time; print('born', flush=True); time.sleep(600)"
subprocess.Popen([sys.executable, "-c", leaf], start_new_session=True)
time.sleep(600)
"""


def federation(folder: Path, nodes: int = 1, begin: timedelta = -DAY, end: timedelta = DAY):
    now = datetime.now(UTC)
    return init(folder, nodes, "127.0.0.1", free_port(), now + begin, now + end)


def until(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    deadline = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < deadline, what
        time.sleep(0.05)


class Command:
    """``fedmer deploy ...`` in the background."""

    def __init__(self, *words: object, output: Path) -> None:
        self._output = output
        with output.open("wb") as file:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fedmer", "deploy", *map(str, words)],
                stdout=file,
                stderr=subprocess.STDOUT,
            )

    def said(self) -> str:
        return self._output.read_text()

    def until_it_says(self, text: str) -> None:
        until(lambda: text in self.said() or self.process.poll() is not None, self.said())
        assert text in self.said()

    def ends(self, number: signal.Signals | None = None) -> int:
        if number is not None:
            self.process.send_signal(number)
        return self.process.wait(PATIENCE)


@pytest.fixture
def start(tmp_path: Path) -> Iterator[Callable[..., Command]]:
    started: list[Command] = []

    def one(*words: object) -> Command:
        started.append(Command(*words, output=tmp_path / f"{len(started)}.out"))
        return started[-1]

    yield one
    for command in started:
        if command.process.poll() is None:
            command.ends(signal.SIGTERM)
    until(lambda: not belonging_to(tmp_path), f"left behind: {belonging_to(tmp_path)}", 15)


def status(found: Federation, method: str, path: str, source: str) -> int:
    connection = http.client.HTTPSConnection(
        found.loopback,
        timeout=10,
        context=ssl.create_default_context(cafile=str(found.authority)),
        source_address=(source, 0),
    )
    with contextlib.closing(connection):
        headers = {"X-Forwarded-For": "127.0.0.1", "Content-Type": "application/x-protobuf"}
        connection.request(method, path, headers=headers)
        return connection.getresponse().status


@pytest.mark.parametrize("how", ["stop", pytest.param("kill", marks=pytest.mark.slow)])
def test_nothing_outlives_its_parent_however_stubborn(tmp_path, how):
    words = [sys.executable, "-c", STUBBORN, str(tmp_path)]
    log = tmp_path / "log"
    if how == "stop":
        with Kept(words, flower_environment(tmp_path, "localhost"), log) as kept:
            until(lambda: "born" in kept.output(), "no grandchild")
            assert len(belonging_to(tmp_path)) == 3
            assert kept.exit_code is None
        assert not belonging_to(tmp_path)
        return
    parent = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import os, pathlib, sys, time; from fedmer.flower.deploy.processes import Kept;"
            "Kept(sys.argv[2:], os.environ, pathlib.Path(sys.argv[1])); time.sleep(600)",
            *(str(log), *words),
        ]
    )
    until(lambda: log.exists() and "born" in log.read_text(), "no grandchild")
    parent.kill()
    parent.wait()
    until(lambda: not belonging_to(tmp_path), f"left: {belonging_to(tmp_path)}", 20)


def test_end_of_a_child_is_told_and_ends_what_it_left(tmp_path):
    script = "import subprocess, sys; subprocess.Popen(['sleep', '600', ]); print('x'); sys.exit(7)"
    environment = flower_environment(tmp_path, "localhost")
    (tmp_path / "log").write_text("of the last time\n")
    with Kept([sys.executable, "-c", script], environment, tmp_path / "log") as kept:
        until(lambda: kept.exit_code is not None, "does not end", 20)
        assert kept.exit_code == 7
        assert re.fullmatch(r"  \d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z INFO x", kept.last_lines())
    assert not belonging_to(tmp_path)
    with Kept([sys.executable, "-c", "import os; os.abort()"], environment, tmp_path / "log") as it:
        until(lambda: it.exit_code is not None, "does not end", 20)
        assert it.exit_code == 128 + signal.SIGABRT


def test_environment_opens_no_port_and_calls_nobody(tmp_path, monkeypatch):
    monkeypatch.setenv("FLWR_INTERNAL_GRPC_CONTROL_API", "1")
    monkeypatch.setenv("NO_PROXY", "example.org")
    environment = flower_environment(tmp_path, "server")
    assert "FLWR_INTERNAL_GRPC_CONTROL_API" not in environment
    assert environment["NO_PROXY"] == "example.org,server,127.0.0.1,localhost"
    assert (environment["FLWR_TELEMETRY_ENABLED"], environment["FLWR_HOME"]) == ("0", str(tmp_path))


def test_server_that_cannot_start_says_why(tmp_path, start):
    found = federation(tmp_path / "federation")
    with socket.create_server(("127.0.0.1", found.port)):
        busy = start("server", found.folder)
        assert busy.ends() == 2
    assert f"Port {found.port} cannot be used" in busy.said()
    with only_one(found.server):
        second = start("server", found.folder)
        assert second.ends() == 2
    assert f"{found.server} is in use by process {os.getpid()}" in second.said()
    past = federation(tmp_path / "past", begin=-2 * DAY, end=-DAY)
    missing = federation(tmp_path / "missing")
    missing.authority.unlink()
    for folder, said in (
        (past.folder, "server.crt expired on"),
        (missing.folder, "ca.crt is missing; restore it"),
        (tmp_path, "federation.json does not exist; make a federation"),
    ):
        command = start("server", folder)
        assert command.ends() == 2
        assert said in command.said()
        assert "Traceback" not in command.said()


def test_node_that_cannot_start_says_why(tmp_path, start, corpus_file):
    node = federation(tmp_path / "federation").node("node-0")
    other = federation(tmp_path / "other").node("node-0")
    other.policy.write_text("{")
    broken = tmp_path / "broken.npz"
    broken.write_bytes(b"PK\x03\x04 and no more")
    for folder, data, said in (
        (node.folder, broken, str(broken)),
        (other.folder, corpus_file, "its policy.json cannot be read"),
        (node.folder, tmp_path / "none.npz", "does not exist; check the path"),
        (node.folder.parent, corpus_file, "node.json does not exist; name the folder of a node"),
    ):
        command = start("node", folder, "--data", data)
        assert command.ends() == 2
        assert said in command.said()
        assert "Traceback" not in command.said()


def _connected(node: Path) -> bool:
    (contact,) = Status.of(node).nodes.values()
    return contact.connected


@pytest.mark.slow
def test_life_of_a_federation(tmp_path, start, corpus_file):
    found = federation(tmp_path / "federation", nodes=2)
    nodes = [found.node(name) for name in found.nodes]
    early = start("node", nodes[0].folder, "--data", corpus_file)
    early.until_it_says("node-0 is waiting for the server")
    server = start("server", found.folder)
    server.until_it_says(f"Server is ready at {found.address} for 2 nodes; Ctrl-C ends it")
    early.until_it_says(f"node-0 is connected to {found.address}; Ctrl-C ends it")
    assert early.said().count("waiting") == 1
    numbers = found.node_ids()
    assert set(numbers) == set(found.nodes)

    # Whoever is not this machine reaches the fleet and nothing else.
    for path in ("/v1/control/list-nodes", "/v1/runtime/acquire-task", "/docs", "/openapi.json"):
        assert status(found, "POST", path, "127.0.0.2") == 403
        assert status(found, "POST", path, "127.0.0.1") != 403
    assert status(found, "GET", "/health", "127.0.0.2") == 200
    assert status(found, "POST", "/v1/fleet/pull-messages", "127.0.0.2") not in (403, 404)

    second = start("node", nodes[0].folder, "--data", corpus_file)
    assert second.ends() == 2
    assert "end that process first" in second.said()

    # Killed without a chance to tidy up, a node leaves nothing, and may come back.
    early.ends(signal.SIGKILL)
    until(lambda: not belonging_to(nodes[0].folder), f"{belonging_to(nodes[0].folder)}", 15)
    again = start("node", nodes[0].folder, "--data", corpus_file)
    again.until_it_says("node-0 is connected")

    # A server that comes back knows its nodes, and they go on.
    assert server.ends(signal.SIGINT) == 0
    assert not belonging_to(found.server)
    # Its certificate, which ends tomorrow, is renewed meanwhile.
    assert "in 0 days; renew it with 'fedmer deploy renew" in server.said()
    assert main(["deploy", "renew", str(found.folder)]) == 0
    server = start("server", found.folder)
    server.until_it_says("Server is ready")
    assert "renew" not in server.said()
    assert found.node_ids() == numbers
    keys = {"node-0": nodes[0].public_key.read_bytes()}
    assert register(found.loopback, found.authority, keys) == {"node-0": numbers["node-0"]}
    late = start("node", nodes[1].folder, "--data", corpus_file)
    late.until_it_says("node-1 is connected")
    assert again.process.poll() is None
    until(lambda: all(_connected(node.folder) for node in nodes), again.said())
    assert Status.of(nodes[0].folder).certificates["server"] == ends(found.certificate)

    for command, folder in (
        (again, nodes[0].folder),
        (late, nodes[1].folder),
        (server, found.server),
    ):
        assert command.ends(signal.SIGTERM) == 0
        assert not belonging_to(folder)


@pytest.mark.slow
def test_stranger_is_refused_in_words(tmp_path, start, corpus_file):
    found = federation(tmp_path / "federation")
    other = init(
        tmp_path / "other",
        nodes=1,
        host="127.0.0.1",
        port=found.port,
        begin=datetime.now(UTC) - DAY,
        end=datetime.now(UTC) + DAY,
    )
    server = start("server", found.folder)
    server.until_it_says("Server is ready")
    wrong_authority = start("node", other.node("node-0").folder, "--data", corpus_file)
    assert wrong_authority.ends() == 2
    assert "is not the one of this federation" in wrong_authority.said()

    # With the right authority it is the key that the server does not know.
    other.node("node-0").authority.write_bytes(found.authority.read_bytes())
    wrong_key = start("node", other.node("node-0").folder, "--data", corpus_file)
    assert wrong_key.ends() == 2
    assert "does not know the key of node-0; start the server with the DIR" in wrong_key.said()
    assert not belonging_to(other.folder)


@pytest.mark.slow
def test_death_of_what_was_started_is_told(tmp_path, start, corpus_file):
    found = federation(tmp_path / "federation")
    server = start("server", found.folder)
    server.until_it_says("Server is ready")
    node = start("node", found.node("node-0").folder, "--data", corpus_file)
    node.until_it_says("node-0 is connected")

    def kill(folder: Path, program: str) -> None:
        for pid, words in belonging_to(folder).items():
            if program in words and "fedmer.flower.deploy.processes" not in words:
                os.kill(pid, signal.SIGKILL)

    kill(found.node("node-0").folder, "flower-supernode")
    assert node.ends() == 1
    assert "The SuperNode of node-0 has ended; the last lines of" in node.said()
    kill(found.server, "fedmer.flower.server.superlink")
    assert server.ends() == 1
    assert "The SuperLink has ended; the last lines of" in server.said()
    assert "ControlServicer.RegisterNode" in server.said()
