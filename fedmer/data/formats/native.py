"""The native corpus file: one .npz, one row an utterance."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import UNLABELLED, Conversation, ConversationCorpus
from fedmer.data.extractor_record import ExtractorRecord
from fedmer.data.formats.archive import read_archive
from fedmer.data.formats.memory import MAX_GB, MemoryBudget
from fedmer.data.formats.numbers import single_precision
from fedmer.errors import InputError
from fedmer.files import SHARED, replacing

CONVENTIONAL = ("text", "audio", "visual")
"""Modalities that come first, in this order, whatever the order in the file."""

REQUIRED = ("dialogue", "turn", "speaker", "label", "split", "label_names")
OPTIONAL = ("session", "utterance")
EXTRACTORS = "extractors"
"""Key of a row a modality: its name, and the record of its extractor as JSON."""
PRESENCE = "present_"

Columns = Mapping[str, NDArray[Any]]


def ordered(modalities: Iterable[str]) -> list[str]:
    """Modalities in the order that every reader gives them.

    >>> ordered(["gaze", "visual", "text"])
    ['text', 'visual', 'gaze']
    """
    names = list(modalities)
    return [m for m in CONVENTIONAL if m in names] + [m for m in names if m not in CONVENTIONAL]


def read(path: str | Path, max_gb: float = MAX_GB) -> ConversationCorpus:
    """Read a native corpus.

    The file holds, for ``n`` utterances in any order: ``dialogue``, ``speaker``, ``split`` (str),
    ``turn`` (int), ``label`` (int, or the emotion's name), one ``(n, D)`` matrix a modality, and
    ``label_names``, which may be left out where labels are names. It may hold ``session`` and
    ``utterance`` (str), ``present_<modality>`` (bool, all true when absent), and ``extractors``
    (str, a row a modality: its name and a record of what made its features). Dialogues keep the
    order in which the file first names them; utterances are sorted.

    Args:
        path: The file.
        max_gb: What it may unpack to, in 10^9 bytes.

    Raises:
        InputError: A missing or unknown key, columns of different lengths, an utterance that occurs
            twice, a dialogue in two splits or sessions, a damaged file, or anything that
            :func:`fedmer.data.corpus.check` refuses.
    """
    path = Path(path)
    columns = _load(path, MemoryBudget(path, max_gb))
    extracted = columns.pop(EXTRACTORS, None)
    modalities = _modalities(columns, path)
    rows = len(columns["dialogue"])
    for key in (*REQUIRED[:-1], *OPTIONAL, *modalities, *(PRESENCE + m for m in modalities)):
        if key in columns and len(columns[key]) != rows:
            raise InputError(
                f"{path}: '{key}' has {len(columns[key])} rows but 'dialogue' has {rows}; "
                "every key needs one row an utterance."
            )
    features = {m: single_precision(columns[m], f"{path}: '{m}'") for m in modalities}
    present = {
        m: columns.get(PRESENCE + m, np.ones(rows, dtype=np.bool_)).astype(np.bool_)
        for m in modalities
    }
    for name, mask in present.items():
        if not mask.all():
            features[name] = np.where(mask[:, None], features[name], np.float32(0))
    turns = columns["turn"].astype(np.int64)
    conversations = []
    for dialogue, places in _dialogues(columns["dialogue"]):
        places = places[np.argsort(turns[places], kind="stable")]
        spoken = turns[places]
        twice = spoken[1:][spoken[1:] == spoken[:-1]]
        if len(twice):
            raise InputError(
                f"{path}: dialogue '{dialogue}' has utterance {twice[0]} twice; number its "
                "utterances from 0."
            )
        conversations.append(
            Conversation(
                id=dialogue,
                features={m: features[m][places] for m in modalities},
                present={m: present[m][places] for m in modalities},
                speakers=columns["speaker"][places],
                labels=columns["label"][places].astype(np.int64),
                split=_single(columns["split"][places], "split", dialogue, path),
                session=(
                    _single(columns["session"][places], "session", dialogue, path)
                    if "session" in columns
                    else ""
                ),
                utterances=columns["utterance"][places].tolist() if "utterance" in columns else (),
                numbers=spoken.tolist(),
            )
        )
    return ConversationCorpus(
        path.stem,
        conversations,
        columns["label_names"].tolist(),
        extractors=_records(extracted, modalities, f"{path}: '{EXTRACTORS}'"),
    )


def write(corpus: ConversationCorpus, path: str | Path) -> None:
    """Write a corpus so that :func:`read` gives it back, with the same fingerprint.

    The file appears under its name only once it is complete.

    Args:
        corpus: What to write.
        path: The file; replaced if it exists.

    Raises:
        InputError: A modality has the name of another key, or the folder cannot be written to.
    """
    path = Path(path)
    keys = (*REQUIRED, *OPTIONAL, EXTRACTORS)
    taken = [m for m in corpus.modalities if m in keys or m.startswith(PRESENCE)]
    if taken:
        raise InputError(
            f"{corpus.name}: a modality cannot be called '{taken[0]}', since the native file uses "
            "that key for something else; rename it."
        )
    conversations = corpus.conversations
    columns: dict[str, NDArray[Any]] = {
        "dialogue": np.repeat([c.id for c in conversations], [len(c) for c in conversations]),
        "turn": np.concatenate([np.arange(len(c)) for c in conversations]),
        "speaker": np.concatenate([c.speakers for c in conversations]),
        "label": np.concatenate([c.labels for c in conversations]),
        "split": np.repeat([c.split for c in conversations], [len(c) for c in conversations]),
        "session": np.repeat([c.session for c in conversations], [len(c) for c in conversations]),
        "label_names": np.array(corpus.label_names, dtype=np.str_),
    }
    for name in corpus.modalities:
        columns[name] = np.concatenate([c.features[name] for c in conversations])
        mask = np.concatenate([c.present[name] for c in conversations])
        if not mask.all():
            columns[PRESENCE + name] = mask
    if all(len(c.utterances) == len(c) for c in conversations):
        columns["utterance"] = np.array(
            [u for c in conversations for u in c.utterances], dtype=np.str_
        )
    if corpus.extractors:
        columns[EXTRACTORS] = np.array(
            [[name, record.to_json()] for name, record in corpus.extractors.items()], dtype=np.str_
        )
    with replacing(path, SHARED) as file:
        np.savez_compressed(file, allow_pickle=False, **columns)


def _load(path: Path, budget: MemoryBudget) -> dict[str, NDArray[Any]]:
    columns = read_archive(path, budget)
    if not columns:
        raise InputError(f"{path} holds no arrays; a native corpus needs {', '.join(REQUIRED)}.")
    for key, column in columns.items():
        if column.ndim not in (1, 2):
            raise InputError(f"{path}: '{key}' is not an array with one row an utterance.")
    if "label" in columns and columns["label"].dtype.kind == "U" and columns["label"].ndim == 1:
        _number_labels(columns, path)
    return columns


def _number_labels(columns: dict[str, NDArray[Any]], path: Path) -> None:
    """Emotions that are written out become indices into ``label_names``; none is no label."""
    named = np.unique(columns["label"])
    names = columns.setdefault("label_names", named[named != ""])
    if names.dtype.kind != "U" or names.ndim != 1:
        return
    places = {name: place for place, name in enumerate(names.tolist())} | {"": UNLABELLED}
    unknown = [name for name in named.tolist() if name not in places]
    if unknown:
        raise InputError(
            f"{path}: label '{unknown[0]}' is not among label_names, which are "
            f"{', '.join(names.tolist())}; name every emotion there, or leave label_names out."
        )
    columns["label"] = np.array([places[n] for n in columns["label"].tolist()], dtype=np.int64)


def _modalities(columns: Columns, path: Path) -> list[str]:
    missing = [key for key in REQUIRED if key not in columns]
    if missing:
        raise InputError(
            f"{path} lacks {', '.join(repr(key) for key in missing)}; a native corpus needs "
            f"{', '.join(REQUIRED)} and a matrix a modality."
        )
    for key in [key for key in (*REQUIRED, *OPTIONAL) if key in columns]:
        column = columns[key]
        kinds, wanted = ("iu", "whole numbers") if key in ("turn", "label") else ("U", "strings")
        if column.dtype.kind not in kinds or column.ndim != 1:
            raise InputError(
                f"{path}: '{key}' holds {column.dtype} of shape {column.shape}; expected {wanted}, "
                "one a row."
            )
        if column.dtype.kind == "u" and (column > np.iinfo(np.int64).max).any():
            raise InputError(f"{path}: '{key}' holds {column.max()}; expected small {wanted}.")
    rest = [key for key in columns if key not in REQUIRED + OPTIONAL]
    modalities = ordered(key for key in rest if not key.startswith(PRESENCE))
    for key in modalities:
        if columns[key].ndim != 2 or columns[key].dtype.kind != "f":
            raise InputError(
                f"{path}: '{key}' is {columns[key].dtype} of shape {columns[key].shape}, neither a "
                "key of a native corpus nor a modality (a float32 matrix, one row an utterance)."
            )
    for key in rest:
        if not key.startswith(PRESENCE):
            continue
        if key.removeprefix(PRESENCE) not in modalities:
            raise InputError(f"{path}: '{key}' marks a modality that the file does not hold.")
        if columns[key].dtype.kind != "b" or columns[key].ndim != 1:
            raise InputError(f"{path}: '{key}' holds {columns[key].dtype}; expected booleans.")
    return modalities


def _records(
    extracted: NDArray[Any] | None, modalities: Sequence[str], where: str
) -> dict[str, ExtractorRecord]:
    if extracted is None:
        return {}
    if extracted.dtype.kind != "U" or extracted.shape[1:] != (2,):
        raise InputError(
            f"{where} is {extracted.dtype} of shape {extracted.shape}; expected a row a modality: "
            "its name and a record."
        )
    named = {str(name): str(record) for name, record in extracted}
    unknown = [name for name in named if name not in modalities]
    if unknown:
        raise InputError(f"{where} tells of '{unknown[0]}', which the file does not hold.")
    return {name: ExtractorRecord.from_json(text, where) for name, text in named.items()}


def _dialogues(column: NDArray[np.str_]) -> Iterable[tuple[str, NDArray[np.int64]]]:
    """Every dialogue with the places of its rows, in the order of first occurrence."""
    if not len(column):
        return
    names, first, group = np.unique(column, return_index=True, return_inverse=True)
    places = np.split(np.argsort(group, kind="stable"), np.cumsum(np.bincount(group))[:-1])
    for index in np.argsort(first):
        yield str(names[index]), places[index]


def _single(values: NDArray[np.str_], key: str, dialogue: str, path: Path) -> str:
    found = np.unique(values)
    if len(found) > 1:
        raise InputError(
            f"{path}: dialogue '{dialogue}' has {key} '{found[0]}' and '{found[1]}'; "
            f"a dialogue belongs to one {key} as a whole."
        )
    return str(found[0])
