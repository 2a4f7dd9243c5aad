"""One round between real processes over TLS."""

from pathlib import Path

import pytest

pytest.importorskip("flwr")

from tests.flower.deployed import deployed, same_bits


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs /proc")
@pytest.mark.timeout(300)
def test_round_over_tls_is_the_round_of_one_process(tmp_path: Path) -> None:
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
