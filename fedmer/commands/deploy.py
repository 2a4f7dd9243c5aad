"""``fedmer deploy init|server|node``: bring up a server and nodes on Flower, with TLS and keys."""

import json
import logging
import math
import os
import shutil
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path

from fedmer.arguments import Parser, to_path
from fedmer.errors import InputError
from fedmer.files import TemporaryFolder
from fedmer.flower.deploy.folder import Federation, Node, is_host, write_private
from fedmer.flower.deploy.logs import stamped
from fedmer.flower.deploy.processes import (
    Kept,
    Stopped,
    check_port,
    flower_environment,
    free_port,
    only_one,
    stoppable,
)

_SECONDS_TO_START = 120.0
_SECONDS_TO_BE_KNOWN = 20.0
"""A server that is starting answers before it has registered the last of its nodes."""
_SECONDS_TO_BE_MISSED = 90.0
"""The server believes a node that vanished to be there for a minute, and lets no second one in."""
_TICK = 0.2
_PAUSE_IF_REFUSED = 5.0
_CONNECTED = "SuperNode ID: "
_REFUSED = "[code: 2004]"
_LONGEST_PAUSE = 10.0
_LOOK = 10.0
"""Seconds between two looks at who is there."""
# Clocks of other machines may be behind.
_BACKDATED = timedelta(hours=1)
_MOST_DAYS = 3650
_MOST_NODES = 10_000

_LISTEN = ("127.0.0.1", "0.0.0.0")


def main(argv: list[str]) -> int:
    """Run ``fedmer deploy`` with the arguments that follow it.

    Args:
        argv: For example ``["init", "federation", "--nodes", "3"]``.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 if what was started has died.

    Raises:
        InputError: What was typed, a file, or the server's identity cannot be used.
    """
    try:
        options = _parser().parse_args(argv)
    except SystemExit as leaving:
        return int(leaving.code or 0)
    if options.command == "init":
        begin = datetime.now(UTC)
        if not 1 <= options.days <= _MOST_DAYS:
            raise InputError(f"--days is {options.days}; expected 1 to {_MOST_DAYS}.")
        end = begin + timedelta(days=options.days)
        found = init(
            options.folder, options.nodes, options.host, options.port, begin - _BACKDATED, end
        )
        print(_what_goes_where(found, end))
        return 0
    try:
        with stoppable():
            if options.command == "server":
                return _server(Federation.read(options.folder), options.listen)
            return _node(Node.read(options.folder), options.data.absolute())
    except Stopped:
        return 0


def _parser() -> Parser:
    parser = Parser(
        prog="fedmer deploy",
        description="Bring up a server and nodes on Flower, with TLS and node keys.",
    )
    commands = parser.add_subparsers(dest="command", required=True, metavar="init|server|node")
    add = commands.add_parser("init", help="make the folders of a server and its nodes")
    add.add_argument("folder", metavar="DIR", type=to_path, help="to make; nothing may be in it")
    add.add_argument("--nodes", metavar="N", type=int, required=True, help="how many nodes")
    add.add_argument(
        "--host", default="127.0.0.1", help="name or IPv4 address the nodes dial (%(default)s)"
    )
    add.add_argument("--port", type=int, default=8443, help="of the server (%(default)s)")
    add.add_argument("--days", type=int, default=365, help="the certificate holds (%(default)s)")
    add = commands.add_parser("server", help="run the server until Ctrl-C")
    add.add_argument("folder", metavar="DIR", type=to_path, help="that 'fedmer deploy init' made")
    add.add_argument(
        "--listen",
        choices=_LISTEN,
        help="0.0.0.0 for all interfaces; without it, only if --host of init was another machine",
    )
    add = commands.add_parser("node", help="run one node until Ctrl-C")
    add.add_argument("folder", metavar="FOLDER", type=to_path, help="as in DIR/node-0")
    add.add_argument("--data", metavar="FILE", type=to_path, required=True, help="its own corpus")
    return parser


