"""Where ``fedmer`` starts: light subcommands answer before Lightning is imported."""

import sys
from collections.abc import Sequence

from fedmer import __version__
from fedmer.arguments import at_home
from fedmer.endings import exit_code
from fedmer.errors import InputError
from fedmer.plugins import registry

SUBCOMMANDS = {
    "fit": "train a federation",
    "validate": "score a checkpoint on the validation part",
    "test": "score a checkpoint on the test part",
    "predict": "write a checkpoint's predictions for the test part",
    "plugins": "list what can be swapped",
    "data": "describe a corpus, convert one, write a synthetic one",
    "sweep": "run the trials of a sweep file",
    "report": "tables and pictures of finished runs, as one page",
    "deploy": "bring up a server and nodes on Flower",
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code."""
    given = [at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    return exit_code(lambda: _dispatch(given))


def _dispatch(given: list[str]) -> int:
    if not given or given[0] in ("-h", "--help"):
        print(_overview())
        return 0
    if given[0] == "--version":
        print(f"fedmer {__version__}")
        return 0
    if given[0] == "plugins":
        return _list_plugins(given[1:])
    if given[0] == "data":
        from fedmer.commands.data import main as data

        return data(given[1:])
    if given[0] == "sweep":
        from fedmer.commands.sweep import main as sweep

        return sweep(given[1:])
    if given[0] == "report":
        from fedmer.commands.report import main as report

        return report(given[1:])
    if given[0] == "deploy":
        from fedmer.commands.deploy import main as deploy

        return deploy(given[1:])
    if given[0] not in SUBCOMMANDS:
        raise InputError(registry.unknown("subcommand", given[0], SUBCOMMANDS))
    from fedmer.cli import run

    return run(given)


def _overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, what in SUBCOMMANDS.items()]
    return "\n".join(
        [
            "usage: fedmer SUBCOMMAND [OPTIONS]",
            "",
            "Federated multimodal emotion recognition in conversations.",
            "",
            *lines,
            "",
            "'fedmer fit' alone trains twenty clients on a synthetic corpus.",
            "'fedmer SUBCOMMAND --help' shows options; 'fedmer --version' the version.",
        ]
    )


def _list_plugins(given: list[str]) -> int:
    if given and given[0] in ("-h", "--help"):
        print("usage: fedmer plugins [KIND]\n\nKinds: " + ", ".join(registry.KINDS))
        return 0
    if len(given) > 1:
        raise InputError(f"'fedmer plugins' takes one kind, not {len(given)}.")
    for kind in given or registry.KINDS:
        found = registry.plugins(kind)
        width = max((len(plugin.name) for plugin in found), default=0)
        print(kind)
        for plugin in found:
            source = "" if plugin.package == "fedmer" else f"  [{plugin.package}]"
            print(f"  {plugin.name:{width}}  {plugin.line}{source}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
