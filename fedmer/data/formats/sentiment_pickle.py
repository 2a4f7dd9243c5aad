"""The dictionary pickles of multimodal sentiment analysis: part -> array by name.

MulT's and MMSA's files of CMU-MOSI, CMU-MOSEI and CH-SIMS hold for ``train``, ``valid`` and
``test`` one array a modality (``vision``, ``audio``, ``text``), of ``(n, T, D)`` or ``(n, D)``,
``labels`` or ``regression_labels`` and ``id``.
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fedmer.data.corpus import Conversation, ConversationCorpus
from fedmer.data.formats.memory import MemoryBudget
from fedmer.data.formats.native import ordered
from fedmer.data.formats.numbers import single_precision
from fedmer.errors import InputError

PARTS = {"train": "train", "valid": "val", "test": "test"}
MODALITIES = {"text": "text", "audio": "audio", "vision": "visual"}
LABELS = ("labels", "regression_labels")
SENTIMENTS = ("negative", "neutral", "positive")
_ID = re.compile(r"(?P<video>.+?)(?:\$_\$|\[|_)(?P<clip>\d{1,9})\]?")


def is_sentiment(content: Any) -> bool:
    """Is it a dictionary by part?"""
    return isinstance(content, dict) and "train" in content


def from_parts(content: Mapping[Any, Any], path: Path, budget: MemoryBudget) -> ConversationCorpus:
    """The corpus of a dictionary by part.

    A video is a dialogue of one speaker, its clips are the utterances. A clip's features are the
    mean over its steps, without those that are all zero (padding) or hold NaN or infinity; a clip
    that has no other step lacks the modality. A sentiment below 0 is ``negative``, one of 0
    ``neutral``, one above 0 ``positive``.

    Args:
        content: What the pickle holds.
        path: The file.
        budget: What the features may take.

    Raises:
        InputError: Something is missing or of another shape; the sentence says in which part,
            which row (from 0) and under which key.
    """
    conversations: list[Conversation] = []
    for part, split in PARTS.items():
        arrays = content.get(part)
        if arrays is None and part == "valid":
            continue
        if not isinstance(arrays, dict):
            raise InputError(f"{path} lacks '{part}', a dictionary of arrays by name.")
        conversations += _part(arrays, split, f"{path}: '{part}'", budget)
    return ConversationCorpus(
        path.stem,
        conversations,
        SENTIMENTS,
        notes=(
            "sentiments became classes: below 0 negative, 0 neutral, above 0 positive",
            "a clip's features are the mean over its steps that are finite and not all zero",
            "a video is a dialogue of one speaker, who is named after it",
        ),
    )


def _part(
    arrays: Mapping[Any, Any], split: str, where: str, budget: MemoryBudget
) -> list[Conversation]:
    key = next((key for key in LABELS if key in arrays), None)
    missing = [name for name, there in (("labels", key), ("id", arrays.get("id"))) if there is None]
    if missing:
        raise InputError(f"{where} lacks '{missing[0]}'.")
    ids = [_video(row, place, where) for place, row in enumerate(_listed(arrays["id"], where))]
    size = len(ids)
    sentiments = _sentiments(arrays[key], size, f"{where}, '{key}'")
    features, present = {}, {}
    for theirs, ours in MODALITIES.items():
        if theirs in arrays:
            features[ours], present[ours] = _means(
                arrays[theirs], size, f"{where}, '{theirs}'", budget
            )
    words = arrays.get("raw_text")
    words = list(words) if isinstance(words, list | np.ndarray) and len(words) == size else None
    clips: dict[str, list[int]] = {}
    for place, (video, _) in enumerate(ids):
        clips.setdefault(video, []).append(place)
    found = []
    for video, rows in clips.items():
        rows.sort(key=lambda place: ids[place][1])
        found.append(
            Conversation(
                id=video,
                features={name: features[name][rows] for name in ordered(features)},
                present={name: present[name][rows] for name in ordered(features)},
                speakers=np.array([video] * len(rows)),
                labels=sentiments[rows],
                split=split,
                utterances=[str(words[place]) for place in rows] if words else (),
            )
        )
    return found


def _listed(ids: Any, where: str) -> list[Any]:
    if isinstance(ids, np.ndarray | list | tuple):
        return list(ids)
    raise InputError(f"{where}, 'id' is a {type(ids).__name__}; expected one name a clip.")


def _video(row: Any, place: int, where: str) -> tuple[str, float]:
    """The video and where in it the clip is: its number, or its start in seconds."""
    parts = list(row) if isinstance(row, list | tuple | np.ndarray) else [row]
    texts = [part.decode(errors="replace") if isinstance(part, bytes) else part for part in parts]
    if not texts or not all(isinstance(text, str | int | float | np.generic) for text in texts):
        raise InputError(f"{where}, 'id' of row {place} is no name of a clip.")
    name = str(texts[0])
    if len(texts) > 1:
        try:
            return name, float(texts[1])
        except ValueError:
            raise InputError(
                f"{where}, 'id' of row {place} has the start '{texts[1]}'; expected seconds."
            ) from None
    found = _ID.fullmatch(name)
    return (found["video"], float(found["clip"])) if found else (name, float(place))


def _sentiments(labels: Any, size: int, where: str) -> NDArray[np.int64]:
    """``(n,)`` classes by the sign of one number a clip."""
    array = np.asarray(labels)
    if array.dtype.kind not in "iuf" or array.size != size or array.shape[:1] != (size,):
        raise InputError(
            f"{where} is {array.dtype} of shape {array.shape}; expected {size} numbers, one a clip."
        )
    flat = array.reshape(size).astype(np.float64)
    bad = ~np.isfinite(flat)
    if bad.any():
        raise InputError(f"{where} of row {int(np.argmax(bad))} is NaN or infinite.")
    return (np.sign(flat) + 1).astype(np.int64)


def _means(
    rows: Any, size: int, where: str, budget: MemoryBudget
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """``(n, D)`` float32 means over steps, and where there are any."""
    listed = list(rows) if isinstance(rows, np.ndarray | list | tuple) else []
    if len(listed) != size:
        raise InputError(f"{where} has {len(listed)} rows; expected {size}, one a clip.")
    found: list[NDArray[np.float32] | None] = []
    width = 0
    for place, row in enumerate(listed):
        steps = np.asarray(row)
        if steps.dtype.kind not in "iuf" or steps.ndim not in (1, 2):
            raise InputError(
                f"{where} of row {place} is {steps.dtype} of shape {steps.shape}; expected numbers "
                "of (steps, dimension) or (dimension)."
            )
        steps = np.atleast_2d(steps).astype(np.float64)
        width = width or steps.shape[1]
        if steps.shape[1] != width:
            raise InputError(
                f"{where} of row {place} has {steps.shape[1]} dimensions; row 0 has {width}."
            )
        budget.take(4 * width)
        kept = steps[np.isfinite(steps).all(axis=1) & (steps != 0).any(axis=1)]
        found.append(
            single_precision(kept.mean(axis=0), f"{where} of row {place}") if len(kept) else None
        )
    present = np.array([row is not None for row in found])
    nothing = np.zeros(width, dtype=np.float32)
    return np.stack([nothing if row is None else row for row in found]), present