def init(
    folder: Path, nodes: int, host: str, port: int, begin: datetime, end: datetime
) -> Federation:
    """Make the folders of a federation.

    Args:
        folder: Where; it must be missing or empty.
        nodes: How many.
        host: What they dial, a name or an IPv4 address.
        port: Where the server will listen.
        begin: From when the server's certificate holds.
        end: Until when.

    Raises:
        InputError: One of these cannot be used, or the folder cannot be written.
    """
    if not 1 <= nodes <= _MOST_NODES:
        raise InputError(f"--nodes is {nodes}; expected 1 to {_MOST_NODES}.")
    if not 1 <= port <= 65535:
        raise InputError(f"--port is {port}; expected 1 to 65535.")
    if not is_host(host):
        raise InputError(f"--host is '{host}'; expected a host name or an IPv4 address.")
    _need_flower()
    from fedmer.flower.deploy.certificates import certificates, node_key
    from fedmer.flower.node.policy import policy_for

    names = tuple(f"node-{number}" for number in range(nodes))
    found = Federation(folder.absolute(), f"{host}:{port}", names)
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        if any(folder.iterdir()):
            raise InputError(f"{folder} is not empty; name a new folder.")
        folder.chmod(0o700)
        authority, server = certificates(host, begin, end)
        write_private(found.authority_key, authority.private)
        found.authority.write_bytes(authority.public)
        found.server.mkdir(mode=0o700)
        write_private(found.key, server.private)
        found.certificate.write_bytes(server.public)
        found.write_flower_files()
        found.public_key("any").parent.mkdir(mode=0o700)
        for name in names:
            key, node = node_key(name), found.node(name)
            node.folder.mkdir(mode=0o700)
            node.state.mkdir(mode=0o700)
            write_private(node.key, key.private)
            node.public_key.write_bytes(key.public)
            found.public_key(name).write_bytes(key.public)
            node.authority.write_bytes(authority.public)
            policy_for(nodes).write(node.policy)
            node.write()
        # The last of all: without it the folder is none of a federation.
        found.write()
    except OSError as error:
        raise InputError(f"{folder} cannot be made: {error.strerror}; name another.") from error
    return found


def _what_goes_where(found: Federation, end: datetime) -> str:
    count = len(found.nodes)
    nodes = found.nodes[0] if count == 1 else f"{found.nodes[0]} to {found.nodes[-1]}"
    return f"""\
{found.folder} holds a federation of {count} node{"s" * (count > 1)}; its certificate holds until \
{end:%Y-%m-%d}.
  {nodes}: move each to the machine of its data, over a safe channel, and run there
      fedmer deploy node FOLDER --data FILE
      policy.json in it says what the node takes part in; it is its owner's to change
  federation.json, ca.crt and server/: belong on the machine {found.host}; run there
      fedmer deploy server DIR
  ca.key: keep it offline. It can vouch for another server, and no command needs it again."""


def _server(found: Federation, listen: str | None) -> int:
    _need_flower()
    from fedmer.flower.deploy.certificates import LOOPBACK, check_server

    for path in (
        found.authority,
        found.certificate,
        found.key,
        *map(found.public_key, found.nodes),
    ):
        if not path.is_file():
            raise InputError(f"{path} is missing; restore it, or make a federation anew.")
    check_server(found.certificate, found.key)
    listen = listen or _LISTEN[0 if found.host in LOOPBACK else 1]
    with only_one(found.server):
        check_port(listen, found.port)
        found.write_flower_files()
        environment = flower_environment(found.home, found.host)
        # The Flower client in this process reads them, too.
        os.environ.update(environment)
        words = [sys.executable, "-P", "-m", "fedmer.flower.server.superlink"]
        words.append(str(found.public_key("any").parent))
        words += ["--ssl-ca-certfile", str(found.authority)]
        words += ["--ssl-certfile", str(found.certificate), "--ssl-keyfile", str(found.key)]
        words += ["--host", listen, "--port", str(found.port), "--database", str(found.database)]
        words += ["--enable-supernode-auth", "--disable-runtime-dependency-installation"]
        with Kept(words, environment, found.log) as superlink:
            return _serve(found, superlink)


