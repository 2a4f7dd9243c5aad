"""Parsers of subcommands, whose complaints are one sentence."""

import re
from argparse import SUPPRESS
from collections.abc import Iterator, Sequence
from typing import Any, NoReturn

from jsonargparse import ArgumentParser

from fedmer.errors import InputError
from fedmer.plugins.registry import unknown
from fedmer.sentences import sentence

_CHOICE = re.compile(r"argument (\S+): invalid choice: '?(.*?)'? \(choose from (.*)\)")
_WORD = r"[^', ]+"
_SUBCOMMAND = re.compile(r'expected "subcommand" to be one of \{(.*?)\}')
_TYPE = re.compile(r"Parser key \"(\w+)\": Expected a <class '(int|float)'>\. Got value: (.*)")
_KINDS = {"int": "a whole number", "float": "a number"}


class Parser(ArgumentParser):
    """Takes no abbreviations, and raises an :class:`InputError` where jsonargparse would exit.

    Args:
        hint: Ends a complaint about a word that is not known; by default where the help is.
        options: Of jsonargparse.
    """

    def __init__(self, hint: str = "", **options: Any) -> None:
        super().__init__(allow_abbrev=False, **options)
        self._hint = hint

    @property
    def help_hint(self) -> str:
        return f"see '{self.prog.replace(' [options]', '')} --help'."

    @property
    def hint(self) -> str:
        return self._hint or self.help_hint

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        if not self.exit_on_error:  # a part of a parser that tries what fits
            super().error(message, ex)
        raise InputError(complaint(self, message)) from ex


def complaint(parser: Parser, message: str) -> str:
    """What jsonargparse says against the arguments, as one sentence.

    >>> parser = Parser(prog="fedmer sweep")
    >>> _ = parser.add_argument("--jobs", type=int)
    >>> complaint(parser, "unrecognized arguments: --job 2")
    "unknown option '--job'; did you mean '--jobs'? Known: --jobs; see 'fedmer sweep --help'."
    >>> complaint(parser, "Parser key \\"jobs\\": Expected a <class 'int'>. Got value: two")
    "--jobs is 'two'; expected a whole number."
    """
    flat = " ".join(message.split())
    if flat.startswith("unrecognized arguments: "):
        words = flat.partition(": ")[2].split()
        option = next((word for word in words if word.startswith("-")), None)
        if option is None:
            return f"unexpected argument '{words[0]}'; {parser.hint}"
        flags = {flag for words in _named(parser).values() for flag in words if flag[0] == "-"}
        return f"{unknown('option', option.partition('=')[0], flags)}; {parser.hint}"
    choice = _CHOICE.match(flat)
    if choice is not None:
        what = choice[1] if choice[1].startswith("-") else "subcommand"
        return f"{unknown(what, choice[2], re.findall(_WORD, choice[3]))}; {parser.help_hint}"
    subcommands = _SUBCOMMAND.match(flat)
    if subcommands is not None:
        known = subcommands[1].replace(",", ", ")
        return f"a subcommand is missing, one of {known}; {parser.help_hint}"
    wrong = _TYPE.match(flat)
    if wrong is not None:
        return f"--{wrong[1]} is '{wrong[3]}'; expected {_KINDS[wrong[2]]}."
    if flat.startswith("the following arguments are required: "):
        lacking = [key.rpartition(".")[2] for key in flat.partition(": ")[2].split(", ")]
        named = _named(parser)
        return f"{', '.join(named[key][0] for key in lacking)} is missing; {parser.help_hint}"
    return f"{sentence(message).removesuffix('.')}; {parser.help_hint}"


def _named(parser: ArgumentParser) -> dict[str, Sequence[str]]:
    """Key -> what is typed for it, of a parser and of its subcommands."""
    return dict(_arguments(parser))


def _arguments(parser: ArgumentParser) -> Iterator[tuple[str, Sequence[str]]]:
    for action in parser._actions:
        if isinstance(action.choices, dict):
            for below in action.choices.values():
                yield from _arguments(below)
        elif SUPPRESS not in (action.default, action.help):
            yield action.dest, action.option_strings or [str(action.metavar or action.dest)]
