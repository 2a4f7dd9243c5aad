"""Are the trials' arguments ones that ``fedmer fit`` takes? Asked before any trial starts."""

import contextlib
import difflib
import importlib
import inspect
import io
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from fedmer.errors import InputError
from fedmer.sweep.parameters import Parameter
from fedmer.sweep.trials import Trial

_UNKNOWN = re.compile(r"unrecognized arguments|has an option|unknown option")


@dataclass(frozen=True)
class Question:
    """One trial's arguments, in parts, so that the answer can name the part at fault.

    Args:
        before: Words of the command before the parameters; ``fit`` first.
        parameters: Parameter -> its words, in order.
        after: Words after the parameters.
    """

    before: Sequence[str]
    parameters: Mapping[str, Sequence[str]]
    after: Sequence[str]

    @property
    def words(self) -> list[str]:
        return [*self.before, *(w for part in self.parameters.values() for w in part), *self.after]


def representative(parameters: Sequence[Parameter], trials: Sequence[Trial]) -> list[Trial]:
    """A few trials whose arguments are valid only if those of all are.

    Which options exist depends on the classes and files chosen, which are texts: every combination
    of texts is there. Of numbers every listed one is there, and of drawn ones the first, since
    another number of the same distribution has the same type.
    """
    drawn = {parameter.name for parameter in parameters if parameter.listed is None}
    seen: set[Any] = set()
    chosen = []
    for trial in trials:
        texts = tuple((k, v) for k, v in trial.values.items() if isinstance(v, str))
        others = {
            (name, type(value) if name in drawn else repr(value))
            for name, value in trial.values.items()
            if not isinstance(value, str)
        }
        new = {texts, *others} - seen
        if new:
            chosen.append(trial)
            seen |= new
    return chosen


def answer(questions: Sequence[Question], reply: Connection) -> None:
    """Send what :func:`problem` says; runs in another process."""
    reply.send(problem(fit_parser(), questions))


@dataclass(frozen=True)
class FitParser:
    """What ``fedmer fit`` parses with.

    Args:
        parse: From all words of a command behind ``fedmer`` to its configuration.
        options: The parser of what follows ``fit``.
    """

    parse: Callable[[Sequence[str]], Any]
    options: Any


def fit_parser(subcommand: str = "fit") -> FitParser:
    """Make the command line of ``fedmer fit`` up to where it would parse.

    Args:
        subcommand: Or ``validate`` or ``test``.
    """
    from fedmer import cli
    from fedmer.defaults import DEFAULTS
    from fedmer.prepare import prepared

    class Found(BaseException):
        """Carries the parser out of where a run would have gone on."""

    class OnlyParser(cli.CLI):
        def parse_arguments(self, parser: Any, args: Any) -> None:
            raise Found(parser, self._subcommand_parsers[subcommand])

    try:
        cli.main([subcommand], OnlyParser)
    except Found as found:
        parser, options = found.args

    def parse(words: Sequence[str]) -> Any:
        subcommand, *given = words
        with prepared(given, DEFAULTS) as ready:
            return parser.parse_args([subcommand, *ready])

    return FitParser(parse, options)


def problem(parser: FitParser, questions: Sequence[Question]) -> str | None:
    """The first sentence that says what is wrong with a question's arguments, or None."""
    found = (_problem(parser, question) for question in questions)
    return next((sentence for sentence in found if sentence), None)


def _problem(parser: FitParser, question: Question) -> str | None:
    parse, options = parser.parse, parser.options
    if _refused(parse, question.words) is None:
        return None
    words = list(question.before)
    said = _refused(parse, words)
    if said is not None:
        return f"command: {said}"
    for name, part in question.parameters.items():
        said = _refused(parse, [*words, *part])
        if said is None:
            words += part
        elif _UNKNOWN.search(said):
            return _unknown(name, list(_known(options, parse(words)["fit"])))
        else:
            return f"parameter '{name}': {said}"
    return f"the options after --: {_refused(parse, question.words)}"


def _refused(parse: Callable[[Sequence[str]], Any], words: Sequence[str]) -> str | None:
    """What the parser says against the words, or None."""
    from fedmer.parsing import ParserRefusal

    try:
        with contextlib.redirect_stderr(io.StringIO()):
            parse(words)
    except ParserRefusal as refusal:
        return refusal.sentence
    except InputError as error:
        return str(error)
    except Exception as error:  # noqa: BLE001 - whatever a parser of foreign classes raises
        return f"{type(error).__name__}: {error}"
    return None


def _unknown(name: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(name, known, n=1, cutoff=0.4)
    hint = f"; did you mean '{close[0]}'?" if close else "."
    return f"unknown parameter '{name}'{hint} 'fedmer fit --help all' shows all."


def _known(options: Any, config: Any) -> Iterator[str]:
    """Options of the parser, and those of the classes that the configuration has chosen."""
    for action in options._actions:
        if any(flag.startswith("--") for flag in action.option_strings):
            yield action.dest
    for key, value in config.items(branches=True):
        if key.endswith("class_path") and isinstance(value, str):
            module, _, name = value.rpartition(".")
            made = getattr(importlib.import_module(module), name)
            for argument in inspect.signature(made).parameters:
                yield f"{key.removesuffix('class_path')}{argument}"
