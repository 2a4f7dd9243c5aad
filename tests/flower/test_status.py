"""``fedmer deploy status``: of a server's folder and a node's, as a table and as JSON."""

import json
import re
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from fedmer.__main__ import main
from fedmer.commands.deploy import init
from fedmer.flower.deploy.activity import note_contact, note_messages
from fedmer.flower.deploy.certificates import ends
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.processes import free_port, only_one
from fedmer.flower.deploy.status import Status, certificate_warnings
from tests.flower.test_deploy_init import DAY, Server, made
from tests.flower.test_server_seen import with_port

NOW = datetime.now(UTC)


@pytest.fixture
def found(tmp_path: Path) -> Federation:
    made = init(tmp_path / "f", 2, "127.0.0.1", free_port(), NOW - DAY, NOW + 90 * DAY)
    heard = datetime(2026, 1, 31, 12, 0, 5, tzinfo=UTC).timestamp()
    note_contact(made.activity, {"node-0": (True, heard)})
    note_messages(
        made.activity, {"node-0": 1500, "node-1": 40}, {"node-0": 2_500_000}, 4, ["node-0"]
    )
    return made


def as_json(folder: Path, capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["deploy", "status", str(folder), "--json"]) == 0
    said: dict[str, Any] = json.loads(capsys.readouterr().out)
    return said


def test_a_stopped_server_is_told_with_what_was_known_last(found, capsys):
    said = as_json(found.folder, capsys)
    assert said == {
        "name": "",
        "address": found.address,
        "running": False,
        "round": 4,
        "nodes": {
            "node-0": {
                "connected": False,
                "last_seen": "2026-01-31T12:00:05+00:00",
                "round": 4,
                "bytes_down": 1500,
                "bytes_up": 2_500_000,
            },
            "node-1": {
                "connected": False,
                "last_seen": None,
                "round": 0,
                "bytes_down": 40,
                "bytes_up": 0,
            },
        },
        "certificates": {
            "server": ends(found.certificate).isoformat(),
            "authority": ends(found.authority).isoformat(),
        },
        "warnings": [],
    }


def test_the_table_says_the_same(found, capsys):
    assert main(["deploy", "status", str(found.folder)]) == 0
    said = capsys.readouterr().out
    assert f"The server at {found.address} is not running; last finished round: 4" in said
    rows = [[cell.strip() for cell in line.split("│")[1:-1]] for line in said.splitlines()]
    assert ["node-1", "not connected", "never", "0", "40 B", "0 B"] in rows
    (row,) = (row for row in rows if row[:1] == ["node-0"])
    assert row[2].endswith("days ago")
    assert row[3:] == ["4", "1.5 kB", "2.5 MB"]
    assert f"The certificate of the server ends on {NOW + 90 * DAY:%Y-%m-%d}, in 89 days" in said
    assert "Warning" not in said


def test_a_running_server_has_the_nodes_that_it_saw(found, capsys):
    with ExitStack() as stack:
        stack.enter_context(only_one(found.server))
        server = stack.enter_context(Server(found))
        said = as_json(with_port(found, server.port).folder, capsys)
    assert said["running"]
    assert [own["connected"] for own in said["nodes"].values()] == [True, False]
    assert said["warnings"] == []


def test_a_server_that_was_not_restarted_after_a_renewal_is_told(found, capsys):
    with ExitStack() as stack:
        stack.enter_context(only_one(found.server))
        server = stack.enter_context(Server(found))
        with_port(found, server.port)
        assert main(["deploy", "renew", str(found.folder)]) == 0
        capsys.readouterr()
        (warning,) = as_json(found.folder, capsys)["warnings"]
    assert f"has the certificate that ends on {NOW + 90 * DAY:%Y-%m-%d}" in warning
    assert warning.endswith("and not the one in its folder; restart it")


def test_a_process_that_does_not_answer_is_told(found, capsys):
    with only_one(found.server):
        said = as_json(found.folder, capsys)
    assert said["running"]
    assert said["warnings"] == [f"Nobody answers at 127.0.0.1:{found.port}"]


def test_a_node_sees_the_certificate_of_its_server(found, capsys):
    with Server(found) as server:
        with_port(found, server.port).node("node-0").write()
        said = as_json(found.node("node-0").folder, capsys)
    assert (said["name"], said["running"], list(said["nodes"])) == ("node-0", False, ["node-0"])
    assert said["certificates"] == {
        "authority": ends(found.authority).isoformat(),
        "server": ends(found.certificate).isoformat(),
    }
    assert said["warnings"] == []


def test_a_node_is_told_of_a_server_that_is_gone_another_or_soon_ends(tmp_path, found, capsys):
    node = found.node("node-0")
    assert as_json(node.folder, capsys)["warnings"] == [f"Nobody answers at {found.address}"]
    with Server(made(tmp_path / "stranger")) as server:
        with_port(found, server.port).node("node-0").write()
        (warning,) = as_json(node.folder, capsys)["warnings"]
    assert "is not the one of this federation" in warning
    soon = made(tmp_path / "soon", end=5 * DAY)
    with Server(soon) as server:
        with_port(soon, server.port).node("node-0").write()
        (warning,) = as_json(soon.node("node-0").folder, capsys)["warnings"]
    assert warning.endswith("in 4 days; tell whoever runs it")


@pytest.mark.parametrize(
    ("end", "said"),
    [
        (timedelta(days=31), []),
        (timedelta(days=29), ["The server's certificate ends on .*, in 28 days; renew it with"]),
        (-DAY, ["The server's certificate ended on .*; renew it with 'fedmer deploy renew"]),
        (
            timedelta(days=360 - 3650),
            ["renew it", "authority ends on .*, in 359 days, and .*; make a new federation with"],
        ),
        (timedelta(days=-3651), ["renew it", "authority ended on .*; make a new federation with"]),
    ],
)
def test_certificates_are_warned_of_in_time(tmp_path, end, said):
    begin = min(NOW - DAY, NOW + end - DAY)
    found = init(tmp_path / "f", 1, "127.0.0.1", 8443, begin, NOW + end)
    warnings = certificate_warnings(found)
    assert len(warnings) == len(said)
    for warning, pattern in zip(warnings, said, strict=True):
        assert re.search(pattern, warning)


def test_a_folder_that_is_none_is_refused(tmp_path, capsys):
    for folder in (tmp_path, tmp_path / "gone"):
        assert main(["deploy", "status", str(folder)]) == 2
        assert "is neither a federation's folder nor a node's; name" in capsys.readouterr().err


@pytest.mark.parametrize("file", ["ca.crt", "server/server.crt", "server/activity.json"])
def test_a_damaged_file_is_named(found, capsys, file):
    (found.folder / file).write_text("x")
    assert main(["deploy", "status", str(found.folder)]) == 2
    assert f"{found.folder / file} " in capsys.readouterr().err


def test_names_that_steer_a_terminal_do_not(found):
    # A file of its folder is trusted to say numbers, not which nodes there are.
    note_messages(found.activity, {"\x1b[2J": 1}, {})
    assert list(Status.of(found.folder).nodes) == ["node-0", "node-1"]
