"""``fedmer fit`` over a federation looks at its server first, and says at once what is wrong."""

import threading
import time
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from flwr.app import Error
from flwr.common.constant import ErrorCode

from fedmer.__main__ import main
from fedmer.errors import InputError
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.processes import free_port, only_one
from fedmer.flower.records import why
from fedmer.flower.server.deployment import see_server
from fedmer.flower.server.round import wait_for
from tests.flower.test_deploy_init import DAY, Server, made


def with_port(found: Federation, port: int) -> Federation:
    moved = Federation(found.folder, f"127.0.0.1:{port}", found.nodes)
    moved.write()
    return moved


@pytest.fixture
def federation(tmp_path: Path) -> Federation:
    return with_port(made(tmp_path / "federation"), free_port())


def test_fit_against_a_stopped_server_says_so_and_makes_nothing(here, capsys, federation):
    began = time.monotonic()
    options = ["--executor", "Flower", "--executor.federation", str(federation.folder)]
    assert main(["fit", *options, "--name", "x"]) == 2
    said = capsys.readouterr().err
    assert f"No server answers at 127.0.0.1:{federation.port}; start 'fedmer deploy server" in said
    assert not (here / "runs").exists()
    assert time.monotonic() - began < 60


def test_server_that_is_another_is_told(tmp_path, federation):
    stranger = made(tmp_path / "stranger")
    with Server(stranger) as server, pytest.raises(InputError, match="take the folder that was"):
        see_server(with_port(federation, server.port))
    with Server(None) as server, pytest.raises(InputError, match="does not speak TLS"):
        see_server(with_port(federation, server.port))


@pytest.mark.parametrize(
    ("begin", "end", "said"),
    [(-2 * DAY, -DAY, "expired on"), (DAY, 2 * DAY, "holds only from")],
)
def test_certificate_out_of_its_time_is_told(
    tmp_path: Path, begin: timedelta, end: timedelta, said: str
) -> None:
    with pytest.raises(InputError, match=said):
        see_server(made(tmp_path / "past", begin=begin, end=end))


def test_server_that_is_starting_is_waited_for(federation, capsys):
    with ExitStack() as stack:
        stack.enter_context(only_one(federation.server))
        server = stack.enter_context(Server(federation))
        # It answers before it has registered its nodes for the first time.
        late = threading.Timer(0.7, federation.write_node_ids, [{"node-0": 1, "node-1": 2}])
        late.start()
        see_server(with_port(federation, server.port))
        late.join()
    said = capsys.readouterr().err
    assert said.count("waiting up to 90 s for the server at 127.0.0.1:") == 1


class Nobody:
    def nodes(self) -> dict[int, int]:
        return {0: 7}


def test_missing_nodes_are_named_with_how_long_they_are_waited_for(capsys):
    names = {number: f"node-{number}" for number in range(8)}
    assert wait_for(Nobody(), names, 4, 0.1) == {0: 7}
    assert capsys.readouterr().err == (
        "waiting up to 0 s for node-1, node-2, node-3, node-4, node-5 and 2 more; "
        "1 of at least 4 nodes are connected\n"
    )


def test_what_flower_says_of_a_lost_node_is_told_in_our_words():
    codes = [value for name, value in vars(ErrorCode).items() if name.isupper()]
    assert len(codes) == 9
    for code in codes:
        told = why(Error(code, "Error: Node Unavailable"), 61.7)
        if code in (ErrorCode.UNKNOWN, ErrorCode.MOD_FAILED_PRECONDITION):
            assert told == "failed: Error: Node Unavailable"
        else:
            assert "Error" not in told
    gone = why(Error(ErrorCode.NODE_UNAVAILABLE, ""), 61.7)
    assert gone == "has not answered for 62 s; it may be off or cut off"
