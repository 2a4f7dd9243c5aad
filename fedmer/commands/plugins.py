"""``fedmer plugins [KIND]``: what can be swapped; ``fedmer plugins new``: one more of it."""

import shlex
from collections.abc import Sequence
from pathlib import Path

from fedmer.arguments import Parser
from fedmer.plugins import registry
from fedmer.printable import printable

NEW = "new"


def parser() -> Parser:
    """What parses the words behind ``fedmer plugins``."""
    made = Parser(
        prog="fedmer plugins",
        description="List the classes that can be chosen by name; 'fedmer plugins new --help' "
        "tells how to make one.",
    )
    made.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help=f"one of {', '.join(registry.KINDS)}",
    )
    return made


def new_parser() -> Parser:
    """What parses the words behind ``fedmer plugins new``."""
    parts = ", ".join(map(registry.singular, registry.KINDS))
    made = Parser(
        prog="fedmer plugins new",
        description="Write a package with a new plugin that works as it stands, and its test.",
    )
    made.add_argument("part", metavar="PART", help=f"one of {parts}")
    made.add_argument("name", metavar="NAME", help="of the class, as in MyRule")
    made.add_argument("--folder", type=Path, help="new or empty; by default fedmer-my-rule")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer plugins``; returns the exit code, 0.

    Args:
        words: For example ``["plugins", "networks"]`` or ``["plugins", "new", "network", "Mine"]``.

    Raises:
        InputError: There is no such kind, or a new plugin cannot be written as asked.
    """
    if words[1:2] == [NEW]:
        return _new(words[2:])
    kind = parser().parse_args(words[1:]).kind
    for one in [kind] if kind else registry.KINDS:
        found = registry.plugins(one)
        width = max((len(plugin.name) for plugin in found), default=0)
        print(one)
        for plugin in found:
            source = "" if plugin.package == "fedmer" else f"  [{plugin.package}]"
            print(f"  {plugin.name:{width}}  {plugin.line}{source}")
    return 0


def _new(words: Sequence[str]) -> int:
    from fedmer.new_plugin.write import part_of, write_plugin

    options = new_parser().parse_args(words)
    written = write_plugin(part_of(options.part), options.name, options.folder)
    place = shlex.quote(str(written.folder))
    lines = [
        f"Wrote {written.folder}: {', '.join(written.files)}",
        f"  pip install -e {place}",
        f"  pytest {place}",
        f"  {written.command}",
    ]
    for line in lines:
        print(printable(line))
    return 0