def _serve(found: Federation, superlink: Kept) -> int:
    from fedmer.flower.server.superlink import is_guarded, is_healthy, register

    patience = time.monotonic() + _SECONDS_TO_START
    while superlink.exit_code is None and not is_healthy(found.loopback, found.authority):
        if time.monotonic() > patience:
            return _died("The SuperLink does not answer", superlink, found.log)
        time.sleep(_TICK)
    if superlink.exit_code is None:
        if not is_guarded(found.loopback, found.authority):
            raise InputError("Flower lets strangers start runs on this server; install flwr 1.41.")
        keys = {name: found.public_key(name).read_bytes() for name in found.nodes}
        found.write_node_ids(register(found.loopback, found.authority, keys))
        count = f"{len(keys)} node{'s' * (len(keys) > 1)}"
        _tell(f"Server is ready at {found.address} for {count}; Ctrl-C ends it")
    watched = _Nodes(found)
    while superlink.exit_code is None:
        time.sleep(_TICK)
        watched.look()
    return _died("The SuperLink has ended", superlink, found.log)


class _Nodes:
    """Tells who comes and who goes.

    Args:
        found: Whose nodes.
    """

    def __init__(self, found: Federation) -> None:
        self._found = found
        self._online: set[str] = set()
        self._next = 0.0

    def look(self) -> None:
        """Look, if it is time to."""
        from fedmer.flower.server.superlink import nodes_online

        if time.monotonic() < self._next:
            return
        self._next = time.monotonic() + _LOOK
        try:
            online = nodes_online(self._found.loopback, self._found.authority)
        except OSError:
            # Busy, or about to end, which is told where it is seen.
            return
        names = {name for name, number in self._found.node_ids().items() if number in online}
        for name in sorted(names - self._online):
            _tell(f"{name} is connected")
        for name in sorted(self._online - names):
            _tell(f"{name} is not connected any more; it may be off or cut off", logging.WARNING)
        self._online = names


class _Server:
    """Tells when the server of a node cannot be reached, and when it can again.

    Args:
        node: Whose server.
    """

    def __init__(self, node: Node) -> None:
        self._node = node
        self._reached = True
        self._next = time.monotonic() + _LOOK

    def look(self) -> None:
        """Look, if it is time to."""
        from fedmer.flower.deploy.certificates import answers

        if time.monotonic() < self._next:
            return
        node = self._node
        why = ""
        try:
            reached = answers(node.host, node.port, node.authority)
        except InputError as error:
            reached, why = False, f" ({error})"
        if self._reached and not reached:
            _tell(
                f"{node.name} does not reach the server at {node.address}{why}; it tries again by "
                "itself",
                logging.WARNING,
            )
        elif reached and not self._reached:
            _tell(f"{node.name} reaches the server at {node.address} again")
        self._reached = reached
        self._next = time.monotonic() + _LOOK


def _node(node: Node, data: Path) -> int:
    _need_flower()
    from fedmer.data.formats import read_corpus
    from fedmer.flower.deploy.certificates import check_node_key
    from fedmer.flower.node.policy import Policy
    from fedmer.flower.node.resident import SOCKET

    for path in (node.authority, node.key, node.state):
        if not path.exists():
            raise InputError(f"{path} is missing; carry the node's folder here again.")
    check_node_key(node.key)
    try:
        Policy.read(node.policy)
    except InputError as error:
        raise InputError(f"{node.folder}: {error}.") from error
    read_corpus(data, math.inf)
    config = " ".join(
        f"{key}={_quoted(path)}" for key, path in (("folder", node.folder), ("data", data))
    )
    with only_one(node.folder):
        _wait_for_server(node)
        environment = flower_environment(node.home, node.host)
        # Nodes often share a machine, where more threads than cores cost far more than they give.
        environment.setdefault("OMP_NUM_THREADS", "1")
        program = shutil.which("flower-supernode", path=environment["PATH"])
        if program is None:
            raise InputError("There is no program flower-supernode; install 'fedmer[flower]'.")
        words = [program, "--root-certificates", str(node.authority), "--superlink", node.address]
        words += ["--auth-supernode-private-key", str(node.key), "--node-config", config]
        words += ["--host", "127.0.0.1", "--port", str(free_port())]
        with closing(TemporaryFolder()) as private, ExitStack() as stack:
            address = str(private.path / "worker")
            environment[SOCKET] = address
            work = [sys.executable, "-P", "-m", "fedmer.flower.node.resident", address]

            def start_worker() -> Kept:
                Path(address).unlink(missing_ok=True)
                return stack.enter_context(Kept(work, environment, node.folder / "worker.log"))

            def start_supernode() -> Kept:
                return stack.enter_context(Kept(words, environment, node.log))

            return _attend(node, start_supernode, start_worker)


