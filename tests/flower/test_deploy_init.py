"""``fedmer deploy init``: what it writes, what it refuses, and what the checks say of it later."""

import json
import socket
import ssl
import stat
import threading
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

pytest.importorskip("flwr")

from cryptography import x509
from cryptography.hazmat.primitives.serialization import load_ssh_private_key, load_ssh_public_key

from fedmer.__main__ import main
from fedmer.commands.deploy import init
from fedmer.errors import InputError
from fedmer.flower.deploy.certificates import check_node_key, check_server
from fedmer.flower.deploy.folder import Federation, Node
from fedmer.flower.deploy.handshake import answers

DAY = timedelta(days=1)


def made(folder: Path, host: str = "127.0.0.1", begin: timedelta = -DAY, end: timedelta = DAY):
    now = datetime.now(UTC)
    return init(folder, 2, host, 8443, now + begin, now + end)


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_every_file_is_where_the_layout_says(tmp_path):
    folder = tmp_path / "new" / "federation"
    assert main(["deploy", "init", str(folder), "--nodes", "2", "--port", "9000"]) == 0
    found = Federation.read(folder)
    assert (found.address, found.nodes) == ("127.0.0.1:9000", ("node-0", "node-1"))
    for path in (found.authority, found.certificate, found.app / "pyproject.toml"):
        assert path.is_file()
    for name in found.nodes:
        node = Node.read(folder / name)
        assert node == found.node(name)
        assert node.state.is_dir()
        assert node.authority.read_bytes() == found.authority.read_bytes()
        assert node.public_key.read_bytes() == found.public_key(name).read_bytes()
        private = load_ssh_private_key(node.key.read_bytes(), None)
        assert private.public_key() == load_ssh_public_key(node.public_key.read_bytes())
        assert private.key_size == 384
    assert f'address = "{found.loopback}"' in (found.home / "config.toml").read_text()


def test_keys_and_folders_are_for_their_owner_alone(tmp_path):
    # A folder that is there and empty may have been made by hand.
    (tmp_path / "federation").mkdir(mode=0o755)
    found = made(tmp_path / "federation")
    keys = [found.authority_key, found.key, *(found.node(name).key for name in found.nodes)]
    assert {mode(key) for key in keys} == {0o600}
    folders = [path for path in (found.folder, *found.folder.rglob("*")) if path.is_dir()]
    assert {mode(folder) for folder in folders} == {0o700}
    private = [path for path in found.folder.rglob("*") if path.is_file() and "key" in path.suffix]
    assert set(private) <= set(keys)


@pytest.mark.parametrize(
    ("host", "names", "addresses"),
    [
        ("127.0.0.1", ["localhost"], ["127.0.0.1"]),
        ("server.example.org", ["server.example.org", "localhost"], ["127.0.0.1"]),
        ("10.1.2.3", ["localhost"], ["10.1.2.3", "127.0.0.1"]),
    ],
)
def test_certificate_names_the_host_and_this_machine(tmp_path, host, names, addresses):
    found = made(tmp_path / "federation", host)
    certificate = x509.load_pem_x509_certificate(found.certificate.read_bytes())
    extension = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert extension.get_values_for_type(x509.DNSName) == names
    assert list(map(str, extension.get_values_for_type(x509.IPAddress))) == addresses
    authority = x509.load_pem_x509_certificate(found.authority.read_bytes())
    certificate.verify_directly_issued_by(authority)
    assert authority.not_valid_after_utc > certificate.not_valid_after_utc


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--nodes", "0"], "--nodes is 0"),
        (["--nodes", "-3"], "--nodes is -3"),
        (["--nodes", "two"], "is 'two'; expected a whole number."),
        ([], "--nodes is missing"),
        (["--nodes", "1", "--port", "0"], "--port is 0; expected 1 to 65535"),
        (["--nodes", "1", "--port", "70000"], "--port is 70000"),
        (["--nodes", "1", "--days", "0"], "--days is 0"),
        (["--nodes", "1", "--days", "99999999999"], "--days is 99999999999"),
        (["--nodes", "1", "--host", "https://a"], "--host is 'https://a'"),
        (["--nodes", "1", "--host", ""], "--host is ''"),
        (["--nodes", "1", "--host", "10.0.0.256"], "--host is '10.0.0.256'"),
    ],
)
def test_bad_options_are_refused_before_anything_is_made(tmp_path, capsys, options, said):
    folder = tmp_path / "federation"
    assert main(["deploy", "init", str(folder), *options]) == 2
    assert said in capsys.readouterr().err
    assert not folder.exists()


def test_folder_with_something_in_it_stays_as_it_is(tmp_path, capsys):
    (tmp_path / "mine").touch()
    assert main(["deploy", "init", str(tmp_path), "--nodes", "1"]) == 2
    assert "is not empty; name a new folder" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]


