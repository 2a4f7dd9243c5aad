"""The parser of the command line over Lightning, whose errors are one sentence."""

import re
from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from fedmer.sentences import sentence

PARSER: dict[str, Any] = {
    "prog": "fedmer",
    "description": "Federated multimodal emotion recognition in conversations.",
    "allow_abbrev": False,
}


_SIGNS = {"geq": ">=", "leq": "<=", "neq": "!="}


class ParserRefusal(SystemExit):
    """What a parser says against its arguments; no error that an outer parser would catch.

    Args:
        sentence: For a person.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(2)
        self.sentence = sentence


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence, and whose help is plain text."""

    def format_help(self, *arguments: Any, **options: Any) -> str:
        for action in self._actions:
            action.help = plain(action.help) if action.help else action.help
        return str(super().format_help(*arguments, **options))

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        known = [flag for flag in flags if flag.startswith("--")]
        raise ParserRefusal(sentence(message, known)) from ex


def plain(text: str) -> str:
    r"""Docstring markup as it is read in a terminal.

    >>> plain(r"For :math:`\sigma \geq 0`, see :class:`~fedmer.errors.InputError` of ``local.lr``.")
    'For sigma >= 0, see InputError of local.lr.'
    """

    def read(found: re.Match[str]) -> str:
        role, inner = found.groups()
        if role == "math":
            name = re.compile(r"\\([A-Za-z]+)")
            return name.sub(lambda n: _SIGNS.get(n[1], n[1]), inner.replace(r"\,", ""))
        return inner.rpartition(".")[2] if inner.startswith("~") else inner

    return re.sub(r":(\w+):`([^`]*)`", read, text).replace("``", "")
