"""``fedmer deploy``: bring up a server and nodes on Flower, with TLS and keys, and look at them."""

import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.errors import InputError
from fedmer.flower.deploy.folder import Federation, Node, is_host, write_private
from fedmer.flower.deploy.processes import Stopped, stoppable

if TYPE_CHECKING:
    from jsonargparse import Namespace

# Clocks of other machines may be behind.
_BACKDATED = timedelta(hours=1)
_MOST_DAYS = 3650
_MOST_NODES = 10_000


def main(words: Sequence[str]) -> int:
    """Run ``fedmer deploy``.

    Args:
        words: For example ``["deploy", "init", "federation", "--nodes", "3"]``.

    Returns:
        The exit code: 0 after Ctrl-C or SIGTERM, 1 if what was started has died.

    Raises:
        InputError: What was typed, a file, or the server's identity cannot be used.
    """
    options = parser().parse_args(words[1:])
    if find_spec("flwr") is None:
        raise InputError("This needs Flower; install it with pip install 'fedmer[flower]'.")
    return _RUN[options.subcommand](options[options.subcommand])


def parser() -> Parser:
    """What parses the words behind ``fedmer deploy``."""
    commands = Parser(
        prog="fedmer deploy",
        description="Bring up a server and nodes on Flower, with TLS and node keys.",
    )
    add = commands.add_subcommands().add_subcommand

    init = Parser(description="Make the folders of a server and its nodes.")
    init.add_argument("folder", metavar="DIR", type=Path, help="to make; nothing may be in it")
    init.add_argument("--nodes", metavar="N", type=int, required=True, help="how many nodes")
    init.add_argument("--host", default="127.0.0.1", help="name or IPv4 address the nodes dial")
    init.add_argument("--port", type=int, default=8443, help="of the server")
    init.add_argument("--days", type=int, default=365, help="the certificate holds")
    init.add_argument(
        "--extractors",
        metavar="FILE",
        type=Path,
        help="what nodes make features of recordings with, and the emotions in their order",
    )
    add("init", init, help=init.description)

    server = Parser(description="Run the server until Ctrl-C.")
    server.add_argument("folder", metavar="DIR", type=Path, help="that 'fedmer deploy init' made")
    server.add_argument(
        "--listen",
        choices=("127.0.0.1", "0.0.0.0"),
        help="0.0.0.0 for all interfaces; without it, only if --host of init was another machine",
    )
    _takes_metrics(server)
    add("server", server, help=server.description)

    node = Parser(description="Run one node until Ctrl-C.")
    node.add_argument("folder", metavar="FOLDER", type=Path, help="as in DIR/node-0")
    node.add_argument("--data", metavar="FILE", type=Path, help="the node's corpus")
    node.add_argument(
        "--source",
        metavar="TABLE",
        type=Path,
        help="instead of it recordings or words, of which features are made here, in FOLDER",
    )
    _takes_metrics(node)
    add("node", node, help=node.description)

    status = Parser(description="Show who is connected, rounds, bytes, certificates.")
    status.add_argument("folder", metavar="FOLDER", type=Path, help="of the server, or of a node")
    status.add_argument("--json", action="store_true", help="for other programs")
    add("status", status, help=status.description)

    renew = Parser(description="Renew the server's certificate; nodes need nothing new.")
    renew.add_argument("folder", metavar="DIR", type=Path, help="of the server")
    renew.add_argument("--days", type=int, default=365, help="the certificate holds")
    renew.add_argument(
        "--authority-key", metavar="FILE", type=Path, help="ca.key, if it is not in DIR"
    )
    add("renew", renew, help=renew.description)
    return commands


def _takes_metrics(parser: Parser) -> None:
    parser.add_argument(
        "--metrics",
        metavar="[HOST:]PORT",
        help="serve /health and /metrics there; without HOST to this machine alone",
    )


def _init(options: "Namespace") -> int:
    begin, end = _time(options.days)
    extractors = None
    if options.extractors is not None:
        from fedmer.extraction.settings import ExtractionSettings

        ExtractionSettings.read(options.extractors)
        extractors = options.extractors.read_bytes()
    made = init(options.folder, options.nodes, options.host, options.port, begin, end)
    if extractors is not None:
        for name in made.nodes:
            write_private(made.node(name).extractors, extractors)
    print(_what_goes_where(made, end))
    return 0


def _time(days: int) -> tuple[datetime, datetime]:
    """From when and until when a new certificate holds."""
    if not 1 <= days <= _MOST_DAYS:
        raise InputError(f"--days is {days}; expected 1 to {_MOST_DAYS}.")
    now = datetime.now(UTC)
    return now - _BACKDATED, now + timedelta(days=days)


def _server(options: "Namespace") -> int:
    from fedmer.flower.server.serve import serve

    found = Federation.read(options.folder)
    return _until_stopped(lambda: serve(found, options.listen, options.metrics))


def _node(options: "Namespace") -> int:
    from fedmer.flower.node.serve import serve

    if (options.data is None) == (options.source is None):
        raise InputError("A node needs either --data FILE or --source TABLE; give one of them.")
    node = Node.read(options.folder)
    data = options.data.absolute() if options.source is None else _extracted(node, options.source)
    return _until_stopped(lambda: serve(node, data, options.metrics))


def _status(options: "Namespace") -> int:
    from fedmer.flower.deploy.status import Status

    found = Status.of(options.folder)
    if options.json:
        print(json.dumps(found.json(), indent=2))
    else:
        found.show()
    return 0


def _renew(options: "Namespace") -> int:
    from fedmer.flower.deploy.renewal import renew

    found = Federation.read(options.folder)
    begin, end = _time(options.days)
    renew(found, options.authority_key or found.authority_key, begin, end)
    print(
        f"{found.certificate} holds until {end:%Y-%m-%d}. Restart 'fedmer deploy server' "
        "to use it; nodes go on by themselves. Take ca.key offline again."
    )
    return 0


def _extracted(node: Node, source: Path) -> Path:
    """The node's corpus, made here of its recordings as the federation has it; all for training."""
    from fedmer.commands.extract import Bar, say
    from fedmer.extraction.settings import ExtractionSettings
    from fedmer.extraction.sources import for_training, read_source
    from fedmer.extraction.to_file import extract_to

    if not node.extractors.exists():
        raise InputError(
            f"{node.extractors} is missing, which says how features are made; make the federation "
            "with 'fedmer deploy init --extractors FILE', or give --data."
        )
    settings = ExtractionSettings.read(node.extractors)
    table = for_training(read_source(source))
    target = node.folder / "corpus.npz"
    with Bar(len(table.utterances)) as bar:
        _, failures = extract_to(
            table, target, settings.chosen, settings.labels, advance=bar.advance
        )
    say(failures, target)
    return target


def _until_stopped(run: Callable[[], int]) -> int:
    try:
        with stoppable():
            return run()
    except Stopped:
        return 0


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
  ca.key: keep it offline. It can vouch for another server; only 'fedmer deploy renew' needs it."""


_RUN: Mapping[str, Callable[["Namespace"], int]] = {
    "init": _init,
    "server": _server,
    "node": _node,
    "status": _status,
    "renew": _renew,
}