def test_folder_that_cannot_be_made_is_named(tmp_path, capsys):
    (tmp_path / "file").touch()
    assert main(["deploy", "init", str(tmp_path / "file"), "--nodes", "1"]) == 2
    assert "cannot be made: File exists" in capsys.readouterr().err


def test_node_numbers_survive_the_file_to_the_last_digit(tmp_path):
    found = made(tmp_path / "federation")
    with pytest.raises(InputError, match="start 'fedmer deploy server"):
        found.node_ids()
    found.write_node_ids({"node-0": 2**64 - 1, "node-1": 1})
    assert found.node_ids() == {"node-0": 2**64 - 1, "node-1": 1}
    assert json.loads((found.server / "nodes.json").read_text())["node-0"] == str(2**64 - 1)


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ("", "is not JSON"),
        ("[]", "holds no JSON object"),
        ('{"name": "../x", "server": "a:1"}', "'name' is not a name"),
        ('{"name": "node-0", "server": "a"}', "'a' is not HOST:PORT"),
        ('{"name": "node-0", "server": "a:99999"}', "'a:99999' is not HOST:PORT"),
    ],
)
def test_damaged_node_file_is_refused(tmp_path, content, said):
    (tmp_path / "node.json").write_text(content)
    with pytest.raises(InputError, match=said):
        Node.read(tmp_path)


def test_folder_of_a_node_is_not_taken_for_a_servers(tmp_path):
    node = made(tmp_path / "federation").node("node-0")
    with pytest.raises(InputError, match="this is a node's folder, name the server's"):
        Federation.read(node.folder)


def test_key_of_another_kind_is_refused(tmp_path):
    found = made(tmp_path / "federation")
    check_node_key(found.node("node-0").key)
    for wrong in (found.key, found.node("node-0").public_key, tmp_path / "none"):
        with pytest.raises(InputError, match="is not a private key of a node"):
            check_node_key(wrong)


def test_server_refuses_a_certificate_no_node_would_take(tmp_path):
    check_server((good := made(tmp_path / "good")).certificate, good.key)
    past = made(tmp_path / "past", begin=-2 * DAY, end=-DAY)
    with pytest.raises(InputError, match=r"expired on .*; renew it with 'fedmer deploy renew DIR'"):
        check_server(past.certificate, past.key)
    future = made(tmp_path / "future", begin=DAY, end=2 * DAY)
    with pytest.raises(InputError, match=r"holds only from .* set this machine's clock"):
        check_server(future.certificate, future.key)
    with pytest.raises(InputError, match="cannot be used as a certificate and its key"):
        check_server(good.certificate, past.key)


class Server:
    """Shakes hands on a port of this machine, or only says a word if there is no federation."""

    def __init__(self, found: Federation | None, host: str = "127.0.0.1") -> None:
        self._context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH) if found else None
        if self._context is not None and found is not None:
            self._context.load_cert_chain(found.certificate, found.key)
        self._socket = socket.create_server((host, 0))
        self.port = self._socket.getsockname()[1]
        threading.Thread(target=self._answer, daemon=True).start()

    def _answer(self) -> None:
        plain, _ = self._socket.accept()
        with plain:
            if self._context is None:
                plain.sendall(b"220 mail.example.org\r\n")
                plain.recv(1)
                return
            try:
                self._context.wrap_socket(plain, server_side=True).close()
            except OSError:
                return  # The client did not like the certificate.

    def __enter__(self) -> "Server":
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()


def test_node_says_what_is_wrong_with_a_server(tmp_path):
    found = made(tmp_path / "good")
    with Server(found) as server:
        assert answers("127.0.0.1", server.port, found.authority)
    wrong = {
        "was not signed by .*; take the folder": made(tmp_path / "stranger"),
        "has expired; whoever runs it renews it": made(tmp_path / "past", begin=-2 * DAY, end=-DAY),
        "does not hold yet; set the clock": made(tmp_path / "future", begin=DAY, end=2 * DAY),
    }
    for said, other in wrong.items():
        authority = found.authority if "signed" in said else other.authority
        with Server(other) as server, pytest.raises(InputError, match=said):
            answers("127.0.0.1", server.port, authority)
    other = "127.0.0.2"
    with Server(found, other) as server, pytest.raises(InputError, match="is for another host"):
        answers(other, server.port, found.authority)
    with Server(None) as server, pytest.raises(InputError, match="does not speak TLS"):
        answers("127.0.0.1", server.port, found.authority)
    with pytest.raises(InputError, match=r"The name nowhere\.invalid is not known"):
        answers("nowhere.invalid", 8443, found.authority)


def test_nobody_there_is_no_error(tmp_path):
    found = made(tmp_path / "federation")
    with socket.create_server(("127.0.0.1", 0)) as gone:
        port = gone.getsockname()[1]
    assert not answers("127.0.0.1", port, found.authority)
