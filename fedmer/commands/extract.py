"""``fedmer extract SOURCE DST.npz``: features of recordings and words, as a corpus."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

from fedmer.arguments import Parser
from fedmer.data.formats.memory import MAX_GB
from fedmer.errors import InputError

if TYPE_CHECKING:
    from jsonargparse import Namespace

    from fedmer.data.formats.tables.utterance import UtteranceTable
    from fedmer.extraction.making import ChosenExtractor
    from fedmer.extraction.run import Failure

SHOWN = 20
"""Failures that are printed; all of them are in the file beside the corpus."""


def main(words: Sequence[str]) -> int:
    """Run ``fedmer extract``; returns the exit code, 0, also where some clips failed.

    Args:
        words: For example ``["extract", "clips.csv", "clips.npz", "--text", "MiniLM"]``.

    Raises:
        InputError: What was typed or read cannot be used; no corpus was written then.
    """
    made = parser(words[1:])
    with _files_name_only_plugins(words):
        options = made.parse_args(words[1:])
    _extract(options)
    return 0


def parser(argv: Sequence[str]) -> Parser:
    """What parses the words behind ``fedmer extract``.

    Args:
        argv: These words, to name what an extractor is called that is not known.
    """
    from fedmer.contracts.extractor import Extractor
    from fedmer.extraction.making import MEDIA
    from fedmer.plugins import registry

    registry.load("extractors")
    made = Parser(
        prog="fedmer extract",
        description="Make features of recordings and words, and write them as a corpus.",
    )
    made.add_argument("--config", action="config", help="a file with any of these options")
    made.add_argument(
        "source", type=Path, help="a table, or the folder of a release of IEMOCAP or MELD"
    )
    made.add_argument("target", type=Path, help="the .npz to write")
    known = [plugin.name for plugin in registry.plugins("extractors")]
    for modality, medium in MEDIA.items():
        made.add_subclass_arguments(
            Extractor, modality, required=False, help=f"what makes '{modality}' of {medium}: %s"
        )
        name = _typed(argv, f"--{modality}")
        if name.isidentifier() and name not in known:
            raise InputError(registry.unknown("extractor", name, known))
    made.add_argument("--jobs", type=int, default=1, help="processes that read clips")
    made.add_argument(
        "--columns",
        type=dict[str, str] | None,
        help="field of a table, and the name of its column, as {speaker: Who}",
    )
    made.add_argument(
        "--labels", type=list[str] | None, help="the emotions in their order, as [calm, glad]"
    )
    made.add_argument("--seed", type=int, default=0, help="of the split of a table without one")
    made.add_argument(
        "--max_gb", type=float, default=MAX_GB, help="what a table may take, in 10^9 bytes"
    )
    made.add_argument("--overwrite", action="store_true", help="replace the target")
    return made


@contextmanager
def _files_name_only_plugins(words: Sequence[str]) -> Iterator[None]:
    """What a person types may be any class; what stands in a file has to be installed as a part."""
    if not any(word.partition("=")[0] == "--config" for word in words):
        yield
        return
    from fedmer import trust

    with trust.only(("fedmer.plugins",), [word for word in words if "." in word]):
        yield


def _typed(argv: Sequence[str], option: str) -> str:
    """What was typed for an option, ``""`` if nothing was."""
    words = [word for argument in argv for word in argument.split("=", 1)]
    return next((after for word, after in pairwise(words) if word == option), "")


def _extract(options: "Namespace") -> None:
    from fedmer.console import Console
    from fedmer.data.describe import describe
    from fedmer.extraction.sources import read_source
    from fedmer.extraction.to_file import check_target, extract_to

    check_target(options.target, options.overwrite)
    table = read_source(options.source, options.columns, options.max_gb)
    chosen = _chosen(options, table)
    with Bar(len(table.utterances)) as bar:
        corpus, failures = extract_to(
            *(table, options.target, chosen, options.labels, options.seed, options.jobs),
            advance=bar.advance,
        )
    Console().print(describe(corpus))
    say(failures, options.target)


def _chosen(options: "Namespace", table: "UtteranceTable") -> Mapping[str, "ChosenExtractor"]:
    """What was typed, or for each thing that the table has an extractor of its kind."""
    from fedmer.extraction.making import MEDIA, ChosenExtractor
    from fedmer.extraction.run import DEFAULTS, FIELDS

    typed = {m: options.get(m) for m in MEDIA if options.get(m) is not None}
    if typed:
        return {
            m: ChosenExtractor(found.class_path, dict(found.get("init_args") or {}))
            for m, found in typed.items()
        }
    return {
        m: ChosenExtractor(name)
        for m, name in DEFAULTS.items()
        if table.fields.intersection(FIELDS[MEDIA[m]])
    }


def say(failures: "Sequence[Failure]", target: Path) -> None:
    """Print what failed, some of it if it is much, and what was written."""
    from fedmer.console import Console
    from fedmer.extraction.to_file import failures_beside

    lines = [str(failure) for failure in failures[:SHOWN]]
    if failures:
        more = len(failures) - SHOWN
        lines.append(
            f"{len(failures)} failure(s), which count as missing"
            + (f"; {more} more are" if more > 0 else ", are")
            + f" in {failures_beside(target)}"
        )
    console = Console()
    for line in [*lines, f"Wrote {target}"]:
        console.print(line, highlight=False, soft_wrap=True)


class Bar:
    """A progress bar on a terminal, with clips done, clips that failed, and time left.

    Args:
        total: Clips.
    """

    def __init__(self, total: int) -> None:
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        from fedmer.console import Console

        console = Console(stderr=True)
        self._bar = Progress(
            TextColumn("utterances"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TextColumn("{task.fields[failed]} failed "),
            TimeRemainingColumn(),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("", total=total, failed=0)

    def __enter__(self) -> "Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: int, failed: int) -> None:
        self._bar.update(self._task, completed=done, failed=failed)
