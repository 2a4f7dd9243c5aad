"""``fedmer extract SOURCE DST.npz``: features of recordings and words, as a corpus."""

from collections.abc import Mapping, Sequence
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
    from fedmer.extraction.run import Extraction

SHOWN = 20
"""Failures that are printed; all of them are in the file beside the corpus."""


def main(words: Sequence[str]) -> int:
    """Run ``fedmer extract``; returns the exit code, 0, also where some clips failed.

    Args:
        words: For example ``["extract", "clips.csv", "clips.npz", "--text", "MiniLM"]``.

    Raises:
        InputError: What was typed or read cannot be used; no corpus was written then.
    """
    options = parser(words[1:]).parse_args(words[1:])
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


def _typed(argv: Sequence[str], option: str) -> str:
    """What was typed for an option, ``""`` if nothing was."""
    words = [word for argument in argv for word in argument.split("=", 1)]
    return next((after for word, after in pairwise(words) if word == option), "")


def _extract(options: "Namespace") -> None:
    from fedmer.extraction.run import extract
    from fedmer.extraction.sources import read_source
    from fedmer.files import FolderLock, explained

    target = options.target
    if target.suffix != ".npz":
        raise InputError(f"{target} does not end in .npz, as the native format does.")
    if target.exists() and not options.overwrite:
        raise InputError(f"{target} exists; choose another name or add --overwrite.")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a folder; make it first.")
    table = read_source(options.source, options.columns, options.max_gb)
    chosen = _chosen(options, table)
    folder = target.with_name(f"{target.name}.partial")
    with explained(folder):
        folder.mkdir(exist_ok=True)
    lock = FolderLock(
        folder / "lock", f"the extraction of {target}", "wait for it, or choose another name"
    )
    with lock, _Bar(len(table.utterances)) as bar:
        found = extract(table, chosen, folder, options.jobs, bar.advance)
    _write(found, options)
    _remove(folder)


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


def _write(found: "Extraction", options: "Namespace") -> None:
    from fedmer.console import Console
    from fedmer.data.describe import describe
    from fedmer.data.formats import native
    from fedmer.extraction.run import corpus_of, write_failures

    corpus = corpus_of(found, options.labels, options.seed)
    native.write(corpus, options.target)
    console = Console()
    console.print(describe(corpus))
    if found.failures:
        beside = options.target.with_suffix(".failures.csv")
        write_failures(found.failures, beside)
        for failure in found.failures[:SHOWN]:
            console.print(str(failure), highlight=False, soft_wrap=True)
        more = len(found.failures) - SHOWN
        console.print(
            f"{len(found.failures)} failure(s), which count as missing"
            + (f"; {more} more are" if more > 0 else ", are")
            + f" in {beside}",
            highlight=False,
            soft_wrap=True,
        )
    console.print(f"Wrote {options.target}", highlight=False, soft_wrap=True)


def _remove(folder: Path) -> None:
    import shutil

    shutil.rmtree(folder, ignore_errors=True)


class _Bar:
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

    def __enter__(self) -> "_Bar":
        self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._bar.stop()

    def advance(self, done: int, failed: int) -> None:
        self._bar.update(self._task, completed=done, failed=failed)