def _attend(
    node: Node, start_supernode: Callable[[], Kept], start_worker: Callable[[], Kept]
) -> int:
    connected = False
    known = any(_CONNECTED in log.read_text(errors="replace") for log in _logs(node))
    supernode, worker = start_supernode(), start_worker()
    patience = _SECONDS_TO_BE_MISSED if known else _SECONDS_TO_BE_KNOWN
    begun = time.monotonic()
    deadline = begun + patience
    told = False
    while True:
        if supernode.exit_code is not None:
            refused = not connected and _REFUSED in supernode.output()
            if not refused or time.monotonic() > deadline:
                break
            if not told:
                told = True
                _tell(
                    f"{node.name} is not let in, and tries again for {patience:.0f} s",
                    logging.WARNING,
                )
            time.sleep(_PAUSE_IF_REFUSED)
            supernode = start_supernode()
        if worker.exit_code is not None and time.monotonic() > begun + _PAUSE_IF_REFUSED:
            # It ends itself when its time is up; the next message finds another.
            _tell(f"The worker of {node.name} has ended; another is started", logging.WARNING)
            worker, begun = start_worker(), time.monotonic()
        if not connected and _CONNECTED in supernode.output():
            connected = True
            _tell(f"{node.name} is connected to {node.address}; Ctrl-C ends it")
            server = _Server(node)
        if connected:
            server.look()
        for line in worker.news():
            print(line, flush=True)
        time.sleep(_TICK)
    if refused:
        raise InputError(
            f"The server at {node.address} does not know the key of {node.name}; start the server "
            "with the DIR that was made together with this folder."
        )
    return _died(f"The SuperNode of {node.name} has ended", supernode, node.log)


def _wait_for_server(node: Node) -> None:
    from fedmer.flower.deploy.certificates import answers
    from fedmer.flower.deploy.clock import wrong_clock

    pause = _TICK
    while not answers(node.host, node.port, node.authority):
        if pause == _TICK:
            _tell(f"{node.name} is waiting for the server at {node.address}")
        time.sleep(pause)
        pause = min(1.5 * pause, _LONGEST_PAUSE)
    told = ""
    while wrong := wrong_clock(node.host, node.port, node.authority):
        # A clock that the network sets may be wrong for a while after the machine has started.
        if not told:
            told = wrong
            _tell(f"{node.name} waits. {wrong}", logging.WARNING)
        time.sleep(_LOOK)


def _logs(node: Node) -> list[Path]:
    return sorted(node.folder.glob(f"{node.log.name}*"))


def _tell(message: str, level: int = logging.INFO) -> None:
    print(stamped(message, level), flush=True)


def _died(what: str, process: Kept, log: Path) -> int:
    print(f"{what}; the last lines of {log}:\n{process.last_lines()}", file=sys.stderr)
    return 1


def _quoted(path: Path) -> str:
    if '"' in str(path):
        raise InputError(f"{path} has a quotation mark in it, which Flower cannot take; rename it.")
    return json.dumps(str(path), ensure_ascii=False)


def _need_flower() -> None:
    if find_spec("flwr") is None:
        raise InputError("This needs Flower; install it with pip install 'fedmer[flower]'.")
