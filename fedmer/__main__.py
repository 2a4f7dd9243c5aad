"""Where ``fedmer`` starts: light subcommands answer before Lightning is imported."""

import sys
from collections.abc import Sequence
from importlib import import_module

from fedmer import __version__
from fedmer.errors import InputError
from fedmer.plugins import registry
from fedmer.terminal import at_home, exit_code

SUBCOMMANDS = {
    "fit": ("fedmer.commands.fit", "train a federation"),
    "validate": ("fedmer.commands.fit", "score a checkpoint on the validation part"),
    "test": ("fedmer.commands.fit", "score a checkpoint on the test part"),
    "predict": ("fedmer.commands.predict", "name the emotions of a corpus or a table"),
    "demo": ("fedmer.commands.demo", "train a first model of words, and ask it"),
    "plugins": ("fedmer.commands.plugins", "list what can be swapped"),
    "data": (
        "fedmer.commands.data",
        "describe a corpus, convert or split one, write a synthetic one",
    ),
    "extract": ("fedmer.commands.extract", "make features of recordings and words"),
    "export": ("fedmer.commands.export", "write a trained model by itself, as a folder or a file"),
    "sweep": ("fedmer.commands.sweep", "run the trials of a sweep file"),
    "report": ("fedmer.commands.report", "tables and pictures of finished runs, as one page"),
    "audit": ("fedmer.commands.audit", "attack finished runs, to see what they give away"),
    "deploy": ("fedmer.commands.deploy", "bring up a server and nodes on Flower"),
    "completion": ("fedmer.commands.completion", "print what lets a shell complete words"),
    "doctor": ("fedmer.commands.doctor", "see what works on this machine"),
}
"""Name -> the module whose ``main`` takes all words, and a line for the overview."""


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
    if given[0] not in SUBCOMMANDS:
        raise InputError(registry.unknown("subcommand", given[0], SUBCOMMANDS))
    code: int = import_module(SUBCOMMANDS[given[0]][0]).main(given)
    return code


def _overview() -> str:
    width = max(map(len, SUBCOMMANDS))
    lines = [f"  {name:{width}}  {what}" for name, (_, what) in SUBCOMMANDS.items()]
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


if __name__ == "__main__":
    sys.exit(main())
