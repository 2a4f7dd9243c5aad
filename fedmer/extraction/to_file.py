"""From a table to a corpus file, in a way that can be stopped."""

import contextlib
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from fedmer.data.corpus import ConversationCorpus
from fedmer.data.formats import native
from fedmer.data.formats.tables.utterance import UtteranceTable
from fedmer.errors import InputError
from fedmer.extraction.making import ChosenExtractor
from fedmer.extraction.run import Failure, corpus_of, extract, write_failures
from fedmer.files import FolderLock, explained


def failures_beside(target: Path) -> Path:
    """Where the failures of a corpus are listed."""
    return target.with_suffix(".failures.csv")


def extract_to(
    table: UtteranceTable,
    target: Path,
    chosen: Mapping[str, ChosenExtractor],
    labels: Sequence[str] | None = None,
    seed: int = 0,
    jobs: int = 1,
    advance: Callable[[int, int], None] = lambda done, failed: None,
) -> tuple[ConversationCorpus, Sequence[Failure]]:
    """Extract features and write them as a native corpus; failures are listed in a file beside it.

    What is done lies in ``TARGET.partial`` until then. The target is replaced if it is there.

    Args:
        table: As of :func:`fedmer.extraction.run.extract`.
        target: The ``.npz``.
        chosen: As there.
        labels: The emotions in their order.
        seed: Of the split, where the table has none.
        jobs: As there.
        advance: As there.

    Returns:
        The corpus, and what failed.

    Raises:
        InputError: Another process extracts to the same target, or as there.
    """
    folder = target.with_name(f"{target.name}.partial")
    with explained(folder):
        folder.mkdir(mode=0o700, exist_ok=True)
    lock = FolderLock(
        folder / "lock", f"the extraction of {target}", "wait for it, or choose another name"
    )
    try:
        with lock:
            found = extract(table, chosen, folder, jobs, advance)
            corpus = corpus_of(found, labels, seed)
            native.write(corpus, target)
            if found.failures:
                write_failures(found.failures, failures_beside(target))
            else:
                failures_beside(target).unlink(missing_ok=True)
    except InputError:
        # Only an empty folder goes: what was refused before it began leaves nothing to go on from.
        with contextlib.suppress(OSError):
            folder.rmdir()
        raise
    shutil.rmtree(folder, ignore_errors=True)
    return corpus, found.failures


def check_target(target: Path, overwrite: bool) -> None:
    """Refuse a target that cannot be written.

    Raises:
        InputError: It is no ``.npz``, is there already, or its folder is not.
    """
    if target.suffix != ".npz":
        raise InputError(f"{target} does not end in .npz, as the native format does.")
    if target.exists() and not overwrite:
        raise InputError(f"{target} exists; choose another name or add --overwrite.")
    if not target.parent.is_dir():
        raise InputError(f"{target.parent} is not a folder; make it first.")
