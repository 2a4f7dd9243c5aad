"""The pages for whoever watches: what they say, what they do not, and whom they let ask."""

import http.client
import json
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from prometheus_client.openmetrics import parser as openmetrics
from prometheus_client.parser import text_string_to_metric_families

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.flower.deploy.activity import note_contact, note_messages
from fedmer.flower.deploy.certificates import ends
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.metrics import Metrics
from fedmer.flower.deploy.processes import free_port
from tests.flower.test_deploy_init import made

NAME = re.compile(r"fedmer(_[a-z]+)+")


class Watched:
    """A federation's folder with its pages, without a server."""

    def __init__(self, found: Federation) -> None:
        self.found = found
        self.port = free_port()
        self.well = True

    def pages(self, address: str = "") -> Metrics:
        found = self.found
        certificates = {"server": found.certificate, "authority": found.authority}
        where = address or str(self.port)
        return Metrics(where, found.activity, found.nodes, certificates, lambda: self.well)

    def ask(self, path: str, method: str = "GET", **headers: str) -> tuple[int, str, str]:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        with closing(connection):
            connection.request(method, path, headers=headers)
            answer = connection.getresponse()
            kind = answer.headers["Content-Type"]
            return answer.status, kind, answer.read().decode()


@pytest.fixture
def watched(tmp_path: Path) -> Iterator[Watched]:
    found = Watched(made(tmp_path / "federation"))
    with found.pages():
        yield found


def numbers(text: str) -> dict[tuple[str, ...], float]:
    """Name and labels, the node's first -> value, of a page of Prometheus."""
    return {
        (each.name, *(each.labels[key] for key in sorted(each.labels, reverse=True))): each.value
        for family in text_string_to_metric_families(text)
        for each in family.samples
    }


def test_numbers_are_those_of_the_folder_under_prometheus_names(watched: Watched) -> None:
    found = watched.found
    note_contact(found.activity, {"node-0": (True, 1234.5)})
    note_messages(found.activity, {"node-0": 7, "node-1": 8}, {"node-0": 9}, 3, {"node-0"})
    status, kind, text = watched.ask("/metrics")
    assert status == 200
    assert kind.startswith("text/plain")
    assert numbers(text) == {
        ("fedmer_round",): 3,
        ("fedmer_node_connected", "node-0"): 1,
        ("fedmer_node_connected", "node-1"): 0,
        ("fedmer_node_last_seen_seconds", "node-0"): 1234.5,
        ("fedmer_node_last_seen_seconds", "node-1"): 0,
        ("fedmer_node_round", "node-0"): 3,
        ("fedmer_node_round", "node-1"): 0,
        ("fedmer_bytes_total", "node-0", "down"): 7,
        ("fedmer_bytes_total", "node-0", "up"): 9,
        ("fedmer_bytes_total", "node-1", "down"): 8,
        ("fedmer_bytes_total", "node-1", "up"): 0,
        ("fedmer_certificate_expiry_seconds", "server"): ends(found.certificate).timestamp(),
        ("fedmer_certificate_expiry_seconds", "authority"): ends(found.authority).timestamp(),
    }
    families = list(text_string_to_metric_families(text))
    assert all(NAME.fullmatch(family.name) and family.documentation for family in families)
    kinds = {family.name: family.type for family in families}
    assert kinds.pop("fedmer_bytes") == "counter"
    assert set(kinds.values()) == {"gauge"}


def test_prometheus_may_ask_in_the_newer_format(watched: Watched) -> None:
    status, kind, text = watched.ask(
        "/metrics", Accept="application/openmetrics-text; version=1.0.0"
    )
    assert status == 200
    assert kind.startswith("application/openmetrics-text")
    assert {f.name for f in openmetrics.text_string_to_metric_families(text)} >= {"fedmer_bytes"}


def test_health_says_no_more_than_ok_and_round(watched: Watched) -> None:
    note_messages(watched.found.activity, {}, {}, 2)
    status, kind, text = watched.ask("/health")
    assert (status, kind) == (200, "application/json")
    assert json.loads(text) == {"ok": True, "round": 2}
    watched.well = False
    status, _, text = watched.ask("/health?verbose=1")
    assert status == 503
    assert json.loads(text) == {"ok": False, "round": 2}


def test_nothing_else_is_answered_and_no_version_is_told(watched: Watched) -> None:
    for path in ("/", "/metricsx", "/../federation.json", "/server/server.key"):
        assert watched.ask(path)[0] == 404, path
    assert watched.ask("/metrics", "POST")[0] == 501
    with closing(http.client.HTTPConnection("127.0.0.1", watched.port, timeout=5)) as connection:
        connection.request("GET", "/health")
        assert connection.getresponse().headers["Server"].strip() == "fedmer"


def test_a_damaged_file_or_a_lost_certificate_leaves_the_rest(watched: Watched) -> None:
    watched.found.activity.write_text("{")
    watched.found.certificate.unlink()
    found = numbers(watched.ask("/metrics")[2])
    assert found["fedmer_round",] == 0
    assert ("fedmer_certificate_expiry_seconds", "server") not in found
    assert ("fedmer_certificate_expiry_seconds", "authority") in found


def test_without_a_host_only_this_machine_is_let_ask(watched: Watched) -> None:
    # All of 127.0.0.0/8 is this machine; what listens to every interface would answer there.
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.2", watched.port), timeout=5)
    other = Watched(watched.found)
    with other.pages(f"0.0.0.0:{other.port}"):
        socket.create_connection(("127.0.0.2", other.port), timeout=5).close()


def test_one_who_asks_and_says_nothing_holds_up_nobody(watched: Watched) -> None:
    with socket.create_connection(("127.0.0.1", watched.port)):
        assert watched.ask("/health")[0] == 200


def test_the_port_is_free_again_afterwards_and_no_thread_is_left(watched: Watched) -> None:
    other = Watched(watched.found)
    before = threading.active_count()
    for _ in range(2):
        with other.pages():
            assert other.ask("/health")[0] == 200
    assert threading.active_count() <= before + 1  # one may be about to end


@pytest.mark.parametrize("address", ["", "x", "70000", "0", "1.2.3.400:80", "[::1]:80", "a:b:1"])
def test_an_address_that_is_none_is_refused(tmp_path: Path, address: str) -> None:
    with pytest.raises(InputError, match="expected a port, such as 9464, or HOST:PORT"):
        Metrics(address, tmp_path / "activity.json", (), {}, bool)


def test_a_port_in_use_or_a_foreign_address_is_refused(watched: Watched) -> None:
    with pytest.raises(InputError, match=f"--metrics {watched.port} cannot be used"):
        watched.pages()
    with pytest.raises(InputError, match="cannot be used"):
        watched.pages(f"192.0.2.1:{watched.port}")


def test_a_server_and_a_node_say_at_once_that_the_port_is_taken(
    watched: Watched, corpus_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    found, port = watched.found, str(watched.port)
    node = ["node", str(found.node("node-0").folder), "--data", str(corpus_file)]
    for words in (["server", str(found.folder)], node):
        assert main(["deploy", *words, "--metrics", port]) == 2
        assert f"--metrics {port} cannot be used" in capsys.readouterr().err
        assert main(["deploy", *words, "--metrics", "here"]) == 2
        assert "--metrics is 'here'; expected a port" in capsys.readouterr().err
