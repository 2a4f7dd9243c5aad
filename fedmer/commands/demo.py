"""``fedmer demo``: a first model, from words that fedmer makes up to the name of an emotion."""

import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

TRAINING = ("--partitioner", "Speaker", "--network.hidden", "32", "--trainer.max_epochs", "10")
"""What of ``fedmer fit`` suits 300 short dialogues; all else is its default."""

SHOWN = 2
"""Sentences of each emotion that the terminal shows."""


def parser() -> Parser:
    """What parses the words behind ``fedmer demo``."""
    made = Parser(
        prog="fedmer demo",
        description="Train a first model of words on made-up dialogues, in about a minute.",
    )
    made.add_argument("--name", default="demo", help="of the run, and of the files beside it")
    made.add_argument("--runs", type=Path, default=Path("runs"), help="where runs are kept")
    made.add_argument("--seed", type=int, default=0, help="of the dialogues and of training")
    made.add_argument("--overwrite", action="store_true", help="replace a run of this name")
    return made


def main(words: Sequence[str]) -> int:
    """Run ``fedmer demo``; returns the exit code, 0.

    It writes ``NAME.csv`` (dialogues in words) and ``NAME.npz`` (their features) beside the run
    ``NAME``, by the commands that it prints.

    Args:
        words: For example ``["demo", "--name", "first"]``.

    Raises:
        InputError: Something of that name exists, cannot be written, or the package that makes
            features is missing; no file was written then.
    """
    options = parser().parse_args(words[1:])
    table, corpus, run = _places(options)
    _write(table, options.seed)
    replaces = ["--overwrite"] if options.overwrite else []
    _step(["extract", str(table), str(corpus), "--text", "Words", *_labels(), *replaces])
    place = ["--name", options.name, "--runs", str(options.runs)]
    seed = ["--seed_everything", str(options.seed)] if options.seed else []
    code = _step(["fit", "--data.path", str(corpus), *TRAINING, *place, *seed, *replaces])
    if code == 0:
        _ask(run)
    return code


def _places(options: "Namespace") -> tuple[Path, Path, Path]:
    """Where the table, the corpus and the run go, if all of it can be done."""
    from fedmer.extraction.making import ChosenExtractor
    from fedmer.files import explained
    from fedmer.runs import RunFolder

    if not 0 <= options.seed < 2**32:
        raise InputError(f"--seed is {options.seed}; expected a number from 0 to 2**32 - 1.")
    run = RunFolder.choose(options.runs, options.name, options.name, options.overwrite).path
    table, corpus = (options.runs / f"{options.name}{ending}" for ending in (".csv", ".npz"))
    for path in (table, corpus):
        if path.exists() and not options.overwrite:
            raise InputError(f"{path} exists; choose another --name or add --overwrite.")
    ChosenExtractor("Words").make("text")
    with explained(options.runs):
        options.runs.mkdir(parents=True, exist_ok=True)
    return table, corpus, run


def _write(path: Path, seed: int) -> None:
    from fedmer.demo.dialogues import spoken_table, write_table

    table = spoken_table(seed)
    write_table(table, path)
    dialogues = len({said.dialogue for said in table.utterances})
    _say(
        f"Wrote {path}: {dialogues} made-up dialogues, {len(table.utterances)} sentences. They are "
        "put together from\nphrases of fedmer's; no words of real people are in them."
    )


def _labels() -> list[str]:
    from fedmer.demo.dialogues import EMOTIONS

    return ["--labels", f"[{','.join(EMOTIONS)}]"]


def _step(words: list[str]) -> int:
    """Say a command as one would type it, and run it."""
    from importlib import import_module

    _say(f"\n$ fedmer {shlex.join(words)}")
    code: int = import_module(f"fedmer.commands.{words[0]}").main(words)
    return code


def _ask(run: Path) -> None:
    from fedmer.bundle.model import load
    from fedmer.console import Console
    from fedmer.demo.everyday import EVERYDAY
    from fedmer.demo.quiz import answer_table, answers
    from fedmer.runs import MODEL

    found = answers(load(run), EVERYDAY)
    right = sum(answer.right for answer in found)
    print()
    Console().print(answer_table(found, SHOWN))
    model = shlex.quote(str(run / MODEL))
    _say(
        f"{right} of {len(found)} such sentences are named as they were meant; guessing would be "
        f"right for {len(found) // len(EVERYDAY)}.\n"
        "The model knows only what made-up phrases showed it, and hears words without their order, "
        "irony or 'not'.\nIt shows how fedmer works, and is good for nothing else.\n\n"
        "Ask it yourself:\n"
        f"""  echo "A: I can't believe you did that" | fedmer predict {model} -\n"""
        f"  fedmer predict {shlex.quote(str(run))} --html {shlex.quote(f'{run}.html')}"
    )


def _say(text: str) -> None:
    from fedmer.console import Console

    Console().print(text, soft_wrap=True, highlight=False)
    sys.stdout.flush()
