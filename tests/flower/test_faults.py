"""What can go wrong in a federation goes wrong, with real processes: a run outlives it or says why.

One federation serves all tests; see ``faulty.py`` for how its nodes misbehave.
"""

import contextlib
import os
import re
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("flwr")

import fedmer
from fedmer.flower.node.policy import Policy
from tests.flower.deployed import Deployed, belonging_to, deployed, same_bits, until

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc"),
]

TIMEOUT = 60.0
"""Seconds for a node; a stage takes a tenth of it on an idle machine, and a node whose server was
gone tries again every 20."""
NODES = 4
LOST = r"has not answered for \d+ s; it may be off or cut off"


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployed]:
    with deployed(tmp_path_factory.mktemp("deployed"), NODES, TIMEOUT) as found:
        found.inline("inline", 3)
        found.wait()
        yield found


@pytest.fixture
def federation(shared: Deployed) -> Deployed:
    """All nodes are well at the beginning, and will be again."""
    for number in range(NODES):
        shared.misbehave(number, {})
        shared.insist(number, Policy(secure_sum=False))
        if shared.nodes[number].process.poll() is not None:
            revive(shared, number)
    return shared


def revive(federation: Deployed, number: int) -> None:
    """A node comes back."""
    federation.misbehave(number, {})
    federation.nodes[number] = federation.start_node(number)
    federation.nodes[number].until_it_says("is connected")


def kill_when_reached(federation: Deployed, number: int) -> None:
    """Kill a node's command where the node was told to hang; what it had started says goodbye."""
    until(federation.reached(number).exists, lambda: f"node-{number} was not reached")
    assert federation.nodes[number].ends(signal.SIGKILL) == -signal.SIGKILL


def vanish_when_reached(federation: Deployed, number: int) -> None:
    """End all processes of a node at once, as a power cut does."""
    until(federation.reached(number).exists, lambda: f"node-{number} was not reached")
    folder = federation.federation.node(f"node-{number}").folder
    while left := belonging_to(folder):
        for process in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(process, signal.SIGKILL)
        federation.nodes[number].process.poll()


def test_round_goes_on_without_whoever_fails(federation: Deployed) -> None:
    file, whole = federation.data(3), federation.folder / "whole.npz"
    shutil.copy(file, whole)
    for number, faults in enumerate(
        (
            {"fit 1": "nan", "fit 2": "examples", "fit 3": "hang"},
            {"fit 1": "shapes", "fit 2": "version", "fit 3": "hang"},
            {"fit 1": "oversized", "fit 2": "network", "fit 3": "die"},
            {"fit 4": "data"},
        )
    ):
        federation.misbehave(number, faults)
    fit = federation.fit("faults", 5, "--executor.min_nodes", "1")
    # Of the two that hang, one is killed and started again, which is what an operator does.
    kill_when_reached(federation, 0)
    revive(federation, 0)
    until(
        lambda: len(federation.rows("faults")) == 4 or fit.process.poll() is not None, fit.said, 300
    )
    shutil.copy(whole, file)
    assert fit.ends() == 0, fit.said()

    why = federation.failures("faults")
    assert [int(row["clients"]) for row in federation.rows("faults")] == [1, 1, 1, 3, 4], why
    assert set(why) == {*((r, n) for r in (1, 2, 3) for n in (0, 1, 2)), (4, 3)}
    for (_, number), sentence in why.items():
        assert sentence.startswith(f"node-{number} ")
        assert "Traceback" not in sentence

    assert [f"round 4: node-{number} is back" in fit.said() for number in range(3)] == [True] * 3

    # What a node sends is measured before it is used.
    assert why[1, 0] == "node-0 was refused: its update hold NaN or infinity"
    shapes = "'teacher.weight' of shape (8, 6), expected (6, 8)"
    assert why[1, 1] == f"node-1 was refused: its update have {shapes}"
    assert "node-2 was refused: its update are 4000" in why[1, 2]
    assert f"node-0 was refused: it claims {10**15} labelled utterances, of at most " in why[2, 0]
    # A node that is not like the server says so itself, and names both.
    assert f"says: it has fedmer 0.0.1, and the server {fedmer.__version__}" in why[2, 1]
    assert "says: its network SDT has " in why[2, 2]
    assert "parameters, and the server's SDT have 'teacher.weight' of shape (6, 8)" in why[2, 2]
    # Killed, hanging, and its worker killed.
    assert re.fullmatch(f"node-0 {LOST}", why[3, 0])
    assert why[3, 1] == f"node-1 did not answer within {TIMEOUT:.0f} s"
    assert why[3, 2] == "node-2 says: its worker ended in the middle of the work"
    # Broken after the node had started.
    assert f"says: {file}" in why[4, 3]


