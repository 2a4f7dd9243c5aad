"""One round between real processes over TLS, and what is shown of it to those who run them."""

import json
import time
import urllib.request
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("flwr")

from fedmer.__main__ import main
from tests.flower.deployed import Deployed, deployed, same_bits, until
from tests.flower.test_served_metrics import numbers


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.timeout(300)
def test_round_over_tls_is_the_round_of_one_process(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with deployed(tmp_path, nodes=2) as federation:
        inline = federation.inline("inline", 1)
        federation.wait()
        fit = federation.fit("remote", 1)
        assert fit.ends() == 0, fit.said()
        assert inline.ends() == 0, inline.said()
        assert same_bits(federation.weights("inline"), federation.weights("remote"))
        (row,) = federation.rows("remote")
        assert int(row["bytes_down"]) > 0
        assert int(row["bytes_up"]) > 0
        assert row["clients"] == "2"
        assert not federation.failures("remote")
        _operators_see(federation, row, capsys)


def _operators_see(
    federation: Deployed, row: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    def status(folder: Path) -> dict[str, Any]:
        assert main(["deploy", "status", str(folder), "--json"]) == 0
        said: dict[str, Any] = json.loads(capsys.readouterr().out)
        return said

    def all_connected() -> bool:
        return all(own["connected"] for own in status(folder)["nodes"].values())

    capsys.readouterr()
    folder = federation.federation.folder
    # The server looks at its nodes every ten seconds.
    until(all_connected, lambda: str(status(folder)))
    server = status(folder)
    assert (server["running"], server["round"], server["warnings"]) == (True, 1, [])
    down = up = 0
    for name, own in server["nodes"].items():
        node = status(federation.federation.node(name).folder)
        assert (node["running"], node["round"], node["warnings"]) == (True, 1, [])
        assert node["certificates"] == server["certificates"]
        (seen,) = node["nodes"].values()
        # Both count the same messages, each at its end.
        for key in ("connected", "round", "bytes_down", "bytes_up"):
            assert seen[key] == own[key], key
        for each in (seen, own):
            ago = time.time() - datetime.fromisoformat(each["last_seen"]).timestamp()
            assert -5 < ago < 90
        down, up = down + own["bytes_down"], up + own["bytes_up"]
    # The description before the first round is no part of it.
    assert down > int(row["bytes_down"]) > down / 2
    assert up > int(row["bytes_up"]) > up / 2

    where = f"http://127.0.0.1:{federation.metrics}"
    with urllib.request.urlopen(f"{where}/health", timeout=10) as answer:
        assert json.loads(answer.read()) == {"ok": True, "round": 1}
    with urllib.request.urlopen(f"{where}/metrics", timeout=10) as answer:
        found = numbers(answer.read().decode())
    for name, own in server["nodes"].items():
        assert found["fedmer_bytes_total", name, "down"] == own["bytes_down"]
        assert found["fedmer_bytes_total", name, "up"] == own["bytes_up"]
        assert found["fedmer_node_connected", name] == 1
