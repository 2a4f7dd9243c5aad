"""``fedmer deploy renew``: another certificate, by the same authority and key."""

import shutil
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from cryptography import x509

from fedmer.__main__ import main
from fedmer.commands.deploy import init
from fedmer.errors import InputError
from fedmer.flower.deploy.certificates import check_server, ends
from fedmer.flower.deploy.folder import Federation
from fedmer.flower.deploy.handshake import answers, served_until
from tests.flower.test_deploy_init import DAY, Server, made, mode


def renew(found: Federation, *more: object) -> int:
    return main(["deploy", "renew", str(found.folder), *map(str, more)])


def test_an_ended_certificate_is_renewed_and_nodes_take_it(tmp_path, capsys):
    found = made(tmp_path / "federation", begin=-2 * DAY, end=-DAY)
    before = {path: path.read_bytes() for path in sorted(found.folder.rglob("*")) if path.is_file()}
    with pytest.raises(InputError, match="renew it with 'fedmer deploy renew DIR'"):
        check_server(found.certificate, found.key)
    with Server(found) as server, pytest.raises(InputError, match="has expired; whoever runs it"):
        answers("127.0.0.1", server.port, found.authority)
    assert renew(found, "--days", 100) == 0
    said = capsys.readouterr().out
    assert "Restart 'fedmer deploy server'" in said
    assert "Take ca.key offline again" in said
    check_server(found.certificate, found.key)
    end = ends(found.certificate)
    assert timedelta(days=99) < end - datetime.now(UTC) <= timedelta(days=100)
    with Server(found) as server:
        # What the node has was made before.
        node = found.node("node-0").authority
        assert served_until("127.0.0.1", server.port, node) == end
    after = {path: path.read_bytes() for path in sorted(found.folder.rglob("*")) if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {found.certificate}


@pytest.mark.parametrize("host", ["10.0.0.7", "fl.example.org"])
def test_the_renewed_certificate_is_the_old_one_for_another_time(tmp_path, host):
    found = made(tmp_path / "federation", host)
    old = x509.load_pem_x509_certificate(found.certificate.read_bytes())
    assert renew(found) == 0
    new = x509.load_pem_x509_certificate(found.certificate.read_bytes())
    new.verify_directly_issued_by(x509.load_pem_x509_certificate(found.authority.read_bytes()))
    assert new.public_key() == old.public_key()
    assert new.serial_number != old.serial_number
    assert [(e.oid, e.critical, e.value) for e in new.extensions] == [
        (e.oid, e.critical, e.value) for e in old.extensions
    ]
    assert mode(found.certificate) == mode(found.authority)


def test_a_key_that_is_kept_elsewhere_is_named(tmp_path, capsys):
    found = made(tmp_path / "federation")
    kept = tmp_path / "offline.key"
    shutil.move(found.authority_key, kept)
    assert renew(found) == 2
    assert "bring the authority's key back from where it is kept" in capsys.readouterr().err
    assert renew(found, "--authority-key", kept) == 0


@pytest.mark.parametrize("how", ["another", "damaged", "a server's", "a directory"])
def test_a_wrong_key_changes_nothing(tmp_path, capsys, how):
    found = made(tmp_path / "federation")
    before = found.certificate.read_bytes()
    key = {
        "another": made(tmp_path / "other").authority_key,
        "damaged": tmp_path / "damaged",
        "a server's": found.key,
        "a directory": tmp_path,
    }[how]
    (tmp_path / "damaged").write_text("-----BEGIN PRIVATE KEY-----\n")
    assert renew(found, "--authority-key", key) == 2
    said = capsys.readouterr().err
    assert "do not belong together" in said or "cannot be read" in said
    assert "Traceback" not in said
    assert found.certificate.read_bytes() == before


def test_no_certificate_outlives_its_authority(tmp_path, capsys):
    now = datetime.now(UTC)
    old = now - timedelta(days=3660)
    # Its authority has about ten days.
    found = init(tmp_path / "old", 1, "127.0.0.1", 8443, old, now - timedelta(days=3640))
    before = found.certificate.read_bytes()
    assert renew(found, "--days", 60) == 2
    said = capsys.readouterr().err
    assert "choose --days of at most 9, or make a new federation with 'fedmer deploy init'" in said
    assert found.certificate.read_bytes() == before
    assert renew(found, "--days", 9) == 0
    gone = init(tmp_path / "gone", 1, "127.0.0.1", 8443, old, now - timedelta(days=3651))
    assert renew(gone, "--days", 1) == 2
    said = capsys.readouterr().err
    assert "make a new federation" in said
    assert "choose --days" not in said


@pytest.mark.parametrize(
    ("days", "said"), [("0", "--days is 0"), ("4000", "--days is 4000"), ("x", "is 'x'")]
)
def test_bad_days_are_refused(tmp_path, capsys, days, said):
    found = made(tmp_path / "federation")
    assert renew(found, "--days", days) == 2
    assert said in capsys.readouterr().err


def test_a_folder_of_a_node_or_of_none_is_refused(tmp_path: Path, capsys):
    node = made(tmp_path / "federation").node("node-0")
    assert main(["deploy", "renew", str(node.folder)]) == 2
    assert "this is a node's folder, name the server's" in capsys.readouterr().err
    assert main(["deploy", "renew", str(tmp_path)]) == 2
    assert "make a federation with 'fedmer deploy init' first" in capsys.readouterr().err
