"""Where ``fedmer`` starts: light subcommands answer before Lightning is imported."""

import os
import select
import signal
import sys
from collections.abc import Sequence
from pathlib import Path

from fedmer import __version__
from fedmer.errors import InputError
from fedmer.files import DISK, unwritable
from fedmer.plugins import registry
from fedmer.printable import printable

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


_OUT = 1
"""The standard output, as the system knows it."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit code.

    It is 2 for input that cannot be used, and 141 if whoever reads the output wants no more of it.
    """
    given = [_at_home(word) for word in (sys.argv[1:] if arguments is None else arguments)]
    try:
        try:
            return _dispatch(given)
        finally:
            sys.stdout.flush()
    except InputError as error:
        print(f"fedmer: error: {printable(str(error))}", file=sys.stderr)
        return 2
    except BrokenPipeError:
        if not _reader_has_left():
            raise
        # What is still buffered would be written once more when Python ends.
        os.dup2(os.open(os.devnull, os.O_WRONLY), _OUT)
        return 128 + signal.SIGPIPE
    except OSError as error:
        # A full disk can meet whatever writes, such as a log, or a logger of Lightning's.
        if error.errno not in DISK:
            raise
        said = unwritable(Path(error.filename or "A file"), error)
        print(f"fedmer: error: {printable(str(said))}", file=sys.stderr)
        return 2


def _reader_has_left() -> bool:
    """Was the output piped to a program that has ended, as ``head`` does?"""
    poll = select.poll()
    poll.register(_OUT, select.POLLOUT)
    return any(event & (select.POLLERR | select.POLLHUP) for _, event in poll.poll(0))


def _at_home(word: str) -> str:
    """The word with ``~/`` expanded, which a shell leaves alone within quotes and behind ``=``."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("--") and value.startswith("~/"):
        return f"{option}={Path(value).expanduser()}"
    return str(Path(word).expanduser()) if word.startswith("~/") else word


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
        from fedmer.data.commands import main as data

        return data(given[1:])
    if given[0] == "sweep":
        from fedmer.sweep.commands import main as sweep

        return sweep(given[1:])
    if given[0] == "report":
        from fedmer.report.commands import main as report

        return report(given[1:])
    if given[0] == "deploy":
        from fedmer.flower.deploy import main as deploy

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
