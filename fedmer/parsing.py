"""The parser of the command line over Lightning, whose errors are one sentence."""

from typing import Any, NoReturn

from pytorch_lightning.cli import LightningArgumentParser

from fedmer.sentences import sentence

PARSER: dict[str, Any] = {
    "prog": "fedmer",
    "description": "Federated multimodal emotion recognition in conversations.",
    "allow_abbrev": False,
}


class ParserRefusal(SystemExit):
    """What a parser says against its arguments; no error that an outer parser would catch.

    Args:
        sentence: For a person.
    """

    def __init__(self, sentence: str) -> None:
        super().__init__(2)
        self.sentence = sentence


class Parser(LightningArgumentParser):
    """A parser whose errors are one sentence."""

    def error(self, message: str, ex: Exception | None = None) -> NoReturn:
        flags = [flag for action in self._actions for flag in action.option_strings]
        known = [flag for flag in flags if flag.startswith("--")]
        raise ParserRefusal(sentence(message, known)) from ex
