"""What is to be predicted: the dialogues of a corpus or a table, with or without labels."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from fedmer import safe_yaml
from fedmer.bundle.contents import Contents
from fedmer.data.corpus import SPLITS, UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.formats import TableOptions, is_table_path, read_corpus
from fedmer.data.formats.memory import MAX_GB
from fedmer.data.formats.tables.corpus import conversations_of
from fedmer.data.formats.tables.read import read_table
from fedmer.data.formats.tables.utterance import UtteranceTable
from fedmer.data.leave_out import leave_session_out
from fedmer.data.synthetic import synthetic_corpus
from fedmer.errors import InputError
from fedmer.extraction.as_recorded import extract_as_recorded
from fedmer.extraction.sources import read_source as read_release_or_table
from fedmer.extraction.spoken import read_lines
from fedmer.runs import CONFIG


@dataclass(frozen=True, eq=False)
class Source:
    """Dialogues for a model.

    Args:
        conversations: Labels are indices into ``names``.
        names: The model's emotions, then those that only the source knows.
        notes: What a person should know of it.
    """

    conversations: Sequence[Conversation]
    names: Sequence[str]
    notes: Sequence[str] = ()


def read_source(
    path: Path,
    contents: Contents,
    table: TableOptions | None = None,
    part: str | None = None,
    max_gb: float = MAX_GB,
) -> Source:
    """Read the dialogues of a corpus file, a table, or a release's folder.

    Args:
        path: The file or folder. A table may lack labels and a split.
        contents: The model that is to read them.
        table: How to read a table.
        part: Only this part of the source.
        max_gb: What the file may unpack to, in 10^9 bytes.

    Raises:
        InputError: It cannot be read, has no features or no such part, or its features were made
            by something else than the model's.
    """
    options = table or TableOptions()
    if path.is_dir():
        source = _of_rows(
            read_release_or_table(path, options.columns, max_gb), contents, options, part
        )
    elif is_table_path(path):
        source = _of_rows(read_table(path, options.columns, max_gb), contents, options, part)
    else:
        source = _of_corpus(read_corpus(path, max_gb, options), contents, str(path))
    return _noted(_part(source, part, str(path)), contents)


def source_of_run(model: Path, contents: Contents, part: str) -> Source:
    """The part of the corpus that a run was trained on.

    Args:
        model: The run, or one of its checkpoints.
        contents: Its model.
        part: ``train``, ``val`` or ``test``.

    Raises:
        InputError: It is no run, or its corpus cannot be read.
    """
    run = model if model.is_dir() else model.resolve().parent.parent
    if not (run / CONFIG).is_file():
        raise InputError(f"{model} is no run, so that nothing says what to predict; name a SOURCE.")
    config = safe_yaml.read(run / CONFIG)
    data = config.get("data") if isinstance(config, dict) else None
    given = data if isinstance(data, dict) else {}
    path = given.get("path")
    corpus = synthetic_corpus()
    if path is not None:
        seed = config.get("seed_everything", 0)
        options = TableOptions(given.get("columns"), given.get("labels"), seed)
        corpus = read_corpus(str(path), float(given.get("max_gb", MAX_GB)), options)
    if given.get("test_session") is not None:
        corpus = leave_session_out(corpus, str(given["test_session"]))
    source = _of_corpus(corpus, contents, corpus.name)
    return _noted(_part(source, part, corpus.name), contents)


def _part(source: Source, part: str | None, where: str) -> Source:
    if part is None:
        return source
    chosen = [c for c in source.conversations if c.split == part]
    if not chosen:
        raise InputError(f"{where} has no {part} part; choose another of {', '.join(SPLITS)}.")
    return replace(source, conversations=chosen)


def _noted(source: Source, contents: Contents) -> Source:
    """The same with what does not fit in its notes."""
    notes = list(source.notes)
    known = source.conversations[0].features
    missing = [name for name in contents.shape.features if name not in known]
    unknown = [name for name in known if name not in contents.shape.features]
    empty = sum(_without_any(one, contents) for one in source.conversations)
    strange = [name for name in source.names if name not in contents.labels]
    if missing:
        notes.append(f"not there, and masked: {', '.join(missing)}")
    if unknown:
        notes.append(f"not looked at, since the model does not know it: {', '.join(unknown)}")
    if empty:
        notes.append(
            f"{empty} utterances have no modality that the model knows; what it says of them is "
            "from their neighbours alone"
        )
    if strange:
        notes.append(f"labels that the model never learnt: {', '.join(strange)}")
    return replace(source, notes=notes)


def _without_any(dialogue: Conversation, contents: Contents) -> int:
    known = [own for name, own in dialogue.present.items() if name in contents.shape.features]
    return len(dialogue) - int(np.any(known, axis=0).sum()) if known else len(dialogue)


def source_of_lines(lines: Iterable[str], contents: Contents) -> Source:
    """What a person types, a line an utterance: ``speaker: words``.

    Args:
        lines: An empty one begins another dialogue.
        contents: The model that is to read them.

    Raises:
        InputError: A line is none such, or the model was not trained on words that can be made
            features of here.
    """
    return _noted(_of_rows(read_lines(lines), contents, TableOptions()), contents)


def _of_rows(
    table: UtteranceTable, contents: Contents, options: TableOptions, part: str | None = None
) -> Source:
    if part is not None and "split" not in table.fields:
        raise InputError(
            f"{table.path} has no column 'split', so that nothing says what its {part} part is; "
            "leave --part out, or add the column."
        )
    failures: Sequence[object] = ()
    if not table.features:
        if not contents.extractors:
            raise InputError(
                f"{table.path} has no features, but the model was trained on "
                f"{', '.join(f'{n} ({w})' for n, w in contents.shape.features.items())} and does "
                "not say what made them; give a table with columns or lists of them, or a corpus."
            )
        extraction = extract_as_recorded(table, contents.extractors)
        table, failures = extraction.table, extraction.failures
    said = options.labels or table.label_names
    if not said:
        words = {utterance.label for utterance in table.utterances if utterance.label}
        numbered = all(word.lstrip("-").replace(".", "").isdigit() for word in words)
        said = [] if numbered else sorted(words)
    names = [*contents.labels, *(name for name in said if name not in contents.labels)]
    notes = [f"columns that are not used: {', '.join(table.unused)}"] if table.unused else []
    notes += [str(failure) for failure in failures]
    return Source(conversations_of(table, names), names, notes)


def _of_corpus(corpus: ConversationCorpus, contents: Contents, where: str) -> Source:
    for modality, made in corpus.extractors.items():
        theirs = contents.extractors.get(modality)
        if theirs is not None and theirs != made:
            raise InputError(
                f"{where}: '{modality}' was made by {made}, but the model was trained on what "
                f"{theirs} made; extract it again in that way."
            )
    names = [*contents.labels, *(n for n in corpus.label_names if n not in contents.labels)]
    places = np.array([names.index(name) for name in corpus.label_names])
    conversations = [
        replace(c, labels=np.where(c.labels == UNLABELLED, UNLABELLED, places[c.labels]))
        for c in corpus.conversations
    ]
    return Source(conversations, names, corpus.notes)
