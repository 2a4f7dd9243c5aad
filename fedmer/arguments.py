"""Parsers of subcommands whose complaints are one sentence, and paths as a person types them."""

import argparse
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NoReturn

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown
from fedmer.sentences import sentence

_CHOICE = re.compile(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)")
_TYPE = re.compile(r"argument (\S+): invalid (\w+) value: '(.*)'")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(argparse.ArgumentParser):
    """Takes no abbreviations, and raises an :class:`InputError` where argparse would exit."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})

    def error(self, message: str) -> NoReturn:
        raise InputError(complaint(self, message))


def complaint(parser: argparse.ArgumentParser, message: str) -> str:
    """What argparse or jsonargparse says against the arguments, as one sentence.

    >>> parser = Parser(prog="fedmer sweep")
    >>> _ = parser.add_argument("--jobs", type=int)
    >>> complaint(parser, "unrecognized arguments: --job 2")
    "unknown option '--job'; did you mean '--jobs'? Known: --jobs; see 'fedmer sweep --help'."
    >>> complaint(parser, "argument --jobs: invalid int value: 'two'")
    "--jobs is 'two'; expected a whole number."
    """
    prog = parser.prog.replace(" [options]", "")
    more = f"see '{prog} --help'."
    flat = " ".join(message.split())
    if flat.startswith("unrecognized arguments: "):
        words = flat.partition(": ")[2].split()
        option = next((word for word in words if word.startswith("-")), None)
        if option is None:
            return f"unexpected argument '{words[0]}'; {more}"
        return f"{unknown('option', option.partition('=')[0], set(_options(parser)))}; {more}"
    choice = _CHOICE.match(flat)
    if choice is not None:
        what = choice[1] if choice[1].startswith("-") else "subcommand"
        known = re.findall(r"[^', ]+", choice[3])
        return f"{unknown(what, choice[2], known)}; {more}"
    wrong = _TYPE.match(flat)
    if wrong is not None:
        return f"{wrong[1]} is '{wrong[3]}'; expected {_KINDS.get(wrong[2], f'a {wrong[2]}')}."
    if flat.startswith("the following arguments are required: "):
        return f"{flat.partition(': ')[2]} is missing; {more}"
    return f"{sentence(message).removesuffix('.')}; {more}"


def to_path(text: str) -> Path:
    """A path, in which ``~`` is the home folder; for ``type=`` of an argument."""
    try:
        return Path(text).expanduser()
    except RuntimeError:  # ~somebody, who has no home here
        return Path(text)


def _options(parser: argparse.ArgumentParser) -> Iterator[str]:
    """Long options of a parser and of its subcommands."""
    for action in parser._actions:
        yield from (o for o in action.option_strings if o.startswith("--") and o != "--help")
        if isinstance(action, argparse._SubParsersAction):
            for below in action.choices.values():
                yield from _options(below)


def at_home(word: str) -> str:
    """The word with ``~/`` expanded, which a shell leaves alone within quotes and behind ``=``."""
    option, equals, value = word.partition("=")
    if equals and option.startswith("--") and value.startswith("~/"):
        return f"{option}={Path(value).expanduser()}"
    return str(Path(word).expanduser()) if word.startswith("~/") else word
