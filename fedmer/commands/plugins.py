"""``fedmer plugins [KIND]``: what can be swapped."""

from collections.abc import Sequence

from fedmer.arguments import Parser
from fedmer.plugins import registry


def parser() -> Parser:
    """What parses the words behind ``fedmer plugins``."""
    made = Parser(prog="fedmer plugins", description="List the classes that can be chosen by name.")
    made.add_argument(
        "kind",
        nargs="?",
        metavar="KIND",
        help=f"one of {', '.join(registry.KINDS)}",
    )
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer plugins``; returns the exit code, 0.

    Args:
        words: For example ``["plugins", "networks"]``.

    Raises:
        InputError: There is no such kind.
    """
    kind = parser().parse_args(words[1:]).kind
    for one in [kind] if kind else registry.KINDS:
        found = registry.plugins(one)
        width = max((len(plugin.name) for plugin in found), default=0)
        print(one)
        for plugin in found:
            source = "" if plugin.package == "fedmer" else f"  [{plugin.package}]"
            print(f"  {plugin.name:{width}}  {plugin.line}{source}")
    return 0