def test_run_gone_on_with_is_the_undisturbed_run(federation: Deployed) -> None:
    # Too few nodes stay: the run ends, and says who is missing.
    federation.misbehave(3, {"fit 2": "die"})
    fit = federation.fit("broken", 3, "--executor.min_nodes", "4")
    assert fit.ends() == 2, fit.said()
    assert "Round 2: 3 of 4 nodes finished, and executor.min_nodes asks for 4" in fit.said()
    assert "node-3 says: its worker ended" in fit.said()
    assert f"--ckpt_path {federation.last('broken').relative_to(federation.folder)}" in fit.said()
    assert len(federation.rows("broken")) == 1

    # The run itself is killed, in the middle of its next round.
    federation.misbehave(3, {"fit 2": "hang"})
    fit = federation.go_on("broken", 3)
    until(federation.reached(3).exists, fit.said)
    assert fit.ends(signal.SIGKILL) == -signal.SIGKILL
    assert len(federation.rows("broken")) == 1
    # It hangs on, as its run is gone; a node that is restarted need not wait for its time to end.
    assert federation.nodes[3].ends(signal.SIGTERM) == 0
    revive(federation, 3)

    # The server is killed between two rounds; nodes wait for it by themselves.
    fit = federation.go_on("broken", 3)
    until(lambda: len(federation.rows("broken")) == 2, fit.said)
    federation.server.ends(signal.SIGKILL)
    assert fit.ends() == 2, fit.said()
    assert "The connection to Flower's server was lost; see that 'fedmer deploy" in fit.said()
    federation.server = federation.start_server()
    federation.server.until_it_says("Server is ready")
    fit = federation.go_on("broken", 3)
    assert fit.ends(seconds=240) == 0, fit.said()

    assert [node.process.poll() for node in federation.nodes] == [None] * NODES
    assert [row["clients"] for row in federation.rows("broken")] == ["4"] * 3
    assert len(federation.rows("inline")) == 3
    assert same_bits(federation.weights("broken"), federation.weights("inline"))


def test_masked_sum_survives_one_node_and_not_two(federation: Deployed) -> None:
    stage = "collect_masked_vectors"
    federation.misbehave(0, {f"{stage} 1": "hang"})
    fit = federation.fit("masked", 2, "--privacy", "SecureSum")
    kill_when_reached(federation, 0)
    revive(federation, 0)
    for number in (0, 1):
        federation.misbehave(number, {f"{stage} 2": "hang"})
    for number in (0, 1):
        vanish_when_reached(federation, number)
    federation.misbehave(0, {})
    back = federation.nodes[0] = federation.start_node(0)
    assert fit.ends() == 2, fit.said()

    assert [row["clients"] for row in federation.rows("masked")] == ["3"]
    why = federation.failures("masked")
    assert set(why) == {(1, 0)}
    lost = "was lost in the masked sum"
    assert re.fullmatch(f"node-0 ({LOST}|{lost})", why[1, 0])
    assert "Round 2: fewer than privacy.threshold 0.6 of the 4 nodes stayed" in fit.said()
    # Which of the two words comes depends on when Flower misses a node.
    assert re.search(rf"\(node-0 ({lost}|{LOST}); node-1 ({lost}|{LOST})\)", fit.said())
    assert federation.last("masked").exists()

    # The server takes it for the one that vanished, and lets it in when that one is missed.
    back.until_it_says("node-0 is connected")
    assert back.said().count("node-0 is not let in, and tries again for 90 s") == 1


def test_nodes_that_insist_on_a_masked_sum_take_part_in_no_other(federation: Deployed) -> None:
    for number in range(NODES):
        federation.insist(number, Policy())
    fit = federation.fit("plain", 1)
    assert fit.ends() == 2, fit.said()
    for number in range(NODES):
        said = f"node-{number} says: it sends its weights in a masked sum only; start the run with"
        assert f"{said} --privacy SecureSum" in fit.said()
    assert not federation.rows("plain")

    fit = federation.fit("insisting", 1, "--privacy", "SecureSum")
    assert fit.ends() == 0, fit.said()
    assert [row["clients"] for row in federation.rows("insisting")] == ["4"]
    assert not federation.failures("insisting")

    # What they keep back, they keep back for good.
    fit = federation.fit("other", 1, "--privacy", "SecureSum", "--data.holdout", "0.2")
    assert fit.ends() == 2, fit.said()
    assert "node-0 says: it keeps back 0 of its dialogues since its first run" in fit.said()
    assert "Traceback" not in fit.said()
    for number in range(NODES):
        state = federation.federation.node(f"node-{number}").state
        assert {path.stat().st_mode & 0o077 for path in state.rglob("*")} == {0}
