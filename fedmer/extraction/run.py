"""Extract the features of a table's utterances."""

import csv
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from fedmer.contracts.extractor import Extractor
from fedmer.data.corpus import ConversationCorpus
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats.tables.corpus import to_corpus
from fedmer.data.formats.tables.utterance import Utterance, UtteranceTable
from fedmer.errors import InputError
from fedmer.extraction import work
from fedmer.extraction.journal import Journal, key
from fedmer.extraction.making import ChosenExtractor
from fedmer.extraction.work import Task
from fedmer.files import explained

FIELDS = {"text": ("utterance",), "audio": ("audio", "video"), "video": ("video",)}
"""What an extractor reads -> the columns of a table that it may be in."""

DEFAULTS = {"text": "MiniLM", "audio": "OpenSmile"}
"""Modality -> extractor, where nobody names one."""


@dataclass(frozen=True)
class Failure:
    """A clip that has no features of one modality.

    Args:
        utterance: Its row.
        modality: Which features it lacks.
        why: A clause that says why.
    """

    utterance: Utterance
    modality: str
    why: str

    def __str__(self) -> str:
        said = self.utterance
        where = f"row {said.row}, dialogue '{said.dialogue}', utterance {said.turn}"
        return f"{where}: no {self.modality}: {self.why}"


@dataclass(frozen=True)
class Extraction:
    """What came of it.

    Args:
        table: The table, with features. A clip that failed lacks the modality.
        records: Modality -> what made its features.
        failures: What failed, in the order of rows.
    """

    table: UtteranceTable
    records: Mapping[str, ExtractorRecord]
    failures: Sequence[Failure]


def extract(
    table: UtteranceTable,
    chosen: Mapping[str, ChosenExtractor],
    folder: Path,
    jobs: int = 1,
    advance: Callable[[int, int], None] = lambda done, failed: None,
) -> Extraction:
    """Make the features of every utterance.

    What is in ``folder`` from an earlier try is not made again, unless the words or the recording
    changed. The result does not depend on ``jobs`` or on earlier tries.

    Args:
        table: Its rows; features that it has already stay.
        chosen: Modality -> extractor.
        folder: Where rows are kept while it goes on; it has to exist.
        jobs: Processes; 1 is this one.
        advance: Called with the numbers of utterances that are done and of failures so far.

    Raises:
        InputError: ``jobs`` is below 1, an extractor cannot be made, the table has nothing that it
            reads, a modality failed for every utterance, or the disk is full.
    """
    if jobs < 1:
        raise InputError(f"--jobs is {jobs}; expected at least 1.")
    made = {modality: choice.make(modality) for modality, choice in chosen.items()}
    for modality, extractor in made.items():
        _check_source(table, modality, extractor)
    records = {modality: chosen[modality].record(made[modality]) for modality in made}
    journals = {m: Journal(folder, m, record) for m, record in records.items()}
    try:
        failures = _fill(table, chosen, made, journals, jobs, advance)
        features, present = dict(table.features), dict(table.present)
        for modality, journal in journals.items():
            keys = (key(utterance, made[modality].reads) for utterance in table.utterances)
            features[modality], present[modality] = journal.matrix(keys)
            if not present[modality].any():
                first = next(failure for failure in failures if failure.modality == modality)
                raise InputError(
                    f"{table.path}: no utterance has '{modality}': {first}. Mend the table, or "
                    "extract other modalities."
                )
    finally:
        for journal in journals.values():
            journal.close()
    return Extraction(replace(table, features=features, present=present), records, failures)


def corpus_of(
    found: Extraction, labels: Sequence[str] | None = None, seed: int = 0
) -> ConversationCorpus:
    """The corpus of a table whose features were extracted; it knows what made them.

    Args:
        found: What :func:`extract` gave.
        labels: As of :func:`fedmer.data.formats.tables.corpus.to_corpus`.
        seed: As there.

    Raises:
        InputError: As there.
    """
    return replace(to_corpus(found.table, labels, seed), extractors=found.records)


def write_failures(failures: Sequence[Failure], path: Path) -> None:
    """Write failures as a CSV table: row, dialogue, utterance, modality, why.

    Raises:
        InputError: It cannot be written.
    """
    with explained(path), path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(("row", "dialogue", "turn", "modality", "why"))
        for failure in failures:
            said = failure.utterance
            writer.writerow((said.row, said.dialogue, said.turn, failure.modality, failure.why))


def _check_source(table: UtteranceTable, modality: str, extractor: Extractor) -> None:
    columns = FIELDS[extractor.reads]
    if not table.fields.intersection(columns):
        raise InputError(
            f"{table.path} lacks the column {' or '.join(repr(c) for c in columns)}, of which "
            f"{type(extractor).__name__} makes '{modality}'; say which it is with --columns, or "
            f"leave --{modality} out."
        )


def _fill(
    table: UtteranceTable,
    chosen: Mapping[str, ChosenExtractor],
    made: Mapping[str, Extractor],
    journals: Mapping[str, Journal],
    jobs: int,
    advance: Callable[[int, int], None],
) -> list[Failure]:
    """Add what the journals lack; returns what failed, in the order of rows."""
    tasks = []
    for place, utterance in enumerate(table.utterances):
        keys = {m: key(utterance, extractor.reads) for m, extractor in made.items()}
        lacking = [m for m, found in keys.items() if found not in journals[m].places]
        if lacking:
            tasks.append(Task(place, utterance, lacking))
    done = len(table.utterances) - len(tasks)
    failures: list[tuple[int, Failure]] = []
    advance(done, 0)
    results = work.here(tasks, made) if jobs == 1 else work.in_processes(tasks, chosen, jobs)
    for task, rows in results:
        for modality, row in rows.items():
            if isinstance(row, str):
                failures.append((task.place, Failure(task.utterance, modality, row)))
            else:
                journals[modality].add(key(task.utterance, made[modality].reads), row)
        done += 1
        advance(done, len(failures))
    return [failure for _, failure in sorted(failures, key=lambda found: found[0])]
